"""mergekit's slices: one that spans whole models is a plain merge; anything else builds another model."""

import json
from pathlib import Path

from tasks.base.errors import BadInput
from tasks.recipes.places import located

LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


def check_all_layers(model: str, layers: tuple[int, int], recipe: Path) -> None:
    """Check that a range of layers is all that the model has (BadInput otherwise)."""
    directory = located(model, recipe, "slices.0.sources")
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        count = next(config[key] for key in LAYER_COUNTS if key in config)
    except (OSError, ValueError, TypeError, StopIteration):
        raise BadInput(
            recipe,
            f"slices: {directory}/config.json does not say how many layers there are",
            "list the models under models",
        ) from None
    if layers != (0, count):
        raise BadInput(
            recipe,
            f"slices: layers {layers[0]} to {layers[1]} of {model} are not its {count} layers",
            "Loreline merges whole models",
        )
