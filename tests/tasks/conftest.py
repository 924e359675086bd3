"""A store that is ready, and everything that register reads; which models are loaded; adapters on a base; a Hub."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tasks.base.model_files import ModelFiles
from tasks.base.publish import publishing
from tasks.base.records.evaluation import Evaluation
from tasks.base.records.merge import MergeInput, MergeReport
from tasks.base.records.record import FileDigest, Interval
from tasks.base.records.score import Difference, EvaluatedModel, Score
from tasks.base.records.selection import Selection
from tasks.base.records.training_run import Checkpoint, TrainingRun
from tasks.base.records.verdict import Verdict
from tasks.parameters.registration import RegisterParams
from tests.support.hub_checkpoints import environment
from tests.support.hub_server import Hub

MakeArtifacts = Callable[..., Path]

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 4,
    "tie_word_embeddings": True,
    "dtype": "float32",
}
VOCABULARY = {"<unk>": 0, "one": 1, "two": 2, "three": 3}


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create an MLflow database once, in a process of its own: that takes eight seconds."""
    home = tmp_path_factory.mktemp("store")
    code = "from tasks.parameters.params import RegisterParams as P; from tasks.registry.store import connect; connect(P())"
    env = {**os.environ, "LORELINE_HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    env.pop("MLFLOW_TRACKING_URI", None)
    subprocess.run([sys.executable, "-c", code], env=env, check=True, cwd=Path(__file__).parents[2])
    with contextlib.closing(sqlite3.connect(home / "mlflow.db")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # A third of the fsyncs, for the tests' sake.
    return home / "mlflow.db"


@pytest.fixture
def store(own_state: Path, empty_store: Path) -> RegisterParams:
    """Return the parameters of the default store of this test: a SQLite database in its state directory."""
    home = own_state / "loreline"
    home.mkdir()
    shutil.copyfile(empty_store, home / "mlflow.db")
    return RegisterParams(name="demo")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Run a Hub named by HF_ENDPOINT, with an empty cache, and short waits between attempts."""
    from huggingface_hub import constants

    from tasks.base import hub_client

    for key, value in environment(tmp_path).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_client, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(hub_client, "RETRIES", 2)
    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.stop()


@pytest.fixture
def make_artifacts(tmp_path: Path) -> MakeArtifacts:
    """Write artifacts/ as the stages before register would, around a Llama that transformers can load."""

    def make(
        root: Path = tmp_path / "artifacts",
        *,
        seed: int = 0,
        decision: str = "PROMOTE",
        gain: float = 0.5,
        against: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> Path:
        chosen = tuple(checkpoint(step) for step in (100, 200, 300))
        for stage in ("run", "selection", "evaluation/figures"):
            (root / stage).mkdir(parents=True, exist_ok=True)
        TrainingRun(name="tiny", source="/training", checkpoints=chosen, left_out=()).write(
            root / "run" / "run.json"
        )
        Selection(
            run="tiny",
            rule="last_k",
            chosen=chosen,
            left_out=(),
            best=None,
            last=chosen[-1],
            metric="eval_loss",
        ).write(root / "selection" / "selection.json")
        report = _merge(root / "merged", chosen, seed, notes)
        _evaluation(report, decision, gain, against).write(root / "evaluation" / "evaluation.json")
        (root / "evaluation" / "figures" / "gains.png").write_bytes(b"\x89PNG " + str(gain).encode())
        return root

    return make


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """List every model directory that is loaded, in this order."""
    from tasks.evaluation.backends import hf  # which imports transformers

    directories: list[Path] = []
    real = hf._load

    def load(files: ModelFiles, device: str) -> object:
        directories.append(files.directory)
        return real(files, device)

    monkeypatch.setattr(hf, "_load", load)
    return directories


def checkpoint(step: int) -> Checkpoint:
    """Return a checkpoint as fetch would describe it."""
    weights = FileDigest(name="model.safetensors", size=step, sha256=f"{step:064d}")
    return Checkpoint(
        name=f"checkpoint-{step}",
        step=step,
        source=f"/training/checkpoint-{step}",
        metrics={},
        files=(weights,),
    )


def write_model(directory: Path, seed: int) -> None:
    """Write a one-layer Llama with random weights and a tokenizer of three words."""
    random = torch.Generator().manual_seed(seed)
    layer = "model.layers.0."
    shapes = {f"{layer}self_attn.{p}_proj.weight": (8, 8) for p in "qkvo"} | {
        "model.embed_tokens.weight": (4, 8),
        "model.norm.weight": (8,),
        f"{layer}input_layernorm.weight": (8,),
        f"{layer}post_attention_layernorm.weight": (8,),
        f"{layer}mlp.gate_proj.weight": (16, 8),
        f"{layer}mlp.up_proj.weight": (16, 8),
        f"{layer}mlp.down_proj.weight": (8, 16),
    }
    tensors = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(CONFIG))
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "model": {"type": "WordLevel", "vocab": VOCABULARY, "unk_token": "<unk>"},
        "pre_tokenizer": {"type": "Whitespace"},
    }
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"})
    )


def _merge(directory: Path, chosen: tuple[Checkpoint, ...], seed: int, notes: tuple[str, ...]) -> MergeReport:
    from tasks.base.digests import file_digests
    from tasks.base.measures import TensorMeasures

    with publishing(directory, made_from=f"seed {seed}, {notes}") as out:
        write_model(out, seed)
        report = MergeReport(
            method="lore",
            parameters={"lam": 0.3, "lore": {"mu": 1.0, "anchor": "mean"}, "weights": [0.5, 0.5]},
            inputs=tuple(MergeInput(path=c.source, step=c.step, digest=c.digest) for c in chosen),
            outputs=file_digests(out, out.iterdir()),
            notes=notes,
            tensors={"model.norm.weight": TensorMeasures()},
        )
        report.write(out / "merge.json")
        (out / "README.md").write_text(f"# Merged\n{notes}\n")
    return report


def _evaluation(report: MergeReport, decision: str, gain: float, against: str | None) -> Evaluation:
    models = [
        EvaluatedModel(role="last", label="last (checkpoint-300)", digest="3"),
        EvaluatedModel(role="merge", label="lore merge", digest=report.digest),
    ]
    if against:
        models.append(EvaluatedModel(role="champion", label="champion", digest=against))
    interval = Interval(mean=gain, low=gain - 0.1, high=gain + 0.1)
    return Evaluation(
        primary="sums,easy/acc",
        models=tuple(models),
        scores=tuple(
            Score(model=model.role, metric="sums,easy/acc", items=10, value=interval) for model in models
        ),
        differences=(
            Difference(
                against="last",
                metric="sums,easy/acc",
                items=10,
                gain=interval,
                p_value=0.01,
                wins=5,
                losses=0,
            ),
        ),
        verdict=Verdict(
            decision=decision,
            sentence=f"{decision}: the merge gains {gain}.",
            against="last",
            primary="sums,easy/acc",
            items_needed=None,
        ),
    )


TARGETS = {"llama": ["q_proj", "down_proj", "embed_tokens"], "gpt2": ["c_attn", "c_proj"]}


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def adapter_family(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Path]]:
    """Write a base and three adapters of different rank and scaling."""
    from tests.support.tiny_adapters import write_adapter, write_gpt2, write_llama  # which import PEFT

    directory = tmp_path_factory.mktemp(request.param)
    base = (write_llama if request.param == "llama" else write_gpt2)(directory / "base")
    settings: list[dict[str, Any]] = [{"r": 2}, {"r": 3, "use_rslora": True}, {"r": 1, "lora_alpha": 2}]
    return base, [
        write_adapter(directory / f"checkpoint-{i}", base, i, target_modules=TARGETS[request.param], **own)
        for i, own in enumerate(settings, 1)
    ]


@pytest.fixture
def offline(tmp_path: Path, own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep data sets out of the user's cache."""
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
