"""What a training script imports: `Trainer(..., callbacks=[MergeAfterTraining()])`.

This package needs transformers and the standard library, and nothing else of Loreline.
"""

from typing import TYPE_CHECKING, Any

from loreline.announce import EVENT

if TYPE_CHECKING:
    from loreline.callback import MergeAfterTraining

__all__ = ["EVENT", "MergeAfterTraining"]


def __getattr__(name: str) -> Any:
    """Import transformers when the callback is asked for: the event's name alone does not need it."""
    if name == "MergeAfterTraining":
        from loreline.callback import MergeAfterTraining

        return MergeAfterTraining
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
