"""Artifacts, state and cache directories."""

import functools
import logging
import os
import tempfile
import threading
from pathlib import Path

import platformdirs

log = logging.getLogger(__name__)

ARTIFACTS = Path("artifacts")
"""Where the stages publish, in a checkout and in a workspace."""


_LOOKING = threading.Lock()
"""What does not work is said once, however many threads ask."""

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
    """Return the user's cache directory for Loreline; losing it costs time, nothing else.

    Where it cannot be written it is one of the user's own in the system's temporary directory.
    """
    with _LOOKING:
        return _writable(platformdirs.user_cache_path("loreline"))


@functools.cache
def _writable(wanted: Path) -> Path:
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            return wanted
    except OSError as error:
        instead = Path(tempfile.gettempdir()) / f"loreline-{os.getuid()}"
        instead.mkdir(mode=0o700, exist_ok=True)
        if instead.is_symlink() or instead.stat().st_uid != os.getuid():  # another user made it first
            instead = Path(tempfile.mkdtemp(prefix="loreline-"))
        log.warning("%s: cannot be written (%s), so %s is the cache", wanted, error.strerror, instead)
        return instead
