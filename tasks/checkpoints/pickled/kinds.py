"""The kinds of pickled model states, recognised by the names of their files: none is opened here."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

StateKind = Literal["torch", "dcp", "zero"]
DCP_METADATA = ".metadata"
BIN_INDEX = "pytorch_model.bin.index.json"


class PickledState(NamedTuple):
    """A model's weights that are not in safetensors."""

    kind: StateKind
    what: str
    """In words, after "holds"."""
    files: tuple[Path, ...]
    """All files that decide the weights."""


def find_pickled(directory: Path) -> PickledState | None:
    """Return the pickled state of a checkpoint; None where it has none."""
    return next(_states(directory), None)


def _states(directory: Path) -> Iterator[PickledState]:
    if files := sorted(directory.glob("pytorch_model*.bin")):
        index = [path for path in [directory / BIN_INDEX] if path.exists()]
        yield PickledState("torch", "pytorch_model*.bin", (*index, *files))
    for metadata in sorted(directory.glob(f"pytorch_model_fsdp_*/{DCP_METADATA}")):
        shards = sorted(metadata.parent.glob("*.distcp"))
        yield PickledState("dcp", f"FSDP's shards ({metadata.parent.name})", (metadata, *shards))
    if steps := _zero_directories(directory):
        newest = max(steps)[1]
        files = sorted(
            path for path in newest.glob("*_states.pt") if "_optim_" in path.name or "_model_" in path.name
        )
        if files:
            yield PickledState("zero", f"DeepSpeed's partitions ({newest.name})", tuple(files))


def _zero_directories(directory: Path) -> list[tuple[int, Path]]:
    """List DeepSpeed's directories by step."""
    found = (
        (re.fullmatch(r"global_step([0-9]+)", path.name), path) for path in directory.glob("global_step*")
    )
    return [(int(match[1]), path) for match, path in found if match and path.is_dir()]
