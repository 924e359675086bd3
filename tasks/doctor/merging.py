"""Checking that the training runs here can be merged by params.yaml, and how long that takes."""

from pathlib import Path

from tasks.base.errors import BadInput
from tasks.base.model_files import address_directory
from tasks.checkpoints.layout import pickled_state
from tasks.checkpoints.models import open_models
from tasks.checkpoints.run_directory import numbered_checkpoints
from tasks.checkpoints.weights import open_weights
from tasks.doctor.finding import Finding
from tasks.doctor.training_runs import RUNS_SHOWN, local_runs
from tasks.engine.devices import choose_devices
from tasks.engine.plan import Plan
from tasks.engine.planning import plan_merges
from tasks.engine.sample import sampled
from tasks.parameters.params import Params
from tasks.parameters.selection import SelectParams
from tasks.sources.base_model import base_address
from tasks.sources.readiness import NotReady, check_ready
from tasks.trajectory.plan_directory import plan_directory


def check_merging(params: Params, root: Path) -> list[Finding]:
    """Plan a merge of each local training run's newest checkpoints; estimate the first one's time."""
    found, timed = [], False
    for source, directory in list(local_runs(params, root).items())[:RUNS_SHOWN]:
        if pickled := _pickled(params, source, directory):
            found.append(pickled)
            continue
        ready = [(step, path) for step, path in numbered_checkpoints(directory) if _is_ready(path, step)]
        if len(ready) < 2:
            continue  # what is missing, the look at its checkpoints says
        found += _planned(source, directory, params.select)
        newest = ready[-max(params.select.k, 2) :]
        try:
            plan = _plan(params, newest)
            if not timed:
                found.append(Finding("Training runs", "merge", _described(plan, source)))
                timed = True
        except BadInput as error:
            text = f"{source}: {error.subject}: {error.problem}"
            found.append(Finding("Training runs", "merge", text, "problem", error.remedy))
    return found


def _pickled(params: Params, source: str, directory: Path) -> Finding | None:
    """Say what fetch does with a run whose newest checkpoint is in pickles; None for any other."""
    try:
        state = pickled_state(numbered_checkpoints(directory)[-1][1])
    except BadInput:  # the plan of the merge says why
        return None
    if state is None:
        return None
    if params.fetch.convert:
        return Finding("Training runs", "merge", f"{source}: holds {state.what}, which fetch will convert")
    text = f"{source}: holds {state.what}, which fetch will refuse"
    return Finding("Training runs", "merge", text, "problem", "set fetch.convert to true to convert them")


def _planned(source: str, directory: Path, params: SelectParams) -> list[Finding]:
    """Warn of checkpoints that lie far from the others, and of a run whose learning rate has decayed.

    Of such a run the last checkpoint is expected to be as good as a merge.
    """
    plan = plan_directory(directory, params)
    away = f"see loreline inspect; select.far is {params.far}"
    found = [
        Finding("Training runs", "plan", f"{source}: step {own.step} {own.sentence}", "warning", away)
        for own in plan.far
    ]
    if plan.schedule != "decayed":
        return found
    text = f"{source}: the learning rate has decayed, a merge is not expected to beat the last checkpoint"
    remedy = f"see loreline plan {source}, or train on at a constant rate"
    return [*found, Finding("Training runs", "plan", text, "warning", remedy)]


def _is_ready(directory: Path, step: int) -> bool:
    try:
        check_ready(directory, step)
    except (NotReady, BadInput, OSError):
        return False
    return True


def _plan(params: Params, checkpoints: list[tuple[int, Path]]) -> Plan:
    directories = [path for _, path in checkpoints]
    own, place = base_address(params.fetch.base, directories), params.merge.base
    if own and params.merge.full and not place:
        place = str(address_directory(own))
    base = open_weights(Path(place), f"base {place}") if place else None
    inputs = open_models(directories, [path.name for path in directories], base, one_base=True)
    return plan_merges([params.merge], inputs, base, [step for step, _ in checkpoints])


def _described(plan: Plan, source: str) -> str:
    """Say what a merge of this run is and takes; of methods that stream, reading takes the time."""
    what = f"{plan.params.method} of {source}'s newest {len(plan.inputs)} checkpoints"
    expected = sampled(plan, choose_devices(plan.params.device, plan.method.whole))
    return f"{what} takes {expected}" if expected else f"{what} reads {plan.bytes_read / 1e9:.2g} GB a pass"
