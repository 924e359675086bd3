"""What a run on the Hub or among MLflow's artifacts looks like now, without downloading its checkpoints."""

import time

from tasks.base.records import digest_of
from tasks.parameters.registration import RegisterParams
from tasks.registry.files import local_directory
from tasks.registry.store import connect, mlflow_errors
from tasks.sources.directory_look import newest_change, read_state
from tasks.sources.hub_look import look_at_hub
from tasks.sources.mlflow_address import address_of
from tasks.sources.mlflow_download import checkpoints_at, folder_of, run_at
from tasks.sources.run_status import Look, Standing, says_ended, standing, step_of_steps

ENDS = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "was killed"}


def look_at_repository(source: str, quiet_for: float) -> Look:
    """Return what a Hub repository looks like now: the commits to take, and the age of the newest one.

    Offline, and where no date is told, what there is counts as ended. Raises BadInput when there is no such
    thing to read, Unavailable when the Hub does not answer.
    """
    look = look_at_hub(source)
    digest, commit = digest_of(look.heads), f"commit {look.heads[-1][1][:10]}"
    if look.modified is None:
        return Look(digest, True, f"{commit}, whose date is not known")
    state = (read_state(look.state.parent) if look.state else None) or {}
    place = step_of_steps(state) if state else commit
    return Look(digest, *standing(says_ended(state), place, time.time() - look.modified, quiet_for))


def look_at_mlflow(source: str, quiet_for: float, registry: RegisterParams) -> Look:
    """Return what MLflow lists of a run now: names and sizes of its checkpoints' files, and its status.

    Raises BadInput when there is no such thing to read, Unavailable when MLflow does not answer.
    """
    address, client = address_of(source), connect(registry)
    with mlflow_errors(client.tracking_uri):
        run = run_at(client, address)
        listed = checkpoints_at(client, run, address)
    place = local_directory(folder_of(run, address))
    if run.info.status in ENDS:
        ended = Standing(True, f"the MLflow run {ENDS[run.info.status]}")
    elif place is not None:
        age = time.time() - newest_change(place)
        ended = standing(False, f"the MLflow run is {run.info.status}", age, quiet_for)
    else:
        ended = Standing(False, f"still training: the MLflow run is {run.info.status}")
    return Look(digest_of([run.info.end_time, listed]), *ended)
