"""`loreline merge`: the selection, or named checkpoints outside any pipeline."""

from collections.abc import Sequence
from pathlib import Path

from flows.progress import say, tensor_progress
from flows.terminal import tell
from tasks.base.records.merge import MergeReport
from tasks.merge_checkpoints import merge_checkpoints, plan_directories, plan_selection, sweep_directories
from tasks.parameters.merge import MergeParams
from tasks.recipes.recipe import recipe_of
from tasks.recipes.sweep import grid
from tasks.reporting.lore_summary import summarise
from tasks.reporting.merge_plan import merge_plan


def merge_selection(params: MergeParams, artifacts: Path, dry_run: bool) -> None:
    """Merge the selected checkpoints, or show the plan."""
    out = artifacts / "merged"
    if dry_run:
        tell(merge_plan(plan_selection(params, artifacts), out))
        return
    with tensor_progress() as on_progress:
        report = merge_checkpoints(params, artifacts, on_progress)
    _report(report, out)


def merge_named(
    named: Sequence[Path], settings: Sequence[str], sweeps: Sequence[str], out: Path, dry_run: bool
) -> None:
    """Merge checkpoints, or those of a recipe, into a directory, or show the plan.

    With sweeps, into one directory below it for each combination of their values.
    """
    recipe = recipe_of(named, settings)
    variants = grid(recipe.params, sweeps, out)
    for note in recipe.notes:
        say(f"note: {note}")
    if dry_run:
        tell(merge_plan(plan_directories(variants, recipe.checkpoints), out))
        return
    with tensor_progress() as on_progress:
        reports = sweep_directories(variants, recipe.checkpoints, on_progress)
    for directory, report in reports.items():
        _report(report, directory)


def _report(report: MergeReport, out: Path) -> None:
    for note in report.notes:
        say(f"note: {note}")
    for sentence in found.sentences if (found := summarise(report)) else ():
        say(f"lore: {sentence}")
    tell(f"{out}: {report.method} of {len(report.inputs)} checkpoints")
