"""Where the models of a recipe are."""

from pathlib import Path

from tasks.base.errors import BadInput


def located(name: str, recipe: Path, key: str) -> Path:
    """Return the directory that a recipe names, relative to the recipe's own (BadInput if there is none)."""
    try:
        place = recipe.parent / Path(name).expanduser()
        there = "\0" not in name and place.is_dir()
    except (RuntimeError, OSError) as error:  # ~nobody; a name that is too long
        problem = error.strerror if isinstance(error, OSError) else error
        raise BadInput(f"{recipe}: {key}", f"{name}: {problem}", "name a directory") from None
    if not there:
        repository, _, revision = name.partition("@")
        at = f" --revision {revision}" if revision else ""
        raise BadInput(
            recipe,
            f"{key}: there is no directory {place}",
            f"a model of the Hub has to be downloaded first: hf download {repository}{at} "
            "--local-dir DIR, and DIR named here",
        )
    return place
