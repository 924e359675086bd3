"""The stages as Prefect tasks: named by what they do, tried again only where a network may come back."""

import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from tasks.base.errors import LorelineError, Unavailable
from tasks.evaluate_merge import evaluate_merge
from tasks.evaluation.task_files import check_tasks
from tasks.fetch_run import fetch_run
from tasks.merge_checkpoints import merge_checkpoints
from tasks.promote_version import promote_if_auto
from tasks.register_model import register_model
from tasks.select_checkpoints import select_checkpoints
from tasks.sources.addresses import observe
from tasks.version_artifacts import version_artifacts

ParamsT = ParamSpec("ParamsT")
ResultT = TypeVar("ResultT")
RETRY_DELAYS_S: list[float] = [5, 20, 60]


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


look = stage(observe, "look at {address}", network=True)
check = stage(check_tasks, "check the evaluation tasks")
fetch = stage(fetch_run, "fetch {params.source}", network=True)
select = stage(select_checkpoints, "select {params.rule}")
merge = stage(merge_checkpoints, "merge by {params.method}")
evaluate = stage(evaluate_merge, "evaluate on {params.primary}", network=True)
register = stage(register_model, "register as {params.name}", network=True)
version = stage(version_artifacts, "version with DVC", network=True)
promote = stage(promote_if_auto, "promote if {params.register_.promote}", network=True)


class _OneSentence(logging.Filter):
    """Keep the traceback of an error that is already one sentence out of the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, some shortened."""
        if record.exc_info and isinstance(record.exc_info[1], LorelineError):
            record.exc_info = None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_OneSentence())
