"""Runs that have ended, and looking at them some time after they were written."""

import json
import os
from pathlib import Path

from tasks.parameters.registration import RegisterParams
from tasks.sources.addresses import observe
from tasks.sources.run_status import RunStatus
from tests.support.tiny import write_checkpoint

HOUR = 3600.0
RECORDED_NS = 1_700_000_000_000_000_000
RECORDED_FILES = {
    "model.safetensors": b"weights", "config.json": b"{}", "tokenizer.json": b"{}", "merges.txt": b"a b",
    "optimizer.pt": b"a pickle", "README.md": b"# a model",
}  # fmt: skip
"""What every checkpoint of a recorded run holds."""


def look(output: Path, quiet_for: float = HOUR) -> RunStatus:
    return observe(str(output), quiet_for, RegisterParams())


def back(output: Path, seconds: float = 60.0) -> Path:
    """Date everything in a directory back, as if so much time had passed."""
    for path in [*output.rglob("*"), output]:
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - int(seconds * 1e9)))
    return output


def recorded_run(output: Path) -> Path:
    """Write a run whose names, sizes and times are always the same: one whole checkpoint, one in shards."""
    for step in (20, 3):
        directory = output / f"checkpoint-{step}"
        directory.mkdir(parents=True)
        state = json.dumps({"global_step": step, "max_steps": 20}).encode()
        for name, data in {**RECORDED_FILES, "trainer_state.json": state}.items():
            (directory / name).write_bytes(data)
            os.utime(directory / name, ns=(0, RECORDED_NS + step))
    (directory.with_name("checkpoint-20") / "model.safetensors").rename(
        output / "checkpoint-20" / "model-1.safetensors"
    )
    index = output / "checkpoint-20" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    os.utime(index, ns=(0, RECORDED_NS))
    return output


def finished(output: Path, *steps: int) -> Path:
    """Write checkpoints of a run that reached its last step, a minute ago."""
    for step in steps:
        state = write_checkpoint(output, step) / "trainer_state.json"
        state.write_text(json.dumps({**json.loads(state.read_text()), "max_steps": max(steps)}))
    return back(output)
