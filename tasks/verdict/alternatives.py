"""What could be had without a merge: checkpoints of its runs, and their averages."""

from collections.abc import Collection, Sequence
from itertools import groupby
from typing import NamedTuple

from tasks.base.json_digest import digest_of
from tasks.base.records.merge import MergeReport
from tasks.base.records.score import EvaluatedModel
from tasks.base.records.search import SearchReport
from tasks.base.records.selection import Selection
from tasks.base.records.training_run import Checkpoint, shares_of_runs
from tasks.verdict.comparison import OF_RUN


class Alternative(NamedTuple):
    """A model that could be had without the merge."""

    record: EvaluatedModel
    made_of: Checkpoint | Sequence[Checkpoint]
    """The checkpoint that it is, or those that it is the average of."""
    weights: Sequence[float] | None = None
    """Of the average; None: all alike."""


def alternatives(
    selection: Selection, merge: MergeReport, searched: SearchReport | None
) -> list[Alternative]:
    """Return best and last checkpoint, each run's own average, and that of all unless the merge is that."""
    last, best = selection.last, selection.best
    found = [("last", f"last ({last.name})", last)]
    if best is not None and best.digest == last.digest:
        found = [("last", f"last and best ({last.name})", last)]
    elif best is not None:
        found.insert(0, ("best", f"best ({best.name})", best))
    others = [
        Alternative(EvaluatedModel(role=role, label=label, digest=checkpoint.digest), checkpoint)
        for role, label, checkpoint in found
    ]
    chosen = _mergeable(selection.chosen, merge, searched)
    others += _of_runs(chosen, {c.digest for c in (last, best) if c})
    if not _is_plain_average(merge, searched, chosen):
        label = f"average of {len(chosen)}"
        if runs := len(selection.plans):
            label += f" over {runs} runs"
        others.append(_average("average", label, chosen))
    return others


def _mergeable(
    chosen: Sequence[Checkpoint], merge: MergeReport, searched: SearchReport | None
) -> Sequence[Checkpoint]:
    """Return the selection without what merge.on_nan has left out: nothing can be made of that."""
    taken = chosen[-searched.newest :] if searched and searched.newest else chosen
    dropped = {own.digest for own in taken} - {source.digest for source in merge.inputs}
    return [own for own in chosen if own.digest not in dropped]


def _of_runs(chosen: Sequence[Checkpoint], known: Collection[str]) -> list[Alternative]:
    """Return what could be had of each of several runs alone, but for what is `known` to take part."""
    runs = [(run, list(own)) for run, own in groupby(chosen, lambda checkpoint: checkpoint.run)]
    if len(runs) < 2:
        return []
    found = []
    for number, (run, own) in enumerate(runs, 1):
        role = f"{OF_RUN}{number}"
        if len(own) > 1:
            found.append(_average(role, f"average of {len(own)} ({run})", own))
        elif own[0].digest not in known:
            record = EvaluatedModel(role=role, label=own[0].name, digest=own[0].digest)
            found.append(Alternative(record, own[0]))
    return found


def _is_plain_average(
    merge: MergeReport, searched: SearchReport | None, chosen: Sequence[Checkpoint]
) -> bool:
    """Tell whether the merge is the plain average itself, which is not measured twice nor judged against."""
    if searched and searched.newest not in (0, len(chosen)):
        return False  # of some of the checkpoints only
    changed = {
        key
        for key, value in merge.parameters.items()
        if value not in (None, "uniform", _weights_of_runs(chosen))
    }
    return merge.method == "average" and not {"weights", "adapter_rank"} & changed


def _weights_of_runs(chosen: Sequence[Checkpoint]) -> list[float] | None:
    """Return the weights of a plain average that weighs several runs alike; None for one run."""
    shares = shares_of_runs(chosen)
    return [weight for run in shares for weight in run] if len(shares) > 1 else None


def _average(role: str, label: str, chosen: Sequence[Checkpoint]) -> Alternative:
    weights = _weights_of_runs(chosen)
    identity = ["average", *(checkpoint.digest for checkpoint in chosen), *([weights] if weights else [])]
    record = EvaluatedModel(role=role, label=label, digest=digest_of(identity))
    return Alternative(record, chosen, weights)
