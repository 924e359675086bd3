"""The conversion's own process: what it is given, how it ends, and that it ends with its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tasks.base.errors import BadInput
from tasks.checkpoints.pickled import process
from tasks.checkpoints.pickled.kinds import PickledState, find_pickled
from tasks.checkpoints.pickled.process import convert
from tests.support.imports import ROOT
from tests.support.pickled_states import Canary, write_bin
from tests.support.tiny import random_tensors


def state_of(directory: Path) -> PickledState:
    state = find_pickled(directory)
    assert state is not None
    return state


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def test_a_model_is_converted_and_what_was_done_is_said(tmp_path: Path, target: Path) -> None:
    write_bin(tmp_path, random_tensors(1))
    said: list[tuple[int, int]] = []
    convert(state_of(tmp_path), target, "ckpt", False, lambda done, total: said.append((done, total)))
    found = load_file(target / "model.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in random_tensors(1).items())
    assert said[-1][0] == said[-1][1] > 0
    assert [path.name for path in target.iterdir()] == ["model.safetensors"]


def test_a_canary_is_refused_by_name_and_an_outsized_view_by_size(tmp_path: Path, target: Path) -> None:
    torch.save({"w": torch.ones(1), "c": Canary(tmp_path / "sang")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"pytorch_model\.bin: names posix\.mkdir"):
        convert(state_of(tmp_path), target, "ckpt", False, print)
    torch.save({"w": torch.ones(1).expand(10**12)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BadInput, match="ckpt: 4000000000000 bytes of tensors are described in files of"):
        convert(state_of(tmp_path), target, "ckpt", False, print)
    assert not (tmp_path / "sang").exists()
    assert not list(target.iterdir())


def test_the_environment_holds_no_secret(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("PYTHONSTARTUP", "/nowhere")
    monkeypatch.setattr(process, "START", "import os, sys; sys.exit(' '.join(sorted(os.environ)))")
    write_bin(tmp_path, random_tensors(1))
    with pytest.raises(BadInput, match="ended with status 1") as refused:
        convert(state_of(tmp_path), target, "ckpt", False, print)
    assert "HF_HUB_OFFLINE" in str(refused.value)
    assert not {"HF_TOKEN", "PYTHONSTARTUP", "HOME"} & set(str(refused.value).split())


def test_one_that_takes_too_long_is_ended(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "START", "import time; time.sleep(600)")
    monkeypatch.setattr(process, "LEAST_S", 0.2)
    write_bin(tmp_path, random_tensors(1))
    with pytest.raises(BadInput, match="ckpt: its conversion ended with status -9"):
        convert(state_of(tmp_path), target, "ckpt", False, print)


@pytest.mark.slow
def test_it_ends_with_a_parent_that_is_killed(tmp_path: Path, target: Path) -> None:
    write_bin(tmp_path, {"w": torch.ones(30_000_000)})
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from tasks.checkpoints.pickled.process import convert\n"
        "from tasks.checkpoints.pickled.kinds import find_pickled\n"
        "convert(find_pickled(Path(sys.argv[2])), Path(sys.argv[3]), 'ckpt', False, print)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(ROOT), str(tmp_path), str(target)])
    deadline = time.monotonic() + 60
    while not (children := psutil.Process(parent.pid).children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert children
    assert not alive
