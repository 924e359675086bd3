"""What plan, weights by step and robust middles do to the demo's runs, and which damage is named beforehand.

study_trajectory.py merges | diverged [--seeds 0 1 2 3 4] [--schedules constant linear cosine]

Prints the tables of docs/trajectory.md. Training takes about two minutes a run; the runs are those of
`loreline demo --seed K --schedule S`, below runs/, and stay there.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from transformers.utils import logging

from flows.demo import training
from flows.demo.demo import demo_directory
from tasks.checkpoints.run_directory import numbered_checkpoints
from tasks.merge_checkpoints import merge_directories
from tasks.parameters.merge import MergeParams
from tasks.trajectory.far import find_far
from tests.benchmarks.measure import say, table
from tests.benchmarks.study_models import Batches, diverge, loss, test_batches

N, BAD = 8, 2
REFERENCE = "lore of 5"
METHODS: dict[str, tuple[int, dict[str, Any]]] = {
    REFERENCE: (5, {"method": "lore"}),
    "lore": (N, {"method": "lore"}),
    "average of 5": (5, {"method": "average"}),
    "average": (N, {"method": "average"}),
    "planned of 5": (5, {"method": "planned"}),
    "planned (default)": (N, {"method": "planned"}),
    "drift of 5": (5, {"method": "drift"}),
    "drift": (N, {"method": "drift"}),
    "drift of 12": (12, {"method": "drift"}),
    "ema, decay 0.6": (N, {"method": "ema"}),
    "ema, half_life 150": (N, {"method": "ema", "ema": {"half_life": 150}}),
    "power_ema, width 0.05": (N, {"method": "power_ema", "power_ema": {"width": 0.05}}),
    "wsm, linear": (N, {"method": "wsm"}),
    "wsm, cosine": (N, {"method": "wsm", "wsm": {"profile": "cosine"}}),
    "wsm, 1-sqrt": (N, {"method": "wsm", "wsm": {"profile": "1-sqrt"}}),
    "trend, kappa 0.5": (N, {"method": "trend"}),
    "median": (N, {"method": "median"}),
    "trimmed_mean": (N, {"method": "trimmed_mean"}),
    "geometric_median": (N, {"method": "geometric_median"}),
}
"""Label → how many of the newest checkpoints are merged, by which settings."""
DEFAULT = {"method": "planned"}
Losses = Mapping[str, float]
Tensors = dict[str, np.ndarray]


def merges(seed: int, schedule: training.Schedule, scratch: Path) -> Losses:
    """Return the test loss of the last checkpoint, and of merges of the newest."""
    run = trained(seed, schedule)
    batches = test_batches(run)
    found = {"last": loss(last_of(run, 1)[0], batches)}
    return found | {
        name: merged_loss(last_of(run, count), tree, scratch / name, batches)
        for name, (count, tree) in METHODS.items()
    }


def diverged(seed: int, other: int, schedule: training.Schedule, scratch: Path) -> dict[str, Losses]:
    """Return by way of diverging whether it was named, whether others were, and test losses of merges.

    In place of what is named the one before the newest eight is merged, as `select` does.
    """
    run, stranger = trained(seed, schedule), last_of(trained(other, schedule))[BAD]
    batches, last = test_batches(run), last_of(run)
    clean = merged_loss(last, DEFAULT, scratch / "clean", batches)
    rng = np.random.default_rng(seed)
    ways: dict[str, Callable[[Path], Path]] = {
        "ten steps at ten times the rate": lambda out: diverge(last[BAD], out, seed),
        "one matrix shuffled": lambda out: damaged(last[BAD], out, lambda own: shuffle(own, rng)),
        "noise, half of each tensor's deviation": lambda out: damaged(
            last[BAD], out, lambda own: blur(own, rng)
        ),
        "one tensor times 3": lambda out: damaged(last[BAD], out, lambda own: scale(own, rng)),
        "another seed's checkpoint": lambda out: stranger,
    }
    found: dict[str, Losses] = {}
    for i, (way, make) in enumerate(ways.items()):
        case = [*last[:BAD], make(scratch / f"bad-{i}" / last[BAD].name), *last[BAD + 1 :]]
        far = {own.step for own in find_far(list(enumerate(case)))}
        spare = last_of(run, N + len(far))[: len(far)]
        kept = [*spare, *(place for step, place in enumerate(case) if step not in far)]
        found[way] = {
            "named": float(BAD in far),
            "others": float(len(far - {BAD})),
            "clean": clean,
            "with": merged_loss(case, DEFAULT, scratch / f"with-{i}", batches),
            "without": merged_loss(kept, DEFAULT, scratch / f"without-{i}", batches),
        }
    return found


def trained(seed: int, schedule: training.Schedule) -> Path:
    """Return a finished run of the demo."""
    run = demo_directory(seed, training.DEFAULT_STEPS, schedule)
    return training.finished_run(run, seed=seed, steps=training.DEFAULT_STEPS, schedule=schedule)


def last_of(run: Path, count: int = N) -> list[Path]:
    """Return the newest checkpoints."""
    return [path for _, path in numbered_checkpoints(run)][-count:]


def merged_loss(checkpoints: Sequence[Path], tree: dict[str, Any], out: Path, batches: Batches) -> float:
    """Merge, and return the test loss."""
    merge_directories(MergeParams.model_validate(tree), checkpoints, out)
    return loss(out, batches)


def damaged(source: Path, out: Path, change: Callable[[Tensors], None]) -> Path:
    """Copy a checkpoint and change its tensors."""
    shutil.copytree(source, out)
    tensors = load_file(out / "model.safetensors")
    change(tensors)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out


def shuffle(own: Tensors, rng: np.random.Generator) -> None:
    """Shuffle one matrix."""
    name = rng.choice(sorted(name for name, tensor in own.items() if tensor.ndim == 2))
    own[name] = np.ascontiguousarray(rng.permutation(own[name].reshape(-1)).reshape(own[name].shape))


def blur(own: Tensors, rng: np.random.Generator) -> None:
    """Add noise to every tensor."""
    for name, tensor in own.items():
        noise = 0.5 * tensor.std() * rng.standard_normal(tensor.shape)
        own[name] = (tensor + noise).astype(tensor.dtype)


def scale(own: Tensors, rng: np.random.Generator) -> None:
    """Multiply one tensor."""
    name = rng.choice(sorted(own))
    own[name] = own[name] * np.float32(3)


def show_merges(schedule: str, found: Sequence[Losses]) -> None:
    """Print mean losses, and their paired differences from the former default."""
    rows = []
    for name in found[0]:
        gains = np.array([own[name] - own[REFERENCE] for own in found])
        error = gains.std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
        each = " ".join(f"{own[name]:.3f}" for own in found)
        mean = f"{np.mean([own[name] for own in found]):.4f}"
        rows.append([name, each, mean, f"{gains.mean():+.4f} ± {error:.4f}", str(int((gains < 0).sum()))])
    print(table([schedule, "test NLL by seed", "mean", f"− {REFERENCE}", "lower in"], rows))


def show_diverged(schedule: str, found: Sequence[dict[str, Losses]]) -> None:
    """Print how often each way was named, and how far the merges are from the clean one."""
    rows = []
    for way in found[0]:
        own = [seed[way] for seed in found]
        ratios = {key: np.array([case[key] / case["clean"] for case in own]) for key in ("with", "without")}
        named, others = (int(sum(case[key] for case in own)) for key in ("named", "others"))
        near = int((ratios["without"] <= 1.05).sum())
        shown = [f"{np.median(values):.2f} ({values.max():.2f})" for values in ratios.values()]
        rows.append([way, f"{named} of {len(own)}", str(others), *shown, f"{near} of {len(own)}"])
    head = [
        schedule,
        "named",
        "others named",
        "merged with it / clean (most)",
        "without / clean (most)",
        "≤ 1.05",
    ]
    print(table(head, rows))


def main() -> None:
    """Print the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["merges", "diverged"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--schedules", nargs="+", default=["constant", "linear", "cosine"])
    arguments = parser.parse_args()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    seeds = arguments.seeds
    for schedule in arguments.schedules:
        found: list[Any] = []
        for seed, other in zip(seeds, [*seeds[1:], seeds[0]], strict=True):
            say(f"{arguments.what}: {schedule}, seed {seed}")
            with tempfile.TemporaryDirectory() as scratch:
                if arguments.what == "merges":
                    found.append(merges(seed, schedule, Path(scratch)))
                else:
                    found.append(diverged(seed, other, schedule, Path(scratch)))
        (show_merges if arguments.what == "merges" else show_diverged)(schedule, found)


if __name__ == "__main__":
    main()
