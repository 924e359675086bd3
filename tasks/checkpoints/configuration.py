"""What a config.json means: its keys as the installed transformers reads them, whichever release wrote it."""

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

UNREAD = {
    "_name_or_path", "transformers_version", "use_cache", "dtype", "torch_dtype",
    "_attn_implementation_autoset", "_attn_implementation", "unsloth_version", "unsloth_fixed",
}  # fmt: skip
"""Keys that say who wrote a model and how it is run, at any depth."""

LISTED = re.compile("layer|label|block|stage|depth")
"""Keys for numbers of things that a class may make a list of."""
MOST_LISTED, MOST, DEEPEST = 10_000, 2**24, 20


def differing_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """List the keys whose values differ as they are written; null is as good as absent."""
    left, right = _written(one), _written(other)
    return sorted(key for key in left.keys() | right.keys() if left.get(key) != right.get(key))


def meaning_of(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return all keys as transformers' own class for the model type reads them; None where it has none.

    Defaults are filled in and older spellings replaced, such as rope_theta. No code of the checkpoint runs.
    """
    if _has_outsized(config):
        return None
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        known = CONFIG_MAPPING[config["model_type"]]
        default, read = known().to_dict(), known.from_dict(deepcopy(dict(config))).to_dict()
    except Exception:  # no such type, or values that its class refuses in ways of its own
        return None
    return {key: value for key, value in _written(read).items() if key in default or value is not False}


def ties_embeddings(config: Mapping[str, Any]) -> bool:
    """Tell whether output head and embedding are one: as config.json says, else by the class's default."""
    said = config.get("tie_word_embeddings")
    return said if isinstance(said, bool) else (meaning_of(config) or {}).get("tie_word_embeddings") is True


def _has_outsized(value: Any, most: int = MOST, depth: int = 0) -> bool:
    """Tell whether a class could take too long over a value: long lists of layers or labels, deep nesting."""
    if depth > DEEPEST:
        return True
    if isinstance(value, Mapping):
        return any(
            _has_outsized(own, MOST_LISTED if LISTED.search(str(key)) else MOST, depth + 1)
            for key, own in value.items()
        )
    if isinstance(value, list):
        return any(_has_outsized(own, most, depth + 1) for own in value)
    return isinstance(value, int) and value > most


def _written(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _plain(value) for key, value in config.items() if key not in UNREAD and value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if not isinstance(value, Mapping):
        return value
    plain = _written(value)
    if "rope_type" in plain:
        plain.pop("type", None)  # its name in transformers 4, which 5 keeps beside the new one
    return plain
