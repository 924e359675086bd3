"""The demo's fine-tuning run: a tiny Llama, the real `transformers.Trainer`, thirty checkpoints."""

import hashlib
import json
import shutil
import string
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flows.demo import problems
from flows.demo.problems import Problem, Splits
from flows.progress import PLAIN_EVERY_S, make_bar, say
from tasks.base.errors import BadInput
from tasks.base.json_files import read_json
from tasks.base.threads import torch_threads_for

if TYPE_CHECKING:
    import torch
    from rich.progress import Progress
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback, TrainingArguments

DEFAULT_STEPS = 3300
CHECKPOINTS = 30
PARAMETERS = 98_944
BATCH = 32
TRAIN, SELECT, TEST = 40_000, 500, 1500
MARK = "demo.json"
Schedule = Literal["constant", "linear", "cosine"]
"""What becomes of the learning rate after its warm-up: it stays, or decays to 0."""
DEMO_FILES = ("checkpoint-*", "data", "tasks", MARK)
DEMO_WRITES = (
    "data/select.jsonl",
    "data/test.jsonl",
    "tasks/word_problems*.yaml",
    *(f"checkpoint-*/{name}" for name in ("*config.json", "tokenizer.json", "*.jinja")),
    *(f"checkpoint-*/{name}" for name in ("model.safetensors", "trainer_state.json", "training_args.bin")),
)
"""What is in these; what else is there is the user's."""


def finished_run(directory: Path, *, seed: int, steps: int, schedule: Schedule = "constant") -> Path:
    """Return `directory`, holding a finished run of this seed, steps and schedule; train if there is none.

    Training ends at the last whole checkpoint spacing (`steps // 30`). An unfinished or different run of
    the demo is removed first; BadInput when `directory` holds what only looks like one.
    """
    mark = {"seed": seed, "steps": steps, "schedule": schedule, "recipe": recipe_digest()}
    if _read_mark(directory) == mark:
        return directory
    remove_run(directory)
    splits = problems.make_splits(seed, train=TRAIN, select=SELECT, test=TEST)
    problems.write_tasks(directory / "tasks")
    problems.write_data(splits, directory / "data")
    with torch_threads_for(PARAMETERS), _no_save_bars():
        train(directory, splits, seed=seed, steps=steps, schedule=schedule)
    _write_mark(directory, mark)
    return directory


def recipe_digest() -> str:
    """Return the SHA-256 of the two files that decide what a run contains."""
    sources = (Path(problems.__file__), Path(__file__))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def _read_mark(directory: Path) -> object:
    try:
        return read_json(directory / MARK)
    except BadInput:
        return None


def _write_mark(directory: Path, mark: dict[str, Any]) -> None:
    beside = directory / f".{MARK}"
    beside.write_text(json.dumps(mark, indent=2) + "\n", encoding="utf-8")
    beside.replace(directory / MARK)


def remove_run(directory: Path) -> None:
    """Remove what an earlier demo wrote; its task files tell it from a user's run, which stays as it is."""
    found = [path for pattern in DEMO_FILES for path in directory.glob(pattern)]
    if found and not (directory / "tasks" / "word_problems.yaml").exists():
        raise BadInput(found[0], "is not from the demo", "give the demo a directory of its own")
    for path in found:
        _check_own(path)
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _check_own(path: Path) -> None:
    """Raise BadInput for what a user put among the demo's files, or trained there."""
    if path.is_symlink():
        raise BadInput(path, "is a link, which the demo never makes", "move it away")
    for below in path.iterdir() if path.is_dir() else ():
        if not any(below.match(pattern) for pattern in DEMO_WRITES) or below.is_dir():
            raise BadInput(below, "is not from the demo, and would be removed", "move it away")


