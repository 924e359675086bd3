"""Checkpoints in pickles, converted once beside the artifacts; what is staged and recorded is safetensors."""

import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from tasks.base.digests import file_digests
from tasks.base.errors import BadInput
from tasks.base.fingerprint import fingerprint
from tasks.base.json_files import read_json
from tasks.base.model_files import address_directory
from tasks.base.publish import MANIFEST, is_published, link_or_copy, publishing
from tasks.base.records.record import FileDigest
from tasks.base.records.training_run import Conversion
from tasks.checkpoints.configuration import ties_embeddings
from tasks.checkpoints.layout import CONFIG, STATE, inside, pickled_state, read_tensors, side_files
from tasks.checkpoints.pickled.kinds import PickledState
from tasks.checkpoints.pickled.process import CHILD, convert
from tasks.checkpoints.unchanged import check_unchanged, file_states
from tasks.parameters.fetch import FetchParams
from tasks.sources.base_model import named_address
from tasks.sources.source import FetchedCheckpoint

CONVERTED = "converted"
TOLD_EVERY_S = 9.0


def convert_pickled(found: FetchedCheckpoint, params: FetchParams, artifacts: Path) -> FetchedCheckpoint:
    """Return a checkpoint whose weights are safetensors: itself, or one in artifacts/converted.

    Raises BadInput for a state that cannot be converted, and for one without a configuration.
    """
    state = pickled_state(found.directory)
    if state is None:
        return found
    beside = _configured(found.directory, params)
    directory, conversion = reconvert(found.directory, found.name, artifacts, beside)
    return found._replace(directory=directory, conversion=conversion)


def reconvert(source: Path, name: str, artifacts: Path, beside: str | None) -> tuple[Path, Conversion]:
    """Return where a pickled checkpoint is converted, and from what; once for the same files.

    `beside` is the address of its configuration, where that is not its own. Raises BadInput as `convert`
    does.
    """
    state = pickled_state(source)
    if state is None:
        raise BadInput(source, "has no pickled state any more", "run loreline fetch --refresh to look again")
    sides = side_files(address_directory(beside) if beside else source)
    sides = [path for path in sides if not path.name.endswith("_results.json")]  # a Trainer's notes
    sides += [path for path in [source / STATE] if path.exists()]
    before = file_states(_inside(source, path) for path in state.files)
    conversion = Conversion(files=file_digests(source, state.files), beside=beside)
    made_from = fingerprint(CHILD, conversion, [_digested(path) for path in sides])
    target = artifacts / CONVERTED / directory_name(name)
    if not is_published(target, made_from):
        with publishing(target, made_from, owned=True) as scratch:
            _fill(scratch, state, sides, source)
            check_unchanged(before)
    return target, conversion


def prune_converted(artifacts: Path, keep: Iterable[str]) -> None:
    """Remove conversions of other checkpoints than those named; what is staged of them are links."""
    kept = {directory_name(name) for name in keep}
    for directory in (artifacts / CONVERTED).glob("*"):
        if directory.name not in kept and (directory / MANIFEST).is_file():
            shutil.rmtree(directory)


def directory_name(checkpoint: str) -> str:
    """Return a checkpoint's name as that of a directory: a Hub revision may be called runs/step10."""
    return checkpoint.replace("/", "--")


def _fill(scratch: Path, state: PickledState, sides: list[Path], source: Path) -> None:
    for path in sides:
        link_or_copy(path, scratch / path.name)
    config = read_json(scratch / CONFIG)
    if "quantization_config" in config:
        raise BadInput(source, "config.json has a quantization_config", "convert the unquantised model")
    convert(state, scratch, str(source), ties_embeddings(config), _Progress(source.name))
    read_tensors(scratch)


def _inside(source: Path, path: Path) -> Path:
    if path.parent != source and path.parent.is_symlink():
        raise BadInput(path.parent, "is a link", "put the directory itself there")
    return inside(path.parent, path)


def _configured(directory: Path, params: FetchParams) -> str | None:
    """Return where a checkpoint's configuration is, None where it has its own: FSDP's shards have none."""
    if (directory / CONFIG).is_file():
        return None
    if params.base:
        return named_address(params.base, Path())
    if (Path(params.address) / CONFIG).is_file():
        return params.address
    raise BadInput(
        directory,
        "has no config.json, nor has its run",
        "set fetch.base to the model that was trained, or save its configuration and tokenizer in the run",
    )


def _digested(path: Path) -> FileDigest:
    return file_digests(path.parent, [path])[0]


class _Progress:
    """Says on stderr how much of a checkpoint is converted, every few seconds and at the end."""

    def __init__(self, name: str) -> None:
        self._name, self._start, self._told = name, time.monotonic(), time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done == total or now - self._told > TOLD_EVERY_S:
            self._told = now
            text = f"{done / 1e6:.1f} of {total / 1e6:.1f} MB converted in {now - self._start:.0f} s"
            print(f"fetch: {self._name}: {text}", file=sys.stderr, flush=True)
