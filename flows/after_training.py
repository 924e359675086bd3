"""The main flow: after a training run, fetch → select → merge → evaluate → register → version."""

from pathlib import Path
from typing import NamedTuple

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.progress import merging, say
from flows.stages import check, evaluate, fetch, merge, register, select, version
from tasks.home import home
from tasks.params import Params, read_params
from tasks.records import Evaluation, Registration, digest_of
from tasks.reporting.table import markdown_tables

PARAMS = Path("params.yaml")


class Outcome(NamedTuple):
    """What a run of the flow ends with."""

    artifacts: Path
    evaluation: Evaluation
    registration: Registration
    versioned: str


@flow(name="after-training", persist_result=False)
def after_training(params: Params | None = None, refresh: bool = False) -> Outcome:
    """Merge a finished training run, judge the merge, register and version it; unset: as params.yaml says.

    A run that was fetched before is taken as it was then, unless `refresh`.
    """
    params = params or read_params(PARAMS)
    artifacts = artifacts_for(params)
    check(params.evaluate)
    fetch(params.fetch, artifacts, refresh)
    select(params.select, artifacts)
    with merging() as on_tensor:
        report = merge(params.merge, artifacts, on_tensor)
    for note in report.notes:
        say(f"merge: {note}")
    evaluation = evaluate(params.evaluate, params.register_, artifacts, _say_model)
    _show(evaluation)
    registration = register(params.register_, artifacts)
    versioned = version(params, artifacts)
    return Outcome(artifacts, evaluation, registration, versioned)


def artifacts_for(params: Params) -> Path:
    """Return where a run's artifacts go: artifacts/ for what params.yaml says, else a place of its own."""
    if PARAMS.is_file() and read_params(PARAMS) == params:
        return Path("artifacts")
    return home() / "runs" / digest_of(params)[:16]


def _say_model(label: str) -> None:
    say(f"evaluate: {label}")


def _show(evaluation: Evaluation) -> None:
    create_markdown_artifact(
        markdown=f"**{evaluation.verdict.sentence}**\n\n{markdown_tables(evaluation)}\n",
        key="verdict",
        description="The merge beside the models it could replace",
    )
