"""Merges that measure their checkpoints on text, by hand and in the pipeline, end to end on real models."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.base.errors import BadInput
from tasks.base.measures import WeightsUsed
from tasks.base.records.merge import MergeReport
from tasks.engine import on_text
from tasks.engine.calibration import CALIBRATION
from tasks.fetch_run import fetch_run
from tasks.merge_checkpoints import (
    merge_checkpoints,
    merge_directories,
    plan_directories,
    plan_selection,
    sweep_directories,
)
from tasks.parameters.evaluation import EvaluateParams
from tasks.parameters.fetch import FetchParams
from tasks.parameters.merge import AdamergingParams, CalibrationParams, MergeParams, RegmeanParams
from tasks.parameters.search import SearchParams
from tasks.parameters.selection import SelectParams
from tasks.recipes.sweep import grid
from tasks.reporting.merge_plan import merge_plan
from tasks.search_merge import search_merge
from tasks.select_checkpoints import select_checkpoints
from tests.support.killing import kill, spawn
from tests.support.on_text_reference import by_descent, by_hand, by_regression
from tests.support.tiny_adapters import unloaded, write_adapter, write_llama
from tests.support.tiny_world import TASKS, write_model, write_task, write_world

pytestmark = pytest.mark.usefixtures("offline")

TEXTS = ["1 + 5: 6", "2 + 5: 7", "hello there"]
FISHER = MergeParams(method="fisher", device="cpu")


@pytest.fixture
def run(tmp_path: Path) -> list[Path]:
    """Write three real models as a Trainer would."""
    directories = [write_model(tmp_path / "training" / f"checkpoint-{step}", seed=step) for step in (1, 2, 3)]
    for step, directory in enumerate(directories, 1):
        (directory / "trainer_state.json").write_text(f'{{"global_step": {step}, "log_history": []}}')
    return directories


@pytest.fixture
def artifacts(run: list[Path], tmp_path: Path) -> Path:
    root = tmp_path / "artifacts"
    fetch_run(FetchParams(source=str(run[0].parent), settle=0), root)
    select_checkpoints(SelectParams(far="keep"), root)
    return root


@pytest.fixture
def evaluate(tmp_path: Path) -> EvaluateParams:
    """Return tasks of one kind on two sets of items."""
    world = write_world(tmp_path / "world")
    items = [{"question": f"{a} + 7", "answer": str(a + 7), "choices": ["a"], "gold": 0} for a in range(9)]
    (world.parent / "data" / "chosen.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    path = write_task(world, "choosing", TASKS["likely"])
    path.write_text(path.read_text().replace("items.jsonl", "chosen.jsonl"))
    return EvaluateParams(
        tasks=("likely",), select_tasks=("choosing",), primary="likely/nll", include_path=str(world), device="cpu"
    )  # fmt: skip


def on(path: Path, texts: list[str] = TEXTS, items: int = 128) -> MergeParams:
    """Write texts, and return the parameters of a merge that measures on them."""
    path.write_text("\n".join(texts))
    return FISHER.model_copy(update={"calibration": CalibrationParams(file=str(path), items=items)})


def test_a_merge_by_hand_is_the_formula_s(run: list[Path], tmp_path: Path) -> None:
    report = merge_directories(on(tmp_path / "texts"), run, tmp_path / "out")
    merged, expected = load_file(tmp_path / "out" / "model.safetensors"), by_hand(run, TEXTS)
    assert merged.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(merged[name].numpy(), values, rtol=1e-3, atol=1e-5, err_msg=name)
    assert report.calibration
    assert report.calibration.items == 3
    assert MergeReport.read(tmp_path / "out" / "merge.json") == report
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "texts", "training"]


@pytest.mark.parametrize("method", ["fisher", "regmean"])
def test_identical_checkpoints_are_one(method: str, run: list[Path], tmp_path: Path) -> None:
    """The same weights under another name, in a file of other bytes."""
    tensors = load_file(run[0] / "model.safetensors")
    for directory, note in zip(run[1:], "ab", strict=True):
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt", "note": note})
    params = on(tmp_path / "texts").model_copy(update={"method": method})
    merge_directories(params, run, tmp_path / "out")
    for name, merged in load_file(tmp_path / "out" / "model.safetensors").items():
        assert torch.allclose(merged, tensors[name], rtol=3e-7, atol=0)


@pytest.mark.parametrize("alpha", [0.0, 0.9])
def test_linear_layers_are_regressed_on_their_inputs(alpha: float, run: list[Path], tmp_path: Path) -> None:
    params = on(tmp_path / "texts").model_copy(
        update={"method": "regmean", "regmean": RegmeanParams(alpha=alpha)}
    )
    report = merge_directories(params, run, tmp_path / "out")
    merged, expected = load_file(tmp_path / "out" / "model.safetensors"), by_regression(run, TEXTS, alpha)
    assert merged.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(merged[name].numpy(), values, rtol=1e-3, atol=1e-4, err_msg=name)
    assert report.calibration
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "texts", "training"]


def adamerging(path: Path, base: Path, texts: list[str] = TEXTS, **given: object) -> MergeParams:
    """Write texts, and return the parameters of a merge that learns on them."""
    own = AdamergingParams.model_validate({"steps": 4, "rate": 0.02, **given})
    update = {"method": "adamerging", "base": str(base), "adamerging": own}
    return on(path, texts).model_copy(update=update)


def test_task_vectors_are_weighed_so_that_predictions_become_certain(run: list[Path], tmp_path: Path) -> None:
    params = adamerging(tmp_path / "texts", run[0])
    told = merge_plan(plan_directories({tmp_path / "out": params}, run[1:]), tmp_path / "out")
    assert "3 texts, on which the coefficients are learned first, in 4 steps" in told
    report = merge_directories(params, run[1:], tmp_path / "out")
    merged = load_file(tmp_path / "out" / "model.safetensors")
    expected = by_descent(run[0], run[1:], TEXTS, params.adamerging)
    assert merged.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(merged[name].numpy(), values, rtol=0, atol=2e-4, err_msg=name)
    base, *models = (load_file(place / "model.safetensors") for place in run)
    for name, own in report.tensors.items():  # merge.json says what was taken
        assert isinstance(own.method, WeightsUsed)
        taken = sum(
            c * (model[name] - base[name]) for c, model in zip(own.method.weights, models, strict=True)
        )
        assert torch.allclose(merged[name], base[name] + taken, rtol=0, atol=1e-6)
    assert report.calibration
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "texts", "training"]


def test_adapters_are_learned_on_as_full_models_only(tmp_path: Path) -> None:
    """Their base's tokenizer is theirs; merged into a full model it is as if they had been full models."""
    base = write_model(tmp_path / "base")
    adapters = [write_adapter(tmp_path / f"checkpoint-{i}", base, i, r=2) for i in (1, 2)]
    params = adamerging(tmp_path / "texts", base)
    with pytest.raises(BadInput, match=r"adamerging learns on whole models, .*; set merge.full"):
        merge_directories(params.model_copy(update={"base": None}), adapters, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    merge_directories(params.model_copy(update={"full": True}), adapters, tmp_path / "out")
    whole = []
    for adapter in adapters:
        directory = unloaded(base, adapter, tmp_path / f"whole-{adapter.name}")
        for path in base.glob("tokenizer*"):
            shutil.copy(path, directory)
        whole.append(directory)
    merge_directories(params, whole, tmp_path / "expected")
    expected = load_file(tmp_path / "expected" / "model.safetensors")
    for name, merged in load_file(tmp_path / "out" / "model.safetensors").items():
        assert torch.allclose(merged, expected[name], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_sweep_over_alpha_measures_once(
    run: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = on(tmp_path / "texts").model_copy(update={"method": "regmean"})
    loaded: list[Path] = []
    load = on_text.load_causal_model
    monkeypatch.setattr(
        on_text, "load_causal_model", lambda place, dtype: loaded.append(place) or load(place, dtype)
    )
    variants = grid(params, ["merge.regmean.alpha=0,0.9"], tmp_path / "swept")
    swept = sweep_directories(variants, run)
    assert loaded == run
    for directory, own in variants.items():
        assert merge_directories(own, run, tmp_path / directory.name).digest == swept[directory].digest


@pytest.mark.slow
def test_another_text_is_another_merge_and_the_same_text_is_done_already(
    run: list[Path], tmp_path: Path
) -> None:
    first = merge_directories(on(tmp_path / "texts"), run, tmp_path / "out")
    before = (tmp_path / "out" / "merge.json").stat().st_mtime_ns
    assert merge_directories(on(tmp_path / "texts"), run, tmp_path / "out") == first
    assert (tmp_path / "out" / "merge.json").stat().st_mtime_ns == before
    other = merge_directories(on(tmp_path / "texts", [*TEXTS, "quite another"]), run, tmp_path / "out")
    fewer = merge_directories(on(tmp_path / "texts", items=1), run, tmp_path / "fewer")
    assert len({first.digest, other.digest, fewer.digest}) == 3
    assert fewer.calibration
    assert fewer.calibration.items == 1


def test_all_merges_of_a_sweep_are_measured_on_the_same_text(tmp_path: Path) -> None:
    for method, key in (("fisher", "calibration.items"), ("adamerging", "adamerging.steps")):
        with pytest.raises(BadInput, match=rf"--sweep merge.{key}: all merges of a sweep share it"):
            grid(FISHER.model_copy(update={"method": method}), [f"merge.{key}=1,2"], tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "after"),
    [
        *(("fisher", after) for after in (0.3, 0.8, 1.2, 1.6, 2.0)),
        ("regmean", 0.5),
        *(("adamerging", after) for after in (0.3, 0.8, 1.5, 3.0)),
    ],
)
def test_killed_and_run_again_it_ends_the_same(
    method: str, after: float, run: list[Path], tmp_path: Path
) -> None:
    params = on(tmp_path / "texts", TEXTS * 40).model_copy(update={"method": method})
    if method == "adamerging":
        *run, base = run
        params = adamerging(tmp_path / "texts", base, TEXTS * 40, steps=30)
    whole = merge_directories(params, run, tmp_path / "whole")
    child = spawn(merge_directories, params, run, tmp_path / "out")
    child.join(after)
    kill(child)
    assert merge_directories(params, run, tmp_path / "out") == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "texts", "training", "whole"]


def test_the_pipeline_measures_on_the_select_items(artifacts: Path, evaluate: EvaluateParams) -> None:
    search_merge(SearchParams(), FISHER, evaluate, artifacts)
    texts = [f"{a} + 7: {a + 7}\n" for a in range(9)]
    written = (artifacts / "search" / CALIBRATION).read_text().splitlines()
    rows = [json.loads(line) for line in written]
    assert [row["prompt"] + row["text"] for row in rows] == texts
    told = merge_plan(plan_selection(FISHER, artifacts), artifacts / "merged")
    assert "9 texts, on which every checkpoint is measured first" in told
    report = merge_checkpoints(FISHER, artifacts)
    expected = by_hand([artifacts.parent / "training" / f"checkpoint-{step}" for step in (1, 2, 3)], texts)
    for name, merged in load_file(artifacts / "merged" / "model.safetensors").items():
        np.testing.assert_allclose(merged.numpy(), expected[name], rtol=1e-3, atol=1e-5, err_msg=name)
    assert report.calibration
    assert report.calibration.items == 9
    # run again, every stage returns what is there; without the method the text goes
    before = (artifacts / "merged" / "manifest.json").stat().st_mtime_ns
    search_merge(SearchParams(), FISHER, evaluate, artifacts)
    assert merge_checkpoints(FISHER, artifacts) == report
    assert (artifacts / "merged" / "manifest.json").stat().st_mtime_ns == before
    search_merge(SearchParams(), MergeParams(method="average"), evaluate, artifacts)
    assert not (artifacts / "search" / CALIBRATION).exists()
    assert merge_checkpoints(MergeParams(method="average"), artifacts).calibration is None


def test_in_the_pipeline_a_named_file_needs_no_select_items(
    artifacts: Path, evaluate: EvaluateParams, tmp_path: Path
) -> None:
    params = on(tmp_path / "texts")
    search_merge(SearchParams(), params, evaluate.model_copy(update={"select_tasks": ()}), artifacts)
    report = merge_checkpoints(params, artifacts)
    assert report.calibration
    assert report.calibration.items == 3


def test_without_text_nothing_is_merged(
    run: list[Path], artifacts: Path, evaluate: EvaluateParams, tmp_path: Path
) -> None:
    with pytest.raises(
        BadInput, match=r"merge.method: fisher measures .* set evaluate.select_tasks or merge.cal"
    ):
        search_merge(SearchParams(), FISHER, evaluate.model_copy(update={"select_tasks": ()}), artifacts)
    with pytest.raises(BadInput, match=r"there is none; run loreline search"):
        merge_checkpoints(FISHER, artifacts)
    with pytest.raises(BadInput, match=r"there is none; run loreline search"):
        plan_selection(FISHER, artifacts)
    with pytest.raises(
        BadInput, match=r"merge.calibration.file: fisher .* name a file with one document a line"
    ):
        merge_directories(FISHER, run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (artifacts / "merged").exists()


def test_a_search_does_not_try_what_it_would_choose_on(artifacts: Path, evaluate: EvaluateParams) -> None:
    for given in ({"over": {"method": ("average", "fisher")}}, {"over": {"newest": (2, 3)}}):
        with pytest.raises(BadInput, match="fisher cannot be tried, because it would measure checkpoints on"):
            search_merge(SearchParams(budget=4, **given), FISHER, evaluate, artifacts)


@pytest.mark.parametrize("full", [False, True])
def test_adapters_are_refused(full: bool, tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base", hidden=16)
    adapters = [write_adapter(tmp_path / f"checkpoint-{i}", base, i, r=2) for i in (1, 2, 3)]
    params = on(tmp_path / "texts").model_copy(update={"full": full, "base": str(base) if full else None})
    with pytest.raises(
        BadInput, match=r"merge.method: fisher measures whole models, and these are adapters; take"
    ):
        merge_directories(params, adapters, tmp_path / "out")
    shutil.rmtree(base)


def test_a_checkpoint_with_nan_is_left_out_where_that_is_wanted(run: list[Path], tmp_path: Path) -> None:
    params = on(tmp_path / "texts")
    without = merge_directories(params, run[1:], tmp_path / "without")
    tensors = load_file(run[0] / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, run[0] / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match="checkpoint-1: tensor model.norm.weight holds NaN or Inf"):
        merge_directories(params, run, tmp_path / "out")
    dropped = merge_directories(params.model_copy(update={"on_nan": "drop"}), run, tmp_path / "out")
    assert dropped.outputs == without.outputs
