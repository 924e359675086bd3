"""The `loreline` command: its subcommands, of which those that run whole flows are here."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.commands import checkpoints, evidence, reference, registry, stages, upkeep
from flows.commands.options import ParamsFile, Refresh, Set
from flows.exit_codes import DEBUG, run_to_exit
from tasks.parameters.params import PARAMS_FILE, choose_params, read_params


def run_command(
    run: Annotated[str | None, typer.Option(help="The training run, instead of fetch.source.")] = None,
    refresh: Refresh = False,
    set_: Set = [],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Run the whole flow in Prefect: fetch, select, search, merge, evaluate, register, version."""
    from flows.by_hand import run_merge
    from tasks.sources.addresses import normal_address

    source = [f"fetch.source={normal_address(run, Path.cwd())}"] if run else []
    run_merge(read_params(params, [*source, *set_]), refresh)


def demo_command(
    seed: Annotated[int, typer.Option(min=0, help="Seed of data, model and training.")] = 0,
    steps: Annotated[int | None, typer.Option(min=60, help="Training steps.")] = None,
    schedule: Annotated[
        Literal["constant", "linear", "cosine"], typer.Option(help="The learning rate after its warm-up.")
    ] = "constant",
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Train a tiny language model with the real Trainer, then run the whole flow on its checkpoints."""
    from flows.demo.demo import train_demo

    ready = train_demo(seed, steps, schedule, params)
    from flows.by_hand import run_merge  # Prefect takes seconds to import

    run_merge(ready, refresh=True)  # the demo may have been trained anew


def watch_command(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="One training run that ended.")] = None,
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="Merge again what was merged before, with the parameters of now."),
    ] = False,
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Merge the training runs in watch.roots that have ended and are not merged yet, one after the other."""
    from flows.by_hand import merge_ended_runs, merge_run

    choose_params(params)
    if run:
        merge_run(run, refresh)
    else:
        merge_ended_runs(refresh)


def serve_command(
    cron: Annotated[str, typer.Option(help="When to look for ended runs, in cron syntax.")] = "0 3 * * *",
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Watch from now on: now, at cron, and whenever a training run announces its end."""
    from flows.deployments import serve_deployments

    choose_params(params)
    serve_deployments(cron)


COMMANDS: Mapping[str, Callable[..., None]] = {
    "fetch": stages.fetch_command,
    "select": stages.select_command,
    "search": stages.search_command,
    "plan": checkpoints.plan_command,
    "merge": stages.merge_command,
    "inspect": checkpoints.inspect_command,
    "evaluate": stages.evaluate_command,
    "register": stages.register_command,
    "run": run_command,
    "demo": demo_command,
    "watch": watch_command,
    "serve": serve_command,
    "ui": upkeep.ui_command,
    "notify": upkeep.notify_command,
    "promote": registry.promote_command,
    "rollback": registry.rollback_command,
    "history": registry.history_command,
    "prune": upkeep.prune_command,
    "power": evidence.power_command,
    "looks": evidence.looks_command,
    "doctor": upkeep.doctor_command,
    "metrics": upkeep.metrics_command,
    "methods": reference.methods_command,
    "params": reference.explain_params,
}
"""In the order of --help."""

app = typer.Typer(
    help="Merge the checkpoints of every fine-tuning run, and say honestly whether the merge is better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(DEBUG, help="Show the traceback of an error.")] = False,
) -> None:
    """Merge the checkpoints of every fine-tuning run, and say honestly whether the merge is better."""


for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def main() -> None:
    """Run the command; an error is one sentence, exit code 2 for bad input and 1 for failure."""
    run_to_exit(app)
