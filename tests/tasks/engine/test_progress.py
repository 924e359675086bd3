"""Progress says what is done and what is being solved, also while no tensor is finished."""

from pathlib import Path

import pytest
import torch

from tasks.engine import execute
from tasks.engine.progress import Headway
from tasks.parameters.merge import MergeParams
from tests.support.engine_runs import plan_for, run, write_all


@pytest.mark.parametrize(
    ("solving", "text"),
    [
        ({}, "12 of 211 tensors"),
        ({"a.weight": 34}, "12 of 211 tensors; solving a.weight (pass 34)"),
        ({"a": 0, "b": 1}, "12 of 211 tensors; solving a, b (pass 1)"),
        (dict.fromkeys("abcde", 2), "12 of 211 tensors; solving a (pass 2), b (pass 2), c (pass 2), 2 more"),
    ],
)
def test_it_reads_as_a_sentence(solving: dict[str, int], text: str) -> None:
    assert str(Headway("z", 5, 9, 12, 211, solving)) == text


def test_a_long_solve_is_told_pass_by_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "TELL_EVERY_S", 0.01)
    noise = torch.Generator().manual_seed(0)
    models = write_all(
        tmp_path, [{"a": torch.randn(60, 50, generator=noise), "b": torch.ones(3)} for _ in range(4)]
    )
    lore = {"passes": 60, "mu": 0.1, "mu_scale": "absolute"}
    heard: list[Headway] = []
    plan = plan_for(MergeParams.model_validate({"method": "lore", "lore": lore}), models)
    run(plan, tmp_path / "out", on_progress=heard.append)
    passes = [headway.solving["a"] for headway in heard if "a" in headway.solving]
    assert len(set(passes)) > 2
    assert passes == sorted(passes)
    # b is done before a, which the files have first
    assert any(headway.last == "" and headway.tensors == 1 for headway in heard)
    assert heard[-1].solving == {}
