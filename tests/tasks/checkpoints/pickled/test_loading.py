"""Members of enumerations are read as every Python pickles them; getattr reaches nothing else."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.base.errors import BadInput
from tasks.checkpoints.pickled.loading import Inert, StandInEnum, enum_member, load_allowed, load_tensors


class Stage(StandInEnum):
    MEMBERS = {"weights": 3}  # noqa: RUF012


class Named:
    """Pickled as Python before 3.11.4 pickles a member: getattr(owner, name)."""

    def __init__(self, owner: object, name: str) -> None:
        self.of = owner, name

    def __reduce__(self) -> tuple[object, tuple[object, str]]:
        return getattr, self.of


def by_torch(value: object, place: Path) -> Any:
    saved = io.BytesIO()
    torch.save(value, saved)
    saved.seek(0)
    return load_tensors(saved, place, [(Stage, f"{__name__}.Stage"), (Inert, f"{Inert.__module__}.Inert")])


def by_pickle(value: object, place: Path) -> Any:
    place.write_bytes(pickle.dumps(value))
    return load_allowed(place, {(__name__, "Stage"): Stage, (Inert.__module__, "Inert"): Inert})


def test_only_members_that_are_known_are_made() -> None:
    assert enum_member(Stage, "weights") == 3
    assert isinstance(enum_member(Inert, "anything"), Inert)
    for owner, name in (
        (Stage, "MEMBERS"),
        (Stage, "from_bytes"),
        (torch.Tensor, "add"),
        (pickle, "loads"),
        (3, "real"),
    ):
        with pytest.raises(pickle.UnpicklingError, match="getattr was not allowed"):
            enum_member(owner, name)


@pytest.mark.parametrize("load", [by_torch, by_pickle])
def test_a_member_is_read_whichever_python_pickled_it(
    load: Callable[[object, Path], Any], tmp_path: Path
) -> None:
    found = load({"stage": Named(Stage, "weights"), "format": Named(Inert, "CONTIGUOUS")}, tmp_path / "file")
    assert found["stage"] == 3
    assert isinstance(found["format"], Inert)


@pytest.mark.parametrize("load", [by_torch, by_pickle])
def test_what_else_getattr_would_reach_is_refused(
    load: Callable[[object, Path], Any], tmp_path: Path
) -> None:
    for value in (Named("text", "upper"), Named(b"bytes", "hex"), Named((1,), "count")):
        with pytest.raises(BadInput, match="file: names getattr, which no weights need, and was not loaded"):
            load(value, tmp_path / "file")
