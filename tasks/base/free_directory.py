"""Checking that a directory that a user names may become an output."""

from collections.abc import Sequence
from pathlib import Path

from tasks.base.errors import BadInput
from tasks.base.publish import check_untouched, finish_placing, own_name


def check_free(out: Path, sources: Sequence[Path], earlier: str) -> None:
    """Raise BadInput unless `out` is new, empty or an untouched output with `earlier`, apart from sources.

    Publishing replaces a directory whole: a source inside it would be lost, and one around it changed, and so
    would be what a user has put or trained there since.
    """
    place = _resolved(out)
    for source in sources:
        if place.is_relative_to(source.resolve()) or source.resolve().is_relative_to(place):
            raise BadInput(out, f"is not apart from the input {source}", "name another directory with --out")
    existing = next(path for path in (place, *place.parents) if path.exists())
    if not existing.is_dir():
        raise BadInput(existing, "is a file", "name a new directory with --out")
    finish_placing(place)
    own = own_name(place)  # what a killed process left, and the next one removes
    used = out.exists() and any(not own.match(path.name) for path in out.iterdir())
    if used and not (out / earlier).is_file():
        raise BadInput(out, f"is not empty and holds no earlier {earlier}", "name a new directory with --out")
    if used:
        check_untouched(place)


def _resolved(out: Path) -> Path:
    """Follow links; raises BadInput for a name that no file system takes."""
    try:
        place = out.resolve()
        place.exists()
        return place
    except (OSError, RuntimeError, ValueError) as error:  # too long; links in a circle; a NUL
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise BadInput(out, f"cannot be an output ({why})", "name another directory with --out") from None
