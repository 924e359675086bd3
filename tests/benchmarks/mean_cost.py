"""What `MergeAfterTraining(keep=..., mean=True)` costs: `python -m tests.benchmarks.mean_cost [BATCH] [TOKENS] [DEVICE]`.

The real Trainer on a Llama of SmolLM2's 135 M parameters with random weights, in float32. In every step the callback's
part is timed, and the step without it; the second save is timed beside the Trainer's own. Medians; the first step of
each interval, which takes memory, is left out.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from loreline import MergeAfterTraining

STEPS, EVERY = 12, 6


class Timed(MergeAfterTraining):
    """The callback, with the seconds that each of its parts and each step took."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.added: list[float] = []
        self.steps: list[float] = []
        self.saved: list[float] = []
        self.trainer_saved: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = now()

    def on_step_end(self, *args: Any, **rest: Any) -> None:
        ended = now()
        super().on_step_end(*args, **rest)
        self._began, began = now(), self._began
        self.steps.append(ended - began)
        self.added.append(self._began - ended)

    def on_save(self, *args: Any, **rest: Any) -> None:
        before = now()
        self.trainer_saved.append(before - self._began)
        super().on_save(*args, **rest)
        self.saved.append(now() - before)


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(batch: int, tokens: int, device: str, where: Any) -> str:
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(2, 40_000, (64, tokens)).tolist()]
    with tempfile.TemporaryDirectory() as place:
        arguments = TrainingArguments(
            str(Path(place, "run")), max_steps=STEPS, save_steps=EVERY, per_device_train_batch_size=batch, report_to=[],
            use_cpu=device == "cpu", disable_tqdm=True, logging_strategy="no", save_only_model=True, save_total_limit=1,
        )  # fmt: skip
        timed = Timed(keep=1, mean=where)
        Trainer(LlamaForCausalLM(config), arguments, train_dataset=rows, callbacks=[timed]).train()
    later = [step for step in range(STEPS) if step % EVERY]
    step = statistics.median(timed.steps[each] for each in later)
    added = statistics.median(timed.added[each] for each in later)
    return (
        f"{device}, mean={where!r}, {batch} x {tokens} tokens: step {step:.3f} s, mean {added * 1e3:.1f} ms "
        f"({added / step:.2%}); save by the Trainer {timed.trainer_saved[-1]:.2f} s, kept with mean {timed.saved[-1]:.2f} s"
    )


def main(batch: int = 4, tokens: int = 512, device: str = "cpu") -> None:
    for where in (True,) if device == "cpu" else (True, "cpu"):
        print(measure(batch, tokens, device, where), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *sys.argv[3:4])
