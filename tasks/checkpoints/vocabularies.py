"""Comparing tokenizers: what decides which token has which number."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.base.errors import BadInput
from tasks.base.json_files import read_json

TOKENIZER = "tokenizer.json"
VOCABULARY_FILES = (
    TOKENIZER, "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt", "spiece.model",
)  # fmt: skip


def vocabularies_differ(one: Path, other: Path) -> bool:
    """Tell whether two files of one name give a token two numbers, or a number two tokens.

    Tokens that only one tokenizer.json adds are no contradiction.
    """
    if one.read_bytes() == other.read_bytes():
        return False
    if one.name != TOKENIZER:
        return True
    left, right = read_json(one), read_json(other)
    return _model(left) != _model(right) or not _fit(_numbers(one, left), _numbers(other, right))


def added_tokens(path: Path) -> dict[int, str]:
    """Return number → token of those that a tokenizer.json adds to its model's."""
    return _numbers(path, read_json(path))


def _model(tokenizer: Mapping[str, Any]) -> object:
    """Return the model: switches that are off as absent, merges as pairs, as newer tokenizers write them."""
    model = tokenizer.get("model")
    if not isinstance(model, dict):
        return model
    plain = {key: value for key, value in model.items() if value is not None and value is not False}
    if isinstance(merges := plain.get("merges"), list):
        plain["merges"] = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in merges]
    return json.dumps(plain, sort_keys=True)


def _numbers(path: Path, tokenizer: Mapping[str, Any]) -> dict[int, str]:
    try:
        return {int(token["id"]): str(token["content"]) for token in tokenizer.get("added_tokens") or []}
    except (KeyError, TypeError, ValueError, OverflowError):  # the number may be infinite
        raise BadInput(path, "has added_tokens without id or content", "save or fetch it again") from None


def _fit(one: Mapping[int, str], other: Mapping[int, str]) -> bool:
    together = {*one.items(), *other.items()}
    return len({number for number, _ in together}) == len(together) == len({token for _, token in together})
