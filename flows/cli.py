"""The `loreline` command: one table, no logic. Heavy imports wait until a command needs them."""

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from tasks.errors import LorelineError
from tasks.params import read_merge_params, read_params

app = typer.Typer(
    help="Merge the checkpoints of every fine-tuning run, and say honestly whether the merge is better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ARTIFACTS = Path("artifacts")
Set = Annotated[
    list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a parameter; repeatable.")
]
Refresh = Annotated[bool, typer.Option("--refresh", help="Look at the run again although it was fetched.")]
ParamsFile = Annotated[Path, typer.Option("--params", help="The parameter file.")]
DEFAULT_PARAMS = Path("params.yaml")
DEBUG = "--debug"


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(DEBUG, help="Show the traceback of an error.")] = False,
) -> None:
    """Merge the checkpoints of every fine-tuning run, and say honestly whether the merge is better."""


@app.command()
def fetch(
    refresh: Refresh = False,
    set_: Set = [],
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Record a training run's checkpoints and stage their files."""
    from tasks.fetch_run import fetch_run

    run = fetch_run(read_params(params, set_).fetch, ARTIFACTS, refresh)
    print(f"{run.name}: {len(run.checkpoints)} checkpoints, {len(run.left_out)} left out")


@app.command()
def select(set_: Set = [], params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Choose checkpoints along the trajectory."""
    from tasks.select_checkpoints import select_checkpoints

    selection = select_checkpoints(read_params(params, set_).select, ARTIFACTS)
    print(f"{selection.rule}: {', '.join(checkpoint.name for checkpoint in selection.chosen)}")


@app.command()
def merge(
    checkpoints: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[CHECKPOINT]...", help="Model directories, oldest first; none: the selection."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where a merge of named checkpoints goes.")] = None,
    set_: Set = [],
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Merge the selected checkpoints, or CHECKPOINT... into --out without a pipeline."""
    from flows.progress import merging
    from tasks.merge_checkpoints import merge_checkpoints, merge_directories

    if bool(checkpoints) != (out is not None):
        raise typer.BadParameter("CHECKPOINT... and --out belong together")
    with merging() as on_tensor:
        if checkpoints and out:
            report = merge_directories(read_merge_params(set_), checkpoints, out, on_tensor)
        else:
            report = merge_checkpoints(read_params(params, set_).merge, ARTIFACTS, on_tensor)
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{out or ARTIFACTS / 'merged'}: {report.method} of {len(report.inputs)} checkpoints")


@app.command()
def evaluate(set_: Set = [], params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Measure the merge beside the models it could replace, and judge it."""
    from flows.progress import say
    from tasks.evaluate_merge import evaluate_merge

    p = read_params(params, set_)
    evaluation = evaluate_merge(p.evaluate, p.register_, ARTIFACTS, lambda label: say(f"evaluate: {label}"))
    print(evaluation.verdict.sentence)


@app.command()
def register(set_: Set = [], params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Register the merge as an MLflow model version."""
    from tasks.register_model import register_model

    registration = register_model(read_params(params, set_).register_, ARTIFACTS)
    print(f"models:/{registration.name}/{registration.version} ({', '.join(registration.aliases)})")


@app.command()
def run(
    run: Annotated[str | None, typer.Option(help="The training run, instead of fetch.source.")] = None,
    refresh: Refresh = False,
    set_: Set = [],
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Run the whole flow in Prefect: fetch, select, merge, evaluate, register, version."""
    from flows.run import run_flow

    run_flow(read_params(params, [*([f"fetch.source={run}"] if run else []), *set_]), refresh)


@app.command()
def demo(
    seed: Annotated[int, typer.Option(min=0, help="Seed of data, model and training.")] = 0,
    steps: Annotated[int | None, typer.Option(min=60, help="Training steps.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Train a tiny language model with the real Trainer, then run the whole flow on its checkpoints."""
    from flows.demo.demo import demonstrate

    demonstrate(seed, steps, params)


@app.command()
def serve(
    cron: Annotated[str, typer.Option(help="When to run, in cron syntax.")] = "0 3 * * *",
) -> None:
    """Serve the flow as a scheduled Prefect deployment that runs what params.yaml says."""
    from flows.deployments import serve_scheduled

    serve_scheduled(cron)


@app.command()
def promote(
    version: Annotated[int | None, typer.Option(min=1, help="Unset: what challenger points at.")] = None,
    set_: Set = [],
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Move the alias champion to a version with a PROMOTE verdict."""
    from tasks.registry.versions import promote as promote_version

    promoted = promote_version(read_params(params, set_).register_, version)
    print(f"champion: models:/{promoted.name}/{promoted.version}")


@app.command()
def methods() -> None:
    """List the merge methods."""
    from tasks.merging.methods import METHODS

    for name, method in METHODS.items():
        print(f"{name:10} {method.summary} ({method.reference})")


def main() -> None:
    """Run the command; an error is one sentence, exit code 2 for bad input and 1 for failure."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        app()
    except LorelineError as error:
        if DEBUG in sys.argv:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:
        if DEBUG in sys.argv:
            raise
        problem = " ".join(str(error).split()) or "no message"
        print(f"error: {type(error).__name__}: {problem}; see more with loreline {DEBUG}", file=sys.stderr)
        sys.exit(1)


def _stop(number: int, frame: FrameType | None) -> None:
    """Unwind, so that scratch directories go."""
    sys.exit(128 + number)
