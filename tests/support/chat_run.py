"""Fine-tune a tiny chat model as a user's script does: `python chat_run.py OUTPUT_DIR full|lora`, with the callback.

The Trainer keeps one checkpoint, the callback three. It ends by printing when training ended, in seconds.
"""

import sys
import time
from pathlib import Path

from loreline import MergeAfterTraining

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def train(output: Path, kind: str) -> None:
    """Train on sums, asked and answered in turns."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        Trainer,
        TrainingArguments,
        default_data_collator,
    )

    from tests.support.tiny_world import write_model

    torch.set_num_threads(1)
    torch.manual_seed(0)
    base = write_model(output.parents[1] / f"base-{kind}")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    if kind == "lora":
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    turns = [
        [{"role": "user", "content": f"{a} + {b}"}, {"role": "assistant", "content": str(a + b)}]
        for a in range(5)
        for b in range(5)
    ]
    rows = [
        {"input_ids": ids, "labels": ids} for ids in tokenizer.apply_chat_template(turns, return_dict=False)
    ]
    rows = [row for row in rows if len(row["input_ids"]) == len(rows[0]["input_ids"])]
    arguments = TrainingArguments(
        output_dir=str(output), max_steps=12, per_device_train_batch_size=8, learning_rate=3e-3, save_steps=3,
        save_total_limit=1, report_to="none", use_cpu=True, disable_tqdm=True, logging_steps=3,
    )  # fmt: skip
    Trainer(
        model=model, args=arguments, train_dataset=rows, processing_class=tokenizer,
        data_collator=default_data_collator, callbacks=[MergeAfterTraining(keep=3)],
    ).train()  # fmt: skip
    print(time.time())


if __name__ == "__main__":
    train(Path(sys.argv[1]), sys.argv[2])
