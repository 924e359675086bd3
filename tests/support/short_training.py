"""A real training of seconds in this process: the Trainer, a tiny model, whichever callbacks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

Weights = dict[str, np.ndarray]


class Record(TrainerCallback):
    """Records the weights after every step in float64."""

    def __init__(self) -> None:
        self.after: dict[int, Weights] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        named = model.named_parameters(remove_duplicate=False)
        self.after[state.global_step] = {name: each.detach().double().numpy().copy() for name, each in named}

    def mean(self, steps: range) -> Weights:
        return {name: np.mean([self.after[step][name] for step in steps], 0) for name in self.after[steps[0]]}


def tiny_llama(seed: int = 0, dtype: torch.dtype = torch.float32, tied: bool = True) -> PreTrainedModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=tied, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(dtype)


def train(
    output: Path,
    callbacks: Sequence[TrainerCallback],
    model: Any = None,
    resume: bool | str = False,
    **settings: Any,
) -> Trainer:
    """Train at a constant rate, saving every three of twelve steps unless `settings` say otherwise."""
    rows = [{"input_ids": row, "labels": row} for row in torch.arange(64).remainder(13).view(8, 8).tolist()]
    usual = {
        "max_steps": 12, "save_steps": 3, "logging_steps": 1, "learning_rate": 1e-2, "use_cpu": True, "report_to": [],
        "per_device_train_batch_size": 2, "lr_scheduler_type": "constant", "disable_tqdm": True,
    }  # fmt: skip
    arguments = TrainingArguments(str(output), **{**usual, **settings})
    trainer = Trainer(model or tiny_llama(), arguments, train_dataset=rows, callbacks=list(callbacks))
    trainer.train(resume_from_checkpoint=resume or None)
    return trainer
