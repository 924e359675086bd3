"""Running the flow in this process, and showing what came out."""

import sys

from rich import box
from rich.console import Console
from rich.table import Table

from flows.after_training import PARAMS, Outcome, after_training
from tasks.jobs.ledger import LedgerEntry
from tasks.parameters.params import Params, read_params
from tasks.reporting.table import EVALUATION_HEADER, evaluation_tables

PLAIN_WIDTH = 110


def run_flow(params: Params, refresh: bool = False) -> None:
    """Run the flow and print the table, the verdict and where to look.

    What params.yaml says is done in artifacts/; anything else has a place of its own.
    """
    in_place = PARAMS.is_file() and read_params(PARAMS) == params
    outcome = after_training(params, in_place, refresh)
    if isinstance(outcome, Outcome):
        show(outcome)
    elif isinstance(outcome, LedgerEntry):
        print(f"{outcome.source}: {outcome.sentence}")


def show(outcome: Outcome) -> None:
    """Print an outcome on stdout."""
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    table = Table(
        *EVALUATION_HEADER, box=box.SIMPLE, title="On the test items, with 95 % intervals", title_style=""
    )
    for metric, rows in evaluation_tables(outcome.evaluation).items():
        table.add_section()
        table.add_row(metric, style="bold")
        for row in rows:
            table.add_row(*row)
    console.print(table)
    console.print(outcome.evaluation.verdict.sentence, style="bold", highlight=False)
    for name, place in _places(outcome).items():
        console.print(f"{name:>9}: {place}", highlight=False, soft_wrap=True)


def _places(outcome: Outcome) -> dict[str, object]:
    registration, artifacts = outcome.registration, outcome.artifacts
    version = f"models:/{registration.name}/{registration.version} ({', '.join(registration.aliases)})"
    places = {
        "model": artifacts and artifacts / "merged",
        "registry": version,
        "report": artifacts and artifacts / "evaluation" / "report.html",
        "DVC": outcome.versioned.sentence,
        "look": "make ui",
        "promote": outcome.promotion or "loreline promote",
    }
    return {name: place for name, place in places.items() if place}
