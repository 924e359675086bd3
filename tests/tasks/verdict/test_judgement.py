"""Judged again: against the champion of now, like with like, and no better than the record where that is all."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.base.directories import state_dir
from tasks.base.errors import BadInput
from tasks.base.model_files import ModelFiles
from tasks.evaluation.backends import hf
from tasks.parameters.params import Params
from tasks.parameters.registration import RegisterParams
from tasks.registry.evidence import EVALUATION, EVALUATION_FILE
from tasks.registry.store import connect
from tasks.registry.versions import CHAMPION, point, version_of
from tasks.verdict.judgement import judge_again
from tests.support.promotions import LAST, promotable, register, remember

Add = Callable[[int], int]


@pytest.fixture
def params(store: RegisterParams, tmp_path: Path) -> Params:
    return promotable(tmp_path, store)


@pytest.fixture
def add(params: Params, tmp_path: Path) -> Add:
    """Register a merge that gets so many of 100 items right; its last checkpoint gets 40."""
    return lambda right: register(params, tmp_path / f"merge-{right}", right)


def crown(params: Params, version: int) -> None:
    point(connect(params.register_), "demo", CHAMPION, version)


def on_another_machine(params: Params, *known: tuple[str, int]) -> None:
    """Forget all results but these: digest and items right."""
    shutil.rmtree(state_dir() / "evaluations")
    for digest, right in known:
        remember(params, digest, right)


def digest_of_version(params: Params, version: int) -> str:
    return version_of(connect(params.register_), "demo", version).digest


def test_without_a_champion_the_checkpoints_decide(params: Params, add: Add) -> None:
    add(60)
    judged = judge_again(params)
    assert (judged.decision, judged.champion, judged.reigns) == ("PROMOTE", None, False)
    assert judged.sentence.startswith("PROMOTE: likely/acc improves by 0.2")
    assert [model.role for model in judged.evaluation.models] == ["last", "merge"]


def test_the_champion_of_now_is_weighed_beside_the_checkpoints(params: Params, add: Add) -> None:
    add(60), add(80)
    crown(params, 1)
    judged = judge_again(params)
    assert [model.label for model in judged.evaluation.models] == [
        "champion v1",
        "last (checkpoint-9)",
        "lore merge",
    ]
    assert judged.evaluation.verdict.against == "champion"
    crown(params, 2)
    assert judge_again(params, 1).decision == "KEEP"
    assert judge_again(params, 2).sentence == "models:/demo/2 is champion already"


def test_the_last_checkpoint_still_counts_when_the_champion_is_weak(params: Params, add: Add) -> None:
    """Better than the champion of now is not enough."""
    add(20), add(30)
    crown(params, 1)
    judged = judge_again(params)
    assert (judged.decision, judged.evaluation.verdict.against) == ("KEEP", "last")


def test_checkpoints_measured_elsewhere_keep_their_recorded_verdict(params: Params, add: Add) -> None:
    add(20), add(30), add(60)
    crown(params, 1)
    results = [(digest_of_version(params, n), right) for n, right in ((1, 20), (2, 30), (3, 60))]
    on_another_machine(params, *results)
    beaten = judge_again(params, 2)  # It beats the champion, but lost against its last checkpoint.
    verdict = beaten.evaluation.verdict
    assert (verdict.decision, verdict.against, verdict.reason.rule) == ("KEEP", "champion", "better")
    assert (verdict.not_measured, verdict.recorded) == (("last (checkpoint-9)",), "KEEP")
    assert beaten.sentence.startswith("KEEP: likely/acc improves by 0.1")
    assert beaten.sentence.endswith(
        "Not measured on this machine: last (checkpoint-9), of which the recorded verdict is KEEP."
    )
    assert judge_again(params, 3).decision == "PROMOTE"
    crown(params, 3)
    assert judge_again(params, 2).decision == "KEEP"


def test_with_nothing_to_weigh_against_the_recorded_verdict_stands(params: Params, add: Add) -> None:
    """And nothing is measured for it."""
    add(60)
    on_another_machine(params)
    judged = judge_again(params)
    assert (judged.decision, judged.items) == ("PROMOTE", None)
    assert judged.sentence.endswith(
        "This is the recorded verdict: there is nothing to weigh it against here."
    )


@pytest.mark.parametrize("measured_here", [True, False])
def test_a_version_that_the_first_release_registered_is_judged(
    params: Params, add: Add, tmp_path: Path, measured_here: bool
) -> None:
    """Its recorded verdict has a sentence, and no fields for what the sentence says."""
    add(60)
    client = connect(params.register_)
    version = version_of(client, "demo", 1)
    record = json.loads((tmp_path / "merge-60" / "evaluation" / "evaluation.json").read_text())
    for added in ("reason", "beside_average", "not_measured", "recorded"):
        del record["verdict"][added]
    client.log_text(version.run_id, json.dumps(record), f"{EVALUATION}/{EVALUATION_FILE}")
    if not measured_here:
        on_another_machine(params)
    judged = judge_again(params)
    assert (judged.decision, judged.evaluation.verdict.reason is None) == ("PROMOTE", not measured_here)
    assert judged.sentence.startswith(record["verdict"]["sentence"])
    assert json.loads(judged.evidence)["sentence"] == judged.sentence


def test_what_was_never_measured_here_is_measured_from_the_registered_files(
    params: Params, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(60), add(80)
    crown(params, 1)
    on_another_machine(params, (LAST.digest, 40))
    asked: list[Path] = []

    def look(model: ModelFiles) -> Any:
        asked.append(model.directory)
        raise BadInput("seen", "by the test", "go on")

    monkeypatch.setattr(hf, "_configuration", look)  # what is read first
    with pytest.raises(BadInput, match="seen"):
        judge_again(params)
    remember(params, digest_of_version(params, 1), 60)
    with pytest.raises(BadInput, match="seen"):
        judge_again(params)
    weights = [(directory / "model.safetensors").read_text() for directory in asked]
    assert weights == ["weights of merge-60", "weights of merge-80"]


def test_what_cannot_be_asked_is_refused_before_any_work(params: Params) -> None:
    evaluate = params.evaluate.model_copy(update={"primary": "likely/f1"})
    nowhere = params.register_.model_copy(update={"tracking_uri": "http://127.0.0.1:1"})
    with pytest.raises(BadInput, match="evaluate.primary: likely does not report f1"):
        judge_again(params.model_copy(update={"evaluate": evaluate, "register_": nowhere}))


def test_a_record_about_another_merge_is_no_evidence(params: Params, add: Add) -> None:
    add(60), add(80)
    client = connect(params.register_)
    other = digest_of_version(params, 2)
    client.set_model_version_tag("demo", "1", "loreline.merge", other)
    with pytest.raises(BadInput, match="demo version 1: its recorded evaluation judges another merge"):
        judge_again(params, 1)
