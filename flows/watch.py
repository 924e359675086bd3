"""Looking for training runs that have ended, and starting a flow run for each."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

from prefect import flow, get_client, get_run_logger
from prefect.runtime import deployment, flow_run

from flows.after_training import PARAMS, after_training
from tasks.errors import LorelineError
from tasks.params import Params, read_params
from tasks.runs.identity import key_of
from tasks.runs.ledger import Ledger
from tasks.runs.roots import sources_in
from tasks.runs.sighting import Sighting, sight
from tasks.runs.source import normal


def _run_name() -> str:
    return str(flow_run.parameters.get("run") or "look")


@flow(name="watch", flow_run_name=_run_name, persist_result=False)
def watch(run: str | None = None) -> None:
    """Merge a training run that has ended; unset: look at watch.roots, and start this for each that has.

    Args:
        run: A Trainer's output directory, hf://org/name, or mlflow:/runs/RUN_ID/PATH.
    """
    params = read_params(PARAMS)
    if run:
        after_training(with_source(params, run))
    else:
        _look_around(params)


def with_source(params: Params, source: str) -> Params:
    """Return the parameters with another training run to fetch."""
    fetch = params.fetch.model_copy(update={"source": normal(source, Path.cwd())})
    return params.model_copy(update={"fetch": fetch})


def _look_around(params: Params) -> None:
    failed = []
    for sighting in _to_merge(params):
        try:
            _start(sighting, params)
        except LorelineError as error:  # one bad run must not keep the others waiting
            failed.append(f"{sighting.source}: {error}")
    if failed:
        raise LorelineError("; ".join(failed))


def _to_merge(params: Params) -> Iterator[Sighting]:
    """Yield the runs that have ended and are not merged, refused or being merged; log the others."""
    log, ledger = get_run_logger(), Ledger()
    for source in sources_in(params.watch.roots, Path.cwd(), params.register_):
        try:
            seen = sight(source, params.watch.quiet_for, params.register_)
        except LorelineError as error:
            log.warning("%s: left alone: %s", source, error)
            continue
        key = key_of(seen.digest, with_source(params, source))
        known = ledger.find(key)
        if not seen.ended:
            log.info("%s: left alone: %s", source, seen.reason)
        elif standing := ledger.standing(key):
            log.info("%s: %s", source, standing.sentence)
        elif known and known.state == "refused":
            log.warning("%s: was refused (%s); mend that and run it by hand", source, known.sentence)
        else:
            log.info("%s: has ended (%s)", source, seen.reason)
            yield seen


def _start(seen: Sighting, params: Params) -> None:
    """Start a flow run of this deployment; by hand, without one, do it here."""
    if deployment.id is None:
        after_training(with_source(params, seen.source))
        return
    key = key_of(seen.digest, with_source(params, seen.source))
    entry = Ledger().find(key)
    with get_client(sync_client=True) as client:
        for attempt in count(entry.token if entry else 0):
            started = client.create_flow_run_from_deployment(
                deployment.id,
                parameters={"run": seen.source},
                idempotency_key=f"{key}-{attempt}",  # of two looks that overlap, one starts it
            )
            if started.state is None or not started.state.is_final():
                return
