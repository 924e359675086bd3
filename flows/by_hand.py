"""Merging in this process, from the command line, and printing the result."""

import sys
from pathlib import Path

from prefect import tags
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.merge import Outcome, merge, merge_in_place
from flows.places import project_of, tag_of
from flows.prefect_access import check_access
from flows.progress import say
from flows.terminal import tell
from flows.watch import look_around
from tasks.base.errors import LONGEST_SENTENCE, one_line
from tasks.jobs.ledger import LedgerEntry
from tasks.parameters.params import PARAMS_FILE, Params, params_file, read_params
from tasks.reporting.table import EVALUATION_HEADER, evaluation_tables
from tasks.sources.addresses import normal_address

PLAIN_WIDTH = 110
WIDEST_IN_TABLE = 200


def run_merge(params: Params, refresh: bool = False) -> None:
    """Run the flow and print the table, the verdict and where the results are.

    With the parameters of params.yaml the run works in artifacts/, with others in a workspace of its own.
    """
    check_access()
    in_place = PARAMS_FILE.is_file() and read_params(PARAMS_FILE) == params
    with tags(tag_of(project_of(params))):
        ended = merge_in_place(params, refresh) if in_place else merge(params=params, refresh=refresh)
    if isinstance(ended, Outcome):
        show(ended)
    elif isinstance(ended, LedgerEntry):
        tell(f"{ended.source}: {ended.sentence}")


def merge_ended_runs(refresh: bool = False) -> None:
    """Merge the runs in watch.roots that have ended, one after the other."""
    check_access()
    look_around(read_params(params_file()), lambda source, _: merge_run(source, refresh), refresh)


def merge_run(source: str, refresh: bool = False) -> None:
    """Merge one training run that has ended, and report the outcome."""
    check_access()
    with tags(tag_of(project_of(read_params(params_file())))):
        ended = merge(normal_address(source, Path.cwd()), refresh=refresh)  # Prefect records what it is given
    if isinstance(ended, Outcome):
        say(f"{source}: {ended.evaluation.verdict.sentence}")
    elif isinstance(ended, LedgerEntry):
        say(f"{ended.source}: {ended.sentence}")


def show(outcome: Outcome) -> None:
    """Print an outcome on stdout."""
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    table = Table(
        *EVALUATION_HEADER, box=box.SIMPLE, title="On the test items, with 95 % intervals", title_style=""
    )
    for metric, rows in evaluation_tables(outcome.evaluation).items():
        table.add_section()
        table.add_row(_cell(metric), style="bold")
        for row in rows:
            table.add_row(*map(_cell, row))
    console.print(table)
    console.print(_cell(outcome.evaluation.verdict.sentence, LONGEST_SENTENCE), style="bold")
    for name, place in _places(outcome).items():
        console.print(_cell(f"{name:>9}: {place}", LONGEST_SENTENCE), soft_wrap=True)


def _cell(text: str, longest: int = WIDEST_IN_TABLE) -> Text:
    """Return a text from elsewhere as it is: what is in brackets in it is no markup."""
    return Text(one_line(text, longest))


def _places(outcome: Outcome) -> dict[str, object]:
    registration, artifacts = outcome.registration, outcome.artifacts
    version = f"models:/{registration.name}/{registration.version} ({', '.join(registration.aliases)})"
    places = {
        "model": artifacts and artifacts / "merged",
        "registry": version,
        "report": artifacts and artifacts / "evaluation" / "report.html",
        "DVC": outcome.versioned.sentence,
        "look": "loreline ui",
        "promote": outcome.promotion or "loreline promote",
    }
    return {name: place for name, place in places.items() if place}
