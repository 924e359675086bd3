"""Deviations of checkpoints as text: the whole model first, then its parts."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tasks.base.errors import one_line
from tasks.base.measures import DeviationSummary
from tasks.merging.deviation_sums import Deviation, cosines, describe, join
from tasks.merging.distances import course, distances, remoteness
from tasks.reporting.model_parts import Parts, by_kind, by_layer, tensor_parts

WIDEST_CELL = 100
DEVIATION_HEADER = ["parameters", "mean norm", "relative", "mean cosine", "conflict"]


def deviation_text(
    labels: Sequence[str], base: str | None, tensors: Mapping[str, DeviationSummary], every_tensor: bool
) -> str:
    """Render the model, its kinds of tensors and its layers; tensor by tensor too if asked for."""
    parts = tensor_parts(tensors)
    whole = join(list(parts.values()))
    tables = {"kind of tensor": by_kind(parts), "layer": by_layer(parts)}
    if every_tensor:
        tables["tensor"] = parts
    return "\n\n".join(
        [
            _headline(labels, base, whole, len(parts)),
            _aligned(_checkpoint_rows(labels, whole), left=2),
            *(_aligned(_part_rows(title, rows), left=1) for title, rows in tables.items()),
        ]
    )


def _headline(labels: Sequence[str], base: str | None, whole: Deviation, tensors: int) -> str:
    count = len(labels)
    checkpoints = "1 checkpoint" if count == 1 else f"{count} checkpoints"
    anchor = f"the base {base}" if base else "their mean"
    found = describe(whole)
    lines = [
        f"{checkpoints}, {whole.elements:,} parameters in {tensors} tensors",
        f"task vectors: differences from {anchor}, relative to its norm {_number(found.anchor)}",
    ]
    if base is None:
        lines.append(
            f"from a mean, cosines are about {-1 / (count - 1):.2f} and nearly all is in sign conflict, "
            "whatever the checkpoints; name what they came from with --base"
        )
    elif count > 1:
        lines.append(
            f"sign conflict: {found.conflict:.1%} of the elements are raised by one and lowered by another"
        )
    if along := course(distances(whole.products)):
        lines.append(
            f"drift index {along.drift:.2g} (straight on: {count - 1}, random walk: 1, about one point: "
            f"{1 / (count - 1):.2g}); the last step is {along.last_step:.2g} of the usual length"
        )
    return "\n".join(lines)


def _checkpoint_rows(labels: Sequence[str], whole: Deviation) -> Iterator[list[str]]:
    """Yield norm, relative norm, remoteness and cosines of each checkpoint, the checkpoints numbered."""
    found = describe(whole)
    numbers = [str(number) for number, _ in enumerate(labels, 1)]
    away = remoteness(distances(whole.products))
    yield ["", "checkpoint", "norm", "relative", "remoteness", "cosine to 1", *numbers[1:]]
    for number, label, norm, far, row in zip(numbers, labels, found.norms, away, cosines(whole), strict=True):
        shown = [_number(norm), _ratio(norm, found.anchor), f"{far:.2f}" if len(labels) > 2 else "-"]
        yield [number, label, *shown, *(f"{c:.3f}" for c in row)]


def _part_rows(title: str, parts: Parts) -> Iterator[list[str]]:
    yield [title, *DEVIATION_HEADER]
    for name, part in parts.items():
        found = describe(part)
        norm = float(np.mean(found.norms))
        cosine = f"{np.mean(found.cosines):.3f}" if found.cosines else "-"
        values = [_number(norm), _ratio(norm, found.anchor), cosine, f"{found.conflict:.1%}"]
        yield [name, f"{part.elements:,}", *values]


def _ratio(norm: float, anchor: float) -> str:
    return _number(norm / anchor) if anchor else "-"


def _number(value: float) -> str:
    return f"{value:#.4g}".rstrip(".")


def _aligned(rows: Iterator[list[str]], left: int) -> str:
    """Align columns, the first `left` ones at their left, numbers at their right."""
    table = [[one_line(cell, WIDEST_CELL) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )
