"""Whether there is room for what is about to be downloaded."""

import shutil
from pathlib import Path

from tasks.base.errors import BadInput


def check_room(place: Path, size: int, remedy: str) -> None:
    """Raise BadInput where the disk of a directory, existing or not, has less than `size` bytes left."""
    there = next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        told = f"has {_size(free)} free, and {_size(size)} are to be downloaded"
        raise BadInput(place, told, f"make room, or {remedy}")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
