"""Nothing outside a checkpoint directory is followed, nothing pickled is opened."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tasks.base.errors import BadInput
from tasks.checkpoints.layout import (
    INDEX,
    STATE,
    is_readable,
    read_tensors,
    side_files,
    wanted_files,
    weight_files,
)
from tests.support.tiny import write_checkpoint


def shard(directory: Path, weight_map: dict[str, str]) -> None:
    (directory / "model.safetensors").unlink()
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_sharded_tensors_are_found_through_the_index(make_checkpoint: Callable[..., Path]) -> None:
    directory = make_checkpoint(1)
    shard(directory, {"a": "model-1.safetensors", "b": "model-2.safetensors"})
    for name, file in (("a", "model-1.safetensors"), ("b", "model-2.safetensors")):
        save_file({name: torch.ones(2)}, directory / file)
    assert {name: path.name for name, (path, _) in read_tensors(directory).items()} == {
        "a": "model-1.safetensors",
        "b": "model-2.safetensors",
    }


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x.safetensors", "sub/x.safetensors", "x.bin", 3])
def test_an_index_cannot_point_elsewhere(make_checkpoint: Callable[..., Path], name: str) -> None:
    directory = make_checkpoint(1)
    shard(directory, {"a": name})
    with pytest.raises(BadInput, match="is not a weight file beside it"):
        read_tensors(directory)


def test_a_missing_shard_and_a_missing_tensor_are_named(make_checkpoint: Callable[..., Path]) -> None:
    directory = make_checkpoint(1)
    shard(directory, {"a": "model-1.safetensors"})
    with pytest.raises(BadInput, match=r"model-1.safetensors: missing"):
        read_tensors(directory)
    save_file({"b": torch.ones(2)}, directory / "model-1.safetensors")
    with pytest.raises(BadInput, match="the index names tensor a"):
        read_tensors(directory)


class Canary:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch canary-was-here",)


def test_pickled_weights_are_refused_unopened(
    make_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_checkpoint(1)
    monkeypatch.chdir(directory)
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps(Canary()))
    with pytest.raises(BadInput, match="pickled weights only.*set fetch.convert to true.*save_pretrained"):
        read_tensors(directory)
    assert not (directory / "canary-was-here").exists()


def test_an_adapter_says_what_to_do(make_checkpoint: Callable[..., Path]) -> None:
    directory = make_checkpoint(1)
    (directory / "model.safetensors").unlink()
    (directory / "adapter_config.json").write_text("{}")
    with pytest.raises(BadInput, match="PEFT adapter"):
        read_tensors(directory)


def test_a_link_out_of_the_directory_is_refused(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    directory = make_checkpoint(1)
    (directory / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (directory / "model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(BadInput, match="link out of its directory"):
        read_tensors(directory)


def test_the_hub_cache_s_links_to_its_blobs_are_followed(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    repo = tmp_path / "models--org--name"
    directory = write_checkpoint(repo / "snapshots" / ("0" * 40), 1)
    (repo / "blobs").mkdir()
    (directory / "model.safetensors").rename(repo / "blobs" / "1")
    (directory / "model.safetensors").symlink_to(repo / "blobs" / "1")
    assert read_tensors(directory)


def test_code_and_pickles_are_not_among_the_side_files(make_checkpoint: Callable[..., Path]) -> None:
    directory = make_checkpoint(1)
    for name in (
        "modeling_x.py",
        "training_args.bin",
        "optimizer.pt",
        "vocab.txt",
        "pytorch_model.bin.index.json",
    ):
        (directory / name).write_text("x")
    assert [path.name for path in side_files(directory)] == ["config.json", "tokenizer.json", "vocab.txt"]


def test_what_is_wanted_of_a_checkpoint_is_readable_by_its_name(make_checkpoint: Callable[..., Path]) -> None:
    """Or a kind of source would not bring to this machine what is staged from it."""
    directory = make_checkpoint(1)
    for name in ("modeling_x.py", "optimizer.pt", "chat_template.jinja", "tokenizer.model", "README.md"):
        (directory / name).write_text("x")
    shard(directory, {"a": "model-1.safetensors"})
    save_file({"a": torch.ones(2)}, directory / "model-1.safetensors")
    wanted = {path.name for path in wanted_files(directory)}
    assert {INDEX, STATE, "model-1.safetensors", "chat_template.jinja", "tokenizer.model"} < wanted
    assert wanted == {path.name for path in directory.iterdir() if is_readable(path.name)}


def test_a_single_file_comes_before_an_older_index(make_checkpoint: Callable[..., Path]) -> None:
    """save_pretrained leaves the shards of an earlier save lying there; transformers loads the single file."""
    directory = make_checkpoint(1)
    (directory / INDEX).write_text(json.dumps({"weight_map": {"old": "model-1.safetensors"}}))
    save_file({"old": torch.ones(2)}, directory / "model-1.safetensors")
    assert "old" not in read_tensors(directory)
    assert INDEX not in [path.name for path in wanted_files(directory)]


def test_a_shard_must_not_hold_more_than_the_index_names(make_checkpoint: Callable[..., Path]) -> None:
    directory = make_checkpoint(1)
    shard(directory, {"a": "model-1.safetensors"})
    save_file({"a": torch.ones(2), "b": torch.ones(2)}, directory / "model-1.safetensors")
    with pytest.raises(BadInput, match="a shard holds tensor b, which the index does not name"):
        read_tensors(directory)


def test_a_directory_called_like_an_index_is_refused(make_checkpoint: Callable[..., Path]) -> None:
    directory = make_checkpoint(1)
    (directory / "model.safetensors").unlink()
    (directory / INDEX).mkdir()
    with pytest.raises(BadInput, match="not a regular file"):
        read_tensors(directory)


@pytest.mark.parametrize("name", [STATE, "tokenizer.json"])
def test_links_that_lead_out_or_nowhere_are_refused(
    make_checkpoint: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    directory = make_checkpoint(1)
    (directory / name).unlink(missing_ok=True)
    (tmp_path / "secret.json").write_text("{}")
    (directory / name).symlink_to(tmp_path / "secret.json")
    with pytest.raises(BadInput, match="is a link out of its directory"):
        wanted_files(directory)


def test_a_link_in_a_circle_is_refused(make_checkpoint: Callable[..., Path]) -> None:
    directory = make_checkpoint(1)
    (directory / "a.json").symlink_to(directory / "b.json")
    (directory / "b.json").symlink_to(directory / "a.json")
    with pytest.raises(BadInput, match="is a link that leads nowhere"):
        wanted_files(directory)


def test_shells_of_zero_3_are_refused_with_the_way_to_gather_them(tmp_path: Path) -> None:
    tensors = {"model.w": torch.empty(0), "model.norm": torch.ones(8)}
    with pytest.raises(
        BadInput, match=r"checkpoint-1: tensor model\.w is empty, as DeepSpeed's ZeRO-3 .* zero_to_fp32\.py"
    ):
        read_tensors(write_checkpoint(tmp_path, 1, tensors))


@pytest.mark.parametrize(
    ("tensor", "config"),
    [(torch.empty(0), {"hidden_size": 0}), (torch.empty(0, 8), {"hidden_size": 8}), (torch.empty(0).int(), {"d_model": 8})],
)  # fmt: skip
def test_tensors_that_are_meant_to_be_empty_are_not_shells(
    tmp_path: Path, tensor: torch.Tensor, config: dict[str, int]
) -> None:
    assert "w" in read_tensors(write_checkpoint(tmp_path, 1, {"w": tensor}, config=config))


def test_a_link_to_a_file_that_is_gone_is_refused(make_checkpoint: Callable[..., Path]) -> None:
    directory = make_checkpoint(1)
    (directory / "vocab.json").symlink_to("gone.json")
    with pytest.raises(BadInput, match=r"vocab\.json: is a link that leads nowhere"):
        side_files(directory)


def test_mistral_s_consolidated_file_is_not_read(make_checkpoint: Callable[..., Path]) -> None:
    directory = make_checkpoint(1)
    shutil.copyfile(directory / "model.safetensors", directory / "consolidated.safetensors")
    assert [path.name for path in weight_files(directory)] == ["model.safetensors"]
    assert not is_readable("consolidated.safetensors")
    (directory / "model.safetensors").unlink()
    with pytest.raises(
        BadInput, match="checkpoint-1: holds consolidated.*only, whose tensors have other names"
    ):
        weight_files(directory)
