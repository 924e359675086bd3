"""Runs whose checkpoints are in pickles: refused, or converted once, beside the artifacts, where that is asked for."""

import json
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.base.errors import BadInput
from tasks.base.records.training_run import Checkpoint, TrainingRun
from tasks.checkpoints.layout import pickled_state
from tasks.fetch_run import fetch_run
from tasks.merge_checkpoints import merge_checkpoints
from tasks.parameters.fetch import FetchParams
from tasks.parameters.merge import MergeParams
from tasks.parameters.registration import RegisterParams
from tasks.parameters.selection import SelectParams
from tasks.select_checkpoints import select_checkpoints
from tasks.sources.addresses import observe
from tasks.sources.staging import staged
from tests.support.killing import kill, spawn
from tests.support.pickled_states import Canary, Tensors, without_weights, write_bin, write_fsdp, write_zero
from tests.support.short_training import tiny_llama
from tests.support.tiny import random_tensors, write_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

WRITERS: dict[str, Callable[[Path, Tensors], Any]] = {
    "single": write_bin,
    "sharded": lambda directory, tensors: write_bin(directory, tensors, 2),
    "fsdp": write_fsdp,
    "zero2": lambda directory, tensors: write_zero(directory, tensors, stage=2),
    "zero3": lambda directory, tensors: write_zero(directory, tensors, stage=3),
}


def params(run: Path, **more: Any) -> FetchParams:
    return FetchParams.model_validate({"source": str(run), "settle": 0, "convert": True} | more)


def snapshot(directory: Path) -> list[tuple[str, int, int, int, bytes]]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return [
        (str(path), at.st_mode, at.st_mtime_ns, at.st_size, path.read_bytes())
        for path in files
        for at in [path.stat()]
    ]


def weights(checkpoint: Checkpoint, artifacts: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = load_file(staged(checkpoint, artifacts) / "model.safetensors")
    return loaded


@pytest.mark.parametrize("kind", WRITERS)
def test_without_being_asked_for_they_are_refused_and_the_parameter_is_named(
    tmp_path: Path, kind: str
) -> None:
    WRITERS[kind](without_weights(tmp_path / "run", 3), random_tensors(3))
    with pytest.raises(
        BadInput, match=r"checkpoint-3: holds pickled weights only .*set fetch\.convert to true"
    ):
        fetch_run(params(tmp_path / "run", convert=False), tmp_path / "artifacts")
    assert not (tmp_path / "artifacts" / "converted").exists()


def test_a_run_is_converted_once_and_its_source_is_never_touched(tmp_path: Path) -> None:
    """Beside the artifacts, as hard links where it can be; and again when what was made is lost."""
    run, artifacts = tmp_path / "run", tmp_path / "artifacts"
    directory = without_weights(run, 3, metrics={"eval_loss": 0.5})
    write_bin(directory, random_tensors(3))
    torch.save(Canary(tmp_path / "sang"), directory / "training_args.bin")
    before = snapshot(run)
    (checkpoint,) = (fetched := fetch_run(params(run), artifacts)).checkpoints
    assert weights(checkpoint, artifacts).keys() == random_tensors(3).keys()
    assert checkpoint.metrics == {"loss": 1.0, "eval_loss": 0.5}
    assert {file.name for file in checkpoint.files} == {
        "config.json", "model.safetensors", "tokenizer.json", "trainer_state.json",
    }  # fmt: skip
    assert checkpoint.conversion
    assert [file.name for file in checkpoint.conversion.files] == ["pytorch_model.bin"]
    made = artifacts / "converted" / "checkpoint-3" / "model.safetensors"
    assert made.stat().st_ino == (staged(checkpoint, artifacts) / "model.safetensors").stat().st_ino

    written = made.stat().st_mtime_ns
    assert fetch_run(params(run), artifacts, refresh=True) == fetched
    shutil.rmtree(artifacts / "checkpoints")
    assert weights(checkpoint, artifacts).keys() == random_tensors(3).keys()
    assert made.stat().st_mtime_ns == written

    assert snapshot(run) == before
    assert not (tmp_path / "sang").exists()


@pytest.mark.slow
def test_what_is_lost_is_converted_again_to_the_same_and_what_changed_to_another(tmp_path: Path) -> None:
    run, artifacts = tmp_path / "run", tmp_path / "artifacts"
    directory = without_weights(run, 3)
    write_bin(directory, random_tensors(3))
    (checkpoint,) = (fetched := fetch_run(params(run), artifacts)).checkpoints
    shutil.rmtree(artifacts / "checkpoints")
    shutil.rmtree(artifacts / "converted")
    assert weights(checkpoint, artifacts).keys() == random_tensors(3).keys()

    write_bin(directory, random_tensors(4))
    shutil.rmtree(artifacts / "checkpoints")
    with pytest.raises(BadInput, match="checkpoint-3: changed since it was fetched"):
        staged(checkpoint, artifacts)
    assert fetch_run(params(run), artifacts, refresh=True).digest != fetched.digest

    (directory / "pytorch_model.bin").unlink()
    save_file(random_tensors(3), directory / "model.safetensors")
    (whole,) = fetch_run(params(run), artifacts, refresh=True).checkpoints
    assert whole.conversion is None
    assert not (artifacts / "converted" / "checkpoint-3").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRITERS)
