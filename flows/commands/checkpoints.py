"""Looking at checkpoints without merging them: plan, inspect."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import LOCAL, ParamsFile, Set, local_path
from flows.terminal import tell
from tasks.base.directories import ARTIFACTS
from tasks.base.errors import BadInput
from tasks.parameters.params import PARAMS_FILE, read_params


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
