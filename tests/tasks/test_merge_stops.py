"""Stopped in the middle of LoRE, a merge ends within seconds, keeps what is finished, and goes on from there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tasks.merge_checkpoints import merge_directories
from tasks.parameters.merge import MergeParams
from tests.support.tiny import write_checkpoint

ROOT = Path(__file__).parents[2]
PROGRAM = """
import signal; signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
import flows.progress as progress; progress.PLAIN_EVERY_S = 0
from flows.cli import main; main()
"""
LORE = {"passes": 1000, "mu": 0.01, "mu_scale": "absolute"}
SECONDS = 5.0


def write_inputs(root: Path, **shapes: tuple[int, int]) -> list[Path]:
    """Write three checkpoints of matrices of these shapes."""
    inputs = []
    for step in (1, 2, 3):
        noise = torch.Generator().manual_seed(step)
        matrices = {name: torch.randn(shape, generator=noise) for name, shape in shapes.items()}
        inputs.append(write_checkpoint(root, step, matrices))
    return inputs


def start(inputs: list[Path], out: Path, passes: int) -> "subprocess.Popen[str]":
    settings = {
        "device": "cpu",
        "method": "lore",
        **{f"lore.{key}": value for key, value in (LORE | {"passes": passes}).items()},
    }
    options = [part for key, value in settings.items() for part in ("--set", f"merge.{key}={value}")]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "merge", *inputs, "--out", out, *options],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=out.parent, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def stop(child: "subprocess.Popen[str]", number: signal.Signals, *when: str) -> str:
    """Send a signal once a line of progress says all this; return what was said after it."""
    assert child.stderr is not None
    assert any(all(part in line for part in when) for line in child.stderr)
    begun = time.monotonic()
    child.send_signal(number)
    rest = child.stderr.read()
    code = child.wait()
    assert time.monotonic() - begun < SECONDS, rest
    assert code == 128 + number
    return rest


on_both_signals = pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)


@on_both_signals
def test_stopped_between_passes_it_keeps_what_is_finished_and_goes_on(
    number: signal.Signals, tmp_path: Path
) -> None:
    inputs = write_inputs(tmp_path / "run", a=(9, 6), b=(8, 7), c=(160, 150))
    out = tmp_path / "out"
    said = stop(start(inputs, out, 1000), number, "2 of 3 tensors", "solving c (pass ")
    [kept] = tmp_path.glob(".out.*")
    assert f"stopped: {kept} is kept, and the same command goes on from there" in said
    assert not out.exists()
    journal = (kept / ".journal").read_text().splitlines()
    assert journal  # two are merged; the second may have been stopped just before it was recorded
    # Still the same command: it believes what is recorded, and is stopped in the third again.
    stop(start(inputs, out, 1000), number, "2 of 3 tensors", "solving c (pass ")
    assert (kept / ".journal").read_text().splitlines()[: len(journal)] == journal


@on_both_signals
def test_stopped_in_a_decomposition_that_goes_on_it_ends_all_the_same(
    number: signal.Signals, tmp_path: Path
) -> None:
    inputs = write_inputs(tmp_path / "run", a=(9, 6), b=(2500, 2500))
    said = stop(start(inputs, tmp_path / "out", 50), number, "1 of 2 tensors", "solving b")
    [kept] = tmp_path.glob(".out.*")
    assert "is kept" in said
    assert len((kept / ".journal").read_text().splitlines()) == 1


@pytest.mark.slow
def test_a_stopped_merge_ends_with_the_bytes_of_an_undisturbed_one(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path / "run", a=(9, 6), b=(8, 7), c=(70, 60))
    out, apart = tmp_path / "out", tmp_path / "undisturbed"
    stop(start(inputs, out, 1000), signal.SIGTERM, "2 of 3 tensors", "solving c (pass ")
    child = start(inputs, out, 1000)
    _, said = child.communicate()
    assert child.returncode == 0, said
    merge_directories(
        MergeParams.model_validate({"device": "cpu", "method": "lore", "lore": LORE}), inputs, apart
    )
    for path in apart.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes(), path.name
    assert not list(tmp_path.glob(".out.*"))
