"""Running the flow in this process, and showing what came out."""

import sys

from rich import box
from rich.console import Console
from rich.table import Table

from flows.after_training import Outcome, after_training
from tasks.params import Params
from tasks.reporting.table import HEADER, evaluation_tables

PLAIN_WIDTH = 110


def run_flow(params: Params, refresh: bool = False) -> None:
    """Run the flow and print the table, the verdict and where to look."""
    show(after_training(params, refresh))


def show(outcome: Outcome) -> None:
    """Print an outcome on stdout."""
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    table = Table(*HEADER, box=box.SIMPLE, title="On the test items, with 95 % intervals", title_style="")
    for metric, rows in evaluation_tables(outcome.evaluation).items():
        table.add_section()
        table.add_row(metric, style="bold")
        for row in rows:
            table.add_row(*row)
    console.print(table)
    console.print(outcome.evaluation.verdict.sentence, style="bold", highlight=False)
    registration = outcome.registration
    version = f"models:/{registration.name}/{registration.version} ({', '.join(registration.aliases)})"
    places = {
        "model": outcome.artifacts / "merged",
        "registry": version,
        "report": outcome.artifacts / "evaluation" / "report.html",
        "DVC": outcome.versioned,
        "look": "make ui",
        "promote": "loreline promote",
    }
    for name, place in places.items():
        console.print(f"{name:>9}: {place}", highlight=False, soft_wrap=True)
