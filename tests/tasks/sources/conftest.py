"""What runs come from in the tests of this room: a Trainer, an MLflow server."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.parameters.registration import RegisterParams
from tests.support.servers import mlflow_server
from tests.support.tiny import write_checkpoint


@pytest.fixture(scope="session")
def mlflow_uri(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an MLflow server, once for all tests of this room."""
    place = tmp_path_factory.mktemp("mlflow")
    shutil.copyfile(empty_store, place / "mlflow.db")
    with mlflow_server(place) as running:
        yield running.uri


@pytest.fixture
def served(mlflow_uri: str) -> RegisterParams:
    """Name the MLflow server."""
    return RegisterParams(tracking_uri=mlflow_uri)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Write a training directory with all that must stay away."""
    for step in (100, 20):
        directory = write_checkpoint(tmp_path / "out", step, {"w": torch.full((4,), float(step))})
    for name in ("optimizer.pt", "training_args.bin", "modeling.py", "merge.json", "deeper/config.json"):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(b"raise SystemExit")
    (tmp_path / "out" / "checkpoint-7").touch()
    (tmp_path / "out" / "config.json").write_text("{}")
    return tmp_path / "out"


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
