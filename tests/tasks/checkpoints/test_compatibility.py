"""Checkpoints of two architectures are told apart by headers and side files; what cannot matter does not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file

from tasks.base.errors import BadInput
from tasks.checkpoints.compatibility import check_compatible
from tasks.checkpoints.weights import SafetensorsModel, open_weights
from tests.support.tiny import CONFIG, random_tensors, write_checkpoint

VOCABULARY = {"model": {"type": "WordLevel", "vocab": {"a": 0}}, "added_tokens": [], "truncation": None}


@pytest.fixture
def three(make_checkpoint: Callable[..., Path]) -> list[Path]:
    return [make_checkpoint(step) for step in (1, 2, 3)]


def opened(directories: list[Path]) -> list[SafetensorsModel]:
    return [open_weights(directory, directory.name) for directory in directories]


def put(directory: Path, name: str, value: Any) -> None:
    (directory / name).write_text(value if isinstance(value, str) else json.dumps(value))


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("config.json", {**CONFIG, "vocab_size": 17}, "checkpoint-3: vocab_size in config.json is 17, but 16 in checkpoint-2"),
        ("config.json", {**CONFIG, "new": 1}, "checkpoint-3: new in config.json is 1, but None in checkpoint-2"),
        ("config.json", {**CONFIG, "quantization_config": {"bits": 4}}, "checkpoint-3: config.json has a quantization_config"),
        ("config.json", "{", r"checkpoint-3/config.json: not readable as JSON"),
        ("config.json", '{"model_type": "llama", "a": ' + "[" * 700 + "]" * 700 + "}", "checkpoint-3: config.json is nested too deeply|not readable as JSON"),
        ("config.json", "[1]", r"checkpoint-3/config.json: must hold a JSON object"),
        ("generation_config.json", "{'a': 1}", r"checkpoint-3/generation_config.json: not readable as JSON"),
        ("tokenizer.json", {"model": 1}, "checkpoint-3: tokenizer.json differs from that of checkpoint-2"),
    ],
)  # fmt: skip
def test_side_files_that_disagree_are_named(three: list[Path], name: str, value: Any, sentence: str) -> None:
    put(three[2], name, value)
    with pytest.raises(BadInput, match=sentence) as caught:
        check_compatible(opened(three))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["tokenizer.model", "vocab.json", "vocab.txt", "merges.txt", "spiece.model"])
def test_every_kind_of_vocabulary_counts(three: list[Path], name: str) -> None:
    for directory, text in zip(three, ("a", "a", "b"), strict=True):
        put(directory, name, text)
    with pytest.raises(BadInput, match=f"checkpoint-3: {name} differs from that of checkpoint-2"):
        check_compatible(opened(three))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("config.json", {**CONFIG, "dtype": "bfloat16", "use_cache": False, "transformers_version": "9"}),
        ("tokenizer.json", {**VOCABULARY, "truncation": {"max_length": 5}}),
        ("chat_template.jinja", "{{ x }}"),
    ],
)
def test_what_changes_no_weight_may_differ(three: list[Path], name: str, value: Any) -> None:
    for directory in three:
        put(directory, "tokenizer.json", VOCABULARY)
    put(three[1], name, value)
    check_compatible(opened(three))


@pytest.mark.parametrize("holders", [3, 2])
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("{", r"tokenizer.json: not readable as JSON"),
        ({**VOCABULARY, "added_tokens": [{"id": "x"}]}, "has added_tokens without id or content"),
    ],
)
def test_a_damaged_tokenizer_that_they_share_is_refused(
    three: list[Path], holders: int, value: Any, sentence: str
) -> None:
    for directory in three:
        (directory / "tokenizer.json").unlink()
    for directory in three[:holders]:
        put(directory, "tokenizer.json", value)
    with pytest.raises(BadInput, match=f"checkpoint-{holders}.*{sentence}"):
        check_compatible(opened(three))


def test_a_tokenizer_may_be_absent(three: list[Path]) -> None:
    (three[0] / "tokenizer.json").unlink()
    check_compatible(opened(three))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tall": torch.ones(5, 12)}, r"checkpoint-3: tensor tall is \(5, 12\), but \(12, 5\) in checkpoint-2"),
        ({"tall": None}, "checkpoint-3: tensor tall is missing, but checkpoint-2 has it"),
        ({"more": torch.ones(1)}, "checkpoint-2: tensor more is missing, but checkpoint-3 has it"),
        ({"tall": torch.ones(12, 5, dtype=torch.int64)}, "checkpoint-3: tensor tall is of dtype I64, but of dtype F32 in checkpoint-2"),
        ({"tall": torch.ones(12, 5).to(torch.float8_e4m3fn)}, r"checkpoint-3: tensor tall is quantised \(F8_E4M3\)"),
    ],
)  # fmt: skip
def test_tensors_that_disagree_are_named(
    tmp_path: Path, change: dict[str, torch.Tensor | None], sentence: str
) -> None:
    tensors = {name: tensor for name, tensor in {**random_tensors(3), **change}.items() if tensor is not None}
    directories = [write_checkpoint(tmp_path, step) for step in (1, 2)]
    directories.append(write_checkpoint(tmp_path, 3, tensors))
    with pytest.raises(BadInput, match=sentence):
        check_compatible(opened(directories))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_floating_dtypes_may_differ(three: list[Path], dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in random_tensors(2).items()}
    save_file(tensors, three[1] / "model.safetensors")
    check_compatible(opened(three))


def test_integers_of_another_width_are_refused(three: list[Path]) -> None:
    for directory, kind in zip(three, (np.int64, np.int64, np.int32), strict=True):
        save_numpy({"ids": np.arange(3, dtype=kind)}, directory / "model.safetensors")
    with pytest.raises(BadInput, match="tensor ids is of dtype I32, but of dtype I64"):
        check_compatible(opened(three))


def test_no_field_of_a_nested_configuration_is_overlooked(three: list[Path]) -> None:
    for directory, layers in zip(three, (2, 2, 4), strict=True):
        put(directory, "config.json", {**CONFIG, "text_config": {"num_hidden_layers": layers}})
    with pytest.raises(BadInput, match="text_config in config.json is .*4.*, but .*2.* in checkpoint-2"):
        check_compatible(opened(three))


def test_a_base_may_differ_in_its_special_tokens_but_not_in_its_tensors(three: list[Path]) -> None:
    put(three[0], "config.json", {**CONFIG, "eos_token_id": 7})
    base, *checkpoints = opened(three)
    check_compatible(checkpoints, base)
    save_file({**random_tensors(1), "tall": torch.ones(2, 5)}, three[0] / "model.safetensors")
    with pytest.raises(
        BadInput, match=r"checkpoint-2: tensor tall is \(12, 5\), but \(2, 5\) in checkpoint-1"
    ):
        check_compatible(checkpoints, open_weights(three[0], "checkpoint-1"))
