"""Looking at runs, some time after they were written."""

import json
import os
from pathlib import Path

from tasks.parameters.registration import RegisterParams

from tasks.sources.sighting import Sighting, sight
from tests.support.tiny import write_checkpoint

HOUR = 3600.0


def look(output: Path, quiet_for: float = HOUR) -> Sighting:
    return sight(str(output), quiet_for, RegisterParams())


def back(output: Path, seconds: float = 60.0) -> Path:
    """Date everything in a directory back, as if so much time had passed."""
    for path in [*output.rglob("*"), output]:
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - int(seconds * 1e9)))
    return output


def finished(output: Path, *steps: int) -> Path:
    """Write checkpoints of a run that reached its last step, a minute ago."""
    for step in steps:
        state = write_checkpoint(output, step) / "trainer_state.json"
        state.write_text(json.dumps({**json.loads(state.read_text()), "max_steps": max(steps)}))
    return back(output)
