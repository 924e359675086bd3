"""The one line a user adds to a training script: `Trainer(..., callbacks=[MergeAfterTraining()])`."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tasks.base.directories import cache_dir

ANNOUNCE = Path(__file__).with_name("announce.py")
DEADLINE_S = 60
"""After this long the announcing process is gone, whatever the server does."""

log = logging.getLogger(__name__)


class MergeAfterTraining(TrainerCallback):
    """Announce the end of training to Prefect, where `loreline serve` or a worker waits for it.

    Training never waits for it nor fails by it; what cannot be announced is found by the watcher.
    """

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Announce the run, once per world."""
        if not state.is_world_process_zero:
            return
        try:
            run = Path(args.output_dir or ".").absolute()
            announce_detached(run, run_name(args.run_name, run))
        except Exception as error:  # a training run is worth more than any message about it
            log.warning("%s: not announced, the watcher will find the run: %s", args.output_dir, error)


def run_name(chosen: str | None, run: Path) -> str:
    """Return the name that the user gave the run, else its directory's; output_dir itself is no name."""
    return chosen if chosen and Path(chosen).absolute() != run else run.name


def announce_detached(run: Path, name: str, deadline: int = DEADLINE_S) -> None:
    """Start a process that announces the run, and forget it: not a child, not in this session, no open files.

    `deadline` is in seconds. Raises OSError or subprocess.SubprocessError when it cannot be started.
    """
    outcome = cache_dir() / "announce.log"
    command = [sys.executable, "-P", str(ANNOUNCE), str(run), name, str(deadline), str(outcome)]
    # The shell ends at once and leaves its child to init: nothing to reap, nothing for launchers to kill.
    subprocess.run(
        ["/bin/sh", "-c", '"$@" &', "sh", *command],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, check=True, timeout=5,
    )  # fmt: skip
    log.info("%s: announcing its end; what became of it: %s", run, outcome)
