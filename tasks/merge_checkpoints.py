"""Stage merge: the selected checkpoints become one model directory."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from tasks.checkpoints.hashing import file_digests
from tasks.checkpoints.layout import step_of, weight_files
from tasks.checkpoints.staging import staged
from tasks.checkpoints.transform import OnTensor, transform
from tasks.checkpoints.weights import Weights, open_weights
from tasks.checkpoints.writer import parse_size
from tasks.errors import BadInput
from tasks.fingerprint import fingerprint
from tasks.merging.methods import METHODS
from tasks.params import MergeParams
from tasks.publish import is_published, publishing
from tasks.records import MergeInput, MergeReport, Selection, model_digest
from tasks.reporting.model_card import model_card


def merge_checkpoints(
    params: MergeParams, artifacts: Path, on_tensor: OnTensor = lambda name, done, total: None
) -> MergeReport:
    """Publish artifacts/merged: a Hugging Face model directory with merge.json and a model card.

    Raises BadInput for checkpoints that cannot be merged, naming checkpoint and tensor.
    """
    selection = Selection.read(artifacts / "selection" / "selection.json")
    made_from = fingerprint(__name__, params, selection.chosen)
    published = artifacts / "merged"
    if is_published(published, made_from):
        return MergeReport.read(published / "merge.json")
    inputs = [
        MergeInput(path=checkpoint.source, step=checkpoint.step, digest=checkpoint.digest)
        for checkpoint in selection.chosen
    ]
    weights = [
        open_weights(staged(checkpoint, artifacts), checkpoint.name) for checkpoint in selection.chosen
    ]
    return _merge(params, inputs, weights, published, made_from, on_tensor)


def merge_directories(
    params: MergeParams,
    directories: Sequence[Path],
    out: Path,
    on_tensor: OnTensor = lambda name, done, total: None,
) -> MergeReport:
    """Merge model directories (oldest first) into `out`, outside any pipeline.

    Raises BadInput for inputs that cannot be merged, and for an `out` that is not free or an earlier merge.
    """
    weights = [open_weights(directory, directory.name) for directory in directories]
    inputs = [
        MergeInput(path=str(w.directory), step=step_of(w.directory), digest=_digest(w)) for w in weights
    ]
    made_from = fingerprint(__name__, params, inputs)
    if is_published(out, made_from):
        return MergeReport.read(out / "merge.json")
    _check_out(out, directories)
    return _merge(params, inputs, weights, out, made_from, on_tensor)


def _merge(
    params: MergeParams,
    inputs: Sequence[MergeInput],
    weights: Sequence[Weights],
    published: Path,
    made_from: str,
    on_tensor: OnTensor,
) -> MergeReport:
    steps = [source.step for source in inputs]
    _check(params, steps, weights, published)
    method = METHODS[params.method]
    with publishing(published, made_from) as scratch:
        measured = transform(
            weights, scratch, method.make(params, steps), parse_size(params.max_shard_size), on_tensor
        )
        report = MergeReport(
            method=params.method,
            parameters=_effective(params),
            inputs=tuple(inputs),
            outputs=file_digests(scratch, scratch.iterdir()),
            notes=tuple(method.notes(params, steps)),
            tensors={name: dict(values) for name, values in measured.items()},
        )
        report.write(scratch / "merge.json")
        (scratch / "README.md").write_text(model_card(report), encoding="utf-8")
    return report


def _check_out(out: Path, directories: Sequence[Path]) -> None:
    places = [directory.resolve() for directory in directories]
    if twice := [place for place in places if places.count(place) > 1]:
        raise BadInput(f"{twice[0]}: is named twice; name every checkpoint once")
    if out.resolve() in places:
        raise BadInput(f"{out}: is one of the checkpoints to merge; name another directory with --out")
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out}: is a file; name a new directory with --out")
    if out.exists() and any(out.iterdir()) and not (out / "merge.json").is_file():
        raise BadInput(f"{out}: is not empty and holds no earlier merge; name a new directory with --out")


def _check(params: MergeParams, steps: Sequence[int], weights: Sequence[Weights], published: Path) -> None:
    if len(weights) < 2:
        raise BadInput(f"nothing to merge: {len(weights)} checkpoint is named, and a merge needs two")
    anchor = params.lore.anchor
    if params.method == "lore" and anchor != "mean" and anchor not in steps:
        raise BadInput(f"merge.lore.anchor: step {anchor} is not merged; the steps are {steps}")
    needed = sum(info.end - info.start for _, info in weights[-1].tensors.values())
    parent = next(path for path in published.absolute().parents if path.is_dir())
    if (free := shutil.disk_usage(parent).free) < needed:
        raise BadInput(
            f"{parent} has {free / 1e9:.1f} GB free, this merge writes {needed / 1e9:.1f} GB; make room"
        )


def _effective(params: MergeParams) -> dict[str, object]:
    """Return the parameters that this method reads."""
    own = params.model_dump(mode="json", include={"lam", "max_shard_size", params.method})
    return {key: value for key, value in own.items() if value is not None}


def _digest(weights: Weights) -> str:
    files = [*weight_files(weights.directory), weights.directory / "config.json"]
    return model_digest(file_digests(weights.directory, files))
