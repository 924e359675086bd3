"""What LoRE does to a trajectory: the demo's run from several seeds, merged along the λ line (`make study`).

study_lore.py [--seeds 0 1 2 3 4] [--figure .github/lore.png]

Prints the table of docs/study.md and draws its figure. Training takes about two minutes a seed; the runs are those of
`loreline demo --seed K`, below runs/, and stay there.
"""

import argparse
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers.utils import logging

from flows.demo import training
from flows.demo.demo import demo_directory
from tasks.sources.readiness import logged_metrics
from tests.benchmarks.measure import say, table
from tests.benchmarks.programs import LORELINE
from tests.benchmarks.study_figure import LINE, Losses, N, draw_study
from tests.benchmarks.study_models import Batches, diverge, loss, test_batches

SPACING = 4
SWEEP = ("--sweep", f"merge.lam={','.join(f'{x / N:g}' for x in LINE)}")
METHODS = {
    "average": ("--set", "merge.method=average"),
    "ema": ("--set", "merge.method=ema"),
    "paper": ("--set", "merge.lore.preset=paper"),
}
ROWS = {
    "best single checkpoint": "best",
    "average": "average",
    "EMA (decay 0.6)": "ema",
    "LoRE, λ = 0": "0",
    "LoRE, λ = 0.5/N": "0.5",
    "LoRE, λ = 0.75/N (our default)": "0.75",
    "LoRE, λ = 1": "5",
    "LoRE, the paper's preset": "paper",
}


def study(seed: int, scratch: Path) -> dict[str, Losses]:
    """Return the test losses of single checkpoints and of merges, for three choices of checkpoints."""
    run = demo_directory(seed, training.DEFAULT_STEPS)
    training.finished_run(run, seed=seed, steps=training.DEFAULT_STEPS)
    batches = test_batches(run)
    trajectory = sorted(run.glob("checkpoint-*"), key=step)
    best = min(trajectory, key=lambda checkpoint: logged_metrics(checkpoint, step(checkpoint))["eval_loss"])
    single = {"best": loss(best, batches)}
    *before, middle, fourth, last = trajectory[-N:]
    cases = {
        "last": trajectory[-N:],
        "spaced": trajectory[-1 - SPACING * (N - 1) :: SPACING],
        "diverged": [*before, diverge(middle, scratch / "spike", seed), fourth, last],
    }
    rest = merge([*before, fourth, last], scratch / "rest", METHODS["average"])
    found = {case: single | merges(chosen, scratch / case, batches) for case, chosen in cases.items()}
    return found | {"diverged": found["diverged"] | {"rest": loss(rest, batches)}}


def merges(checkpoints: Sequence[Path], out: Path, batches: Batches) -> Losses:
    """Return the test loss of every method, and of LoRE by Nλ."""
    losses = {name: loss(merge(checkpoints, out / name, given), batches) for name, given in METHODS.items()}
    swept = merge(checkpoints, out / "swept", SWEEP)
    return losses | {f"{x:g}": loss(swept / f"lam={x / N:g}", batches) for x in LINE}


def merge(checkpoints: Sequence[Path], out: Path, settings: Sequence[str]) -> Path:
    """Merge as a user does."""
    inputs = [str(checkpoint) for checkpoint in checkpoints]
    command = [*LORELINE, "merge", *inputs, "--out", str(out), *settings]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return out


def step(checkpoint: Path) -> int:
    """checkpoint-300 → 300."""
    return int(checkpoint.name.rpartition("-")[2])


def results(found: Sequence[dict[str, Losses]]) -> str:
    """Format what docs/study.md shows: means over the seeds, and paired differences with their standard error."""
    rows = []
    for label, name in ROWS.items():
        cells = [label]
        for case in ("last", "spaced"):
            own, average = (np.array([one[case][model] for one in found]) for model in (name, "average"))
            difference = own - average
            error = difference.std(ddof=1) / len(found) ** 0.5
            cells += [
                f"{own.mean():.3f}",
                f"{difference.mean():+.4f} ± {error:.4f}" if name != "average" else "",
                f"{(difference < 0).sum()}" if name != "average" else "",
            ]
        rows.append([*cells, f"{np.mean([one['diverged'][name] for one in found]):.2f}"])
    head = ["", "the last five", "− average", "seeds", "every fourth", "− average", "seeds", "one diverged"]
    return table(head, rows)


def main() -> None:
    """Train what is not there yet, merge, print the table, draw the figure."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seeds", type=int, nargs="+", default=range(5))
    options.add_argument("--figure", type=Path, default=Path(".github/lore.png"))
    given = options.parse_args()
    logging.disable_progress_bar()
    found = []
    for seed in given.seeds:
        with tempfile.TemporaryDirectory() as scratch:
            found.append(study(seed, Path(scratch)))
        say(f"seed {seed}: done")
    print(results(found))
    draw_study(given.figure, found)


if __name__ == "__main__":
    main()
