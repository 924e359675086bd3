"""Variants of a merge of adapters: what is told of their time, and what is solved once for all."""

from pathlib import Path

import pytest
import torch

from tasks.engine import adapter_files, sample
from tasks.engine import plan as planned
from tasks.engine.estimate import TimeEstimate
from tasks.engine.progress import Headway
from tasks.merge_checkpoints import merge_directories, plan_directories, sweep_directories
from tasks.merging import lore_method
from tasks.merging.lore import small, together
from tasks.merging.lore_question import AroundMean
from tasks.parameters.merge import LoreParams, MergeParams


@pytest.mark.parametrize("lams", [[0.3], [0.3, 0.5]])
def test_how_long_the_rest_takes_is_told_until_nothing_is_left(
    adapter_family: tuple[Path, list[Path]],
    tmp_path: Path,
    lams: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a thousand seconds for all variants each tensor of each takes the same."""
    heard: list[Headway] = []
    variants = {tmp_path / f"{lam}": MergeParams(method="lore", lam=lam) for lam in lams}
    names = list(plan_directories(variants, adapter_family[1]).shapes)
    expected = TimeEstimate(dict.fromkeys(names, 1000 / len(names)), 1)
    monkeypatch.setattr(adapter_files, "foretell", lambda plan, devices: expected)

    def left(own: TimeEstimate, at_first: list[str], now: list[str], elapsed: float) -> str:
        return " of ".join(f"{sum(map(own.seconds.__getitem__, names)):.1f}" for names in (now, at_first))

    monkeypatch.setattr(TimeEstimate, "left", left)
    sweep_directories(variants, adapter_family[1], heard.append)
    told, total = {headway.tensors: headway.left for headway in heard}, len(lams) * len(names)
    assert {done: told[done] for done in range(1, total)} == {
        done: f"{1000 * (1 - done / total):.1f} of 1000.0" for done in range(1, total)
    }
    assert told[total] == ""


@pytest.mark.parametrize("apart", [False, True])
def test_a_sweep_solves_once_what_its_variants_share_and_has_their_bytes(
    adapter_family: tuple[Path, list[Path]], tmp_path: Path, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cores that are solved together, and those that are solved alone; another threshold is solved anew."""
    if apart:
        monkeypatch.setattr(small, "FEW_COLUMNS", 0)
    shared = {"method": "lore", "lore": {"mu": 1.05}}
    asked = [
        {**shared, "lam": 0.3},
        {**shared, "lam": 0.6},
        {"method": "lore", "lam": 0.3, "lore": {"mu": 0.4}},
        {**shared, "lam": 0.5},
    ]
    variants = {tmp_path / str(i): MergeParams.model_validate(own) for i, own in enumerate(asked)}
    solved = _solves(monkeypatch)
    sweep_directories(variants, adapter_family[1])
    problems = len(solved)
    assert problems == len(set(solved))
    for directory, params in variants.items():
        merge_directories(params, adapter_family[1], tmp_path / "alone" / directory.name)
        one, other = (
            root / "adapter_model.safetensors" for root in (directory, tmp_path / "alone" / directory.name)
        )
        assert one.read_bytes() == other.read_bytes()
    assert len(solved) == 3 * problems  # two thresholds, then four merges


@pytest.mark.parametrize("apart", [False, True])
def test_a_sample_is_not_solved_again(
    adapter_family: tuple[Path, list[Path]], tmp_path: Path, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is what warmed up taken for an adapter's core, which may be as large."""
    if apart:
        monkeypatch.setattr(small, "FEW_COLUMNS", 0)
    monkeypatch.setattr(planned, "AT_ONCE", 2)
    monkeypatch.setattr(sample, "WARMS_UP", 2 + 3 + 1)  # the ranks together
    params, solved = MergeParams(method="lore"), _solves(monkeypatch)
    merge_directories(params, adapter_family[1], tmp_path / "without")
    alone = list(solved)
    solved.clear()
    monkeypatch.setattr(sample, "SMALL_S", 0.0)
    merge_directories(params, adapter_family[1], tmp_path / "with")
    assert sorted(solved[1:]) == sorted(alone)  # the first warmed up
    one, other = (tmp_path / name / "adapter_model.safetensors" for name in ("without", "with"))
    assert one.read_bytes() == other.read_bytes()


def _solves(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return a list of what is solved from now on, each by its deviations and threshold."""
    solved, alone, few = list[bytes](), lore_method._solve, together.solve_together

    def note(B: torch.Tensor, mu: float) -> None:
        solved.append(B.numpy().tobytes() + str(mu).encode())

    def solve(own: AroundMean, lore: LoreParams, *rest: object) -> object:
        note(own.B, lore.mu)
        return alone(own, lore, *rest)  # type: ignore[arg-type]

    def solve_few(problems: list[together.Small], *rest: object) -> object:
        for own in problems:
            note(own.B, own.scale.mu)
        return few(problems, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(lore_method, "_solve", solve)
    monkeypatch.setattr(together, "solve_together", solve_few)
    return solved
