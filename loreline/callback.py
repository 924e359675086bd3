"""The callback that announces the end of a training run."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from loreline import announce

DEADLINE_S = 60
"""Seconds after which the announcing process has ended, whatever the server does."""

log = logging.getLogger(__name__)


class MergeAfterTraining(TrainerCallback):
    """Announce the end of training to Prefect, where `loreline serve` or a worker waits for it.

    The server is the one that PREFECT_API_URL names in the environment, with PREFECT_API_AUTH_STRING or
    PREFECT_API_KEY where it asks for one. Training never waits for it nor fails by it; what cannot be
    announced is found by the watcher.
    """

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Announce the run, from the main process of all ranks only."""
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
    """Start a detached process that announces the run: no child, a session of its own, no open files.

    `deadline` is in seconds. Raises OSError or subprocess.SubprocessError when it cannot be started.
    """
    # -S: no site packages, and nothing that the training environment loads into every Python.
    command = [sys.executable, "-S", announce.__file__, str(run), name, str(deadline)]
    # The shell ends at once and leaves its child to init: nothing to reap, nothing for launchers to kill.
    subprocess.run(
        ["/bin/sh", "-c", '"$@" &', "sh", *command],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, check=True, timeout=5,
    )  # fmt: skip
    if os.environ.get(announce.URL):
        log.info("%s: announcing its end; what became of it: %s", run, announce.announce_log())
    else:
        log.warning("%s: not announced, the watcher will find the run: %s", run, announce.NO_SERVER)
