"""The plain average of checkpoints, which costs one pass over their files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.checkpoints.weights import open_weights
from tasks.engine.model import write_models
from tasks.engine.planning import make_plan
from tasks.parameters.merge import MergeParams


def write_average(directories: Mapping[str, Path], steps: Sequence[int], out: Path) -> None:
    """Write the average of model directories, by their labels, as a model directory of its own."""
    sources = [open_weights(directory, label) for label, directory in directories.items()]
    out.mkdir()
    write_models(make_plan([MergeParams(method="average")], sources, None, steps), [out])
