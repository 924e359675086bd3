"""All stages in a row, killed at any moment and run again, end with the same bytes and one version (P3)."""

import hashlib
import os
import random
import shutil
import time
from pathlib import Path

import pytest

from tasks.base.publish import is_intact
from tasks.evaluate_merge import evaluate_merge
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
from tasks.select_checkpoints import select_checkpoints
from tests.support.killing import kill, spawn
from tests.support.registered import assert_registered_once
from tests.support.tiny_world import write_model, write_world

STAGES = ("run", "selection", "merged", "evaluation", "registration")
SEED = int(os.environ.get("SEED", "0"))


def run_stages(root: Path, store: RegisterParams) -> None:
    """Do what the flow does, after fetching a training run of three real models."""
    artifacts = root / "artifacts"
    asked = EvaluateParams(
        tasks=("likely",), primary="likely/nll", batch_size=4, device="cpu", include_path=str(root / "world" / "tasks")
    )  # fmt: skip
    fetch_run(FetchParams(source=str(root / "training"), settle=0), artifacts)
    select_checkpoints(SelectParams(), artifacts)
    merge_checkpoints(MergeParams(method="lore"), artifacts)
    evaluate_merge(asked, store, artifacts)
    register_model(store, artifacts)


def finish(root: Path, store: RegisterParams) -> None:
    """Run the stages to their end, and look at what the registry holds."""
    run_stages(root, store)
    assert_registered_once(store, root / "artifacts")
    assert len(looks_of(connect(store), store.name)) == 1


def digests(artifacts: Path) -> dict[str, str]:
    """Digest what was published; a version's ids differ from one registry to the next."""
    return {
        path.relative_to(artifacts).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(artifacts.rglob("*"))
        if path.is_file() and path.relative_to(artifacts).parts[0] in STAGES[:-1]
    }


def in_a_child(root: Path, store: RegisterParams) -> None:
    child = spawn(finish, root, store)
    child.join()
    assert child.exitcode == 0


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_sixty_kills_of_a_flow(
    tmp_path: Path, own_state: Path, store: RegisterParams, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets.config
    import lm_eval.evaluator  # noqa: F401 (children are forked, and find it imported)
    import mlflow  # noqa: F401
    import torch

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    torch.set_num_threads(1)  # threads do not survive a fork
    write_world(tmp_path / "world")
    for step in (1, 2, 3):
        directory = write_model(tmp_path / "training" / f"checkpoint-{step}", seed=step)
        state = (
            f'{{"global_step": {step}, "log_history": [{{"step": {step}, "eval_loss": {abs(step - 2)}}}]}}'
        )
        (directory / "trainer_state.json").write_text(state)
    home, artifacts, moment = own_state / "loreline", tmp_path / "artifacts", random.Random(SEED)

    def begin_anew() -> None:
        for place in (artifacts, home, own_state / "cache"):
            shutil.rmtree(place, ignore_errors=True)
        home.mkdir()
        shutil.copyfile(empty_store, home / "mlflow.db")

    begun = time.monotonic()
    in_a_child(tmp_path, store)
    lasts, undisturbed = time.monotonic() - begun, digests(artifacts)
    begin_anew()
    kills = finished = 0
    while kills < 60:
        child = spawn(run_stages, tmp_path, store)
        child.join(moment.uniform(0, lasts))
        if child.exitcode is None:
            kill(child)
            kills += 1
            print(f"{kills} kills", flush=True)
            for stage in STAGES[:-1]:
                assert not (artifacts / stage).exists() or is_intact(artifacts / stage), (kills, stage)
        else:
            assert child.exitcode == 0
            finished += 1
            in_a_child(tmp_path, store)
            assert digests(artifacts) == undisturbed
            begin_anew()
    in_a_child(tmp_path, store)
    assert digests(artifacts) == undisturbed
    assert not list(artifacts.glob(".*.*/"))
    print(
        f"flows: {kills} kills, seed {SEED}: ended {finished + 1} times, each with the same digests, 1 version"
    )
