"""Registered versions: promote, rollback, history."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import LOCAL, ParamsFile, Set
from flows.terminal import tell
from tasks.parameters.params import PARAMS_FILE, read_params


def promote_command(
    version: Annotated[int | None, typer.Option(min=1, help="Unset: what challenger points at.")] = None,
    why: Annotated[str, typer.Option(help="The reason, for the record.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Against the verdict; needs --why.")] = False,
    set_: Set = [],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Judge a version against the champion of now, and move the alias champion to it."""
    from flows.notifications import tell_moved
    from tasks.promote_version import promote_version
    from tasks.registry.people import whoami

    promotion = promote_version(read_params(params, set_), version, whoami(), why, force)
    tell(promotion.sentence)
    if promotion.moved:
        tell_moved(promotion.name, promotion.version, promotion.sentence)


def rollback_command(
    why: Annotated[str, typer.Option(help="The reason, for the record.")] = "",
    set_: Set = [],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Move the alias champion back to previous-champion."""
    from flows.notifications import tell_moved
    from tasks.promote_version import roll_back
    from tasks.registry.people import whoami

    promotion = roll_back(read_params(params, set_).register_, whoami(), why)
    tell(promotion.sentence)
    if promotion.moved:
        tell_moved(promotion.name, promotion.version, promotion.sentence)


def history_command(
    limit: Annotated[int | None, typer.Option(min=1, help="The newest so many.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the page over time to this file.", **LOCAL)] = None,
    set_: Set = [],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """List the merged runs with verdicts, then those that were refused, failed or are at work."""
    from flows.without_merge import runs_without_merge
    from tasks.registry.history import merged_runs
    from tasks.reporting.history_page import write_history_page
    from tasks.reporting.history_table import history_table
    from tasks.reporting.unmerged_table import unmerged_table

    registry = read_params(params, set_).register_
    runs = merged_runs(registry, limit)
    tell(history_table(runs))
    others = runs_without_merge(limit)
    if others:
        tell(f"\n{unmerged_table(others)}")
    if html:
        write_history_page(html, registry, runs, others)
        tell(str(html))
