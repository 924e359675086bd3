"""How long a merge takes is foretold by a sample of its matrices, which changes nothing and fails on nothing."""

from pathlib import Path

import pytest
import torch

from tasks.checkpoints.weights import open_weights
from tasks.engine import plan as planned
from tasks.engine import sample
from tasks.engine.estimate import nominal, work_on
from tasks.engine.execute import execute
from tasks.engine.plan import Plan
from tasks.engine.planning import make_plan
from tasks.engine.sample import foretell, sampled
from tasks.merge_checkpoints import plan_directories
from tasks.merging import lore_method
from tasks.merging.block import Block
from tasks.merging.lore_question import AroundMean
from tasks.merging.solving import Solving
from tasks.parameters.merge import MergeParams
from tests.support.engine_runs import equal, params_for, plan_for, read, write_all, write_noise

CPU = ["cpu"]


def test_methods_that_stream_need_no_estimate(tmp_path: Path) -> None:
    plan = plan_for(params_for("average"), write_noise(tmp_path, {"a": (8, 4)}))
    assert nominal(plan, CPU) is None
    assert sampled(plan, CPU) is None
    assert foretell(plan, CPU) is None


@pytest.mark.parametrize("method", ["lore", "tsv_m", "iso_c"])
def test_a_sample_of_every_shape_is_solved_and_nothing_is_written(tmp_path: Path, method: str) -> None:
    shapes = {**{f"q{i}": (40, 30) for i in range(9)}, **{f"d{i}": (60, 20) for i in range(3)}, "e": (90, 8)}
    plan = plan_for(params_for(method), write_noise(tmp_path, shapes))
    before = sorted(tmp_path.rglob("*"))
    found = sampled(plan, CPU)
    assert found is not None
    assert found.seconds.keys() == shapes.keys()
    assert found.sampled == 2 + 2 + 1
    assert not found.at_least
    assert len({round(found.seconds[f"q{i}"], 12) for i in range(9)}) == 1
    assert all(seconds > 0 for seconds in found.seconds.values())
    assert sorted(tmp_path.rglob("*")) == before


def test_the_work_of_a_crop_stands_for_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crop of an eighth of the work took 1 s: the matrix takes 8 s, and another of its shape too."""
    seen: list[tuple[int, ...]] = []

    def solve(plan: object, solving: Solving, begun: dict[str, float], block: Block) -> float:
        seen.append(tuple(block.thetas[0].shape))
        return 1.0

    monkeypatch.setattr(sample, "_timed", solve)
    plan = plan_for(params_for("lore"), write_noise(tmp_path, {"a": (80, 40), "b": (80, 40)}))
    guess = nominal(plan, CPU)
    assert guess is not None
    monkeypatch.setattr(sample, "SAMPLE_S", guess.seconds["a"] / 8)
    found = sampled(plan, CPU)
    assert found is not None
    assert seen == [(40, 20), (40, 20)]
    assert found.seconds == pytest.approx({"a": 8.0, "b": 8.0})


def test_what_does_not_end_in_time_is_at_least_that_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every pass of the printed algorithm decomposes whole matrices, a million times."""
    params = MergeParams.model_validate(
        {"method": "lore", "lore": {"passes": 10**6, "mu": 0.1, "mu_scale": "absolute"}}
    )
    plan = plan_for(params, write_noise(tmp_path, {"a": (60, 50), "b": (60, 50)}))
    monkeypatch.setattr(sample, "GIVES_UP_S", 0.3)
    monkeypatch.setattr(sample, "_solve", _skip_the_first(sample._solve))
    found = sampled(plan, CPU)
    assert found is not None
    assert found.at_least
    assert found.sampled == 0
    assert str(found).startswith("at least ")
    assert sum(found.seconds.values()) >= 0.3


def _skip_the_first(solve):  # type: ignore[no-untyped-def]
    """Leave out the matrix that only loads the libraries: it would take as long."""
    calls = iter(range(10**6))
    return lambda plan, solving, block: solve(plan, solving, block) if next(calls) else None


def test_a_damaged_checkpoint_is_left_to_the_merge(tmp_path: Path) -> None:
    """The merge names it, or leaves it out where merge.on_nan says so."""
    places = write_noise(tmp_path, {"a": (40, 30), "b": (30, 20)})
    tensors = {"a": torch.full((40, 30), torch.nan), "b": torch.ones(30, 20)}
    (damaged,) = write_all(tmp_path / "other", [tensors])
    found = sampled(plan_for(params_for("lore"), [*places[:3], damaged]), CPU)
    assert found is not None
    assert all(seconds > 0 for seconds in found.seconds.values())


