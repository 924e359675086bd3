"""Converting a pickled state in a process of its own, which has the files and a place to write to."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from tasks.base.errors import BadInput, LorelineError
from tasks.base.fingerprint import ROOT
from tasks.checkpoints.pickled.kinds import PickledState

CHILD = "tasks.checkpoints.pickled.child"
START = (
    f"import sys; sys.path[:] = sys.argv[1:]; import runpy; runpy.run_module({CHILD!r}, run_name='__main__')"
)
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
"""All of the environment that a conversion gets: no token is among them."""
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "MALLOC_ARENA_MAX": "2",
}
LEAST_S, BYTES_A_SECOND = 600.0, 5e6
"""How long a conversion may take: a slow network drive's time, and what starting may need."""


def convert(
    state: PickledState, target: Path, label: str, tied: bool, said: Callable[[int, int], None]
) -> None:
    """Write the weights of a pickled state as safetensors into the directory `target`.

    `label` names the checkpoint in errors; `tied`: its head is its embedding. `said` is called with bytes
    written and bytes in all. The files are only read, and nothing in them runs. Raises BadInput for what is
    damaged, no plain weights, or not known how to put together.
    """
    task = {
        "kind": state.kind,
        "files": [str(path.absolute()) for path in state.files],
        "target": str(target.absolute()),
        "label": label,
        "tied": tied,
    }
    limit = LEAST_S + sum(path.stat().st_size for path in state.files) / BYTES_A_SECOND
    paths = [str(ROOT), *(path for path in sys.path if path and Path(path).is_absolute())]
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ} | OFFLINE
    with (
        tempfile.TemporaryFile() as stderr,
        subprocess.Popen(
            [sys.executable, "-I", "-c", START, *paths],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
            text=True, cwd=target, env=environment,
        ) as process,
    ):  # fmt: skip
        timer = threading.Timer(limit, process.kill)
        timer.start()
        try:
            error = _follow(process, task, said)
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
        last = _last_line(stderr)
    if error is not None:
        raise error
    if process.returncode:
        raise BadInput(
            label,
            f"its conversion ended with status {process.returncode} ({last or 'no memory, or no time'})",
            "free memory, or convert it by hand where you trust it",
        )


def _follow(
    process: "subprocess.Popen[str]", task: dict[str, Any], said: Callable[[int, int], None]
) -> LorelineError | None:
    """Hand over the task, pass progress on, and return the error that the process reports."""
    assert process.stdin
    assert process.stdout
    error: LorelineError | None = None
    try:
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
    except BrokenPipeError:  # it ended at once: its status says so
        return None
    for line in process.stdout:
        fields = json.loads(line)
        if "error" in fields:
            error = (BadInput if fields["mendable"] else LorelineError)(*fields["error"])
        else:
            said(fields["done"], fields["total"])
    process.wait()
    return error


def _last_line(stderr: IO[bytes]) -> str:
    stderr.seek(0)
    lines = stderr.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
