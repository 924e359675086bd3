"""A look at a directory: ended or not as the real Trainer leaves it, and a digest of what fetch would take."""

import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tasks.base.errors import BadInput
from tasks.fetch_run import fetch_run
from tasks.parameters.fetch import FetchParams
from tasks.sources.staging import stage_files
from tests.support.ended_runs import HOUR, back, finished, look, recorded_run
from tests.support.tiny import write_checkpoint


def times(directory: Path) -> dict[str, tuple[int, int]]:
    paths = [directory, *directory.rglob("*")]
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths}


# --- what is still under way ---------------------------------------------------------------------------


def test_a_finished_run_may_still_lose_its_oldest_checkpoint(tmp_path: Path) -> None:
    """The Trainer rotates after it has written the last state."""
    output = finished(tmp_path, 10, 20)
    assert look(output).ended
    (output / "checkpoint-10" / "tokenizer.json").unlink()
    seen = look(output)
    assert (seen.ended, seen.reason) == (
        False, "still training: step 20 of 20 but still changing, last change 0 s ago",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [
        ("checkpoint-10/trainer_state.json", "checkpoint-10 has no trainer_state.json: still being written"),
        ("checkpoint-20/trainer_state.json", "checkpoint-20 has no trainer_state.json: still being written"),
        ("checkpoint-20/model-2.safetensors", "checkpoint-20 misses a file: still being written"),
    ],
)
def test_a_half_written_or_half_removed_checkpoint_keeps_a_run_going(
    tmp_path: Path, lacking: str, reason: str
) -> None:
    output = finished(tmp_path, 10, 20)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (output / "checkpoint-20" / "model.safetensors").rename(output / "checkpoint-20" / "model-1.safetensors")
    (output / "checkpoint-20" / "model.safetensors.index.json").write_text(json.dumps(index))
    (output / "checkpoint-20" / "model-2.safetensors").touch()
    whole = look(back(output))
    (output / lacking).unlink()
    seen = look(back(output))
    assert whole.ended
    assert not seen.ended
    assert seen.reason.startswith(f"still training: {reason}")
    assert seen.digest != whole.digest
    assert look(output, quiet_for=30).ended


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"global_step": 10, "max_steps": 10}', '{"global_step": "20"}']
)
def test_a_state_that_cannot_be_read_says_nothing(tmp_path: Path, text: str) -> None:
    output = finished(tmp_path, 10, 20)
    (output / "checkpoint-20" / "trainer_state.json").write_text(text)
    seen = look(back(output))
    assert not seen.ended
    assert seen.reason.startswith("still training: checkpoint-20/trainer_state.json cannot be read yet")


@pytest.mark.parametrize("callbacks", [None, [], {"TrainerControl": []}, {"TrainerControl": {"args": 1}}])
def test_strange_states_are_read_as_far_as_they_go(tmp_path: Path, callbacks: Any) -> None:
    output = write_checkpoint(tmp_path, 10).parent
    state = {"global_step": 10, "max_steps": None, "stateful_callbacks": callbacks}
    (output / "checkpoint-10" / "trainer_state.json").write_text(json.dumps(state))
    assert look(back(output)).reason == "still training: step 10, last change 60 s ago"


def test_anything_that_changes_keeps_a_run_without_an_end_going(tmp_path: Path) -> None:
    output = back(write_checkpoint(tmp_path, 10).parent, 2 * HOUR)
    assert look(output).ended
    (output / "runs" / "events").mkdir(parents=True)
    (output / "runs" / "events" / "log").touch()
    assert not look(output).ended


def test_a_link_that_leads_nowhere_is_no_hindrance(tmp_path: Path) -> None:
    output = finished(tmp_path, 10)
    (output / "latest").symlink_to("gone")
    (output / "checkpoint-10" / "optimizer.pt").symlink_to("gone")
    assert look(back_links(output)).ended


def back_links(output: Path) -> Path:
    for link in (output / "latest", output / "checkpoint-10" / "optimizer.pt"):
        os.utime(link, (0, 0), follow_symlinks=False)
        os.utime(link.parent, (0, 0))
    return output


