"""What keeps it running: doctor, metrics, ui, notify, prune."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import LOCAL, ParamsFile, Set
from flows.terminal import tell
from tasks.base.errors import BadInput
from tasks.parameters.params import PARAMS_FILE, read_params


def doctor_command(params: ParamsFile = PARAMS_FILE) -> None:
    """Check versions, servers, disk, GPU, DVC, registry, save_total_limit and clock; say what to do."""
    from flows.doctor import doctor

    sys.exit(doctor(params))


def metrics_command(
    out: Annotated[Path | None, typer.Option(help="Write them to this file, in one step.", **LOCAL)] = None,
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Say in Prometheus' text format when the last merge was, how long it took, disk and queue."""
    from flows.metrics import show_metrics

    tell(show_metrics(read_params(params), Path.cwd(), out))


def ui_command(set_: Set = [], params: ParamsFile = PARAMS_FILE) -> None:
    """Show the pages of Prefect and MLflow, of the servers in use or of servers of its own, until Ctrl-C."""
    from flows.ui import show_pages

    show_pages(read_params(params, set_).register_)


def notify_command(params: ParamsFile = PARAMS_FILE) -> None:
    """Make the automations in Prefect that notify watch.notify, as loreline serve does."""
    from flows.local_server import prefect_server
    from flows.notifications import make_notifications

    given = read_params(params)
    if given.watch.notify is None:
        raise BadInput("watch.notify", "not set", "name a notification block: TYPE/NAME")
    with prefect_server():
        tell("\n".join(make_notifications(given)))


def prune_command(
    yes: Annotated[bool, typer.Option("--yes", help="Remove what is shown.")] = False,
    set_: Set = [],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Show what old merges hold and `retention` lets go: weights, tags, workspaces, results, flow runs."""
    from flows.prune_command import prune_old

    prune_old(read_params(params, set_), Path.cwd(), yes)
