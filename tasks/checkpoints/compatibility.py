"""Checking that checkpoints have one architecture, so that their weights can be merged."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from tasks.base.errors import BadInput
from tasks.checkpoints.header import FLOATING
from tasks.checkpoints.json_files import read_json
from tasks.checkpoints.layout import side_files
from tasks.checkpoints.numbers import STORED
from tasks.checkpoints.weights import WeightReader

UNIMPORTANT = {"_name_or_path", "transformers_version", "use_cache", "dtype", "torch_dtype"}
TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt", "spiece.model")


def check_compatible(inputs: Sequence[WeightReader], base: WeightReader | None = None) -> None:
    """Raise BadInput unless all inputs are of one architecture: tensors, configuration, tokenizer.

    Floating dtypes may differ; the tokenizer may be absent in some. Of the base only the tensors
    count: fine-tuning changes special tokens and the like.
    """
    if base is not None:
        _check_alone(base)
        _check_tensors(base, inputs[0])
    for source in inputs:
        _check_alone(source)
    for one, other in itertools.pairwise(inputs):
        _check_tensors(one, other)
        _check_config(one, other)
        _check_tokenizer(one, other)


def _check_alone(source: WeightReader) -> None:
    side_files(source.directory)  # refuses links out of it, before one is read
    for name, info in source.tensors.items():
        if info.dtype not in STORED:
            raise BadInput(
                source.label,
                f"tensor {name} is quantised ({info.dtype})",
                "merge the unquantised weights",
            )
    if "quantization_config" in read_json(source.directory / "config.json"):
        raise BadInput(source.label, "config.json has a quantization_config", "merge the unquantised weights")
    generation = source.directory / "generation_config.json"
    if generation.exists():
        read_json(generation)  # transformers would refuse the merged model


def _check_tensors(one: WeightReader, other: WeightReader) -> None:
    _check_names(one, other)
    for name in one.tensors:
        _check_tensor(name, one, other)


def _check_names(one: WeightReader, other: WeightReader) -> None:
    for holder, lacker in ((one, other), (other, one)):
        if missing := holder.tensors.keys() - lacker.tensors.keys():
            raise BadInput(
                lacker.label,
                f"tensor {min(missing)} is missing, but {holder.label} has it",
                "checkpoints of one merge must share one architecture",
            )


def _check_tensor(name: str, one: WeightReader, other: WeightReader) -> None:
    left, right = one.tensors[name], other.tensors[name]
    kinds = {"floating" if info.dtype in FLOATING else info.dtype for info in (left, right)}
    for field, a, b, differ in (
        ("", left.shape, right.shape, left.shape != right.shape),
        ("of dtype ", left.dtype, right.dtype, len(kinds) > 1),
    ):
        if differ:
            raise BadInput(
                other.label,
                f"tensor {name} is {field}{b}, but {field}{a} in {one.label}",
                "checkpoints of one merge must share one architecture",
            )


def _check_config(one: WeightReader, other: WeightReader) -> None:
    left, right = (read_json(source.directory / "config.json") for source in (one, other))
    for key in sorted((left.keys() | right.keys()) - UNIMPORTANT):
        if left.get(key) != right.get(key):
            raise BadInput(
                other.label,
                f"{key} in config.json is {right.get(key)!r}, but {left.get(key)!r} in {one.label}",
                "checkpoints of one merge must share one configuration",
            )


def _check_tokenizer(one: WeightReader, other: WeightReader) -> None:
    for name in TOKENIZER:
        left, right = one.directory / name, other.directory / name
        if left.is_file() and right.is_file() and left.read_bytes() != right.read_bytes():
            if name == "tokenizer.json" and _vocabulary(left) == _vocabulary(right):
                continue  # truncation, padding and the like
            raise BadInput(
                other.label,
                f"{name} differs from that of {one.label}",
                "checkpoints of one merge must share one tokenizer",
            )


def _vocabulary(path: Path) -> object:
    tokenizer = read_json(path)
    return json.dumps([tokenizer.get("model"), tokenizer.get("added_tokens")], sort_keys=True)
