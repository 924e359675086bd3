"""`loreline merge`: the selection, or named checkpoints outside any pipeline."""

from collections.abc import Sequence
from pathlib import Path

from flows.progress import merging, say
from tasks.merge_checkpoints import merge_checkpoints, merge_directories, plan_directories, plan_selection
from tasks.merge_params import MergeParams
from tasks.recipes.recipe import recipe_of
from tasks.records import MergeReport
from tasks.reporting.merge_plan import merge_plan


def merge_selection(params: MergeParams, artifacts: Path, dry_run: bool) -> None:
    """Merge what the selection stage chose, or show the plan."""
    out = artifacts / "merged"
    if dry_run:
        print(merge_plan(plan_selection(params, artifacts), out))
        return
    with merging() as on_tensor:
        report = merge_checkpoints(params, artifacts, on_tensor)
    _tell(report, out)


def merge_named(named: Sequence[Path], settings: Sequence[str], out: Path, dry_run: bool) -> None:
    """Merge checkpoints, or those of a recipe, into a directory, or show the plan."""
    recipe = recipe_of(named, settings)
    for note in recipe.notes:
        say(f"note: {note}")
    if dry_run:
        print(merge_plan(plan_directories(recipe.params, recipe.checkpoints, out), out))
        return
    with merging() as on_tensor:
        report = merge_directories(recipe.params, recipe.checkpoints, out, on_tensor)
    _tell(report, out)


def _tell(report: MergeReport, out: Path) -> None:
    for note in report.notes:
        say(f"note: {note}")
    print(f"{out}: {report.method} of {len(report.inputs)} checkpoints")
