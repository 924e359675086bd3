"""What `MergeAfterTraining(keep=..., mean=True)` costs: `python -m tests.benchmarks.mean_cost [BATCH] [TOKENS] [DEVICE]`.

The real Trainer on a Llama of SmolLM2's 135 M parameters with random weights, in float32. In every step the callback's
part is timed, and the step without it; the last save beside the Trainer's own. Medians, also of the seconds of CPU,
which other work on the machine disturbs less; the first step of each interval, which takes memory, is left out.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from loreline import MergeAfterTraining

STEPS, EVERY = 6, 3


class Moment(NamedTuple):
    """A time, or the time between two: in seconds of the clock and of the CPU."""

    clock: float
    cpu: float

    def __sub__(self, earlier: "Moment") -> "Moment":
        """Return the time between."""
        return Moment(self.clock - earlier.clock, self.cpu - earlier.cpu)


def now() -> Moment:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Moment(time.perf_counter(), time.process_time())


class Timed(MergeAfterTraining):
    """The callback, with what each of its parts and each step took."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.added: list[Moment] = []
        self.steps: list[Moment] = []
        self.saved: list[Moment] = []
        self.trainer_saved: list[Moment] = []
        self._began = now()

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
    step = median([timed.steps[each] for each in later])
    added = median([timed.added[each] for each in later])
    return (
        f"{device}, mean={where!r}, {batch} x {tokens} tokens: step {step.clock:.3f} s, mean {added.clock:.4f} s "
        f"({added.clock / step.clock:.2%}); of the CPU {step.cpu:.2f} s, {added.cpu:.3f} s ({added.cpu / step.cpu:.2%}); "
        f"save by the Trainer {timed.trainer_saved[-1].clock:.2f} s, kept with its mean {timed.saved[-1].clock:.2f} s"
    )


def median(taken: list[Moment]) -> Moment:
    return Moment(*(statistics.median(part) for part in zip(*taken, strict=True)))


def main(batch: int = 4, tokens: int = 256, device: str = "cpu") -> None:
    for where in (True,) if device == "cpu" else (True, "cpu"):
        print(measure(batch, tokens, device, where), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *sys.argv[3:4])
