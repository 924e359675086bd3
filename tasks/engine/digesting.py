"""Digesting checkpoints while they are merged, so that each is read once."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

from tasks.base.digests import digests_of, is_settled, remember, unknown
from tasks.base.errors import BadInput
from tasks.base.records.model import model_digest
from tasks.base.running_digest import RunningDigest
from tasks.checkpoints.peft.adapted import Adapted
from tasks.checkpoints.weights import SafetensorsModel, WeightReader
from tasks.engine.plan import Plan


def digesting(plan: Plan) -> Plan:
    """Return the same plan, of sources that are digested while the merge reads them, where that is of use.

    It is not for whole matrices: they do not come in pieces, and take longer than reading twice. A base to
    which merged factors are added does.
    """
    if plan.method.whole and not plan.spanned:
        return plan
    names = list(plan.spec)
    inputs = [_digested_on_the_way(source, names) for source in plan.inputs]
    return replace(plan, inputs=inputs, base=plan.base and _digested_on_the_way(plan.base, names))


def source_digest(source: WeightReader) -> str:
    """Return a model's digest; what the merge has read is not read again.

    Raises BadInput when a file was deleted, or became shorter, meanwhile.
    """
    try:
        if isinstance(source, SafetensorsModel):
            states = {path: source.opened[path].state for path in source.running}
            remember((state, source.running[path].up_to(state.st_size)) for path, state in states.items())
        return model_digest(digests_of(source.essential_files))
    except (FileNotFoundError, BadInput):
        raise BadInput(
            source.directory, "deleted while it was merged", "keep a checkpoint until its merge is done"
        ) from None


def source_digests(plan: Plan, hashing: Executor) -> list[Callable[[], str]]:
    """Return what tells each source's digest: where the merge reads it, once that has; else from now on."""

    def digest(source: WeightReader, model: WeightReader) -> str:
        if model is not source:
            source_digest(model)  # its files are the adapter's, too, and are remembered
        return source_digest(source)

    models = [plan.base if plan.base and isinstance(own, Adapted) else own for own in plan.sources]
    return [
        cache(partial(digest, source, model))
        if is_digested_on_the_way(model)
        else hashing.submit(digest, source, model).result
        for source, model in zip(plan.sources, models, strict=True)
    ]


def is_digested_on_the_way(source: WeightReader) -> bool:
    """Tell whether a source's digest is best asked for when it has been read."""
    return isinstance(source, SafetensorsModel) and bool(source.running)


def _digested_on_the_way(source: WeightReader, names: Sequence[str]) -> WeightReader:
    """Return a source that is digested while these tensors are read, one after another.

    The source itself where they do not lie so in its files, or where these have just been written.
    """
    if type(source) is not SafetensorsModel:  # an adapter is small, and read otherwise
        return source
    places: dict[Path, list[tuple[int, int]]] = {}
    for name in names:
        info = source.tensors[name]
        places.setdefault(source.files[name], []).append((info.start, info.end))
    states = {path: source.opened[path].state for path in places}
    new = unknown(states)
    if not all(places[path] == sorted(places[path]) and is_settled(states[path]) for path in new):
        return source
    handles = {path: source.opened[path].handle for path in new}
    running = {path: _running(path, handles[path], states[path].st_size, places[path]) for path in new}
    return replace(source, running=running)


def _running(path: Path, handle: int, size: int, places: Sequence[tuple[int, int]]) -> RunningDigest:
    """Return a digest of a file of which these places will pass."""
    running = RunningDigest(path, handle, [size])
    for (_, end), (start, _) in pairwise([(0, 0), *places, (size, size)]):
        running.absent(end, start)
    return running
