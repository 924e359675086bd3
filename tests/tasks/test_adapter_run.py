"""A run of adapters goes through every stage: merged into an adapter, and measured on its base."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from tasks.base.errors import BadInput
from tasks.base.model_files import ModelFiles
from tasks.base.records.evaluation import Evaluation
from tasks.base.records.merge import MergeReport
from tasks.evaluate_merge import check_selection, evaluate_merge, published_results
from tasks.evaluation.measure import evaluate_model
from tasks.evaluation.task_files import load_tasks
from tasks.fetch_run import fetch_run
from tasks.merge_checkpoints import merge_checkpoints
from tasks.parameters.evaluation import EvaluateParams
from tasks.parameters.fetch import FetchParams
from tasks.parameters.merge import MergeParams
from tasks.parameters.registration import RegisterParams
from tasks.parameters.selection import SelectParams
from tasks.register_model import register_model
from tasks.registry.store import connect
from tasks.registry.versions import CHAMPION, files_of, point, verify_files, version_of
from tasks.select_checkpoints import select_checkpoints
from tests.support.adapter_runs import write_adapter_run
from tests.support.tiny_adapters import changes, load, unloaded
from tests.support.tiny_world import write_world

pytestmark = pytest.mark.usefixtures("offline")

AVERAGE, WEIGHTED = MergeParams(method="average"), MergeParams(method="wma")


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """Fetch and select a run of three adapters."""
    root = tmp_path / "artifacts"
    fetch_run(FetchParams(source=str(write_adapter_run(tmp_path)), settle=0), root)
    select_checkpoints(SelectParams(), root)
    return root


@pytest.fixture
def params(tmp_path: Path) -> EvaluateParams:
    tasks = str(write_world(tmp_path / "world"))
    return EvaluateParams(
        tasks=("likely",), primary="likely/nll", batch_size=4, device="cpu", include_path=tasks
    )


def nll_of(model: Path, params: EvaluateParams) -> np.ndarray:
    """Measure a whole model directory."""
    tasks = load_tasks(params.tasks, Path(params.include_path or ""))
    found = evaluate_model(lambda: ModelFiles(model), str(model), tasks, params)
    return np.array(found["likely"].values["nll"])


def nll_by_role(artifacts: Path) -> dict[str, np.ndarray]:
    _, results = published_results(artifacts)
    return {role: np.array(tasks["likely"].values["nll"]) for role, tasks in results.items()}


@pytest.mark.slow
def test_every_contender_is_measured_on_the_base_and_the_base_beside_them(
    artifacts: Path, params: EvaluateParams, store: RegisterParams, tmp_path: Path
) -> None:
    """Each answers as the whole model does that PEFT makes of it, which is written here only."""
    check_selection(params, artifacts)
    merge_checkpoints(WEIGHTED, artifacts)
    evaluation = evaluate_merge(params, store, artifacts)
    assert [model.role for model in evaluation.models] == ["best", "last", "average", "merge", "base"]
    assert {standing.against for standing in evaluation.verdict.opponents} == {"best", "last", "average"}
    base, found = tmp_path / "base", nll_by_role(artifacts)
    adapters = {"last": tmp_path / "run" / "checkpoint-3", "merge": artifacts / "merged"}
    for role, adapter in adapters.items():
        whole = with_tokenizer(unloaded(base, adapter, tmp_path / "whole" / role), base)
        np.testing.assert_allclose(found[role], nll_of(whole, params), rtol=1e-4)
    np.testing.assert_allclose(found["base"], nll_of(base, params), rtol=1e-6)
    states = [
        load_file(tmp_path / "whole" / f"{step}" / "model.safetensors")
        for step in (1, 2, 3)
        if unloaded(base, tmp_path / "run" / f"checkpoint-{step}", tmp_path / "whole" / f"{step}")
    ]
    mean = load(base)
    mean.load_state_dict({name: sum(own[name] for own in states) / 3 for name in states[0]}, strict=False)
    mean.save_pretrained(tmp_path / "mean")
    expected = nll_of(with_tokenizer(tmp_path / "mean", base), params)
    np.testing.assert_allclose(found["average"], expected, rtol=1e-4)
    assert not np.allclose(found["average"], found["base"], rtol=1e-2)


def with_tokenizer(model: Path, base: Path) -> Path:
    for path in base.glob("tokenizer*"):
        (model / path.name).write_bytes(path.read_bytes())
    return model


def test_the_merge_is_an_adapter_whose_version_says_which_base_it_needs(
    artifacts: Path, params: EvaluateParams, store: RegisterParams, tmp_path: Path
) -> None:
    report = merge_checkpoints(AVERAGE, artifacts)
    inputs = [changes(tmp_path / "run" / f"checkpoint-{step}") for step in (1, 2, 3)]
    for module, change in changes(artifacts / "merged").items():
        np.testing.assert_allclose(change, sum(own[module] for own in inputs) / 3, atol=1e-6)
    evaluate_merge(params, store, artifacts)
    version = version_of(connect(store), "demo", register_model(store, artifacts).version)
    files = files_of(connect(store), version)
    assert files.base is not None
    assert files.base.samefile(tmp_path / "base")
    assert {path.name for path in files.directory.iterdir()} >= {
        "adapter_model.safetensors", "adapter_config.json", "merge.json", "README.md", "manifest.json", "MLmodel",
    }  # fmt: skip
    assert not list(files.directory.rglob("model*.safetensors"))
    verify_files(connect(store), version)
    assert report.base is not None
    assert version.tags["loreline.base"] == report.base.address
    assert version.tags["loreline.base_digest"] == report.base.digest
    described = connect(store).get_model_version("demo", "1").description
    assert f"to be loaded on {report.base.address}" in described.replace("\\", "")
    assert "library_name: peft" in (files.directory / "README.md").read_text()


@pytest.mark.slow
def test_an_adapter_that_is_champion_is_met_on_its_base(
    artifacts: Path, params: EvaluateParams, store: RegisterParams
) -> None:
    merge_checkpoints(AVERAGE, artifacts)
    evaluate_merge(params, store, artifacts)
    merged = nll_by_role(artifacts)["merge"]
    point(connect(store), store.name, CHAMPION, register_model(store, artifacts).version)
    merge_checkpoints(WEIGHTED, artifacts)
    evaluation: Evaluation = evaluate_merge(params, store, artifacts)
    assert evaluation.models[0].label == "champion v1"
    np.testing.assert_array_equal(nll_by_role(artifacts)["champion"], merged)


@pytest.mark.slow
def test_the_champion_of_another_machine_is_met_on_the_same_base_here(
    artifacts: Path, params: EvaluateParams, store: RegisterParams, tmp_path: Path
) -> None:
    merge_checkpoints(AVERAGE, artifacts)
    evaluate_merge(params, store, artifacts)
    point(connect(store), store.name, CHAMPION, register_model(store, artifacts).version)
    base = (tmp_path / "base").rename(tmp_path / "elsewhere")
    version = version_of(connect(store), store.name, 1)
    with pytest.raises(BadInput, match="base of adapters is not on this machine"):
        files_of(connect(store), version)
    moved = FetchParams(source=str(tmp_path / "run"), settle=0, base=str(base))
    known = fetch_run(moved, artifacts).checkpoints[-1].base
    assert files_of(connect(store), version, known).base == base


def test_another_base_is_another_run_and_another_merge(artifacts: Path, tmp_path: Path) -> None:
    before = merge_checkpoints(AVERAGE, artifacts)
    first = fetch_run(FetchParams(source=str(tmp_path / "run"), settle=0), artifacts)
    weights = tmp_path / "base" / "model.safetensors"
    save_file({k: t * 1.5 for k, t in load_file(weights).items()}, weights, {"format": "pt"})
    second = fetch_run(FetchParams(source=str(tmp_path / "run"), settle=0), artifacts, refresh=True)
    assert first.digest != second.digest
    select_checkpoints(SelectParams(), artifacts)
    assert merge_checkpoints(AVERAGE, artifacts).digest != before.digest


def test_a_base_that_changed_since_is_refused(
    artifacts: Path, params: EvaluateParams, store: RegisterParams, tmp_path: Path
) -> None:
    merge_checkpoints(AVERAGE, artifacts)
    config = tmp_path / "base" / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(BadInput, match="base of adapters has changed.*fetch.base.*--refresh"):
        evaluate_merge(params, store, artifacts)
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="base of adapters is not on this machine"):
        check_selection(params, artifacts)


def test_full_makes_a_whole_model_on_the_base(
    artifacts: Path, params: EvaluateParams, store: RegisterParams, tmp_path: Path
) -> None:
    report = merge_checkpoints(MergeParams(method="average", full=True), artifacts)
    assert report.base is None
    base = tmp_path / "base"
    states = [
        load_file(unloaded(base, tmp_path / "run" / f"checkpoint-{step}", tmp_path / f"{step}") / "model.safetensors")
        for step in (1, 2, 3)
    ]  # fmt: skip
    for name, tensor in load_file(artifacts / "merged" / "model.safetensors").items():
        mean = sum(own[name].double() for own in states) / 3
        np.testing.assert_allclose(tensor.numpy(), mean.numpy(), atol=1e-6)
    evaluation = evaluate_merge(params, store, artifacts)
    assert [model.role for model in evaluation.models] == ["best", "last", "merge", "base"]


@pytest.mark.slow
def test_dora_is_merged_averaged_and_measured_on_its_base(
    params: EvaluateParams, store: RegisterParams, tmp_path: Path
) -> None:
    artifacts = tmp_path / "artifacts"
    run = write_adapter_run(tmp_path, use_dora=True)
    fetch_run(FetchParams(source=str(run), settle=0), artifacts)
    select_checkpoints(SelectParams(), artifacts)
    merge_checkpoints(MergeParams(method="wma", full=True), artifacts)
    evaluation = evaluate_merge(params, store, artifacts)
    assert [model.role for model in evaluation.models] == ["best", "last", "average", "merge", "base"]
    whole = [
        unloaded(tmp_path / "base", run / f"checkpoint-{step}", tmp_path / f"{step}") for step in (1, 2, 3)
    ]
    states = [load_file(directory / "model.safetensors") for directory in whole]
    mean = {name: (sum(own[name].double() for own in states) / 3).float() for name in states[0]}
    expected = shutil.copytree(tmp_path / "base", tmp_path / "mean")
    save_file(mean, expected / "model.safetensors", {"format": "pt"})
    np.testing.assert_allclose(nll_by_role(artifacts)["average"], nll_of(expected, params), atol=1e-4)


def test_a_bound_on_the_rank_keeps_the_best_and_says_what_is_lost(artifacts: Path, tmp_path: Path) -> None:
    report = merge_checkpoints(MergeParams(method="average", adapter_rank=2), artifacts)
    inputs = [changes(tmp_path / "run" / f"checkpoint-{step}") for step in (1, 2, 3)]
    for module, change in changes(artifacts / "merged").items():
        exact = sum(own[module] for own in inputs) / 3
        P, sigma, Qt = np.linalg.svd(exact)
        np.testing.assert_allclose(change, (P[:, :2] * sigma[:2]) @ Qt[:2], atol=1e-6 * sigma[0])
        factors = report.tensors[module.removeprefix("base_model.model.") + ".weight"].factors
        assert factors is not None
        assert factors.rank == 2
        assert factors.lost_energy == pytest.approx((sigma[2:] ** 2).sum() / (sigma**2).sum(), rel=1e-5)
    assert report.notes[0].startswith("rank 2 leaves out ")
    config = json.loads((artifacts / "merged" / "adapter_config.json").read_text())
    assert (config["r"], config["rank_pattern"]) == (2, {})
    assert MergeReport.read(artifacts / "merged" / "merge.json") == report


def test_lore_of_adapters_is_evaluated_and_registered(
    artifacts: Path, params: EvaluateParams, store: RegisterParams
) -> None:
    """Its factors have measures of their own, and no deviation to be drawn."""
    merge_checkpoints(MergeParams(method="lore"), artifacts)
    evaluation = evaluate_merge(params, store, artifacts)
    assert evaluation.models[3].label == "lore merge"
    assert register_model(store, artifacts).version == 1


def test_a_rank_is_refused_for_a_whole_model(artifacts: Path) -> None:
    with pytest.raises(BadInput, match="merge.adapter_rank: a full model has no rank"):
        merge_checkpoints(MergeParams(method="average", full=True, adapter_rank=2), artifacts)
