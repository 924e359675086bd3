"""Putting a finished directory in the place of another: in one step, or file by file, the manifest last."""

import ctypes
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from tasks.base.manifest import MANIFEST, Manifest

log = logging.getLogger(__name__)

EARLIER = ".earlier-manifest.json"
"""In a scratch directory whose files are on their way: the manifest of the output that they replace."""


def is_fixed(directory: Path) -> bool:
    """Tell whether a directory has to stay where it is: a mount point, or one that somebody works in."""
    if not directory.is_dir():
        return False
    used = Path.cwd().is_relative_to(directory)
    return used or os.path.ismount(directory) or not os.access(directory.parent, os.W_OK)


def put_in_place(scratch: Path, directory: Path) -> None:
    """Replace `directory` by `scratch`, which is complete and synced and then holds what was there."""
    if is_fixed(directory):
        move_files(scratch, directory)
    elif directory.exists():
        _exchange(scratch, directory)
    else:
        scratch.rename(directory)
    try:
        sync(directory.parent)
    except OSError as error:  # it is there for everybody: to fail now would say that it is not
        log.warning("%s: is in place, but the disk does not confirm it (%s)", directory, error.strerror)


def move_files(scratch: Path, directory: Path) -> None:
    """Move a finished directory's files into one that cannot be replaced; called again it goes on.

    From the first step to the last there is no manifest in `directory`: it does not count as published.
    """
    earlier = scratch / EARLIER
    if not earlier.exists():
        if (directory / MANIFEST).exists():
            (directory / MANIFEST).rename(earlier)
        else:
            earlier.touch()
        sync(scratch, directory)
    new = Manifest.read(scratch / MANIFEST).files
    replaced = Manifest.read(earlier).files if earlier.stat().st_size else ()
    for name in {file.name for file in replaced} - {file.name for file in new}:
        (directory / name).unlink(missing_ok=True)
    for file in new:
        if (scratch / file.name).exists():
            (directory / file.name).parent.mkdir(parents=True, exist_ok=True)
            (scratch / file.name).replace(directory / file.name)
    sync(*_below(directory))
    (scratch / MANIFEST).replace(directory / MANIFEST)
    sync(directory)


def is_on_its_way(scratch: Path) -> bool:
    """Tell whether a killed process had begun to move files out of a scratch directory."""
    return (scratch / EARLIER).exists() and (scratch / MANIFEST).exists()


def sync(*paths: Path) -> None:
    """Wait until files and directories are on the disk."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _below(directory: Path) -> Iterator[Path]:
    yield directory
    yield from (path for path in directory.rglob("*") if path.is_dir())


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
