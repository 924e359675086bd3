"""Stage evaluate: every contender on the same items, the champion among them, nothing measured twice."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.base.digests import file_digests, sha256_digests
from tasks.base.errors import BadInput
from tasks.base.model_files import ModelFiles
from tasks.base.publish import MANIFEST
from tasks.base.records.model import model_digest
from tasks.evaluate_merge import check_selection, evaluate_merge
from tasks.evaluation.backends import hf
from tasks.evaluation.progress import ItemsAnswered
from tasks.evaluation.results import TaskResult
from tasks.fetch_run import fetch_run
from tasks.merge_checkpoints import merge_checkpoints
from tasks.parameters.evaluation import EvaluateParams
from tasks.parameters.fetch import FetchParams
from tasks.parameters.merge import MergeParams
from tasks.parameters.registration import RegisterParams
from tasks.parameters.selection import SelectParams
from tasks.register_model import register_model
from tasks.registry.looks import looks_of
from tasks.registry.store import connect
from tasks.registry.versions import CHAMPION, point
from tasks.select_checkpoints import select_checkpoints
from tests.support.grouped_tasks import write_groups
from tests.support.tiny_world import write_model, write_world

pytestmark = pytest.mark.usefixtures("offline")

PARAMS = EvaluateParams(tasks=("likely",), primary="likely/nll", batch_size=4, device="cpu")


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """Merge three real models; the middle one has the best metric."""
    for step in (1, 2, 3):
        directory = write_model(tmp_path / "training" / f"checkpoint-{step}", seed=step)
        state = (
            f'{{"global_step": {step}, "log_history": [{{"step": {step}, "eval_loss": {abs(step - 2)}}}]}}'
        )
        (directory / "trainer_state.json").write_text(state)
    root = tmp_path / "artifacts"
    fetch_run(FetchParams(source=str(tmp_path / "training"), settle=0), root)
    select_checkpoints(SelectParams(), root)
    merge_checkpoints(MergeParams(method="lore"), root)
    return root


@pytest.fixture
def params(tmp_path: Path) -> EvaluateParams:
    return PARAMS.model_copy(update={"include_path": str(write_world(tmp_path / "world"))})


def test_last_best_average_and_merge_are_measured_once(
    artifacts: Path, params: EvaluateParams, store: RegisterParams, loaded: list[Path]
) -> None:
    evaluation = evaluate_merge(params, store, artifacts)
    assert [(m.role, m.label) for m in evaluation.models] == [
        ("best", "best (checkpoint-2)"),
        ("last", "last (checkpoint-3)"),
        ("average", "average of 3"),
        ("merge", "lore merge"),
    ]
    figures = {path.name for path in (artifacts / "evaluation" / "figures").iterdir()}
    assert figures == {"trajectory.png", "gains.png", "deviation.png", "lore.png"}
    assert len(loaded) == 4
    assert evaluate_merge(params, store, artifacts) == evaluation
    shutil.rmtree(artifacts / "evaluation")
    assert evaluate_merge(params, store, artifacts) == evaluation  # from the cache, item by item
    assert len(loaded) == 4


def test_the_average_is_of_what_could_be_merged(
    artifacts: Path, params: EvaluateParams, store: RegisterParams
) -> None:
    training = artifacts.parent / "training"
    write_model(training / "checkpoint-4", seed=4)
    (training / "checkpoint-4" / "trainer_state.json").write_text('{"global_step": 4, "log_history": []}')
    weights = training / "checkpoint-1" / "model.safetensors"
    spoilt = {name: torch.full_like(tensor, torch.nan) for name, tensor in load_file(weights).items()}
    save_file(spoilt, weights, {"format": "pt"})
    fetch_run(FetchParams(source=str(training), settle=0), artifacts, refresh=True)
    select_checkpoints(SelectParams(far="keep"), artifacts)
    merge_checkpoints(MergeParams(on_nan="drop"), artifacts)
    evaluation = evaluate_merge(params, store, artifacts)
    assert ("average", "average of 3") in [(m.role, m.label) for m in evaluation.models]


def test_the_plain_average_is_measured_once_and_not_judged_against_itself(
    artifacts: Path, params: EvaluateParams, store: RegisterParams, loaded: list[Path]
) -> None:
    merge_checkpoints(MergeParams(method="average"), artifacts)
    evaluation = evaluate_merge(params, store, artifacts)
    assert [m.role for m in evaluation.models] == ["best", "last", "merge"]
    assert len(loaded) == 3
    merge_checkpoints(MergeParams(method="average", weights=(0.5, 0.25, 0.25)), artifacts)
    weighted = evaluate_merge(params, store, artifacts)
    assert "average" in [standing.against for standing in weighted.verdict.opponents]


def test_the_same_evaluation_gives_the_same_bytes(
    artifacts: Path, params: EvaluateParams, store: RegisterParams
) -> None:
    def published() -> list[bytes]:
        evaluate_merge(params, store, artifacts)
        files = sorted(path for path in (artifacts / "evaluation").rglob("*") if path.is_file())
        return [path.read_bytes() for path in files]

    first = published()
    shutil.rmtree(artifacts / "evaluation")
    assert published() == first


def test_the_average_that_is_measured_is_the_mean(
    artifacts: Path,
    params: EvaluateParams,
    store: RegisterParams,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    kept = tmp_path / "kept"
    real = hf._load

    def load(files: ModelFiles, device: str) -> object:
        if files.directory.name == "average":
            shutil.copytree(files.directory, kept)
        return real(files, device)

    monkeypatch.setattr(hf, "_load", load)
    evaluate_merge(params, store, artifacts)
    inputs = [load_file(path) for path in sorted((tmp_path / "training").glob("*/model.safetensors"))]
    for name, tensor in load_file(kept / "model.safetensors").items():
        exact = torch.stack([weights[name].double() for weights in inputs]).mean(0)
        assert torch.equal(tensor, exact.float())
    assert not (artifacts / "evaluation" / "average").exists()


@pytest.mark.slow
def test_the_champion_is_an_opponent_until_it_is_this_merge(
    artifacts: Path, params: EvaluateParams, store: RegisterParams
) -> None:
    """Promotion changes nothing about the evidence: afterwards the merge still meets whom it replaced."""
    evaluate_merge(params, store, artifacts)
    client = connect(store)
    point(client, store.name, CHAMPION, register_model(store, artifacts).version)
    alone = evaluate_merge(params, store, artifacts)
    assert "champion" not in [model.role for model in alone.models]
    as_0_1_0_registered_it(store, artifacts)
    assert evaluate_merge(params, store, artifacts) == alone
    merge_checkpoints(MergeParams(method="average"), artifacts)
    judged = evaluate_merge(params, store, artifacts)
    assert judged.models[0].label == "champion v1"
    version = register_model(store, artifacts).version
    point(client, store.name, "previous-champion", 1)
    point(client, store.name, CHAMPION, version)
    before = (artifacts / "evaluation" / MANIFEST).read_bytes()
    assert evaluate_merge(params, store, artifacts) == judged
    assert (artifacts / "evaluation" / MANIFEST).read_bytes() == before


def as_0_1_0_registered_it(store: RegisterParams, artifacts: Path) -> None:
    """Give the version the digests that it had when SHA-256 was the only one."""
    weights = [path for path in (artifacts / "merged").iterdir() if path.name not in (MANIFEST, "merge.json")]
    outputs = [path for path in weights if path.name != "README.md"]
    before = model_digest(sha256_digests(artifacts / "merged", outputs))
    connect(store).set_model_version_tag(store.name, "1", "loreline.merge", before)
    connect(store).set_model_version_tag(store.name, "1", "loreline.run_digest", "0" * 64)


def test_a_merge_that_changed_is_not_evaluated(
    artifacts: Path, params: EvaluateParams, store: RegisterParams
) -> None:
    path = artifacts / "merged" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(BadInput, match="changed since it was published; run loreline merge again"):
        evaluate_merge(params, store, artifacts)
    assert not list(artifacts.glob(".evaluation*"))


def test_unknown_tasks_are_refused_before_a_model_loads(
    artifacts: Path, params: EvaluateParams, store: RegisterParams, loaded: list[Path]
) -> None:
    for change in ({"tasks": ("likly",)}, {"primary": "likely/f1"}, {"primary": "spell/exact_match"}):
        with pytest.raises(BadInput):
            evaluate_merge(params.model_copy(update=change), store, artifacts)
    assert loaded == []


def test_sources_are_untouched(artifacts: Path, params: EvaluateParams, store: RegisterParams) -> None:
    training = artifacts.parent / "training"
    before = [(p, p.stat().st_mtime_ns) for p in sorted(training.rglob("*"))]
    digests = file_digests(training, (p for p in training.rglob("*") if p.is_file()))
    evaluate_merge(params, store, artifacts)
    register_model(store, artifacts)
    assert [(p, p.stat().st_mtime_ns) for p in sorted(training.rglob("*"))] == before
    assert file_digests(training, (p for p in training.rglob("*") if p.is_file())) == digests


def test_checkpoints_that_cannot_be_asked_are_refused_before_the_merge(
    artifacts: Path, params: EvaluateParams, tmp_path: Path
) -> None:
    shutil.rmtree(artifacts / "merged")
    check_selection(params, artifacts)
    with pytest.raises(BadInput, match="has no chat template, and evaluate.chat_template asks for one"):
        check_selection(params.model_copy(update={"chat_template": True}), artifacts)
    for path in tmp_path.glob("training/*/tokenizer*"):
        path.unlink()
    shutil.rmtree(artifacts / "run")
    fetch_run(FetchParams(source=str(tmp_path / "training"), settle=0), artifacts)
    select_checkpoints(SelectParams(), artifacts)
    with pytest.raises(
        BadInput, match="checkpoint-3-.*: has no tokenizer that can be loaded .*; save it beside"
    ):
        check_selection(params, artifacts)


def test_every_model_s_turn_and_answers_are_told(
    artifacts: Path, params: EvaluateParams, store: RegisterParams
) -> None:
    told: list[ItemsAnswered] = []
    evaluate_merge(params, store, artifacts, told.append)
    ends = {each.model: each for each in told}
    assert [(each.of, each.done, each.total) for each in ends.values()] == [(4, 12, 12)] * 4
    assert [each.label for each in ends.values()] == [
        "best (checkpoint-2)",
        "last (checkpoint-3)",
        "average of 3",
        "lore merge",
    ]


@pytest.mark.slow
def test_a_group_decides_and_clusters_and_a_vault_s_share_are_kept(
    artifacts: Path, params: EvaluateParams, store: RegisterParams
) -> None:
    """From the task files to the published evaluation, through a group of groups and real models."""
    folder = Path(params.include_path or "")
    write_groups(folder, weight_by_size=True)
    asked = params.model_copy(
        update={"tasks": ("exam", "likely"), "primary": "exam/acc", "cluster": {"likely": "question"}}
    )
    evaluation = evaluate_merge(asked, store, artifacts)
    assert evaluation.primary == "exam/acc"
    assert {score.metric for score in evaluation.scores} >= {"exam/acc", "likely/nll"}
    whole = TaskResult.read(artifacts / "evaluation" / "items" / "merge" / "likely.json")
    assert len(set(whole.clusters)) == 4
    apart = evaluate_merge(asked.model_copy(update={"vault_share": 0.4}), store, artifacts)
    part = TaskResult.read(artifacts / "evaluation" / "items" / "merge" / "likely.json")
    assert set(part.clusters) < set(whole.clusters)
    assert apart.verdict.look == 1  # other items than the whole test set, which had a look of its own
    looks = looks_of(connect(store), store.name)
    assert len({look.asked.items for look in looks}) == len(looks) == 2
    assert {look.decision for look in looks} == {evaluation.verdict.decision, apart.verdict.decision}


def test_a_last_checkpoint_that_is_the_best_is_one_opponent(
    tmp_path: Path, params: EvaluateParams, store: RegisterParams
) -> None:
    for step in (1, 2):
        directory = write_model(tmp_path / "training" / f"checkpoint-{step}", seed=step)
        log = f'[{{"step": {step}, "eval_loss": {3 - step}}}]'
        (directory / "trainer_state.json").write_text(f'{{"global_step": {step}, "log_history": {log}}}')
    root = tmp_path / "artifacts"
    fetch_run(FetchParams(source=str(tmp_path / "training"), settle=0), root)
    select_checkpoints(SelectParams(), root)
    merge_checkpoints(MergeParams(method="average"), root)
    evaluation = evaluate_merge(params, store, root)
    assert [model.label for model in evaluation.models] == ["last and best (checkpoint-2)", "average merge"]
