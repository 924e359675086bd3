"""Stages as Prefect tasks, with names for Prefect's UI; those that use a network are retried."""

import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from tasks.base.errors import LorelineError, Unavailable

ParamsT = ParamSpec("ParamsT")
ResultT = TypeVar("ResultT")
RETRY_DELAYS_S: list[float] = [5, 20, 60]


def stage(
    function: Callable[ParamsT, ResultT], run_name: str, network: bool = False
) -> Task[ParamsT, ResultT]:
    """Make a Prefect task of a stage function; with `network` it is retried while a server is unavailable."""
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
    """Tell whether a task failed because a server did not answer; other errors are not retried."""
    try:
        state.result()
    except Unavailable:
        return True
    except Exception:
        return False
    return False


class _OneSentence(logging.Filter):
    """Removes tracebacks of Loreline's own errors from the log: they say everything in one sentence."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, without such a traceback."""
        if record.exc_info and isinstance(record.exc_info[1], LorelineError):
            record.exc_info = None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_OneSentence())
