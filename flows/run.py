"""Running the flow in this process, and showing what came out."""

from rich.console import Console
from rich.table import Table

from flows.after_training import Outcome, after_training
from tasks.params import Params
from tasks.reporting.table import evaluation_table


def run_flow(params: Params) -> None:
    """Run the flow and print the table, the verdict and where to look."""
    show(after_training(params))


def show(outcome: Outcome) -> None:
    """Print an outcome on stdout."""
    console = Console(width=None)
    header, *rows = evaluation_table(outcome.evaluation)
    table = Table(*header, title="On the test items (gain = merge − model, 95 % intervals)", title_style="")
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
