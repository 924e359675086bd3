"""A base and the checkpoints of a run that started from it: arrays of every rank, in memory."""

import numpy as np

SHAPES = {
    "model.embed_tokens.weight": (11, 6),
    "tall": (12, 5),
    "wide": (4, 9),
    "norm": (7,),
    "experts": (3, 6, 4),
    "conv": (4, 2, 3, 3),
}
Model = dict[str, np.ndarray]


def trajectory(count: int, seed: int = 0, step: float = 0.1) -> tuple[Model, list[Model]]:
    """Return base and checkpoints, float64; the checkpoints share a drift from the base and differ by noise.

    All numbers are multiples of 2⁻¹², so that differences are exact in float32 too.
    """
    rng = np.random.default_rng(seed)

    def model(scale: float) -> Model:
        return {name: scale * rng.standard_normal(shape) for name, shape in SHAPES.items()}

    def on_grid(*parts: Model) -> Model:
        return {name: np.round(sum(part[name] for part in parts) * 4096) / 4096 for name in SHAPES}

    base, drift = model(1.0), model(step)
    return on_grid(base), [on_grid(base, drift, model(step)) for _ in range(count)]
