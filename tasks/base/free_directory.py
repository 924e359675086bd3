"""Checking that a directory that a user names may become an output."""

from collections.abc import Sequence
from pathlib import Path

from tasks.base.errors import BadInput
from tasks.base.publish import check_untouched


def check_free(out: Path, sources: Sequence[Path], earlier: str) -> None:
    """Raise BadInput unless `out` is new, empty or an untouched output with `earlier`, apart from sources.

    Publishing replaces a directory whole: a source inside it would be lost, and one around it changed, and so
    would be what a user has put or trained there since.
    """
    place = out.resolve()
    for source in sources:
        if place.is_relative_to(source.resolve()) or source.resolve().is_relative_to(place):
            raise BadInput(out, f"is not apart from the input {source}", "name another directory with --out")
    existing = next(path for path in (place, *place.parents) if path.exists())
    if not existing.is_dir():
        raise BadInput(existing, "is a file", "name a new directory with --out")
    if out.exists() and any(out.iterdir()) and not (out / earlier).is_file():
        raise BadInput(out, f"is not empty and holds no earlier {earlier}", "name a new directory with --out")
    if out.exists():
        check_untouched(out)