def test_a_converted_model_answers_as_the_original(tmp_path: Path, kind: str) -> None:
    """Tied weights are stored once, and the model loads whole; the merge of two is that of the originals."""
    from transformers import AutoModelForCausalLM

    run, plain, artifacts = tmp_path / "run", tmp_path / "plain", tmp_path / "artifacts"
    tokens = torch.arange(4)[None]
    logits = {}
    for step in (10, 20):
        model = tiny_llama(seed=step)
        config = model.config.to_dict()
        shared = {"lm_head.weight": "model.embed_tokens.weight"}
        directory = without_weights(run, step, config=config)
        if kind.startswith("zero"):
            write_zero(directory, model.state_dict(), stage=int(kind[-1]), shared=shared)
        else:
            WRITERS[kind](directory, model.state_dict())
        write_checkpoint(
            plain, step, {n: t for n, t in model.state_dict().items() if n not in shared}, config=config
        )
        logits[step] = model.eval()(tokens).logits
    fetched = fetch_run(params(run), artifacts)
    for checkpoint in fetched.checkpoints:
        assert "lm_head.weight" not in weights(checkpoint, artifacts)
        loaded, info = AutoModelForCausalLM.from_pretrained(
            staged(checkpoint, artifacts), output_loading_info=True
        )
        assert not info["missing_keys"]
        assert torch.equal(loaded.eval()(tokens).logits, logits[checkpoint.step])
    fetch_run(params(plain), tmp_path / "others")
    merges = []
    for place in (artifacts, tmp_path / "others"):
        select_checkpoints(SelectParams(k=2), place)
        merges.append(merge_checkpoints(MergeParams(method="average"), place))
    assert merges[0].outputs == merges[1].outputs


@pytest.mark.slow
def test_a_configuration_is_that_of_the_run_or_of_the_base(tmp_path: Path) -> None:
    """A Trainer writes none beside FSDP's shards."""
    run, artifacts = tmp_path / "run", tmp_path / "artifacts"
    directory = without_weights(run, 3)
    write_fsdp(directory, random_tensors(3))
    for name in ("config.json", "tokenizer.json"):
        (directory / name).replace(run / name)
    (run / "all_results.json").write_text("{}")
    (checkpoint,) = fetch_run(params(run), artifacts).checkpoints
    assert [file.name for file in checkpoint.files] == ["config.json", "model.safetensors", "tokenizer.json", "trainer_state.json"]  # fmt: skip
    base = write_checkpoint(tmp_path / "base", 1)
    (base / "vocab.txt").write_text("a b")
    (other,) = fetch_run(params(run, base=str(base)), artifacts).checkpoints
    assert "vocab.txt" in {file.name for file in other.files}
    shutil.rmtree(artifacts / "checkpoints")
    assert staged(other, artifacts).is_dir()


def test_without_a_configuration_anywhere_it_says_what_to_do(tmp_path: Path) -> None:
    directory = without_weights(tmp_path / "run", 3)
    write_fsdp(directory, random_tensors(3))
    (directory / "config.json").unlink()
    with pytest.raises(
        BadInput, match=r"checkpoint-3: has no config\.json, nor has its run; set fetch\.base"
    ):
        fetch_run(params(tmp_path / "run"), tmp_path / "artifacts")


