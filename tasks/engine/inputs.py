"""The models of a merge, brought to one set of tensors: prefixes matched, redundant tensors left out."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tasks.checkpoints.compatibility import check_compatible
from tasks.checkpoints.prefixes import names_as_in
from tasks.checkpoints.weights import SafetensorsModel, WeightReader
from tasks.engine.tied import check_tied, tied_heads

COMPUTED = re.compile(r"(^|\.)(rotary_emb\.inv_freq|position_ids)$")
"""Buffers that old releases of transformers stored; where they are missing it computes them."""


class Agreed(NamedTuple):
    """Models that can be merged tensor by tensor."""

    inputs: list[WeightReader]
    base: WeightReader | None
    names: list[str]
    """The tensors that are merged, sorted."""
    notes: list[str]
    """Differences that do no harm."""


def agree(inputs: Sequence[WeightReader], base: WeightReader | None) -> Agreed:
    """Check that models are of one architecture, and find the tensors to merge, named as in the newest.

    A tied head is merged as its embedding alone: separately they could differ, since DARE draws by name.
    Raises BadInput naming checkpoint and tensor.
    """
    newest = inputs[-1]
    named = [_named_as_in(newest, source) for source in inputs]
    origin = _named_as_in(newest, base) if base is not None else None
    sources = [*([origin] if origin is not None else []), *named]
    heads = tied_heads(sources)
    in_some = _in_some(sources)
    left_out = heads.keys() | {name for name in in_some if COMPUTED.search(name)}
    notes = _prefix_notes([*([base] if base is not None else []), *inputs], sources)
    notes += [
        f"tensor {name} is left out: only some have it, and it is not needed"
        for name in sorted(left_out & in_some)
    ]
    notes += check_compatible(named, origin, left_out)
    check_tied(sources, heads)
    return Agreed(named, origin, sorted(named[-1].tensors.keys() - left_out), notes)


def _named_as_in(newest: WeightReader, source: WeightReader) -> WeightReader:
    names = names_as_in(newest.tensors, source.tensors)
    return source.renamed(names) if names and isinstance(source, SafetensorsModel) else source


def _in_some(sources: Iterable[WeightReader]) -> set[str]:
    held = [source.tensors.keys() for source in sources]
    return set().union(*held) - set(held[0]).intersection(*held)


def _prefix_notes(before: Sequence[WeightReader], after: Sequence[WeightReader]) -> list[str]:
    notes = []
    for own, renamed in zip(before, after, strict=True):
        if changed := own.tensors.keys() - renamed.tensors.keys():
            example = min(changed)
            theirs = names_as_in(renamed.tensors, [example])[example]
            notes.append(f"{own.label} names {example} what the others name {theirs}: taken for the same")
    return notes
