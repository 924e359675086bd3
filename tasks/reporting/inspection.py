"""Measuring checkpoints' deviations without merging them."""

from collections.abc import Sequence
from pathlib import Path

from tasks.base.errors import BadInput
from tasks.base.fingerprint import fingerprint
from tasks.base.free_directory import check_free
from tasks.base.measures import DeviationSummary
from tasks.base.publish import publishing
from tasks.base.records import Record
from tasks.checkpoints.names import labels_of, step_of
from tasks.checkpoints.weights import open_weights
from tasks.engine.devices import CPU
from tasks.engine.execute import survey
from tasks.engine.plan import Plan
from tasks.engine.planning import make_plan
from tasks.engine.progress import OnProgress, untold
from tasks.merging.deviation import describe, deviation, join
from tasks.parameters.merge import MergeParams
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

    @property
    def labels(self) -> list[str]:
        """Short names of the checkpoints."""
        return labels_of([Path(path) for path in self.checkpoints])


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
    plan = _plan(directories, base)
    found = survey(plan, deviation, [CPU], on_progress)
    inspection = Inspection(
        checkpoints=tuple(str(directory) for directory in directories),
        base=str(base) if base else None,
        tensors={name: describe(join(parts)) for name, parts in found.items()},
    )
    if out is not None:
        with publishing(out, fingerprint(__name__, inspection)) as scratch:
            inspection.write(scratch / INSPECTION)
            draw_deviation(scratch / "deviation.png", inspection.labels, inspection.tensors, base is not None)
    return inspection


def _plan(directories: Sequence[Path], base: Path | None) -> Plan:
    """Check the checkpoints as a merge of them would be checked."""
    if len(directories) < 2 and base is None:
        raise BadInput(
            "nothing to compare", "1 checkpoint is named", "name another, or what it came from with --base"
        )
    sources = [
        open_weights(place, label) for place, label in zip(directories, labels_of(directories), strict=True)
    ]
    # The one merge of task vectors that a single checkpoint is enough for, and the one that needs no base.
    params = MergeParams(method="task_arithmetic" if base else "average")
    opened = open_weights(base, f"the base {base}") if base else None
    plan = make_plan([params], sources, opened, [step_of(directory) for directory in directories])
    if not plan.shapes:
        raise BadInput(directories[0], "holds no floating-point tensor", "name a directory with a model")
    return plan
