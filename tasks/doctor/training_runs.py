"""Checking that training runs keep enough checkpoints; save_total_limit is inferred, as it is in a pickle."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import gcd
from pathlib import Path
from typing import Any

from tasks.base.errors import BadInput
from tasks.checkpoints.run_directory import numbered_checkpoints
from tasks.doctor.finding import Finding
from tasks.parameters.params import Params
from tasks.parameters.selection import SelectParams
from tasks.sources.addresses import normal_address, source_of, sources_in
from tasks.trajectory.trainer_state import read_state

RUNS_SHOWN = 8


def check_training_runs(params: Params, root: Path) -> list[Finding]:
    """Check every local training run that the parameters name."""
    found, enough = [], 0
    runs = params.fetch.runs
    soup = {normal_address(own, root) for own in runs} if len(runs) > 1 else set()
    for source, directory in local_runs(params, root).items():
        there = numbered_checkpoints(directory)
        state = read_state(there[-1][1]) or {}
        alone = source not in soup
        if judged := judge_run(source, [step for step, _ in there], state, params.select, alone):
            found.append(judged)
        else:
            enough += 1
    if len(found) > RUNS_SHOWN:
        more = f"{len(found) - RUNS_SHOWN} more training runs are short of checkpoints"
        found = [*found[:RUNS_SHOWN], Finding("Training runs", "others", more, "warning", found[0].remedy)]
    text = f"{enough} with enough checkpoints to merge" if enough or found else "none here yet"
    return [Finding("Training runs", "local", text), *found]


def local_runs(params: Params, root: Path) -> dict[str, Path]:
    """Return address → directory of the runs on this machine that watch.roots and fetch.source name."""
    try:
        found = set(sources_in(filter(_directory_of, params.watch.roots), root, params.register_))
    except BadInput:  # reported with the parameters
        found = set()
    for source in params.fetch.runs:
        place = _directory_of(source)
        if place and (root / place).is_dir() and numbered_checkpoints(root / place):
            found.add(normal_address(source, root))
    return {address: root / place for address in sorted(found) if (place := _directory_of(address))}


def judge_run(
    source: str, steps: Sequence[int], state: Mapping[str, Any], select: SelectParams, alone: bool = True
) -> Finding | None:
    """Return a finding where a run kept too few checkpoints; None where there are, or may be, enough.

    `steps`: those of the checkpoints that are left, in order; `state`: the newest one's trainer_state.json;
    `alone`: whether it is merged without other runs, and so needs two.
    """
    wanted = len(select.steps) if select.rule == "steps" else select.k
    saved = saved_steps(steps, state)
    least = 2 if alone else 1
    if len(steps) >= max(wanted, least) or steps[-1] != state.get("max_steps"):
        return None
    if len(saved) > len(steps):
        are = "checkpoint is" if len(steps) == 1 else "checkpoints are"
        text = f"{len(steps)} {are} left of about {len(saved)} that were saved; {select.rule} merges {wanted}"
        enough = max(wanted, least)
        remedy = (
            f"in TrainingArguments set save_total_limit={enough} or more, or leave it out, or keep them with "
            f"MergeAfterTraining(keep={enough})"
        )
        return Finding("Training runs", source, text, "problem" if len(steps) < least else "warning", remedy)
    if len(steps) < least:
        text = "1 checkpoint is left, and a merge needs two"
        remedy = "in TrainingArguments set a smaller save_steps, and no save_total_limit below 2"
        return Finding("Training runs", source, text, "problem", remedy)
    return None


def saved_steps(steps: Sequence[int], state: Mapping[str, Any]) -> list[int]:
    """Estimate the steps at which a run has saved, up to its newest checkpoint.

    Without regular saves (as with save_strategy="best") only the steps that are left are certain.
    """
    every = _interval(steps, state)
    return sorted({*range(every, steps[-1] + 1, every), *steps}) if every else list(steps)


def _interval(steps: Sequence[int], state: Mapping[str, Any]) -> int:
    """Return the steps between saves; 0 when the checkpoints do not tell.

    save_steps is in the state whatever the save_strategy, so it counts only where the checkpoints agree; the
    last step of a run is saved anyway. Rotation leaves the newest, so those are one interval apart.
    """
    regular = steps[:-1] if len(steps) > 1 and steps[-1] == state.get("max_steps") else steps
    every = state.get("save_steps")
    if isinstance(every, int) and every > 0 and all(step % every == 0 for step in regular):
        return every
    between = gcd(*(later - earlier for earlier, later in pairwise(steps)))
    consecutive = len(steps) > 1 and steps[-1] - steps[-2] == between
    return between if consecutive and all(step % between == 0 for step in steps) else 0


def _directory_of(address: str) -> Path | None:
    return source_of(address).directory_of(address)
