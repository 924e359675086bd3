"""What test items can show, and how often they were looked at: power, looks."""

from typing import Annotated

import typer

from flows.commands.options import ParamsFile, Set
from flows.terminal import tell
from tasks.parameters.params import PARAMS_FILE, read_params


def power_command(
    items: Annotated[int | None, typer.Option(min=2, help="Test items; unset: as evaluated.")] = None,
    spread: Annotated[float | None, typer.Option(help="Standard deviation of an item's gain.")] = None,
    discordant: Annotated[float, typer.Option(help="Share of items that 0/1 answers differ on.")] = 0.1,
    cluster_size: Annotated[int, typer.Option(min=1, help="Items that belong together.")] = 1,
    correlation: Annotated[float, typer.Option(help="Of gains within a cluster.")] = 0.0,
    gain: Annotated[float | None, typer.Option(help="How many items find this gain?")] = None,
    set_: Set = [],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Say which gains the test items can find, from the last evaluation, or with --items from a guess."""
    from flows.power_command import show_power
    from tasks.verdict.power import guessed_design

    guess = guessed_design(items, spread, discordant, cluster_size, correlation) if items else None
    show_power(read_params(params, set_).evaluate, guess, gain)


def looks_command(set_: Set = [], params: ParamsFile = PARAMS_FILE) -> None:
    """List how often which test items and vaults were looked at, and what that adds up to."""
    from tasks.registry.looks import looks_of
    from tasks.registry.store import connect, mlflow_errors
    from tasks.reporting.looks_table import looks_table

    registry = read_params(params, set_).register_
    client = connect(registry)
    with mlflow_errors(client.tracking_uri):
        tell(looks_table(looks_of(client, registry.name)))
