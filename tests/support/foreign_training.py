"""A training script of somebody else's, who has packages called flows and tasks: `python train.py OUTPUT_DIR`.

It prints the release of transformers, and for how many seconds the callback held up the end of training.
"""

import sys
import time

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

import flows
import tasks
from loreline import MergeAfterTraining

assert flows.OURS
assert tasks.OURS


class Clock(TrainerCallback):
    """Measures what the callback between two of these takes."""

    before = at = 0.0

    def on_train_end(self, args, state, control, **_):
        Clock.before, Clock.at = Clock.at, time.monotonic()


torch.set_num_threads(1)
config = LlamaConfig(
    vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
)
rows = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 4
arguments = TrainingArguments(
    output_dir=sys.argv[1], max_steps=2, save_steps=1, report_to="none", use_cpu=True, disable_tqdm=True
)
clocks = [Clock(), MergeAfterTraining(keep=2, mean=True), Clock()]
Trainer(LlamaForCausalLM(config), arguments, train_dataset=rows, callbacks=clocks).train()
for foreign in ("prefect", "platformdirs", "pydantic"):
    assert foreign not in sys.modules
print(transformers.__version__, round(Clock.at - Clock.before, 2))
