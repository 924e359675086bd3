"""The reference is the version that the parameters name, else the first that ever became champion."""

from pathlib import Path

import pytest

from tasks.base.errors import BadInput
from tasks.parameters.params import Params
from tasks.parameters.registration import RegisterParams
from tasks.promote_version import promote_version
from tasks.registry.reference import reference
from tasks.registry.store import connect
from tests.support.promotions import promotable, register


@pytest.fixture
def params(store: RegisterParams, tmp_path: Path) -> Params:
    return promotable(tmp_path, store)


def test_before_a_promotion_there_is_none(params: Params, tmp_path: Path) -> None:
    client = connect(params.register_)
    assert reference(client, params.register_, None) is None
    register(params, tmp_path / "a", 60)
    assert reference(client, params.register_, None) is None


def test_the_first_champion_stays_the_reference(params: Params, tmp_path: Path) -> None:
    for number, right in enumerate((55, 70, 90), 1):
        assert register(params, tmp_path / str(right), right) == number
        if number > 1:
            promote_version(params, number, "ann", "better", force=True)
    found = reference(connect(params.register_), params.register_, None)
    assert found is not None
    assert found.version == 2
    named = reference(connect(params.register_), params.register_, 3)
    assert named is not None
    assert named.version == 3


def test_a_version_that_is_not_there_is_named(params: Params, tmp_path: Path) -> None:
    register(params, tmp_path / "a", 60)
    with pytest.raises(BadInput, match="demo version 7: not in the registry"):
        reference(connect(params.register_), params.register_, 7)