@pytest.mark.parametrize("lams", [[0.3], [0.3, 0.4]])
def test_what_the_sample_has_solved_is_not_solved_again(
    lams: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the bytes are the same; a crop is another problem than its matrix."""
    shapes = {**{f"q{i}": (40, 30) for i in range(4)}, "large": (80, 60), "stack": (2, 30, 20), "norm": (30,)}
    _, *places = write_noise(tmp_path, shapes)
    params = [MergeParams.model_validate({"method": "lore", "lam": lam}) for lam in lams]
    plan = make_plan(params, [open_weights(place, place.name) for place in places], None, [1, 2, 3, 4])
    guess = nominal(plan, CPU)
    assert guess is not None
    monkeypatch.setattr(sample, "SAMPLE_S", guess.seconds["large"] / 8)
    expected = sampled(plan, CPU)
    assert expected is not None
    solved: list[tuple[int, ...]] = []
    solve = lore_method._solve

    def note(own: AroundMean, *rest: object) -> object:
        solved.append(tuple(own.B.shape))
        return solve(own, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(lore_method, "_solve", note)
    outputs = [tmp_path / f"{own}-{i}" for own in ("again", "once") for i in range(len(lams))]
    for directory in outputs:
        directory.mkdir()
    every, rest = (
        execute(plan, own, 2**40, CPU, expected=estimate)
        for own, estimate in ((outputs[: len(lams)], None), (outputs[len(lams) :], expected))
    )
    assert sorted(solved[:7]) == sorted([(4, 40, 30)] * 4 + [(4, 80, 60)] + [(4, 30, 20)] * 2)
    assert sorted(solved[7:]) == sorted([(4, 40, 30)] * 2 + [(4, 80, 60)] + [(4, 30, 20)])
    for one, other, first, second in zip(every, rest, outputs, outputs[len(lams) :], strict=False):
        assert one.measures == other.measures
        assert equal(read(first), read(second))


def test_a_short_merge_begins_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_for(params_for("lore"), write_noise(tmp_path, {"a": (40, 30)}))
    assert foretell(plan, CPU) == nominal(plan, CPU)
    monkeypatch.setattr(sample, "SMALL_S", 0.0)
    found = foretell(plan, CPU)
    assert found is not None
    assert found.sampled == 1


@pytest.mark.parametrize("onto", [False, True])
def test_the_time_of_adapters_is_foretold(
    adapter_family: tuple[Path, list[Path]], tmp_path: Path, onto: bool
) -> None:
    """Of every tensor that they change, among themselves and on their base; and nothing is written."""
    base, adapters = adapter_family
    place, before = str(base) if onto else None, sorted(base.parent.rglob("*"))
    plan = plan_directories({tmp_path / "out": MergeParams(method="lore", base=place)}, adapters)
    found = sampled(plan, CPU)
    assert found is not None
    changed = {name for name in plan.spanned if sum(plan.ranks(name))}
    assert found.seconds.keys() >= changed > set()
    assert all(seconds > 0 for seconds in found.seconds.values())
    assert found.sampled >= len(changed) // 2
    assert not found.at_least
    assert sorted(base.parent.rglob("*")) == before
    assert not (tmp_path / "out").exists()
    streams = plan_directories({tmp_path / "out": MergeParams(method="average", base=place)}, adapters)
    assert sampled(streams, CPU) is None


@pytest.mark.parametrize("groups_of", [1, 2, 16])
def test_the_pace_of_some_groups_stands_for_all(
    adapter_family: tuple[Path, list[Path]], tmp_path: Path, groups_of: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes 1 µs for a unit of its work, so that all do."""
    monkeypatch.setattr(planned, "AT_ONCE", groups_of)
    plan = plan_directories({tmp_path / "out": MergeParams(method="lore")}, adapter_family[1])
    seen: list[list[str]] = []

    def merge(plan: Plan, blocks: object, solving: object, begun: object, names: list[str]) -> float:
        seen.append(names)
        return 1e-6 * sum(work_on(plan, name) for name in names)

    monkeypatch.setattr(sample, "_timed_changes", merge)
    found = sampled(plan, CPU)
    assert found is not None
    assert found.seconds == pytest.approx({name: 1e-6 * work_on(plan, name) for name in plan.shapes})
    assert all(names in plan.groups for names in seen)
    assert found.sampled == sum(map(len, seen))


def test_of_a_group_that_takes_long_only_some_are_merged(
    adapter_family: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_directories({tmp_path / "out": MergeParams(method="lore")}, adapter_family[1])
    [group], guess, seen = plan.groups, nominal(plan, CPU), list[list[str]]()
    assert guess is not None
    monkeypatch.setattr(sample, "SAMPLE_S", 1.01 * guess.seconds[group[0]])
    monkeypatch.setattr(sample, "_timed_changes", lambda *given: seen.append(given[-1]) or 1.0)
    sampled(plan, CPU)
    assert seen == [group[:2]]
