"""Several runs of one base become one merge: every run weighs the same, and each alone is an opponent."""

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.base.errors import BadInput
from tasks.base.records.merge import MergeReport
from tasks.base.records.selection import Selection
from tasks.base.records.training_run import TrainingRun
from tasks.evaluate_merge import evaluate_merge
from tasks.fetch_run import fetch_run
from tasks.merge_checkpoints import merge_checkpoints, plan_selection
from tasks.parameters.evaluation import EvaluateParams
from tasks.parameters.fetch import FetchParams
from tasks.parameters.merge import MergeParams
from tasks.parameters.registration import RegisterParams
from tasks.parameters.search import SearchParams
from tasks.parameters.selection import SelectParams
from tasks.register_model import register_model
from tasks.registry.store import connect
from tasks.registry.versions import version_of
from tasks.search_merge import search_merge
from tasks.select_checkpoints import plan_of_run, select_checkpoints
from tests.support.adapter_runs import write_adapter_run
from tests.support.short_training import tiny_llama, train
from tests.support.tiny_adapters import changes, write_llama
from tests.support.tiny_world import choosing_params, write_model

pytestmark = pytest.mark.usefixtures("offline")

AVERAGE = MergeParams(method="average", device="cpu")
EVEN = {"seed0": (1, 2, 3), "seed1": (1, 2, 3)}
UNEVEN = {"seed0": (10, 20, 30), "seed1": (7, 30)}


def write_runs(place: Path, runs: dict[str, Sequence[int]]) -> FetchParams:
    """Write runs of models that differ in every checkpoint; the later, the lower their loss."""
    for number, (name, steps) in enumerate(runs.items()):
        for step in steps:
            directory = write_model(place / name / f"checkpoint-{step}", seed=100 * number + step)
            log = [{"step": step, "eval_loss": 1 / step + number}]
            state = {"global_step": step, "max_steps": steps[-1], "log_history": log}
            (directory / "trainer_state.json").write_text(json.dumps(state))
    return FetchParams(source=tuple(str(place / name) for name in runs), settle=0)


def selected(fetch: FetchParams, root: Path, **select: Any) -> Selection:
    fetch_run(fetch, root)
    return select_checkpoints(SelectParams(**{"far": "keep", **select}), root)


