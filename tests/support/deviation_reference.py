"""How checkpoints lie to each other, in float64 and by definition."""

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.base.measures import DeviationSummary

Model = Mapping[str, np.ndarray]


def reference(checkpoints: Sequence[Model], base: Model | None, names: Sequence[str]) -> DeviationSummary:
    """Describe some tensors of a model as if they were one vector."""
    thetas = np.stack([np.concatenate([c[name].ravel() for name in names]) for c in checkpoints]).astype(
        np.float64
    )
    anchor = (
        thetas.mean(0)
        if base is None
        else np.concatenate([base[name].ravel() for name in names]).astype(float)
    )
    deltas = thetas - anchor
    cosines = [
        float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) if a.any() and b.any() else 0.0
        for i, a in enumerate(deltas)
        for b in deltas[i + 1 :]
    ]
    return DeviationSummary(
        norms=tuple(float(np.linalg.norm(delta)) for delta in deltas),
        anchor=float(np.linalg.norm(anchor)),
        cosines=tuple(cosines),
        conflict=float(((deltas > 0).any(0) & (deltas < 0).any(0)).mean()),
        elements=anchor.size,
    )


def each_tensor(checkpoints: Sequence[Model], base: Model | None = None) -> dict[str, DeviationSummary]:
    """Describe every tensor by itself, as merge.json does."""
    return {name: reference(checkpoints, base, [name]) for name in checkpoints[0]}
