"""What names a training run: an output directory, hf://org/name[@pattern] or mlflow:/runs/RUN_ID/PATH."""

from pathlib import Path

from tasks.base.errors import BadInput
from tasks.checkpoints.layout import numbered_checkpoints

HUB, MLFLOW = "hf://", "mlflow:/"


def normal_address(source: str, root: Path) -> str:
    """Return the one spelling of a source: a directory inside `root` relative to it, any other absolute."""
    if source.startswith((HUB, MLFLOW)):
        return source.rstrip("/")
    place, root = (root / source).resolve(), root.resolve()
    return str(place.relative_to(root) if place.is_relative_to(root) else place)


def name_of(source: str) -> str:
    """Return what to call a run: its directory or repository, or its MLflow run id's first characters."""
    if source.startswith(HUB):
        return source.removeprefix(HUB).partition("@")[0].rstrip("/").rpartition("/")[2]
    if source.startswith(MLFLOW):
        return source.removeprefix(f"{MLFLOW}runs/").partition("/")[0][:8]
    return Path(source).resolve().name


def checkpoints_in(source: str) -> list[tuple[int, Path]]:
    """List the checkpoint-N of a Trainer's output directory by step.

    Raises BadInput when there is no such directory, or none in it.
    """
    try:
        found = numbered_checkpoints(Path(source))
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(
            f"fetch.source: {source}: no such directory; "
            "name a Trainer's output directory, hf://… or mlflow:/runs/…"
        ) from None
    except OSError as error:
        raise BadInput(f"fetch.source: {source}: cannot be read ({error.strerror}); allow it") from None
    if not found:
        raise BadInput(
            f"fetch.source: {source}: holds no checkpoint-N directory; is it a Trainer's output_dir?"
        )
    return found
