"""Artifacts, state and cache directories."""

import os
from pathlib import Path

import platformdirs

ARTIFACTS = Path("artifacts")
"""Where the stages publish, in a checkout and in a workspace."""


def state_dir() -> Path:
    """Return the absolute state directory: $LORELINE_HOME, else .loreline in the working directory."""
    return Path(os.environ.get("LORELINE_HOME") or ".loreline").absolute()


def cache_dir() -> Path:
    """Return the user's cache directory for Loreline; losing it costs time, nothing else."""
    return platformdirs.user_cache_path("loreline")