def test_files_that_come_and_go_meanwhile_are_survived(tmp_path: Path) -> None:
    """Two checkpoints are written and removed all the time while a run is looked at."""
    write_checkpoint(tmp_path, 10)
    done = threading.Event()

    def rotate() -> None:
        while not done.is_set():
            for step in (20, 30):
                write_checkpoint(tmp_path, step)
            for step in (20, 30):
                shutil.rmtree(tmp_path / f"checkpoint-{step}")

    thread = threading.Thread(target=rotate)
    thread.start()
    try:
        until = time.monotonic() + 1
        seen = []
        while time.monotonic() < until:
            seen.append(look(tmp_path))
    finally:
        done.set()
        thread.join()
    assert len({one.digest for one in seen}) > 1
    assert not any(one.ended for one in seen)


# --- what the digest is of -------------------------------------------------------------------------------


def test_the_digest_is_of_what_would_be_staged_and_of_nothing_else(tmp_path: Path) -> None:
    """Each file of a checkpoint counts exactly when stage_files takes it."""
    output = finished(tmp_path / "out", 10, 20)
    directory = output / "checkpoint-10"
    for name in (
        "optimizer.pt",
        "rng_state.pth",
        "training_args.bin",
        "README.md",
        "merges.txt",
        "x.safetensors",
    ):
        (directory / name).touch()
    stage_files(directory, tmp_path / "staged")
    staged = {path.name for path in (tmp_path / "staged").iterdir()}
    assert {"model.safetensors", "trainer_state.json", "merges.txt"} < staged
    before = look(output).digest
    for path in sorted(directory.iterdir()):
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - 1))
        assert (look(output).digest != before) == (path.name in staged), path.name
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert look(output).digest == before


def test_what_happens_after_training_changes_no_digest(train: Any, tmp_path: Path) -> None:
    """save_model() and save_state() into the output directory, logs, and the removal of optimizers."""
    trainer = train()
    output = back(tmp_path / "out")
    before = look(output)
    trainer.save_model()
    trainer.save_state()
    (output / "logs").mkdir()
    (output / "logs" / "events.json").write_text("{}")
    for optimizer in output.rglob("optimizer.pt"):
        optimizer.unlink()
    assert look(back_directories(output)) == before
    fetch_run(FetchParams(source=str(output), settle=0), tmp_path / "artifacts")
    assert look(output) == before


def back_directories(output: Path) -> Path:
    for path in output.glob("checkpoint-*"):
        os.utime(path, (time.time() - 60, time.time() - 60))
    return output


def test_the_digest_changes_with_a_checkpoint(tmp_path: Path) -> None:
    output = finished(tmp_path, 10, 20)
    digests = [look(output).digest]
    write_checkpoint(output, 30)
    digests.append(look(output).digest)
    shutil.rmtree(output / "checkpoint-10")
    digests.append(look(output).digest)
    assert len(set(digests)) == 3


def test_a_run_has_the_digest_that_it_always_had(tmp_path: Path) -> None:
    """Recorded at 75a5440: with another one, every run would be merged again."""
    recorded = "dc8180601be34d4b55f37b859a3b426b77548fc9d2dc9a5a0245ebc01591ea2d"
    assert look(recorded_run(tmp_path)).digest == recorded


def test_a_run_of_pickles_is_seen_and_left_to_fetch_to_refuse(tmp_path: Path) -> None:
    output = finished(tmp_path / "out", 10)
    (output / "checkpoint-10" / "model.safetensors").rename(output / "checkpoint-10" / "pytorch_model.bin")
    pickled = look(back(output))
    assert pickled.ended
    with pytest.raises(BadInput, match="pickled weights only"):
        fetch_run(FetchParams(source=str(output), settle=0), tmp_path / "artifacts")
    write_checkpoint(tmp_path / "converted", 10)
    shutil.copy(tmp_path / "converted" / "checkpoint-10" / "model.safetensors", output / "checkpoint-10")
    assert look(output).digest != pickled.digest  # so that it is tried again


def test_looking_leaves_no_trace(tmp_path: Path) -> None:
    output = finished(tmp_path / "out", 10, 20)
    before = times(output)
    look(output)
    assert times(output) == before


def test_a_source_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="missing: no such directory"):
        look(tmp_path / "missing")
    with pytest.raises(BadInput, match="holds no checkpoint-N directory"):
        look(tmp_path)
