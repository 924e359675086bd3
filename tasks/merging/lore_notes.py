"""LoRE's settings: contradictions to refuse, and what they amount to (docs/mathematics.md, Reading λ)."""

from collections.abc import Mapping

from tasks.base.errors import BadInput
from tasks.base.measures import Averaged, LoreMeasures, TensorMeasures
from tasks.merging.lore_question import beyond, lam_of
from tasks.merging.low_rank import ADVICE
from tasks.merging.program import Settings, check_counts
from tasks.parameters.merge import MergeParams
from tasks.parameters.varying import varies

LATE_NAMED = 3
"""Matrices that ran out of time and are named."""


def check_lore(settings: Settings) -> None:
    """Refuse settings that contradict each other, and an anchor that is not among the checkpoints."""
    params, steps = settings.params, list(settings.steps)
    lore = params.lore
    check_counts(settings)
    if lore.anchor != "mean" and lore.anchor not in steps:
        raise BadInput("merge.lore.anchor", f"step {lore.anchor} is not merged", f"the steps are {steps}")
    if lore.combine == "ties" and params.ties.scope == "model":
        raise BadInput("merge.ties.scope", "lore trims matrix by matrix", "set it to tensor")
    if lore.penalty == "squared" and lore.mu_scale != "absolute":
        raise BadInput(
            "merge.lore.mu_scale",
            "with penalty squared μ has no unit",
            "set it to absolute, and μ to, say, 0.01",
        )
    if lore.mu_scale == "rank" and not varies(lore.mu) and lore.mu > 1:
        raise BadInput(
            "merge.lore.mu", f"{lore.mu:g} is no share of the singular values", "set it to, say, 0.05"
        )
    if lore.passes is not None and lore.anchor != "mean":
        raise BadInput("merge.lore.passes", "Algorithm 1 starts at the mean", "leave merge.lore.anchor out")


def check_lore_span(params: MergeParams) -> None:
    """Refuse a combination that needs the elements of the matrices."""
    if params.lore.combine == "ties":
        raise BadInput("merge.lore.combine", "ties works on elements, not on low-rank factors", ADVICE)


def lore_averages(settings: Settings) -> bool:
    """Tell whether the task vectors of two checkpoints cancel (docs/mathematics.md, fact 3)."""
    return settings.count == 2 and settings.params.lore.anchor == "mean"


def lore_notes(settings: Settings) -> list[str]:
    """Return notes on what these settings amount to."""
    params, N = settings.params, settings.count
    if lore_averages(settings):
        return [
            "equal to averaging: with two checkpoints and anchor mean the task vectors cancel "
            "for every λ and μ; set merge.lore.anchor to one of the steps, or merge more checkpoints"
        ]
    lines = [] if varies(params.lam) else _readings(params, N)
    if N > 2 and params.lore.anchor != "mean":
        lines.append(
            "merge.lore.anchor changes nothing for three checkpoints or more: there is one minimiser"
        )
    if params.lore.passes is not None:
        lines.append(
            f"Algorithm 1 stopped after {params.lore.passes} passes, converged or not: how many there are "
            "decides the result, and gap says how far from the minimum it is"
        )
    return lines


def lore_findings(settings: Settings, tensors: Mapping[str, TensorMeasures]) -> list[str]:
    """Say which matrices are averages because the time was over."""
    found = {name: own.method for name, own in tensors.items()}
    late = [name for name, own in found.items() if isinstance(own, Averaged) and own.out_of_time]
    if not late:
        return []
    solved = sum(isinstance(own, LoreMeasures) for own in found.values())
    more = f" and {len(late) - LATE_NAMED} more" if len(late) > LATE_NAMED else ""
    return [
        f"{len(late)} of {solved + len(late)} matrices did not make merge.lore.time_limit "
        f"({settings.params.lore.time_limit:g} min) and were averaged: {', '.join(late[:LATE_NAMED])}{more}"
    ]


def _readings(params: MergeParams, N: int) -> list[str]:
    """Describe λ, where possible as a point on the line through θ_0 and the mean (fact 4)."""
    lam = lam_of(params, N)
    if params.lore.combine == "ties":
        return [f"λ = {lam:.4g} with N = {N}: θ* = θ_0 + {lam:.4g} · the sign-elected mean of the δ_i"]
    reading = N * beyond(params, N)
    if N == 2:
        line = (
            f"anchored at step {params.lore.anchor}: "
            f"θ* = mean {_signed(beyond(params, N))} · SVT(θ_other − θ_anchor; 2μ)"
        )
    else:
        line = f"λ = {lam:.4g} with N = {N}: θ* = mean {_signed(reading)} · (mean − θ_0)"
    if abs(reading) < 1e-9:
        return [line, f"equal to averaging: λ = {'1/N' if params.lore.combine == 'sum' else '1'}"]
    if reading > 0:
        return [line, f"λ extrapolates: {reading:.3g} times as far beyond the mean as θ_0 lies before it"]
    return [line]


def _signed(number: float) -> str:
    return f"{'−' if number < 0 else '+'} {abs(number):.4g}"
