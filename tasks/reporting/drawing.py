"""What figures share: labels from elsewhere, layers along an axis, files with stable bytes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.base.errors import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDEST_LABEL = 60
TICKS = 16
"""Layers that are labelled at most, beside the last."""


def name_layers(axes: "Axes", layers: Sequence[str]) -> None:
    """Name layers along the x axis by number, or in full where a model has several stacks of them."""
    short = [name.rpartition(".")[2] for name in layers]
    names = short if len(set(short)) == len(short) else layers
    step = math.ceil(len(names) / TICKS)
    shown = [*range(0, len(names) - step, step), len(names) - 1]
    axes.set_xticks(
        shown, [in_figure(names[i]) for i in shown], rotation=30, ha="right", rotation_mode="anchor"
    )


def in_figure(name: str) -> str:
    """Return a name from elsewhere as a label: short, on one line, and what is between $ is no formula."""
    return one_line(name, WIDEST_LABEL).replace("$", r"\$")


def save(figure: "Figure", path: Path) -> None:
    """Save without date or version, so that the same data give the same bytes."""
    own = path.suffix.removeprefix(".") or "png"  # or a suffix would be added to the name
    figure.savefig(path, dpi=130, metadata={"Software": None}, format=own)