@pytest.fixture
def artifacts(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Fetch and select two runs, as uneven as they come unless the test names others."""
    root = tmp_path / "artifacts"
    selected(write_runs(tmp_path, getattr(request, "param", UNEVEN)), root)
    return root


@pytest.fixture
def params(tmp_path: Path) -> EvaluateParams:
    """Return a task to judge by, and one to choose by with items of its own."""
    return choosing_params(tmp_path / "world")


def mean(directories: Sequence[Path]) -> dict[str, torch.Tensor]:
    models = [load_file(directory / "model.safetensors") for directory in directories]
    return {name: sum(m[name].double() for m in models) / len(models) for name in models[0]}  # type: ignore[misc]


def is_soup(merged: Path, runs: Sequence[Sequence[Path]]) -> bool:
    """Tell whether a model is the mean over runs of each run's mean, in float64."""
    means = [mean(run) for run in runs]
    return all(
        torch.allclose(tensor.double(), sum(own[name] for own in means) / len(means), atol=1e-6)  # type: ignore[arg-type]
        for name, tensor in load_file(merged / "model.safetensors").items()
    )


def test_checkpoints_are_named_after_their_runs_and_chosen_run_by_run(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    selection = selected(write_runs(tmp_path, UNEVEN), root, k=2)
    run = TrainingRun.read(root / "run" / "run.json")
    assert run.name == "seed0+seed1"
    assert [own.name for own in run.several] == ["seed0", "seed1"]
    assert [own.name for own in run.runs[1].checkpoints] == ["seed1/checkpoint-7", "seed1/checkpoint-30"]
    assert [c.name for c in selection.chosen] == [
        "seed0/checkpoint-20", "seed0/checkpoint-30", "seed1/checkpoint-7", "seed1/checkpoint-30",
    ]  # fmt: skip
    assert [left.name for left in selection.left_out] == ["seed0/checkpoint-10"]
    assert selection.best == selection.last == selection.chosen[1]  # seed1's loss is higher throughout
    assert [said.partition(":")[0] for said in selection.planned] == ["seed0", "seed1"]
    assert [*plan_of_run(SelectParams(), root, None)] == ["seed0", "seed1"]
    rows = list(csv.DictReader((root / "selection" / "trajectory.csv").open()))
    assert [(row["run"], row["step"], row["selected"]) for row in rows] == [
        ("seed0", "10", "0"), ("seed0", "20", "1"), ("seed0", "30", "1"), ("seed1", "7", "1"), ("seed1", "30", "1"),
    ]  # fmt: skip


@pytest.mark.parametrize("params", [AVERAGE, MergeParams()], ids=["average", "default"])
def test_every_run_weighs_the_same_however_many_checkpoints_it_has(
    artifacts: Path, params: MergeParams
) -> None:
    report = merge_checkpoints(params, artifacts)
    runs = [[artifacts.parent / n / f"checkpoint-{step}" for step in steps] for n, steps in UNEVEN.items()]
    assert is_soup(artifacts / "merged", runs)
    assert [source.label for source in report.inputs] == [
        "seed0 step 10", "seed0 step 20", "seed0 step 30", "seed1 step 7", "seed1 step 30",
    ]  # fmt: skip
    assert "- seed1 step 7: " in (artifacts / "merged" / "README.md").read_text()


@pytest.mark.parametrize("seeds", [(0, 1), (0, 1, 2)])
def test_runs_of_a_real_trainer(seeds: Sequence[int], tmp_path: Path) -> None:
    for seed in seeds:
        steps = {"max_steps": 6, "save_steps": 2 + seed}
        train(tmp_path / f"seed{seed}", [], model=tiny_llama(), seed=seed, save_only_model=True, **steps)
    root = tmp_path / "artifacts"
    selected(FetchParams(source=tuple(str(tmp_path / f"seed{s}") for s in seeds), settle=0), root)
    merge_checkpoints(AVERAGE, root)
    assert is_soup(root / "merged", [sorted((tmp_path / f"seed{s}").glob("checkpoint-*")) for s in seeds])


def test_runs_of_different_kinds_of_source(tmp_path: Path) -> None:
    fetch, root = write_runs(tmp_path, UNEVEN), tmp_path / "artifacts"
    store = fsspec.filesystem("memory")
    store.put(f"{fetch.runs[1]}/", "/mixture", recursive=True)
    selected(FetchParams(source=(fetch.runs[0], "memory://mixture"), settle=0), root)
    before = merge_checkpoints(AVERAGE, root)
    assert before.inputs[-1].path == "memory://mixture/checkpoint-30"
    runs = [[tmp_path / n / f"checkpoint-{step}" for step in steps] for n, steps in UNEVEN.items()]
    assert is_soup(root / "merged", runs)
    shutil.rmtree(root / "checkpoints")  # brought again, each from where it was
    shutil.rmtree(root / "merged")
    assert merge_checkpoints(AVERAGE, root) == before


def test_one_checkpoint_of_each_run_is_the_soup_of_wortsman(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    selection = selected(write_runs(tmp_path, {"a": (5,), "b": (4, 5), "c": (3,)}), root, k=1)
    assert [c.name for c in selection.chosen] == ["a/checkpoint-5", "b/checkpoint-5", "c/checkpoint-3"]
    merge_checkpoints(AVERAGE, root)
    ends = [[tmp_path / c.run / f"checkpoint-{c.step}"] for c in selection.chosen]
    assert is_soup(root / "merged", ends)


def test_a_checkpoint_that_is_dropped_takes_no_weight_from_its_run(artifacts: Path) -> None:
    source = artifacts.parent / "seed0" / "checkpoint-20"
    tensors = load_file(source / "model.safetensors")
    spoilt = {name: torch.full_like(tensor, torch.nan) for name, tensor in tensors.items()}
    save_file(spoilt, source / "model.safetensors", {"format": "pt"})
    fetch_run(FetchParams(source=tuple(str(artifacts.parent / n) for n in UNEVEN), settle=0), artifacts, True)
    select_checkpoints(SelectParams(far="keep"), artifacts)
    report = merge_checkpoints(AVERAGE.model_copy(update={"on_nan": "drop"}), artifacts)
    assert report.notes[0].startswith("seed0/checkpoint-20 is left out: ")
    runs = [[artifacts.parent / n / f"checkpoint-{step}" for step in steps] for n, steps in UNEVEN.items()]
    assert is_soup(artifacts / "merged", [[place for place in own if place != source] for own in runs])


@pytest.mark.parametrize("artifacts", [EVEN], indirect=True)
def test_methods_that_treat_checkpoints_alike_merge_windows_of_one_size(artifacts: Path) -> None:
    assert len(merge_checkpoints(MergeParams(method="median"), artifacts).inputs) == 6


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ("ema", "ema weighs the checkpoints of one run by age, and there are 2 runs"),
        ("wsm", "wsm weighs the checkpoints of one run by age"),
        ("drift", "drift weighs the checkpoints of one run by age"),
        ("median", "median gives every checkpoint the same weight, and the runs have 3, 2 of them"),
        ("lore", "lore gives every checkpoint the same weight"),
    ],
)
def test_a_method_that_cannot_weigh_runs_alike_is_refused(
    method: Any, sentence: str, artifacts: Path
) -> None:
    with pytest.raises(BadInput, match=sentence) as refused:
        plan_selection(MergeParams(method=method), artifacts)
    assert "take average" in str(refused.value)


def test_each_run_alone_is_an_opponent(
    artifacts: Path, params: EvaluateParams, store: RegisterParams
) -> None:
    merge_checkpoints(AVERAGE, artifacts)
    evaluation = evaluate_merge(params, store, artifacts)
    assert [(m.role, m.label) for m in evaluation.models] == [
        ("last", "last and best (seed0/checkpoint-30)"),
        ("run-1", "average of 3 (seed0)"),
        ("run-2", "average of 2 (seed1)"),
        ("merge", "average merge"),
    ]
    assert [standing.against for standing in evaluation.verdict.opponents] == ["last", "run-1", "run-2"]
    assert "seed1: The log holds no learning rates" in (artifacts / "evaluation" / "report.html").read_text()
    assert not (artifacts / "evaluation" / "average").exists()


@pytest.mark.slow
def test_greedy_chooses_among_runs(artifacts: Path, params: EvaluateParams, store: RegisterParams) -> None:
    found = search_merge(SearchParams(sampler="greedy", budget=9), AVERAGE, params, artifacts)
    assert found.tried[0].candidate == "method average of 5"
    # both together are the plain average
    assert [own.candidate for own in found.tried[1:]] == ["average of seed0", "average of seed1"]
    report = merge_checkpoints(AVERAGE, artifacts)
    runs = [[artifacts.parent / n / f"checkpoint-{step}" for step in steps] for n, steps in UNEVEN.items()]
    best = min(range(3), key=lambda i: found.tried[i].mean) if found.accepted else 0
    assert is_soup(artifacts / "merged", [runs, runs[:1], runs[1:]][best])
    evaluation = evaluate_merge(params, store, artifacts)
    assert ("average" in {model.role for model in evaluation.models}) == found.accepted
    registration = register_model(store, artifacts)
    facts = version_of(connect(store), registration.name, registration.version).tags
    assert json.loads(facts["loreline.runs"]).keys() == {"seed0", "seed1"}
    assert facts["loreline.method"] == report.method
    version = connect(store).get_model_version(registration.name, str(registration.version))
    assert "seed0 steps 10 to 30; seed1 steps 7 to 30" in version.description


def test_other_samplers_are_refused(artifacts: Path, params: EvaluateParams) -> None:
    with pytest.raises(BadInput, match="tpe searches within one run, and there are 2; take greedy"):
        search_merge(SearchParams(budget=9), AVERAGE, params, artifacts)


def adapter_runs(place: Path, *, seeds: tuple[int, int] = (0, 0)) -> FetchParams:
    """Write two runs of adapters, each in a directory called run, on bases of these seeds."""
    for name, seed, steps in (("a", seeds[0], (1, 2, 3)), ("b", seeds[1], (7, 9))):
        write_model(place / name / "base", seed=seed)
        write_adapter_run(place / name, steps)
    return FetchParams(source=(str(place / "a" / "run"), str(place / "b" / "run")), settle=0)


def test_adapters_of_one_base(tmp_path: Path) -> None:
    fetch, root = adapter_runs(tmp_path), tmp_path / "artifacts"
    selection = selected(fetch, root)
    assert [c.name for c in selection.chosen][2:] == [
        "run-1/checkpoint-3", "run-2/checkpoint-7", "run-2/checkpoint-9",
    ]  # fmt: skip
    merge_checkpoints(AVERAGE, root)
    merged, parts = changes(root / "merged"), [sorted(Path(run).iterdir()) for run in fetch.runs]
    for name, change in merged.items():
        means = [sum(changes(place)[name] for place in places) / len(places) for places in parts]
        assert change == pytest.approx((means[0] + means[1]) / 2, abs=1e-5)


def test_adapters_of_two_bases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"a/run is of adapters of .*a/base.*, but .*b/run of adapters of .*b/base"
    ):
        fetch_run(adapter_runs(tmp_path, seeds=(0, 1)), tmp_path / "artifacts")


