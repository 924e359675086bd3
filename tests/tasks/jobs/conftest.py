"""A Trainer for the tests of this room."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Any]:
    """Train a tiny Llama for seven steps, a checkpoint every three; `stop` is called at every step's end."""
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    class Stop(TrainerCallback):
        trainer: Any = None

        def __init__(self, stop: Callable[[Any, Any], None]) -> None:
            self.stop = stop

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.stop(self.trainer, control)

    def train(
        stop: Callable[[Any, Any], None] = lambda *_: None, callbacks: Any = (), **arguments: Any
    ) -> Any:
        torch.manual_seed(0)
        rows = [{"input_ids": torch.arange(4), "labels": torch.arange(4)}] * 14
        sizes = {"hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
        chosen = {"save_steps": 3, "max_steps": 7, "learning_rate": 0.0} | arguments
        trainer = Trainer(
            model=LlamaForCausalLM(LlamaConfig(vocab_size=4, **sizes)),
            args=TrainingArguments(
                str(tmp_path / "out"), per_device_train_batch_size=2, use_cpu=True, report_to="none",
                disable_tqdm=True, logging_strategy="no", **chosen,
            ),
            train_dataset=rows, eval_dataset=rows[:2], callbacks=[stopper := Stop(stop), *callbacks],
        )  # fmt: skip
        stopper.trainer = trainer
        trainer.train()
        return trainer

    return train
