"""The package for training scripts: `Trainer(..., callbacks=[MergeAfterTraining()])`.

This package needs transformers and the standard library, and nothing else of Loreline.
"""

from typing import TYPE_CHECKING, Any

from loreline.announce import EVENT

if TYPE_CHECKING:
    from loreline.callback import MergeAfterTraining

__all__ = ["EVENT", "MergeAfterTraining"]


def __getattr__(name: str) -> Any:
    """Import the callback, and transformers with it, only on access: the event's name does not need it."""
    if name == "MergeAfterTraining":
        from loreline.callback import MergeAfterTraining

        return MergeAfterTraining
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
