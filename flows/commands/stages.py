"""The stages one by one, as dvc.yaml calls them: fetch, select, search, merge, evaluate, register."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import LOCAL, ParamsFile, Refresh, Set, local_path
from flows.terminal import tell
from tasks.base.directories import ARTIFACTS
from tasks.parameters.params import PARAMS_FILE, read_params


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


def select_command(set_: Set = [], params: ParamsFile = PARAMS_FILE) -> None:
    """Choose checkpoints along the trajectory."""
    from tasks.select_checkpoints import select_checkpoints

    selection = select_checkpoints(read_params(params, set_).select, ARTIFACTS)
    tell(f"{selection.rule}: {', '.join(checkpoint.name for checkpoint in selection.chosen)}")


def search_command(set_: Set = [], params: ParamsFile = PARAMS_FILE) -> None:
    """Try merges on evaluate.select_tasks, within search.budget, and say which one is to be made."""
    from flows.progress import answer_progress
    from tasks.search_merge import search_merge

    p = read_params(params, set_)
    with answer_progress("search") as on_answers:
        found = search_merge(p.search, p.merge, p.evaluate, ARTIFACTS, on_answers)
    print(found.sentence or "Nothing is searched: search.budget is 0.")


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


def evaluate_command(set_: Set = [], params: ParamsFile = PARAMS_FILE) -> None:
    """Measure the merge beside the models it could replace, and judge it."""
    from flows.progress import answer_progress
    from tasks.evaluate_merge import evaluate_merge

    p = read_params(params, set_)
    with answer_progress() as on_answers:
        evaluation = evaluate_merge(p.evaluate, p.register_, ARTIFACTS, on_answers)
    tell(evaluation.verdict.sentence)


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
