"""How well a model answers the study's test problems, without lm-eval and without Loreline."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.benchmarks.real_runs import encode, pad, read_problems

BATCH = 50


@torch.inference_mode()
def answer_losses(model_dir: Path, base: Path, split: Path) -> NDArray[np.float64]:
    """Return the negative log-likelihood in nats of every answer; an adapter is read on `base`."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = encode(read_problems(split), tokenizer)
    order = np.argsort([len(row["labels"]) for row in rows])
    model = _load(model_dir, base)
    losses = np.empty(len(rows))
    for start in range(0, len(rows), BATCH):
        taken = order[start : start + BATCH]
        batch = pad([rows[i] for i in taken], tokenizer.pad_token_id)
        logits = model(input_ids=batch["input_ids"]).logits[:, :-1].transpose(1, 2)
        each = torch.nn.functional.cross_entropy(logits, batch["labels"][:, 1:], reduction="none")
        losses[taken] = each.sum(1).double().numpy()
    return losses


def _load(model_dir: Path, base: Path) -> torch.nn.Module:
    if not (model_dir / "adapter_config.json").exists():
        return AutoModelForCausalLM.from_pretrained(model_dir, dtype="float32").eval()
    from peft import PeftModel

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), model_dir).eval()
