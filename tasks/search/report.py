"""What a search has to say: every merge that it tried, and which one is to be made."""

from collections.abc import Sequence
from typing import Any

from tasks.base.records.search import SearchReport, TriedMerge
from tasks.base.records.training_run import Checkpoint
from tasks.search.candidate import Candidate
from tasks.search.trials import Measured, Tried


def candidate_text(chosen: Sequence[Checkpoint], candidate: Candidate) -> str:
    """Return a candidate in words; of several runs which ones it averages."""
    weights = dict(candidate.settings).get("weights")
    if not chosen[0].run or not isinstance(weights, tuple):
        return str(candidate)
    runs = dict.fromkeys(own.run for own, weight in zip(chosen, weights, strict=True) if weight)
    return f"average of {' + '.join(runs)}"


def search_report(
    made_for: str,
    merge: dict[str, Any],
    sampler: str,
    tried: Tried,
    first: Measured,
    chosen: Sequence[Checkpoint],
) -> SearchReport:
    """Report a search among the `chosen` checkpoints, whose accepted candidate has this merge section."""
    accepted, first_losses = tried.accepted, tried.losses[tried.first]
    sign = -1 if first.higher_is_better else 1
    rows = []
    for candidate, losses in tried.losses.items():
        gain = losses.gain_over(first_losses)
        rows.append(
            TriedMerge(
                candidate=candidate_text(chosen, candidate),
                mean=sign * tried.expected(candidate).mean,
                gain=gain.mean,
                error=gain.error,
                items=losses.items.size,
            )
        )
    return SearchReport(
        made_for=made_for,
        merge=merge,
        newest=accepted.newest,
        metric=first.metric,
        higher_is_better=first.higher_is_better,
        items=first_losses.items.size,
        sampler=sampler,
        tried=tuple(rows),
        accepted=accepted != tried.first,
        sentence=_sentence(tried, first, chosen),
    )


def _sentence(tried: Tried, first: Measured, chosen: Sequence[Checkpoint]) -> str:
    count, gain = len(tried.losses), tried.gain
    asked = f"{tried.losses[tried.first].items.size} select items, {first.metric}"
    if tried.best == tried.first:
        sentence = f"What merge says is the best of {count} merges that a search tried ({asked})."
    else:
        verdict = (
            "is merged, by more than a standard error"
            if tried.accepted == tried.best
            else "is not merged, for what merge says is within a standard error"
        )
        sentence = (
            f"Of {count} merges that a search tried, {candidate_text(chosen, tried.best)} {verdict}: "
            f"it gains {gain.mean:.4g} ± {gain.error:.4g} over what merge says ({asked})."
        )
    return f"{sentence} {tried.said[0].upper()}{tried.said[1:]}." if tried.said else sentence
