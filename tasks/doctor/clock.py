"""Checking the times of files against this machine's clock: a network file system has a clock of its own."""

import tempfile
import time
from pathlib import Path

from tasks.base.directories import state_dir
from tasks.doctor.finding import Finding

FILE_SKEW_S = 2.0
"""Smaller differences do not matter, and some file systems keep whole seconds."""


def check_file_times() -> list[Finding]:
    """Compare the time of a new file in the state directory, which is removed again, with the clock."""
    if not state_dir().is_dir():
        return [Finding("Clock", "file times", f"not compared: {state_dir()} will be made by the first run")]
    try:
        with tempfile.NamedTemporaryFile(dir=state_dir(), prefix=".doctor-") as file:
            file.write(b".")
            file.flush()
            ahead = Path(file.name).stat().st_mtime - time.time()
    except OSError:
        return []  # not writable, which the check of the disk reports
    if abs(ahead) <= FILE_SKEW_S:
        return [Finding("Clock", "file times", f"as this machine's, {time.strftime('%H:%M %Z')}")]
    text = f"a new file in {state_dir()} is {abs(ahead):.0f} s in the {'future' if ahead > 0 else 'past'}"
    remedy = "synchronise this machine and its file server with NTP: runs end when files stop changing"
    return [Finding("Clock", "file times", text, "warning", remedy)]
