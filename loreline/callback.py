"""The callback that announces the end of a training run, and keeps what a merge of it needs."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from loreline import announce
from loreline.keeping import copy_beside, kept_directory, link_checkpoint, making, prune
from loreline.running_mean import RunningMean, why_no_mean

DEADLINE_S = 60
"""Seconds after which the announcing process has ended, whatever the server does."""

log = logging.getLogger(__name__)


class MergeAfterTraining(TrainerCallback):
    """Announce the end of training to Prefect, where `loreline serve` or a worker waits for it.

    The server is the one that PREFECT_API_URL names in the environment, with PREFECT_API_AUTH_STRING or
    PREFECT_API_KEY where it asks for one. Training never waits for it nor fails by it; what cannot be
    announced is found by the watcher.

    The newest `keep` checkpoints stay, as hard links in a hidden directory beside output_dir, when
    save_total_limit removes them. With `mean`, the mean of the weights over the steps since the save before
    lies beside each: of every step, or every so many (`every`), summed in float32 beside the model, or with
    mean="cpu" in the host's memory. Raises ValueError for numbers without sense; training raises nothing.
    """

    def __init__(self, keep: int = 0, mean: bool | Literal["cpu"] = False, every: int = 1) -> None:
        if keep < 0 or every < 1:
            raise ValueError("keep counts checkpoints, and every counts steps from 1 on")
        if mean and not keep:
            raise ValueError("means are kept beside checkpoints: give keep, too")
        self._keep, self._mean_wanted, self._every = keep, mean, every
        self._mean: RunningMean | None = None
        self._resumed_at = 0
        self._made: set[int] = set()
        """Steps that were kept since training began or was resumed."""

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> None:
        """Say what cannot be done: announce the run, or average its weights."""
        self._mean, self._resumed_at, self._made = None, state.global_step, set()
        if not state.is_world_process_zero:
            return
        with _logging_failure(f"{args.output_dir}: whether its end can be announced is unknown"):
            _warn_early(str(args.output_dir))
        if self._mean_wanted:
            with _logging_failure(f"{args.output_dir}: no mean of its weights is kept"):
                if why := why_no_mean(args, model):
                    log.warning("%s: no mean of its weights is kept: %s", args.output_dir, why)
                else:
                    self._mean = RunningMean(on_cpu=self._mean_wanted == "cpu")

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> None:
        """Add the weights to their mean."""
        if self._mean is None or state.global_step % self._every:
            return
        mean, self._mean = self._mean, None
        with _logging_failure(
            f"{args.output_dir}: no mean of its weights is kept from step {state.global_step}"
        ):
            mean.add(model, state.global_step)
            self._mean = mean

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> None:
        """Keep the checkpoint that was saved, and the mean up to it; remove older ones."""
        if not self._keep or not state.is_world_process_zero:
            return
        with _logging_failure(f"{args.output_dir}: checkpoint-{state.global_step} is not kept"):
            self._keep_step(Path(args.output_dir or ".").absolute(), state.global_step, model)
        if self._mean:
            self._mean.reset()

    def _keep_step(self, run: Path, step: int, model: Any) -> None:
        checkpoint, kept = run / f"checkpoint-{step}", kept_directory(run)
        link_checkpoint(checkpoint, kept)
        self._made.add(step)
        if self._mean and self._mean.count:
            failure = _logging_failure(f"{run}: the mean of the weights up to checkpoint-{step} is not kept")
            with failure, making(kept / f"mean-{step}") as scratch:
                self._mean.save(model, scratch)
                copy_beside(checkpoint, scratch)
        prune(kept, self._keep, self._resumed_at, self._made)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Announce the run, from the main process of all ranks only."""
        self._mean = None
        if not state.is_world_process_zero:
            return
        with _logging_failure(f"{args.output_dir}: not announced, the watcher will find the run"):
            run = Path(args.output_dir or ".").absolute()
            announce_detached(run, run_name(args.run_name, run))


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


def _warn_early(run: str) -> None:
    """Warn at the start where the end could not be announced; the server is asked in another thread."""

    def warn(why: str | None) -> None:
        if why:
            log.warning("%s: its end cannot be announced now, the watcher will find the run: %s", run, why)

    if os.environ.get(announce.URL, "").strip():
        threading.Thread(target=lambda: warn(announce.server_problem()), daemon=True).start()
    else:
        warn(announce.NO_SERVER)


@contextmanager
def _logging_failure(what: str) -> Iterator[None]:
    """Make any failure one line of the log: a training run is worth more than what is kept of it."""
    try:
        yield
    except Exception as error:
        log.warning("%s: %s", what, " ".join(str(error).split()) or type(error).__name__)
