"""A real training run of seconds, as a user's script: `python small_run.py OUTPUT_DIR [SEED]`, with the callback.

It ends by printing when `trainer.train()` returned, in seconds since the epoch.
"""

import sys
import time
from pathlib import Path

from loreline import MergeAfterTraining


def train(output: Path, seed: int, steps: int = 12, every: int = 3) -> None:
    """Train the tests' tiny Llama on sums; checkpoints at every `every` steps."""
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        Trainer,
        TrainingArguments,
        default_data_collator,
    )

    from tests.support.tiny_world import write_model

    torch.set_num_threads(1)
    base = write_model(output.parent / f".base-{output.name}", seed=seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    texts = [f"{a} + {b}: {a + b}\n".ljust(12, "\n") for a in range(8) for b in range(8)]
    rows = [{"input_ids": ids, "labels": ids} for ids in tokenizer(texts)["input_ids"]]
    arguments = TrainingArguments(
        output_dir=str(output), max_steps=steps, per_device_train_batch_size=16, learning_rate=3e-3, seed=seed,
        save_strategy="steps", save_steps=every, eval_strategy="steps", eval_steps=every, save_only_model=True,
        report_to="none", use_cpu=True, disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(base)
    trainer = Trainer(
        model=model, args=arguments, train_dataset=rows, eval_dataset=rows[:16], processing_class=tokenizer,
        data_collator=default_data_collator,
        callbacks=[MergeAfterTraining()],
    )  # fmt: skip
    trainer.train()
    print(time.time())


if __name__ == "__main__":
    train(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