@contextmanager
def _no_save_bars() -> Iterator[None]:
    """Silence the bar that transformers shows for every checkpoint it writes."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def make_tokenizer() -> "PreTrainedTokenizerFast":
    """Make a tokenizer of one token a character, and `<eos>`, which also pads."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = ["<eos>", *"\n .,:?", *string.digits, *string.ascii_letters]
    model = models.WordLevel({token: number for number, token in enumerate(alphabet)}, unk_token="<eos>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>", model_max_length=128
    )


def make_model(tokenizer: "PreTrainedTokenizerFast") -> "LlamaForCausalLM":
    """Make a model of PARAMETERS parameters, initialised from torch's global random state."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.2,  # ten times the usual, which suits matrices this narrow
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def encode_text(some: list[Problem], tokenizer: "PreTrainedTokenizerFast") -> list[dict[str, list[int]]]:
    """Return token ids, and labels that ask for the answer alone (-100 elsewhere)."""
    questions = tokenizer([one.question for one in some])["input_ids"]
    answers = tokenizer([f" {one.answer}\n{tokenizer.eos_token}" for one in some])["input_ids"]
    return [
        {"input_ids": question + answer, "labels": [-100] * len(question) + answer}
        for question, answer in zip(questions, answers, strict=True)
    ]


def pad(rows: list[dict[str, list[int]]]) -> "dict[str, torch.Tensor]":
    """Make one batch, padded on the right; causal attention needs no mask for that."""
    import torch

    width = max(len(row["input_ids"]) for row in rows)

    def padded(key: str, filler: int) -> torch.Tensor:
        return torch.tensor([row[key] + [filler] * (width - len(row[key])) for row in rows])

    return {"input_ids": padded("input_ids", 0), "labels": padded("labels", -100)}


def training_arguments(
    directory: Path, seed: int, steps: int, schedule: Schedule = "constant"
) -> "TrainingArguments":
    """Warm the rate up; held constant, the weights reach a plateau and keep moving on it to the end."""
    from transformers import TrainingArguments

    spacing = max(1, steps // CHECKPOINTS)
    return TrainingArguments(
        output_dir=str(directory),
        max_steps=steps - steps % spacing,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=250,
        learning_rate=3e-3,
        lr_scheduler_type="constant_with_warmup" if schedule == "constant" else schedule,
        warmup_steps=min(100, steps // 10),
        weight_decay=0.1,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        eval_strategy="steps",
        eval_steps=spacing,
        save_strategy="steps",
        save_steps=spacing,
        save_only_model=True,
        logging_steps=max(1, spacing // 4),
        seed=seed,
        use_cpu=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to="none",
    )


def train(directory: Path, splits: Splits, *, seed: int, steps: int, schedule: Schedule) -> None:
    """Run the Trainer, which writes the checkpoints into `directory`."""
    from transformers import PrinterCallback, Trainer, set_seed

    set_seed(seed)
    tokenizer = make_tokenizer()
    with make_bar("training") as bar:
        trainer = Trainer(
            model=make_model(tokenizer),
            args=training_arguments(directory, seed, steps, schedule),
            processing_class=tokenizer,
            data_collator=pad,
            train_dataset=encode_text(splits.train, tokenizer),
            eval_dataset=encode_text(splits.select, tokenizer),
            callbacks=[_progress(bar)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def _progress(bar: "Progress") -> "TrainerCallback":
    """Move the bar; where there is no terminal, print a line every ten seconds instead."""
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

    class Report(TrainerCallback):
        def on_train_begin(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
        ) -> None:
            self.started = self.told = time.monotonic()
            self.task = bar.add_task("", total=state.max_steps)

        def on_step_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
        ) -> None:
            step, now = state.global_step, time.monotonic()
            losses = [entry["loss"] for entry in state.log_history[-2:] if "loss" in entry]
            text = f"step {step} of {state.max_steps}" + (f", loss {losses[-1]:.3f}" if losses else "")
            bar.update(self.task, completed=step, description=text)
            if bar.disable and now - self.told >= PLAIN_EVERY_S:
                self.told = now
                say(f"training: {text}, {(now - self.started) / step * (state.max_steps - step):.0f} s left")

    return Report()
