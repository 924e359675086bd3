"""The deployments, served from one process: for a laptop, or the one machine that merges."""

import asyncio
from contextlib import suppress
from typing import Any

from prefect.client.orchestration import get_client
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.runner import Runner
from prefect.types.entrypoint import EntrypointType

from flows.local_server import prefect_server
from flows.merge import merge
from flows.notifications import make_notifications
from flows.places import own_place, project_of, tag_of
from flows.promote import promote
from flows.watch import watch
from loreline.announce import EVENT, PROJECT, RUN
from tasks.parameters.params import params_file, read_params

POLL_S = 1.0
"""Seconds between polls for flow runs to start; with Prefect's 10 every merge would start later."""
AT_ONCE = 8
"""Flow runs at a time: merges that wait for their device must not block duplicates and promotions."""


def serve_deployments(cron: str) -> None:
    """Serve schedule, event trigger and promotions until it is stopped, and look for ended runs at once."""
    project = project_of(read_params(params_file()))
    with prefect_server(), suppress(KeyboardInterrupt, asyncio.CancelledError):
        make_notifications(read_params(params_file()))
        asyncio.run(_serve(project, cron))


class _Runner(Runner):
    """Prefect's runner, but stopped by SIGTERM as by Ctrl-C: its own handler exits without cleaning up."""

    def __init__(self, serving: asyncio.Task[Any], **settings: Any) -> None:
        super().__init__("loreline", **settings)
        self._serving = serving

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
        """Cancel serving, which cleans up."""
        self._serving.get_loop().call_soon_threadsafe(self._serving.cancel)


async def _serve(project: str, cron: str) -> None:
    serving = asyncio.current_task()
    assert serving is not None
    runner = _Runner(serving, query_seconds=POLL_S, limit=AT_ONCE)
    watching, *_ = [await runner.aadd_deployment(each) for each in await deployments(project, cron)]
    async with get_client() as client:
        await client.create_flow_run_from_deployment(watching)  # what ended while nothing was served
    await runner.start()


async def deployments(project: str, cron: str) -> list[RunnerDeployment]:
    """Return the deployments that this machine serves: its own, and those that others serve as well.

    Runs start in the directory of the process that serves them.
    """
    ended = DeploymentEventTrigger(
        name=f"training ended: {project}",
        expect={EVENT},
        match={"prefect.resource.id": [f"{RUN}.*", f"{PROJECT}.{project}.*"]},
        parameters={name: _from_event(name) for name in ("run", "host", "project")},
    )
    by_module, own, tags = EntrypointType.MODULE_PATH, own_place(project), [tag_of(project)]
    return [
        await watch.ato_deployment(own, cron=cron, entrypoint_type=by_module, tags=tags),
        await merge.ato_deployment(own, entrypoint_type=by_module, tags=tags),
        await merge.ato_deployment(project, triggers=[ended], entrypoint_type=by_module, tags=tags),
        await promote.ato_deployment(project, entrypoint_type=by_module, tags=tags),
    ]


def _from_event(name: str) -> dict[str, str]:
    return {"__prefect_kind": "jinja", "template": f"{{{{ event.payload.{name} }}}}"}