def test_a_quantised_model_is_refused_unopened(tmp_path: Path) -> None:
    directory = without_weights(
        tmp_path / "run", 3, config={"model_type": "llama", "quantization_config": {}}
    )
    write_bin(directory, random_tensors(3))
    with pytest.raises(
        BadInput, match=r"checkpoint-3: config\.json has a quantization_config; convert the unq"
    ):
        fetch_run(params(tmp_path / "run"), tmp_path / "artifacts")


def test_a_link_out_of_the_checkpoint_is_refused(tmp_path: Path) -> None:
    directory = without_weights(tmp_path / "run", 3)
    write_bin(tmp_path, random_tensors(3))
    (directory / "pytorch_model.bin").symlink_to(tmp_path / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"pytorch_model\.bin: is a link out of its directory"):
        fetch_run(params(tmp_path / "run"), tmp_path / "artifacts")


def test_a_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    directory = without_weights(tmp_path / "run", 3)
    (directory / "pytorch_model_fsdp_0").symlink_to(write_fsdp(tmp_path, random_tensors(3)))
    with pytest.raises(BadInput, match="pytorch_model_fsdp_0: is a link; put the directory itself there"):
        fetch_run(params(tmp_path / "run"), tmp_path / "artifacts")


def test_shells_of_zero_3_count_as_pickled_and_other_safetensors_come_first(tmp_path: Path) -> None:
    directory = without_weights(tmp_path, 3)
    write_zero(directory, random_tensors(3), stage=3)
    save_file({"tall": torch.empty(0)}, directory / "model.safetensors")
    state = pickled_state(directory)
    assert state is not None
    assert state.kind == "zero"
    save_file(random_tensors(3), directory / "model.safetensors")
    assert pickled_state(directory) is None
    (directory / "model.safetensors").unlink()
    index = {"weight_map": {"tall": "model-00001-of-00001.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    assert pickled_state(directory) is None  # half removed, or on its way: not what the pickles are for


def test_the_status_of_a_run_follows_its_pickles(tmp_path: Path) -> None:
    directory = without_weights(tmp_path / "run", 3)
    write_fsdp(directory, random_tensors(3))
    one = observe(str(tmp_path / "run"), 0, RegisterParams()).digest
    assert observe(str(tmp_path / "run"), 0, RegisterParams()).digest == one
    next((directory / "pytorch_model_fsdp_0").glob("*.distcp")).write_bytes(b"other")
    assert observe(str(tmp_path / "run"), 0, RegisterParams()).digest != one


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["single", "fsdp", "zero2", "zero3"])
def test_a_canary_of_each_kind_is_refused_and_does_not_run(tmp_path: Path, kind: str) -> None:
    directory = without_weights(tmp_path / "run", 3)
    WRITERS[kind](directory, random_tensors(3))
    path = next(
        path
        for pattern in ("pytorch_model.bin", "*/.metadata", "*/*_optim_states.pt")
        for path in sorted(directory.glob(pattern))
    )
    write = torch.save if kind != "fsdp" else lambda content, path: path.write_bytes(pickle.dumps(content))
    write({"w": Canary(tmp_path / "sang")}, path)
    with pytest.raises(BadInput, match=f"{path.name}: names posix.mkdir"):
        fetch_run(params(tmp_path / "run"), tmp_path / "artifacts")
    assert not (tmp_path / "sang").exists()
    assert not (tmp_path / "artifacts" / "run").exists()


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_it_ends_at_the_same(tmp_path: Path) -> None:
    run, artifacts = tmp_path / "run", tmp_path / "artifacts"
    for step in (3, 6):
        write_bin(without_weights(run, step), random_tensors(step))
    expected = fetch_run(params(run), tmp_path / "elsewhere")
    for seconds in (0.5, 2.0, 3.0, 4.0, 5.0):
        child = spawn(fetch_run, params(run), artifacts)
        time.sleep(seconds)
        kill(child)
    assert fetch_run(params(run), artifacts) == expected
    assert TrainingRun.read(artifacts / "run" / "run.json") == expected
    assert json.loads((artifacts / "run" / "run.json").read_text())["checkpoints"][0]["conversion"]["files"]
    assert {path.name for path in (artifacts / "converted").iterdir() if path.is_dir()} == {
        "checkpoint-3",
        "checkpoint-6",
    }
