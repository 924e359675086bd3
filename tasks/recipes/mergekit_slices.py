"""mergekit's slices: those that make up whole models are a plain merge; others build another model."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tasks.base.errors import BadInput
from tasks.base.json_files import read_json
from tasks.recipes.places import located

LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


def check_all_layers(model: str, ranges: Sequence[tuple[int, int]], recipe: Path) -> None:
    """Check that ranges of layers, one after the other, are all that the model has (BadInput otherwise)."""
    directory = located(model, recipe, "slices.0.sources")
    try:
        config = read_json(directory / "config.json")
        count = next(config[key] for key in LAYER_COUNTS if key in config)
    except (BadInput, StopIteration):
        raise BadInput(
            recipe,
            f"slices: {directory}/config.json does not say how many layers there are",
            "list the models under models",
        ) from None
    if (ranges[0][0], ranges[-1][1]) != (0, count) or any(a[1] != b[0] for a, b in pairwise(ranges)):
        named = ", ".join(f"{first} to {last}" for first, last in ranges)
        raise BadInput(
            recipe,
            f"slices: layers {named} of {model} are not its {count} layers",
            "Loreline merges whole models",
        )