def test_runs_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    fetch, root = write_runs(tmp_path, {"a": (1, 2), "b": (1, 2)}), tmp_path / "artifacts"
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "copied")
    for other, sentence in {
        "linked": "a is the same run as .*linked",
        "copied": "a holds the same checkpoints as .*copied",
        str(write_adapter_run(tmp_path / "third")): "a is of whole models, but .*run of adapters of",
        "nowhere": "nowhere: no such directory",
    }.items():
        with pytest.raises(BadInput, match=sentence):
            fetch_run(FetchParams(source=(fetch.runs[0], str(tmp_path / other)), settle=0), root)
        assert not (root / "run").exists()


def test_models_of_other_shapes_are_refused_before_any_arithmetic(tmp_path: Path) -> None:
    write_runs(tmp_path, {"a": (1, 2)})
    wide = write_llama(tmp_path / "b" / "checkpoint-1")
    (wide / "trainer_state.json").write_text('{"global_step": 1, "log_history": []}')
    root = tmp_path / "artifacts"
    selected(FetchParams(source=(str(tmp_path / "a"), str(tmp_path / "b")), settle=0), root)
    with pytest.raises(BadInput, match="b/checkpoint-1"):
        plan_selection(AVERAGE, root)


def test_a_single_run_is_recorded_as_ever(tmp_path: Path) -> None:
    fetch, root = write_runs(tmp_path, {"a": (1, 2)}), tmp_path / "artifacts"
    assert fetch.source == str(tmp_path / "a")  # a list of one
    selected(fetch, root)
    report = merge_checkpoints(AVERAGE, root)
    assert report == MergeReport.read(root / "merged" / "merge.json")
    assert report.parameters["weights"] == "uniform"
    new = ('"run": ""', '"several"', '"plans"', '"name": "a/')
    for name in ("run/run.json", "selection/selection.json", "merged/merge.json"):
        kept = (root / name).read_text()
        assert not [key for key in new if key in kept]
    assert (root / "selection" / "trajectory.csv").read_text().startswith("step,eval_loss,selected\n1,")
