"""The `loreline` command, one function for each subcommand; heavy libraries are imported in the functions."""

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import typer

from flows.terminal import PlainFormatter, tell
from tasks.base.directories import ARTIFACTS
from tasks.base.errors import (
    BadInput,
    LorelineError,
    is_unicode,
    of_system,
    one_line,
    without_secrets,
)
from tasks.parameters.params import PARAMS_FILE, choose_params, read_params


def local_path(text: str | Path) -> Path:
    """Return a path; raises BadInput for an address, and does not quote it: it may hold a password."""
    if "://" in str(text):  # a default is a path
        raise BadInput("the command line", "names an address where a path belongs", "name a local one")
    return Path(text)


app = typer.Typer(
    help="Merge the checkpoints of every fine-tuning run, and say honestly whether the merge is better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Set = Annotated[
    list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a parameter; repeatable.")
]
Refresh = Annotated[bool, typer.Option("--refresh", help="Fetch the run again although it was fetched.")]
LOCAL: dict[str, Any] = {"parser": local_path, "metavar": "PATH"}
ParamsFile = Annotated[Path, typer.Option("--params", help="The parameter file.", **LOCAL)]
DEBUG = "--debug"
GRACE_S = 4.5
"""Seconds between SIGTERM and the end of a process that is still computing."""


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(DEBUG, help="Show the traceback of an error.")] = False,
) -> None:
    """Merge the checkpoints of every fine-tuning run, and say honestly whether the merge is better."""


@app.command("fetch")
def fetch_command(
    refresh: Refresh = False,
    set_: Set = [],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Record a training run's checkpoints and stage their files."""
    from tasks.fetch_run import fetch_run

    p = read_params(params, set_)
    run = fetch_run(p.fetch, ARTIFACTS, refresh, p.register_, p.watch.quiet_for)
    tell(f"{run.name}: {len(run.checkpoints)} checkpoints, {len(run.left_out)} left out")


@app.command("select")
def select_command(set_: Set = [], params: ParamsFile = PARAMS_FILE) -> None:
    """Choose checkpoints along the trajectory."""
    from tasks.select_checkpoints import select_checkpoints

    selection = select_checkpoints(read_params(params, set_).select, ARTIFACTS)
    tell(f"{selection.rule}: {', '.join(checkpoint.name for checkpoint in selection.chosen)}")


@app.command("search")
def search_command(set_: Set = [], params: ParamsFile = PARAMS_FILE) -> None:
    """Try merges on evaluate.select_tasks, within search.budget, and say which one is to be made."""
    from flows.progress import answer_progress
    from tasks.search_merge import search_merge

    p = read_params(params, set_)
    with answer_progress("search") as on_answers:
        found = search_merge(p.search, p.merge, p.evaluate, ARTIFACTS, on_answers)
    print(found.sentence or "Nothing is searched: search.budget is 0.")


@app.command("plan")
def plan_command(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A Trainer's output_dir; none: what was fetched.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw learning rate, window and weights here.", **LOCAL)
    ] = None,
    set_: Set = [],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Say what kind of run it is by its learning rate, what to merge of it, and what to expect."""
    from tasks.doctor.disk import told_space
    from tasks.reporting.plan_figure import draw_plan
    from tasks.select_checkpoints import plan_of_run
    from tasks.sources.addresses import source_of

    given = read_params(params, set_)
    directory = source_of(run).directory_of(run) if run else None
    if run and directory is None:
        raise BadInput("RUN", "is no directory", "fetch that run, and name none")
    plans = plan_of_run(given.select, ARTIFACTS, directory)
    if picture and len(plans) > 1:
        raise BadInput("--picture", f"is of one run, and {len(plans)} were fetched", "name the run")
    for name, plan in plans.items():
        tell(f"{name}: {plan.sentence}" if len(plans) > 1 else plan.sentence)
    if (place := directory or Path(given.fetch.address)).is_dir():
        tell("\n".join(told_space(given, Path.cwd(), place)))
    if picture:
        draw_plan(picture, plan)
        tell(str(picture))


@app.command("merge")
def merge_command(
    checkpoints: Annotated[
        list[Path] | None,
        typer.Argument(
            parser=local_path,
            metavar="[CHECKPOINT]...",
            help="Model directories, oldest first; or a recipe.yaml, ours or mergekit's; none: selection.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where a merge of named checkpoints goes.", **LOCAL)
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="The model they started from: merge.base.", **LOCAL)
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:i: merge.device.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show the plan, stop.")
    ] = False,
    sweep: Annotated[
        list[str],
        typer.Option(
            "--sweep",
            metavar="merge.KEY=VALUE,...",
            help="One merge in --out for each value, from one read; repeatable: for each combination.",
        ),
    ] = [],
    set_: Set = [],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Merge the selected checkpoints, or CHECKPOINT... into --out without a pipeline."""
    from flows.merge_command import merge_named, merge_selection

    if bool(checkpoints) != (out is not None):
        raise typer.BadParameter("CHECKPOINT... and --out belong together")
    if sweep and out is None:
        raise typer.BadParameter("--sweep is for CHECKPOINT... and --out: a pipeline has one merge")
    named = {"base": base, "device": device}
    settings = [*set_, *(f"merge.{key}={value}" for key, value in named.items() if value)]
    if checkpoints and out:
        merge_named(checkpoints, settings, sweep, out, dry_run)
    else:
        merge_selection(read_params(params, settings).merge, ARTIFACTS, dry_run)


@app.command("inspect")
def inspect_command(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(parser=local_path, metavar="CHECKPOINT...", help="Model directories, oldest first."),
    ],
    base: Annotated[
        Path | None, typer.Option(help="The model they started from; none: their mean.", **LOCAL)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where inspect.json and deviation.png go.", **LOCAL)
    ] = None,
    tensors: Annotated[bool, typer.Option("--tensors", help="Print every tensor.")] = False,
) -> None:
    """Measure how checkpoints differ (norms, cosines, sign conflict), without merging them."""
    from flows.progress import tensor_progress
    from tasks.reporting.deviation_table import deviation_text
    from tasks.reporting.inspection import inspect_directories

    with tensor_progress("inspect") as on_progress:
        found = inspect_directories(checkpoints, base, out, on_progress)
    tell(deviation_text(found.labels, found.base, found.tensors, tensors))


