"""Artifacts, state and cache directories."""

import functools
import logging
import os
import tempfile
import threading
from pathlib import Path

import platformdirs

from tasks.base.errors import BadInput, brief

log = logging.getLogger(__name__)

ARTIFACTS = Path("artifacts")
"""Where the stages publish, in a checkout and in a workspace."""


_LOOKING = threading.Lock()
"""What does not work is said once, however many threads ask."""


def state_dir() -> Path:
    """Return the absolute state directory: $LORELINE_HOME, else .loreline in the working directory."""
    return Path(os.environ.get("LORELINE_HOME") or ".loreline").absolute()


def hub_cache_dir(repo: str) -> Path:
    """Return where the Hub's cache on this machine keeps a repository."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def shared_locks_dir() -> Path:
    """Return the directory of the locks of this machine's devices, which all its users may write to.

    $LORELINE_LOCKS, else one in shared memory, which all services and users see, as not all do /tmp; where
    there is none, the user's own cache. Raises BadInput where it cannot be used.
    """
    chosen, memory = os.environ.get("LORELINE_LOCKS"), Path("/dev/shm")
    if not chosen and not memory.is_dir():
        return cache_dir() / "locks"
    place = Path(chosen) if chosen else memory / "loreline-locks"
    try:
        place.mkdir(parents=True)
        place.chmod(0o777)  # no sticky bit: whoever holds a lock removes its file, whoever made that
    except FileExistsError:  # with the permissions that its maker wanted
        pass
    except OSError as error:
        raise BadInput(place, brief(error), "name a directory for all users in LORELINE_LOCKS") from None
    if place.is_symlink() or not place.is_dir() or not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        raise BadInput(
            place,
            "holds the locks of this machine's devices, and this user may not write there",
            "chmod 777 it, give it a group that all its users are in, or name another one in LORELINE_LOCKS",
        )
    return place


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
