"""Where things live that outlive a run: state (the registry, evaluations) and what can be computed again."""

import os
from pathlib import Path

import platformdirs


def state_dir() -> Path:
    """Return the absolute state directory: $LORELINE_HOME, else .loreline in the working directory."""
    return Path(os.environ.get("LORELINE_HOME") or ".loreline").absolute()


def cache_dir() -> Path:
    """Return the user's cache directory for Loreline; losing it costs time, nothing else."""
    return platformdirs.user_cache_path("loreline")
