"""What low rank can do for a merge that an average cannot: LoRE's parts taken apart, on the demo's runs.

study_place.py [--seeds 0 1 2 3 4] [--schedules constant linear cosine]

Prints what the table of docs/study.md is made from. Each merge is of the newest five, eight or twelve checkpoints; runs that are
not there are trained first, as by study_trajectory.py. The variants that are no methods of Loreline's are written here, in float64.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from transformers.utils import logging

from flows.demo import training
from tasks.checkpoints.run_directory import numbered_checkpoints
from tasks.merge_checkpoints import merge_directories
from tasks.parameters.merge import MergeParams
from tests.benchmarks.measure import say, table
from tests.benchmarks.study_models import Batches, item_losses, test_batches
from tests.benchmarks.study_trajectory import trained

Matrix = NDArray[np.float64]
Combine = Callable[[Matrix], Matrix]
"""From N × m × n checkpoints of one tensor, oldest first and evenly spaced, to a merged one; vectors are N × 1 × n."""
REFERENCE = "average of 5"
METHODS: Sequence[Literal["average", "lore", "planned", "drift"]] = ("average", "lore", "planned", "drift")
COUNTS = (5, 8, 12)


def ema_weights(count: int, decay: float) -> Matrix:
    """Return weights ∝ decay^age, as Loreline's ema has them."""
    weights = decay ** np.arange(count - 1, -1, -1.0)
    return weights / weights.sum()


def weighted(thetas: Matrix, weights: Matrix) -> Matrix:
    """Return a weighted sum."""
    found: Matrix = np.tensordot(weights, thetas, 1)
    return found


def average(thetas: Matrix) -> Matrix:
    """Return the mean."""
    found: Matrix = thetas.mean(0)
    return found


def ema(thetas: Matrix, decay: float) -> Matrix:
    """Return the exponential moving average."""
    return weighted(thetas, ema_weights(len(thetas), decay))


def optimal(y: Matrix, noise: float | None = None) -> Matrix:
    """Shrink singular values optimally in the Frobenius norm (Gavish and Donoho 2017).

    `noise` is the standard deviation of an element; without it, it is taken from the median singular value.
    """
    m, n = max(y.shape), min(y.shape)
    beta = n / m
    u, s, vt = np.linalg.svd(y, full_matrices=False)
    level = (
        noise * m**0.5 if noise is not None else float(np.median(s)) / marchenko_pastur_median(beta) ** 0.5
    )
    scaled = s / max(level, 1e-300)
    shrunk = np.sqrt(np.maximum((scaled**2 - beta - 1) ** 2 - 4 * beta, 0)) / np.maximum(scaled, 1e-300)
    found: Matrix = (u * np.where(scaled > 1 + beta**0.5, level * shrunk, 0)) @ vt
    return found


def marchenko_pastur_median(beta: float) -> float:
    """Return the median of the distribution of Marchenko and Pastur, by quadrature."""
    low, high = (1 - beta**0.5) ** 2, (1 + beta**0.5) ** 2
    x = np.linspace(low, high, 20_001)[1:-1]
    mass = np.cumsum(np.sqrt((high - x) * (x - low)) / x)
    return float(x[np.searchsorted(mass, mass[-1] / 2)])


def base_of_shrunk(thetas: Matrix, centre: Combine, lam: float) -> Matrix:
    """Return θ_0 + λΣδ_i, δ_i the optimally shrunk deviations from a centre and θ_0 the mean of what is left."""
    mean = thetas.mean(0)
    if mean.shape[0] == 1:
        return centre(thetas)
    S = sum((optimal(theta - centre(thetas)) for theta in thetas), np.zeros_like(mean))
    return centre(thetas) + (lam - 1 / len(thetas)) * S


def line(thetas: Matrix) -> tuple[Matrix, float]:
    """Return how far the fitted line runs from the mean to the newest checkpoint, and an element's noise in that."""
    away = np.arange(len(thetas)) - (len(thetas) - 1) / 2
    slope = weighted(thetas, away) / (away**2).sum()
    left = thetas - thetas.mean(0) - away[:, None, None] * slope
    noise = (float((left**2).sum()) / max(len(thetas) - 2, 1) / slope.size) ** 0.5
    return slope * away[-1], noise * float(away[-1]) / float((away**2).sum()) ** 0.5


