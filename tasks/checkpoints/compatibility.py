"""Checking that checkpoints have one architecture, so that their weights can be merged."""

import itertools
from collections.abc import Sequence, Set

from tasks.base.errors import BadInput
from tasks.base.json_files import read_json
from tasks.checkpoints.configuration import differing_keys, meaning_of
from tasks.checkpoints.header import FLOATING
from tasks.checkpoints.layout import CONFIG, side_files
from tasks.checkpoints.numbers import STORED
from tasks.checkpoints.vocabularies import TOKENIZER, VOCABULARY_FILES, added_tokens, vocabularies_differ
from tasks.checkpoints.weights import WeightReader


def check_compatible(
    inputs: Sequence[WeightReader], base: WeightReader | None = None, left_out: Set[str] = frozenset()
) -> list[str]:
    """Raise BadInput unless all inputs are of one architecture: tensors, configuration, tokenizer.

    Floating dtypes may differ; the tokenizer may be absent in some, and so may the tensors `left_out`. Of the
    base only the tensors count: fine-tuning changes special tokens and the like. Return notes on what differs
    and does no harm.
    """
    if base is not None:
        _check_alone(base)
        _check_tensors(base, inputs[0], left_out)
    for source in inputs:
        _check_alone(source)
    notes = []
    for one, other in itertools.pairwise(inputs):
        _check_tensors(one, other, left_out)
        notes += [*_compare_configs(one, other), *_compare_tokenizers(one, other)]
    tokenizers = [own for source in inputs if (own := source.directory / TOKENIZER).is_file()]
    for newest in tokenizers[-1:]:
        added_tokens(newest)  # those that share a damaged one agree
    return notes


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


def _check_tensors(one: WeightReader, other: WeightReader, left_out: Set[str]) -> None:
    _check_names(one, other, left_out)
    for name in sorted(one.tensors.keys() - left_out):
        _check_tensor(name, one, other)


def _check_names(one: WeightReader, other: WeightReader, left_out: Set[str]) -> None:
    for holder, lacker in ((one, other), (other, one)):
        if missing := holder.tensors.keys() - lacker.tensors.keys() - left_out:
            surplus = lacker.tensors.keys() - holder.tensors.keys() - left_out
            instead = f", and not {min(surplus)}" if surplus else ""
            raise BadInput(
                lacker.label,
                f"tensor {min(missing)} is missing, but {holder.label} has it{instead}",
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


def _compare_configs(one: WeightReader, other: WeightReader) -> list[str]:
    left, right = (read_json(source.directory / CONFIG) for source in (one, other))
    try:
        written = differing_keys(left, right)
    except RecursionError:
        raise BadInput(other.label, f"{CONFIG} is nested too deeply", "save or fetch it again") from None
    if not written:
        return []
    key, meant_left, meant_right = written[0], meaning_of(left), meaning_of(right)
    if meant_left is not None and meant_right is not None:
        differing = differing_keys(meant_left, meant_right)
        if not differing:
            spelt = ", ".join(written)
            return [f"{CONFIG} of {one.label} and {other.label} differ in {spelt}, and mean the same"]
        key = min(differing, key=lambda key: key not in written)
        if not (key in left and key in right):  # it has another name in one of the two
            left, right = meant_left, meant_right
    raise BadInput(
        other.label,
        f"{key} in {CONFIG} is {right.get(key)!r}, but {left.get(key)!r} in {one.label}",
        "checkpoints of one merge must share one configuration",
    )


def _compare_tokenizers(one: WeightReader, other: WeightReader) -> list[str]:
    notes = []
    for name in VOCABULARY_FILES:
        left, right = one.directory / name, other.directory / name
        if not (left.is_file() and right.is_file()) or left.read_bytes() == right.read_bytes():
            continue
        if vocabularies_differ(left, right):
            raise BadInput(
                other.label,
                f"{name} differs from that of {one.label}",
                "checkpoints of one merge must share one tokenizer",
            )
        if name == TOKENIZER and added_tokens(left) != added_tokens(right):
            notes.append(f"{name} of {one.label} and of {other.label} add other tokens; the newest is taken")
    return notes