@app.command("evaluate")
def evaluate_command(set_: Set = [], params: ParamsFile = PARAMS_FILE) -> None:
    """Measure the merge beside the models it could replace, and judge it."""
    from flows.progress import answer_progress
    from tasks.evaluate_merge import evaluate_merge

    p = read_params(params, set_)
    with answer_progress() as on_answers:
        evaluation = evaluate_merge(p.evaluate, p.register_, ARTIFACTS, on_answers)
    tell(evaluation.verdict.sentence)


@app.command("register")
def register_command(set_: Set = [], params: ParamsFile = PARAMS_FILE) -> None:
    """Register the merge as an MLflow model version; register.promote=auto promotes it if it is better."""
    from flows.without_merge import runs_without_merge
    from tasks.promote_version import promote_if_auto
    from tasks.register_model import leave_unregistered, register_model
    from tasks.reporting.recorded_pages import record_pages
    from tasks.versioning.exploring import why_exploring

    p = read_params(params, set_)
    if p.register_.publish == "flow" and (why := why_exploring(Path.cwd())):
        leave_unregistered(ARTIFACTS, why)
        tell(f"Nothing is registered: {why}. To register it: loreline run, or register.publish: always.")
        return
    registration = register_model(p.register_, ARTIFACTS)
    record_pages(p.register_, registration, ARTIFACTS, runs_without_merge())
    tell(f"models:/{registration.name}/{registration.version} ({', '.join(registration.aliases)})")
    if promotion := promote_if_auto(p, registration):
        tell(promotion.sentence)


@app.command("run")
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


@app.command("demo")
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


@app.command("watch")
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


