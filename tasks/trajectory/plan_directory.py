"""Planning a merge of the run in a directory."""

from pathlib import Path

from tasks.base.errors import BadInput
from tasks.base.records.selection import RunPlan
from tasks.checkpoints.run_directory import numbered_checkpoints
from tasks.parameters.selection import SelectParams
from tasks.trajectory.far import find_far
from tasks.trajectory.learning_rate import logged_rates
from tasks.trajectory.plan import plan_run
from tasks.trajectory.trainer_state import read_state


def plan_directory(directory: Path, params: SelectParams) -> RunPlan:
    """Plan a merge of the run in a Trainer's output directory.

    Raises BadInput where that holds no checkpoint.
    """
    try:
        there = numbered_checkpoints(directory)
    except OSError as error:
        raise BadInput(
            directory, f"cannot be read ({error.strerror})", "name a Trainer's output_dir"
        ) from None
    if not there:
        raise BadInput(directory, "holds no checkpoint-N directory", "name a Trainer's output_dir")
    rates = logged_rates(read_state(there[-1][1]) or {})
    return plan_run([step for step, _ in there], rates, params, find_far(there[-params.k :]))
