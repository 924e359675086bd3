"""A flow run that is stopped while LoRE computes ends within seconds, and Prefect knows of it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.support.tiny import write_checkpoint

ROOT = Path(__file__).parents[2]
FLOW = """
import signal, sys
from pathlib import Path
from prefect import flow
import flows.progress as progress
from flows import exit_codes
from flows.stages import stage
from tasks.merge_checkpoints import merge_directories
from tasks.parameters.merge import MergeParams
progress.PLAIN_EVERY_S = 0
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
signal.signal(signal.SIGTERM, exit_codes._stop)
out, *inputs = map(Path, sys.argv[1:])
lore = {"passes": 100_000, "mu": 0.01, "mu_scale": "absolute"}
@flow
def whole():
    with progress.tensor_progress() as on_progress:
        params = MergeParams.model_validate({"device": "cpu", "method": "lore", "lore": lore})
        stage(merge_directories, "merge by {params.method}")(params, inputs, out, on_progress)
whole()
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("size", [200, 2500], ids=["between passes", "in a decomposition"])
def test_a_stopped_flow_run_ends_within_seconds(number: signal.Signals, size: int, tmp_path: Path) -> None:
    inputs = []
    for step in (1, 2, 3):
        noise = torch.Generator().manual_seed(step)
        inputs.append(write_checkpoint(tmp_path, step, {"a": torch.randn(size, size, generator=noise)}))
    child = subprocess.Popen(
        [sys.executable, "-c", FLOW, tmp_path / "out", *inputs],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path / "prefect")},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stderr is not None
    assert any("solving a" in line for line in child.stderr)
    begun = time.monotonic()
    child.send_signal(number)
    said = child.stderr.read()  # to its end: the temporary server is gone too
    child.wait()
    # of a machine's time that others use, too, it gets its share
    assert time.monotonic() - begun < 5 * max(1, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert child.returncode != 0
    assert "Crashed('Execution was" in said
    assert list(tmp_path.glob(".out.*/.journal"))
