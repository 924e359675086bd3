"""The callback's former module, kept for one release: `from loreline import MergeAfterTraining`."""

import warnings

from loreline.callback import MergeAfterTraining

__all__ = ["MergeAfterTraining"]

warnings.warn(
    "flows.callback has moved and will be gone in the next release: from loreline import MergeAfterTraining",
    DeprecationWarning,
    stacklevel=2,
)
