"""Putting a finished directory in the place of another: in one step, or file by file, the manifest last."""

import ctypes
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)

EARLIER = ".earlier-manifest.json"
"""In a scratch directory whose files are on their way: the manifest of the output that they replace."""


def has_own_disk(directory: Path) -> bool:
    """Tell whether nothing beside a directory can take its place: it is a mount point, say."""
    return directory.is_dir() and (os.path.ismount(directory) or not os.access(directory.parent, os.W_OK))


def put_in_place(scratch: Path, directory: Path) -> None:
    """Replace `directory` by `scratch`, which is complete and synced and then holds what was there."""
    if directory.exists():
        _exchange(scratch, directory)
    else:
        scratch.rename(directory)
    try:
        sync(directory.parent)
    except OSError as error:  # it is there for everybody: to fail now would say that it is not
        log.warning("%s: is in place, but the disk does not confirm it (%s)", directory, error.strerror)


def set_out(scratch: Path, directory: Path, manifest: str) -> Path:
    """Begin to move files: take away the manifest of what is replaced, and return where it is now."""
    earlier = scratch / EARLIER
    if not earlier.exists():
        if (directory / manifest).exists():
            (directory / manifest).rename(earlier)
        else:
            earlier.touch()
        sync(scratch, directory)
    return earlier


def move_files(scratch: Path, directory: Path, names: Iterable[str], replaced: Iterable[str]) -> None:
    """Move named files, and remove those that were there before and are no more; called again it goes on."""
    for name in replaced:
        (directory / name).unlink(missing_ok=True)
    for name in names:
        if (scratch / name).exists():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (scratch / name).replace(directory / name)
    sync(directory, *(path for path in directory.rglob("*") if path.is_dir()))


def sync(*paths: Path) -> None:
    """Wait until files and directories are on the disk."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _exchange(scratch: Path, directory: Path) -> None:
    """Swap two directories in one step where the system can (Linux), else with two renames."""
    at_fdcwd, rename_exchange = -100, 2
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if not libc.renameat2(
            at_fdcwd, os.fsencode(scratch), at_fdcwd, os.fsencode(directory), rename_exchange
        ):
            return
    aside = scratch.with_name(scratch.name + ".old")
    directory.rename(aside)
    scratch.rename(directory)
    aside.rename(scratch)
