"""The main flow: after a training run, fetch → select → merge → evaluate → register → version."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from flows.progress import merged_bytes, say
from tasks.errors import LorelineError, Unavailable
from tasks.evaluate_merge import check_tasks, evaluate_merge
from tasks.fetch_run import fetch_run
from tasks.home import home
from tasks.merge_checkpoints import merge_checkpoints
from tasks.params import Params, read_params
from tasks.records import Evaluation, Registration, digest_of
from tasks.register_model import register_model
from tasks.reporting.table import markdown_tables
from tasks.select_checkpoints import select_checkpoints
from tasks.version_artifacts import version_artifacts

ParamsT = ParamSpec("ParamsT")
ResultT = TypeVar("ResultT")
RETRY_DELAYS_S: list[float] = [5, 20, 60]
PARAMS = Path("params.yaml")


class Outcome(NamedTuple):
    """What a run of the flow ends with."""

    artifacts: Path
    evaluation: Evaluation
    registration: Registration
    versioned: str


def stage(
    function: Callable[ParamsT, ResultT], run_name: str, network: bool = False
) -> Task[ParamsT, ResultT]:
    """Make a Prefect task of a stage function; only what needs the network is tried again."""
    as_task = task(
        name=run_name.partition(" ")[0],
        task_run_name=run_name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=len(RETRY_DELAYS_S) if network else 0,
        retry_delay_seconds=RETRY_DELAYS_S,
        retry_condition_fn=_unavailable if network else None,
    )
    return as_task(function)


def _unavailable(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Bad input stays bad; a server may come back."""
    try:
        state.result()
    except Unavailable:
        return True
    except Exception:
        return False
    return False


check = stage(check_tasks, "check the evaluation tasks")
fetch = stage(fetch_run, "fetch {params.source}", network=True)
select = stage(select_checkpoints, "select {params.rule}")
merge = stage(merge_checkpoints, "merge by {params.method}")
evaluate = stage(evaluate_merge, "evaluate on {params.primary}", network=True)
register = stage(register_model, "register as {params.name}", network=True)
version = stage(version_artifacts, "version with DVC", network=True)


@flow(name="after-training", persist_result=False)
def after_training(params: Params | None = None) -> Outcome:
    """Merge a finished training run, judge the merge, register and version it; unset: as params.yaml says."""
    params = params or read_params(PARAMS)
    artifacts = artifacts_for(params)
    check(params.evaluate)
    fetch(params.fetch, artifacts)
    select(params.select, artifacts)
    with merged_bytes() as on_tensor:
        report = merge(params.merge, artifacts, on_tensor)
    for note in report.notes:
        say(f"merge: {note}")
    evaluation = evaluate(params.evaluate, params.register_, artifacts, _say_model)
    registration = register(params.register_, artifacts)
    versioned = version(params, artifacts)
    _show(evaluation)
    return Outcome(artifacts, evaluation, registration, versioned)


def artifacts_for(params: Params) -> Path:
    """Return where a run's artifacts go: artifacts/ for what params.yaml says, else a place of its own."""
    if PARAMS.is_file() and read_params(PARAMS) == params:
        return Path("artifacts")
    return home() / "runs" / digest_of(params)[:16]


def _say_model(label: str) -> None:
    say(f"evaluate: {label}")


def _show(evaluation: Evaluation) -> None:
    create_markdown_artifact(
        markdown=f"**{evaluation.verdict.sentence}**\n\n{markdown_tables(evaluation)}\n",
        key="verdict",
        description="The merge beside the models it could replace",
    )


class _OneSentence(logging.Filter):
    """Keep the traceback of an error that is already one sentence out of the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, some shortened."""
        if record.exc_info and isinstance(record.exc_info[1], LorelineError):
            record.exc_info = None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_OneSentence())
