"""Models that name the same tensors with and without the prefixes of the classes that wrap them."""

from collections.abc import Iterable

WRAPPERS = frozenset(
    {
        "model",
        "language_model",
        "transformer",
        "backbone",
        "bert",
        "roberta",
        "distilbert",
        "electra",
        "gpt_neox",
    }
)
"""First parts of names that AutoModel, AutoModelForCausalLM and vision-language classes write differently:
model.layers.0 or layers.0; language_model.model.layers.0 or model.language_model.layers.0."""


def bare_name(name: str) -> str:
    """Return a tensor's name without the classes that wrap it."""
    first, _, rest = name.partition(".")
    return bare_name(rest) if first in WRAPPERS and rest else name


def names_as_in(wanted: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """Return name → name in `wanted`, for those that differ in such prefixes alone."""
    theirs, ours = _by_bare_name(wanted), _by_bare_name(names)
    return {ours[bare]: theirs[bare] for bare in ours.keys() & theirs.keys() if ours[bare] != theirs[bare]}


def _by_bare_name(names: Iterable[str]) -> dict[str, str]:
    """Return bare name → name; nothing where two names are one without their prefixes."""
    listed = list(names)
    found = {bare_name(name): name for name in listed}
    return found if len(found) == len(listed) else {}
