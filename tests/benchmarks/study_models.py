"""The models of the study: one that diverged, and how well a model does on the demo's test split."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

from flows.demo import training
from flows.demo.problems import Problem, make_splits
from tasks.base.threads import torch_threads_for

SPIKE = 10
"""Steps, at as many times the learning rate."""

Batches = Sequence[dict[str, torch.Tensor]]


def diverge(checkpoint: Path, out: Path, seed: int) -> Path:
    """Continue a checkpoint for a few steps at far too high a learning rate, with a fresh AdamW."""
    splits = make_splits(seed, train=training.TRAIN, select=training.SELECT, test=training.TEST)
    rows = training.encode_text(splits.train[: SPIKE * training.BATCH], training.make_tokenizer())
    model = AutoModelForCausalLM.from_pretrained(checkpoint).train()
    arguments = training.training_arguments(out, seed, training.DEFAULT_STEPS)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=SPIKE * arguments.learning_rate,
        betas=(arguments.adam_beta1, arguments.adam_beta2),
        weight_decay=arguments.weight_decay,
    )
    for batch in DataLoader(rows, training.BATCH, collate_fn=training.pad):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), arguments.max_grad_norm)
        optimizer.step()
    shutil.copytree(checkpoint, out)
    model.save_pretrained(out)
    return out


def test_batches(run: Path) -> Batches:
    """Read the test split; what counts is the answer and its newline, as in the demo's lm-eval task."""
    return batches_of(run, "test")


def batches_of(run: Path, split: str) -> Batches:
    """Read a split of the demo's problems, its items by length."""
    lines = (run / "data" / f"{split}.jsonl").read_text().splitlines()
    rows = training.encode_text([Problem(**json.loads(line)) for line in lines], training.make_tokenizer())
    for row in rows:
        row["labels"][-1] = -100  # the end of the text
    rows.sort(key=lambda row: len(row["labels"]))
    return [training.pad(rows[i : i + 250]) for i in range(0, len(rows), 250)]


def loss(model_dir: Path, batches: Batches) -> float:
    """Return the mean negative log-likelihood of an answer in nats: word_problems_nll/nll."""
    return float(item_losses(model_dir, batches).mean())


@torch.inference_mode()
def item_losses(model_dir: Path, batches: Batches) -> NDArray[np.float64]:
    """Return the negative log-likelihood of every answer, in the order of the batches."""
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    found = []
    with torch_threads_for(training.PARAMETERS):
        for batch in batches:
            logits = model(input_ids=batch["input_ids"]).logits[:, :-1].transpose(1, 2)
            each = torch.nn.functional.cross_entropy(logits, batch["labels"][:, 1:], reduction="none")
            found.append(each.sum(dim=1))
    return torch.cat(found).double().numpy()
