"""Killed at any moment, a merge leaves the old output or the new one, and goes on where it stopped (P2, P3)."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tasks.base.publish import is_intact
from tasks.engine import output
from tasks.fetch_run import fetch_run
from tasks.merge_checkpoints import merge_checkpoints, merge_directories
from tasks.parameters.fetch import FetchParams
from tasks.parameters.merge import MergeParams
from tasks.parameters.selection import SelectParams
from tasks.select_checkpoints import select_checkpoints
from tests.support.tiny import write_checkpoint

ROOT = Path(__file__).parents[2]
OLD = MergeParams(method="average", max_shard_size="1KB")
NEW = MergeParams(method="average", max_shard_size="2KB")
TENSORS = 40
SEED = int(os.environ.get("SEED", "0"))

CHILD = """
import sys, time
from pathlib import Path
from tasks.merge_checkpoints import merge_directories
from tasks.parameters.merge import MergeParams
out, *inputs = map(Path, sys.argv[2:])
print("begun", flush=True)
merge_directories(
    MergeParams(method="average", max_shard_size="2KB"), inputs, out, lambda *news: time.sleep(float(sys.argv[1]))
)
"""


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    names = [f"layer.{i}.weight" for i in range(TENSORS)]
    return [
        write_checkpoint(tmp_path / "training", step, {name: torch.randn(8, 16) for name in names})
        for step in (1, 2, 3)
    ]


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def start(out: Path, inputs: list[Path], pause: float = 0.02) -> "subprocess.Popen[str]":
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(pause), out, *inputs], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "begun\n"
    return child


def end(child: "subprocess.Popen[str]") -> int:
    assert child.stdout is not None
    child.stdout.close()
    return child.wait()


def kill_in_a_loop(tmp_path: Path, inputs: list[Path], kills: int, seed: int) -> int:
    """Kill merges over an old output at random moments; return how many finished before they were killed."""
    merge_directories(NEW, inputs, tmp_path / "undisturbed" / "out")
    new, out, moment = digests(tmp_path / "undisturbed" / "out"), tmp_path / "out", random.Random(seed)
    merge_directories(OLD, inputs, out)
    old, finished = digests(out), 0
    for _ in range(kills):
        child = start(out, inputs)
        time.sleep(moment.uniform(0, 0.5))
        child.kill()
        assert end(child) in (-signal.SIGKILL, 0)
        assert is_intact(out)
        assert digests(out) in (old, new)
        if digests(out) == new:
            finished += 1
            merge_directories(OLD, inputs, out)
            assert digests(out) == old
    merge_directories(NEW, inputs, out)
    assert digests(out) == new
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "training", "undisturbed"]
    return finished


def test_a_few_kills(tmp_path: Path, inputs: list[Path]) -> None:
    kill_in_a_loop(tmp_path, inputs, kills=6, seed=0)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_two_hundred_kills(tmp_path: Path, inputs: list[Path]) -> None:
    finished = kill_in_a_loop(tmp_path, inputs, kills=200, seed=SEED)
    print(f"merges: 200 kills, seed {SEED}: {finished} had finished, 0 half results, the same digests")


@pytest.mark.slow
def test_fifty_kills(tmp_path: Path, inputs: list[Path]) -> None:
    assert kill_in_a_loop(tmp_path, inputs, kills=50, seed=1) < 50


def test_a_resumed_merge_computes_only_what_was_not_finished(
    tmp_path: Path, inputs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    child = start(tmp_path / "out", inputs, pause=0.1)
    while (
        len(journal := list(tmp_path.glob(".out.*/.journal"))) == 0 or journal[0].read_text().count("\n") < 5
    ):
        time.sleep(0.01)
    child.kill()
    end(child)
    finished = journal[0].read_text().count("\n")
    written, write = set[str](), output.write_numbers
    monkeypatch.setattr(
        output,
        "write_numbers",
        lambda shard, tensor, *rest: (written.add(tensor), write(shard, tensor, *rest)),
    )
    report = merge_directories(NEW, inputs, tmp_path / "out")
    assert 5 <= finished < TENSORS
    assert len(written) == TENSORS - finished
    monkeypatch.undo()
    assert merge_directories(NEW, inputs, tmp_path / "undisturbed") == report


AT_A_CALL = """
import os, signal, sys
from pathlib import Path
from tasks.merge_checkpoints import merge_directories
from tasks.parameters.merge import MergeParams
budget, (out, *inputs) = int(sys.argv[1]), map(Path, sys.argv[2:])
CALLS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.copyfile", "ctypes.dlopen")
def count(event, args):
    global budget
    if event in CALLS and ".out." in str(args):
        budget -= 1
    if event in CALLS and budget < 0:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
merge_directories(MergeParams(method="average", max_shard_size="2KB"), inputs, out)
"""


def test_killed_at_the_last_steps_before_it_is_visible(tmp_path: Path) -> None:
    """Between the last shard and the manifest, in the exchange, and while the old output is removed."""
    inputs = [write_checkpoint(tmp_path / "training", step, {"w": torch.randn(9, 9)}) for step in (1, 2)]
    merge_directories(NEW, inputs, tmp_path / "undisturbed")
    new, out = digests(tmp_path / "undisturbed"), tmp_path / "out"
    merge_directories(OLD, inputs, out)
    old, kills = digests(out), 0
    for budget in range(0, 200, 4):
        child = [sys.executable, "-c", AT_A_CALL, str(budget), out, *inputs]
        code = subprocess.run(child, cwd=ROOT, check=False).returncode
        assert digests(out) in (old, new)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
    assert kills > 5
    assert digests(out) == new
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_merge_ends_within_seconds_and_keeps_what_is_finished(
    tmp_path: Path, inputs: list[Path], number: signal.Signals
) -> None:
    code = (
        "import sys, time, flows.progress as progress; from contextlib import contextmanager\n"
        "@contextmanager\n"
        "def tensor_progress():\n"
        "    yield lambda *news: (print('tensor', flush=True), time.sleep(1))\n"
        "progress.tensor_progress = tensor_progress\n"
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
        "from flows.cli import main; main()\n"
    )
    merge_directories(OLD, inputs, tmp_path / "out")
    old = digests(tmp_path / "out")
    child = subprocess.Popen(
        [sys.executable, "-c", code, "merge", *inputs, "--out", tmp_path / "out", "--set", "merge.method=average"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "tensor\n"
    begun = time.perf_counter()
    child.send_signal(number)
    child.communicate()
    assert time.perf_counter() - begun < 10
    assert child.returncode not in (0, 1)
    assert digests(tmp_path / "out") == old
    assert [path.name for path in tmp_path.glob(".out.*/.journal")] == [".journal"]


def test_staged_links_survive_the_deletion_of_the_run(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    run = make_checkpoint(100).parent
    make_checkpoint(200)
    make_checkpoint(300)
    fetch_run(FetchParams(source=str(run), settle=0), tmp_path / "artifacts")
    select_checkpoints(SelectParams(), tmp_path / "artifacts")
    shutil.rmtree(run)
    merge_checkpoints(NEW, tmp_path / "artifacts")
    assert is_intact(tmp_path / "artifacts" / "merged")


def test_two_merges_into_one_place_at_once_end_with_one_whole_output(
    tmp_path: Path, inputs: list[Path]
) -> None:
    children = [start(tmp_path / "out", inputs, pause=0.01) for _ in range(2)]
    assert [end(child) for child in children] == [0, 0]
    assert is_intact(tmp_path / "out")
    assert not list(tmp_path.glob(".out*"))
