"""What methods that measure on text do to the demo's runs, beside the plain average of the same checkpoints.

study_calibrated.py [--seeds 0 1] [--schedules constant linear cosine] [--methods fisher ...]

Prints the tables of docs/how-to/calibrated-methods.md. The text is that of the run's select items; the base of
methods that need one is the run's first checkpoint.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers.utils import logging

from flows.demo import training
from tasks.base.passage import Passage
from tasks.checkpoints.run_directory import numbered_checkpoints
from tasks.engine.calibration import write_texts
from tasks.merge_checkpoints import merge_directories
from tasks.parameters.merge import MergeParams
from tests.benchmarks.measure import say, table
from tests.benchmarks.study_models import item_losses, loss, test_batches
from tests.benchmarks.study_trajectory import last_of, trained

METHODS: Mapping[str, dict[str, Any]] = {
    "fisher": {"method": "fisher"},
    "regmean": {"method": "regmean"},
    "regmean, alpha 0.1": {"method": "regmean", "regmean": {"alpha": 0.1}},
    "adamerging": {"method": "adamerging"},
    "adamerging, 100 steps": {"method": "adamerging", "adamerging": {"steps": 100}},
    "adamerging, 500 steps": {"method": "adamerging", "adamerging": {"steps": 500}},
    "adamerging, all text": {"method": "adamerging"},
    "adamerging, all text, 100 steps": {"method": "adamerging", "adamerging": {"steps": 100}},
}


def row(seed: int, schedule: training.Schedule, names: Sequence[str], scratch: Path) -> list[str]:
    """Return losses of the last checkpoint and the average, and each method's difference from the latter."""
    run = trained(seed, schedule)
    _, first = numbered_checkpoints(run)[0]
    last, batches, texts = last_of(run, 5), test_batches(run), scratch / "texts.jsonl"
    merge_directories(MergeParams(method="average"), last, scratch / "average")
    average = item_losses(scratch / "average", batches)
    cells = [f"{schedule}, seed {seed}", f"{loss(last[-1], batches):.4f}", f"{average.mean():.4f}"]
    for name in names:
        write_texts(select_texts(run, prompted="all text" not in name), texts)
        tree = METHODS[name] | {"calibration": {"file": str(texts)}, "base": str(first)}
        params = MergeParams.model_validate(tree)
        merge_directories(params, last, scratch / name)
        gained = item_losses(scratch / name, batches) - average
        cells.append(f"{gained.mean():+.4f} ± {gained.std() / len(gained) ** 0.5:.4f}")
    return cells


def select_texts(run: Path, prompted: bool) -> list[Passage]:
    """Return the select items as the task word_problems_select puts them; `prompted`: questions as prompts."""
    items = map(json.loads, (run / "data" / "select.jsonl").read_text().splitlines())
    passages = [Passage(f"{item['question']} ", f"{item['answer']}\n") for item in items]
    return passages if prompted else [Passage("", own.whole) for own in passages]


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options.add_argument(
        "--schedules",
        nargs="+",
        choices=["constant", "linear", "cosine"],
        default=["constant", "linear", "cosine"],
    )
    options.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    given = options.parse_args()
    logging.disable_progress_bar()
    rows = []
    for schedule in given.schedules:
        for seed in given.seeds:
            with tempfile.TemporaryDirectory() as scratch:
                rows.append(row(seed, schedule, given.methods, Path(scratch)))
                say(" ".join(rows[-1]))
    print(table(["run", "last", "average of 5", *given.methods], rows))


if __name__ == "__main__":
    main()