@app.command("serve")
def serve_command(
    cron: Annotated[str, typer.Option(help="When to look for ended runs, in cron syntax.")] = "0 3 * * *",
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Watch from now on: now, at cron, and whenever a training run announces its end."""
    from flows.deployments import serve_deployments

    choose_params(params)
    serve_deployments(cron)


@app.command("ui")
def ui_command(set_: Set = [], params: ParamsFile = PARAMS_FILE) -> None:
    """Show the pages of Prefect and MLflow, of the servers in use or of servers of its own, until Ctrl-C."""
    from flows.ui import show_pages

    show_pages(read_params(params, set_).register_)


@app.command("notify")
def notify_command(params: ParamsFile = PARAMS_FILE) -> None:
    """Make the automations in Prefect that notify watch.notify, as loreline serve does."""
    from flows.local_server import prefect_server
    from flows.notifications import make_notifications

    given = read_params(params)
    if given.watch.notify is None:
        raise BadInput("watch.notify", "not set", "name a notification block: TYPE/NAME")
    with prefect_server():
        tell("\n".join(make_notifications(given)))


@app.command("promote")
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


@app.command("rollback")
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


@app.command("history")
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


@app.command("prune")
def prune_command(
    yes: Annotated[bool, typer.Option("--yes", help="Remove what is shown.")] = False,
    set_: Set = [],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Show what old merges hold and `retention` lets go: weights, tags, workspaces, results, flow runs."""
    from flows.prune_command import prune_old

    prune_old(read_params(params, set_), Path.cwd(), yes)


@app.command("power")
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


@app.command("looks")
def looks_command(set_: Set = [], params: ParamsFile = PARAMS_FILE) -> None:
    """List how often which test items and vaults were looked at, and what that adds up to."""
    from tasks.registry.looks import looks_of
    from tasks.registry.store import connect, mlflow_errors
    from tasks.reporting.looks_table import looks_table

    registry = read_params(params, set_).register_
    client = connect(registry)
    with mlflow_errors(client.tracking_uri):
        tell(looks_table(looks_of(client, registry.name)))


@app.command("doctor")
def doctor_command(params: ParamsFile = PARAMS_FILE) -> None:
    """Check versions, servers, disk, GPU, DVC, registry, save_total_limit and clock; say what to do."""
    from flows.doctor import doctor

    sys.exit(doctor(params))


@app.command("metrics")
def metrics_command(
    out: Annotated[Path | None, typer.Option(help="Write them to this file, in one step.", **LOCAL)] = None,
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Say in Prometheus' text format when the last merge was, how long it took, disk and queue."""
    from flows.metrics import show_metrics

    tell(show_metrics(read_params(params), Path.cwd(), out))


@app.command("methods")
def methods_command() -> None:
    """List the merge methods: what each does, needs and reads, and its paper."""
    from tasks.reporting.methods_table import methods_table

    tell(methods_table())


@app.command("params")
def explain_params(
    section: Annotated[
        str | None, typer.Argument(metavar="[SECTION]", help="merge, merge.lore, or a key: merge.lore.mu.")
    ] = None,
) -> None:
    """List the keys of params.yaml: what each takes and means, and its default."""
    from tasks.parameters.explain import explain, explained_text
    from tasks.parameters.params import Params

    tell(explained_text(explain(Params, section)))


def main() -> None:
    """Run the command; an error is one sentence, exit code 2 for bad input and 1 for failure."""
    signal.signal(signal.SIGTERM, _stop)
    if logging.lastResort:  # prints the warnings of stages
        logging.lastResort.setFormatter(PlainFormatter())
    try:
        if not is_unicode(" ".join(sys.argv)):
            raise BadInput("the command line", "names what is not UTF-8", "rename that file or directory")
        app()
    except LorelineError as error:
        if DEBUG in sys.argv:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if DEBUG in sys.argv:
            raise
        print(f"error: {of_system(error)}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if DEBUG in sys.argv:
            raise
        problem = one_line(without_secrets(" ".join(str(error).split()))) or "no message"
        print(f"error: {type(error).__name__}: {problem}; see more with loreline {DEBUG}", file=sys.stderr)
        sys.exit(1)


def _stop(number: int, frame: FrameType | None) -> None:
    """Exit by an exception, so that scratch directories are removed; after GRACE_S exit at once."""
    from tasks.base.scratch import discard_scratch

    def end() -> None:
        discard_scratch()
        os._exit(128 + number)

    last = threading.Timer(GRACE_S, end)
    last.daemon = True
    last.start()
    sys.exit(128 + number)