def drift_of_low_rank(thetas: Matrix) -> Matrix:
    """Return the mean and the fitted drift, shrunk to what exceeds the checkpoints' noise in low rank."""
    drift, noise = line(thetas)
    return thetas.mean(0) + (james_stein(drift, noise) if drift.shape[0] == 1 else optimal(drift, noise))


def james_stein(drift: Matrix, noise: float) -> Matrix:
    """Shrink by the share of the energy that noise explains."""
    energy = float((drift**2).sum())
    return drift * max(0.0, 1 - drift.size * noise**2 / energy) if energy else drift


def trend(thetas: Matrix, kappa: float) -> Matrix:
    """Return the mean, moved by this share of the fitted drift."""
    return thetas.mean(0) + kappa * line(thetas)[0]


OURS: Mapping[str, Combine] = {
    "EMA 0.6": partial(ema, decay=0.6),
    "EMA 0.8": partial(ema, decay=0.8),
    "trend, κ = 0.5": partial(trend, kappa=0.5),
    "deviations shrunk optimally, λ = 0": partial(base_of_shrunk, centre=average, lam=0.0),
    "the same, λ = 0.75/N": partial(base_of_shrunk, centre=average, lam=0.15),
    "the same about EMA 0.8, λ = 0": partial(base_of_shrunk, centre=partial(ema, decay=0.8), lam=0.0),
    "drift of low rank": drift_of_low_rank,
}


def losses(seed: int, schedule: training.Schedule, scratch: Path) -> dict[str, Matrix]:
    """Return the loss on every test item of the last checkpoint and of each merge, of five to twelve."""
    run = trained(seed, schedule)
    batches, all_of_them = test_batches(run), [path for _, path in numbered_checkpoints(run)]
    found = {REFERENCE: combined(all_of_them[-5:], average, scratch, batches)}
    found["last"] = item_losses(all_of_them[-1], batches)
    for count in COUNTS:
        newest = all_of_them[-count:]
        for method in METHODS:
            out = scratch / f"{method}-{count}"
            merge_directories(MergeParams(method=method, device="cpu"), newest, out)
            found[f"{method}, of {count}"] = item_losses(out, batches)
        for name, combine in OURS.items():
            found[f"{name}, of {count}"] = combined(newest, combine, scratch, batches)
    return found


def combined(checkpoints: Sequence[Path], combine: Combine, scratch: Path, batches: Batches) -> Matrix:
    """Merge by one of the functions above, and return the loss on every test item."""
    models = [load_file(path / "model.safetensors") for path in checkpoints]
    merged = {}
    for name, first in models[0].items():
        thetas = np.stack([model[name].astype(np.float64) for model in models])
        shape = (len(models), -1, first.shape[-1]) if first.ndim > 1 else (len(models), 1, -1)
        merged[name] = combine(thetas.reshape(shape)).reshape(first.shape).astype(first.dtype)
    out = scratch / "merged"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(checkpoints[-1], out)
    save_file(merged, out / "model.safetensors", metadata={"format": "pt"})
    return item_losses(out, batches)


def show(schedule: str, found: Sequence[Mapping[str, Matrix]]) -> None:
    """Print mean losses, and their paired differences from the average of five."""
    rows = []
    for name in found[0]:
        means = np.array([own[name].mean() for own in found])
        gains = means - np.array([own[REFERENCE].mean() for own in found])
        error = gains.std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
        each = " ".join(f"{mean:.3f}" for mean in means)
        lower = str(int((gains < 0).sum())) if name != REFERENCE else ""
        rows.append([name, each, f"{means.mean():.4f}", f"{gains.mean():+.4f} ± {error:.4f}", lower])
    print(table([schedule, "test NLL by seed", "mean", f"− {REFERENCE}", "lower in"], rows), flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--schedules", nargs="+", default=["constant", "linear", "cosine"])
    arguments = parser.parse_args()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]

    for schedule in arguments.schedules:
        found = []
        for seed in arguments.seeds:
            say(f"{schedule}, seed {seed}")
            with tempfile.TemporaryDirectory() as scratch:
                found.append(losses(seed, schedule, Path(scratch)))
        show(schedule, found)


if __name__ == "__main__":
    main()
