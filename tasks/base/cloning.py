"""Copies of files that share their blocks until one is written to, where the system can do that (Linux)."""

import shutil
from pathlib import Path

FICLONE = 0x40049409
"""Of linux/fs.h."""


def clone_or_copy(source: Path, target: Path) -> None:
    """Copy a file with its times and mode, without its blocks where btrfs, XFS or the like can.

    They can where a hard link cannot be: over subvolumes and bind mounts of one file system.
    """
    if clone(source, target):
        shutil.copystat(source, target)
    else:
        shutil.copy2(source, target)


def clone(source: Path, target: Path) -> bool:
    """Let a new file share the blocks of another; tell whether that worked."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    with source.open("rb") as own, target.open("wb") as other:
        try:
            fcntl.ioctl(other, FICLONE, own.fileno())
        except OSError:  # another file system, or one that cannot
            return False
    return True
