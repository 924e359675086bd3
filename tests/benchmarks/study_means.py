"""Averages of checkpoints beside means of every step: `python -m tests.benchmarks.study_means [SEED ...]`.

Trains the demo's run, of which the Trainer keeps two checkpoints and MergeAfterTraining five with their means, and
prints the test NLL of both kinds, over the last two and the last five intervals. About three minutes a seed.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from transformers import Trainer, set_seed
from transformers.utils import logging

from flows.demo import problems, training
from loreline import MergeAfterTraining
from loreline.keeping import kept_directory
from tasks.base.threads import torch_threads_for
from tests.benchmarks.measure import say, table
from tests.benchmarks.study_lore import METHODS, merge
from tests.benchmarks.study_models import loss, test_batches

KEPT, SPANS = 5, (2, 5)


def train(run: Path, seed: int) -> Path:
    """Train as the demo does, seed for seed; return where the callback kept checkpoints and means."""
    splits = problems.make_splits(seed, train=training.TRAIN, select=training.SELECT, test=training.TEST)
    problems.write_data(splits, run / "data")
    arguments = training.training_arguments(run, seed, training.DEFAULT_STEPS)
    arguments.save_total_limit = 2
    set_seed(seed)
    tokenizer = training.make_tokenizer()
    with torch_threads_for(training.PARAMETERS):
        Trainer(
            model=training.make_model(tokenizer),
            args=arguments,
            processing_class=tokenizer,
            data_collator=training.pad,
            train_dataset=training.encode_text(splits.train, tokenizer),
            eval_dataset=training.encode_text(splits.select, tokenizer),
            callbacks=[MergeAfterTraining(keep=KEPT, mean=True)],
        ).train()
    return kept_directory(run)


def losses(run: Path, kept: Path) -> dict[str, float]:
    """Return the test loss of the last checkpoint, and of both kinds of average over each span."""
    batches = test_batches(run)
    found = {"last": loss(newest(kept, "checkpoint", 1)[0], batches)}
    for span in SPANS:
        for kind in ("checkpoint", "mean"):
            inputs = newest(kept, kind, span)
            merged = merge(inputs, run / "merged" / f"{kind}-{span}", METHODS["average"])
            found[f"{kind}s of {span}"] = loss(merged, batches)
    return found


def newest(kept: Path, kind: str, count: int) -> Sequence[Path]:
    """List the newest directories of a kind, oldest first."""
    return sorted(kept.glob(f"{kind}-*"), key=lambda path: int(path.name.partition("-")[2]))[-count:]


def main(*seeds: str) -> None:
    """Print a row for each seed."""
    logging.disable_progress_bar()
    rows = []
    for seed in map(int, seeds or ("0", "1", "2")):
        with tempfile.TemporaryDirectory() as place:
            run = Path(place, "run")
            found = losses(run, train(run, seed))
        say(f"seed {seed}: {found}")
        rows.append([str(seed), *(f"{value:.4f}" for value in found.values())])
    print(table(["seed", *found], rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
