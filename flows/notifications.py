"""Notifications: Prefect's automations on a notification block that the user has, and the event they need."""

import os
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from flows.places import project_named, tag_of
from flows.progress import say
from tasks.base.errors import BadInput, one_line
from tasks.base.json_digest import digest_of
from tasks.doctor.probe import WAIT_S
from tasks.parameters.params import Params

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

MOVED, MODEL = "loreline.champion.moved", "loreline.model."
"""An event, and what the id of its resource begins with."""
RUN = "{{ event.resource['prefect.resource.name'] }}"
OUTCOME = f"{RUN}: {{{{ event.resource['prefect.state-message'] }}}}"
"""Templates of Prefect's."""


def make_notifications(params: Params) -> list[str]:
    """Make or bring up to date the project's automations that notify watch.notify, and return their names.

    One that is as Loreline would make it now is left alone, with what a user changed in it. Raises BadInput
    where Prefect has no such block.
    """
    from prefect.client.orchestration import get_client

    if params.watch.notify is None:
        return []
    with get_client(sync_client=True) as client:
        block = _block(client, params.watch.notify)
        wanted = automations(params.register_.name, block, params.watch.merge_expected_within)
        for automation in wanted:
            _ensure(client, automation)
    return [automation["name"] for automation in wanted]


def automations(model: str, block: str, days: float | None) -> list[dict[str, Any]]:
    """Return a registered model's automations as Prefect's API takes them; `block`: id of the one to notify.

    `days`: without a merge, after which there is a notification; None for never.
    """
    project = project_named(model)
    make = partial(_automation, project, block)
    moved = _reactive(MOVED) | {"match": {"prefect.resource.id": MODEL + model}}
    found = [
        make("merge failed", _of_flow(project, "merge", "Failed", "Crashed"), OUTCOME),
        make("verdict ready", _of_flow(project, "merge", "Completed"), OUTCOME),
        make("approval wanted", _of_flow(project, "promote", "Suspended"), f"{RUN} waits in Prefect"),
        make("champion moved", moved, "{{ event.payload.sentence }}"),
    ]
    if days is not None:
        silent = _of_flow(project, "merge", "Completed") | {
            "posture": "Proactive",
            "for_each": [],
            "within": timedelta(days=days).total_seconds(),
        }
        found.append(make("no merge", silent, f"No merge was completed for {days:g} days."))
    return found


def tell_moved(name: str, version: int, sentence: str) -> None:
    """Send the event that a model's champion moved, where a server is configured; failing is only said."""
    if not os.environ.get("PREFECT_API_URL"):
        return
    from prefect.client.orchestration import get_client
    from prefect.events import Event
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    event = Event(
        occurred=datetime.now(UTC),
        event=MOVED,
        resource={
            "prefect.resource.id": MODEL + name,
            "prefect.resource.name": name,
        },
        payload={"version": version, "sentence": sentence},
    )
    try:
        settings = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0})
        with settings, get_client(sync_client=True, httpx_settings={"timeout": WAIT_S}) as client:
            client.request("POST", "/events", json=[event.model_dump(mode="json")]).raise_for_status()
    except Exception as error:  # the champion has moved all the same
        say(f"not announced to Prefect ({one_line(type(error).__name__)})")


def _block(client: "SyncPrefectClient", name: str) -> str:
    from prefect.exceptions import ObjectNotFound

    kind, _, own = name.partition("/")
    try:
        return str(client.read_block_document_by_name(own, kind).id)
    except ObjectNotFound:
        raise BadInput(
            "watch.notify",
            f"Prefect has no block {name}",
            "make it in Prefect's UI under Blocks, or correct the name",
        ) from None


def _ensure(client: "SyncPrefectClient", wanted: dict[str, Any]) -> None:
    """Leave one automation of this name, made from these facts: its description holds their digest."""
    from prefect.events.schemas.automations import AutomationCore

    found = client.read_automations_by_name(wanted["name"])
    for surplus in found[1:]:
        client.delete_automation(surplus.id)
    if not found:
        client.create_automation(AutomationCore.model_validate(wanted))
    elif found[0].description != wanted["description"]:
        client.update_automation(found[0].id, AutomationCore.model_validate(wanted))


def _automation(project: str, block: str, what: str, trigger: dict[str, Any], body: str) -> dict[str, Any]:
    action = {
        "type": "send-notification",
        "block_document_id": block,
        "subject": f"{project}: {what}",
        "body": body,
    }
    facts = {"name": f"loreline {project}: {what}", "trigger": trigger, "actions": [action]}
    return facts | {"description": f"Made by loreline notify from params.yaml ({digest_of([facts])[:12]})."}


def _of_flow(project: str, flow: str, *states: str) -> dict[str, Any]:
    """Return a trigger that fires for each run of a project's flow that enters one of these states."""
    related = [  # both of them
        {"prefect.resource.role": "flow", "prefect.resource.name": flow},
        {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{tag_of(project)}"},
    ]
    of_runs = {"match": {"prefect.resource.id": "prefect.flow-run.*"}, "match_related": related}
    return _reactive(*(f"prefect.flow-run.{state}" for state in states)) | of_runs


def _reactive(*events: str) -> dict[str, Any]:
    return {
        "type": "event",
        "posture": "Reactive",
        "expect": list(events),
        "for_each": ["prefect.resource.id"],
        "threshold": 1,
    }
