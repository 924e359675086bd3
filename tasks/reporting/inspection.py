"""Measuring checkpoints' deviations without merging them."""

from collections.abc import Sequence
from pathlib import Path

from tasks.base.fingerprint import fingerprint
from tasks.base.free_directory import check_free
from tasks.base.measures import DeviationSummary
from tasks.base.publish import publishing
from tasks.base.records.record import Record
from tasks.engine.devices import CPU
from tasks.engine.execute import survey
from tasks.engine.planning import plan_inspection
from tasks.engine.progress import OnProgress, untold
from tasks.merging.deviation import deviation
from tasks.merging.deviation_sums import describe, join
from tasks.reporting.deviation_figure import draw_deviation

INSPECTION = "inspect.json"


class Inspection(Record):
    """Deviations of checkpoints, written as inspect.json."""

    checkpoints: tuple[str, ...]
    """Their directories, in the order of the norms."""
    base: str | None
    """The anchor of the task vectors; None: the checkpoints' mean."""
    tensors: dict[str, DeviationSummary]
    """As the deviation in merge.json."""
    labels: tuple[str, ...]
    """Short names of the checkpoints."""


def inspect_directories(
    directories: Sequence[Path],
    base: Path | None,
    out: Path | None,
    on_progress: OnProgress = untold,
) -> Inspection:
    """Measure the differences of model directories from `base` or from their mean; publish them in `out`.

    Raises BadInput for directories that could not be merged, and for an `out` that is neither free nor an
    earlier inspection.
    """
    if out is not None:
        check_free(out, [*directories, *([base] if base else [])], INSPECTION)
    plan = plan_inspection(directories, base)
    found = survey(plan, deviation, [CPU], on_progress)
    inspection = Inspection(
        checkpoints=tuple(str(directory) for directory in directories),
        base=str(base) if base else None,
        tensors={name: describe(join(parts)) for name, parts in found.items()},
        labels=tuple(source.label for source in plan.inputs),
    )
    if out is not None:
        with publishing(out, fingerprint(__name__, inspection)) as scratch:
            inspection.write(scratch / INSPECTION)
            draw_deviation(scratch / "deviation.png", inspection.labels, inspection.tensors, base is not None)
    return inspection
