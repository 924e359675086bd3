"""Blocks that are held are not read again, and what is held does not exceed its limit."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.checkpoints.weights import NotFinite, SafetensorsModel
from tasks.engine import blocks, cut
from tasks.engine.cut import Piece
from tasks.engine.held import Held
from tasks.merging.block import Block
from tests.support.engine_runs import equal, params_for, plan_for, run, write_all, write_models


def test_the_first_blocks_are_held_up_to_the_limit() -> None:
    held, block = Held(100), Block("w", 0, 0, [np.ones(1)], None)
    one, two, three = (Piece("w", 0, start, 1, 1) for start in range(3))
    held.keep(one, block, 60)
    held.keep(two, block, 50)
    held.keep(three, block, 40)
    assert [held.take(piece) for piece in (one, two, three, one)] == [block, None, block, None]
    held.keep(two, block, 100)
    assert held.take(two) is block


@pytest.mark.parametrize("method", ["model_stock", "ties", "breadcrumbs"])
@pytest.mark.parametrize("compiled_from", [0, 2**40])
def test_blocks_are_read_once_where_they_fit_and_the_result_is_the_same_where_not(
    method: str, compiled_from: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cut, "BLOCK", 20)
    monkeypatch.setattr(blocks, "COMPILED_FROM", compiled_from)
    plan, read = plan_for(params_for(method), write_models(tmp_path / "training")), Counter[tuple[str, int]]()
    stored = SafetensorsModel.stored

    def note(own: SafetensorsModel, name: str, first: int, count: int) -> np.ndarray:
        read[own.label + name, first] += 1
        return stored(own, name, first, count)

    monkeypatch.setattr(SafetensorsModel, "stored", note)
    once, measures = run(plan, tmp_path / "held")
    assert set(read.values()) == {1}
    monkeypatch.setattr(blocks, "HELD_BYTES", 200)
    monkeypatch.setattr(blocks, "HELD_DECODED", 200)
    again, other_measures = run(plan, tmp_path / "partly")
    assert max(read.values()) > 2
    assert equal(once, again)
    assert measures == other_measures


@pytest.mark.parametrize("compiled_from", [0, 2**40])
def test_not_a_number_is_found_when_it_is_read_first(
    compiled_from: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "COMPILED_FROM", compiled_from)
    weights = torch.ones(4, 4)
    models = write_all(tmp_path, [{"w": weights}] * 3 + [{"w": weights.clone().fill_(float("nan"))}])
    with pytest.raises(NotFinite, match="checkpoint-3: tensor w holds NaN or Inf"):
        run(plan_for(params_for("model_stock"), models), tmp_path / "out")
