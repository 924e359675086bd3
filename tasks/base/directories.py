"""Artifacts, state and cache directories."""

import os
from pathlib import Path

import platformdirs

ARTIFACTS = Path("artifacts")
"""Where the stages publish, in a checkout and in a workspace."""


HUB = "hf://"
"""What an address on the Hub begins with."""


def state_dir() -> Path:
    """Return the absolute state directory: $LORELINE_HOME, else .loreline in the working directory."""
    return Path(os.environ.get("LORELINE_HOME") or ".loreline").absolute()


def hub_cache_dir(repo: str) -> Path:
    """Return where the Hub's cache on this machine keeps a repository."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def cache_dir() -> Path:
    """Return the user's cache directory for Loreline; losing it costs time, nothing else."""
    return platformdirs.user_cache_path("loreline")
