"""The verdict in words, made from its fields and never parsed."""

from collections.abc import Mapping

from tasks.base.records.evaluation import Evaluation
from tasks.base.records.record import Interval
from tasks.base.records.score import Difference
from tasks.base.records.verdict import Confirmation, GuardedMetric, Reason, Verdict, Worsening
from tasks.verdict.intervals import FEWEST_CLUSTERS, FEWEST_ITEMS, LEVEL

BESIDE_AVERAGE = {
    "no_better": "the plain average of the same checkpoints is as good or better",
    "not_shown_better": "it is not shown to beat the plain average of the same checkpoints",
}
FEW = 30
"""With fewer items nothing can be shown at all."""


def with_sentence(evaluation: Evaluation) -> Evaluation:
    """Return the evaluation with its verdict in words; one of an older release keeps its own."""
    verdict = evaluation.verdict
    if verdict.reason is None or not verdict.opponents:
        return evaluation
    sentence = _sentence(verdict, verdict.reason, evaluation)
    return evaluation.model_copy(update={"verdict": verdict.model_copy(update={"sentence": sentence})})


def _sentence(verdict: Verdict, reason: Reason, evaluation: Evaluation) -> str:
    labels = {model.role: model.label for model in evaluation.models}
    gain = evaluation.decisive
    change = _change(gain, labels[gain.against])
    parts = [f"{verdict.decision}: {change}, {_because(verdict, reason, gain, labels)}"]
    if reason.rule in ("gain_open", "may_be_chance") and verdict.finds:
        parts.append(f"these items find gains of {_number(verdict.finds)} or more four times in five")
    if verdict.beside_average:
        parts.append(BESIDE_AVERAGE[verdict.beside_average])
    sentences = [
        "; ".join(parts) + ".",
        _confirmation(verdict.confirmation, labels),
        _open(verdict, labels),
        _opponents(verdict, evaluation, labels),
        _looks(verdict),
        f"Of the test items {verdict.trained_on} occur in the training data." if verdict.trained_on else "",
    ]
    if verdict.not_measured:
        absent = " and ".join(verdict.not_measured)
        sentences.append(
            f"Not measured on this machine: {absent}, of which the recorded verdict is {verdict.recorded}."
        )
    return " ".join(filter(None, sentences))


def _change(difference: Difference, label: str) -> str:
    """Return the gain in words; "falls" would be ambiguous where lower is better."""
    gain, items = difference.gain, f"{difference.items} items"
    if gain.high < 0:
        change = f"worsens by {_number(-gain.mean)} [{_number(-gain.high)}, {_number(-gain.low)}] against"
    else:
        verb = "improves by" if gain.low > 0 else "gains"
        change = f"{verb} {_number(gain.mean)} [{_number(gain.low)}, {_number(gain.high)}] over"
    return f"{difference.metric} {change} {label} ({items})"


def _because(verdict: Verdict, reason: Reason, gain: Difference, labels: Mapping[str, str]) -> str:
    """Return the reason as the rest of a sentence that gives the gain."""
    match reason.rule:
        case "equal":
            return "the two being equal on every item"
        case "too_few_items" if gain.items < FEW:
            return "but nothing can be shown with so few items"
        case "too_few_items":
            return f"but promotion takes {FEWEST_ITEMS} items"
        case "too_few_clusters":
            return f"but the items belong to few clusters, and promotion takes {FEWEST_CLUSTERS}"
        case "constant_gain":
            return "but the gain is the same on every item, which says nothing of others"
        case "gain_ruled_out":
            return f"so a gain of more than {_number(reason.min_gain)} is ruled out"
        case "gain_open":
            return f"which leaves open whether it gains more than {_number(reason.min_gain)}"
        case "may_be_chance":
            few = f"but {gain.wins} items won and {gain.losses} lost may be chance"
            return few if reason.min_gain else few + _exact(gain, " (exact p = ", ")")
        case "spent":
            return f"but at look {verdict.look} these items ask for {_percent(verdict.level)} one-sided"
        case "not_confirmed":
            return "but the vault does not confirm it"
        case "harm_on_vault":
            return "but on the vault another metric suffers"
        case "not_chosen":
            return "so no look at the test items is taken"
        case "others_worsen":
            return "but " + " and ".join(_worsens(other, labels) for other in reason.worsened)
        case "guard_open":
            strict = [
                _not_held(each, labels[guard.against])
                for guard in verdict.guards
                for each in guard.metrics
                if each.strict and not each.held
            ]
            return "but " + " and ".join(strict)
        case "harm_open":
            return "but " + " and ".join(
                _pooled(guard.pooled, labels[guard.against])
                for guard in verdict.guards
                if guard.pooled and not guard.held
            )
        case "better":
            return "and nothing else is shown to worsen by more than its margin"


def _worsens(other: Worsening, labels: Mapping[str, str]) -> str:
    against = f" against {labels[other.against]}" if other.against else ""
    loss, margin = _number(other.loss), _number(other.margin)
    return f"{other.metric} worsens by {loss}{against}, more than its margin of {margin}"


def _not_held(metric: GuardedMetric, label: str) -> str:
    within = f"{metric.metric} is not shown to hold within its margin of {_number(metric.margin)}"
    return f"{within} against {label} (gain {_number(metric.gain.mean)}, down to {_number(metric.gain.low)})"


def _pooled(gain: Interval, label: str) -> str:
    change = f"in units of their margins they gain {_number(gain.mean)}, down to {_number(gain.low)}"
    return f"the other metrics together are not shown to hold against {label} ({change})"


def _open(verdict: Verdict, labels: Mapping[str, str]) -> str:
    """Return which other metrics may lose more than their margin, and what loss would have been found."""
    found = [
        f"{each.metric} against {labels[guard.against]} (losses of {_number(each.finds)} would be found)"
        for guard in verdict.guards
        for each in guard.metrics
        if not each.held and not each.worse
    ]
    if verdict.decision != "PROMOTE" or not found:
        return ""
    return f"Not shown to hold within its margin: {', '.join(found)}."


def _confirmation(found: Confirmation | None, labels: Mapping[str, str]) -> str:
    """Return what the vault said; nothing where it was not asked."""
    if found is None:
        return ""
    bound = f"down to {_number(found.gain.low)} at {_percent(found.level)} one-sided"
    where = f"over {labels[found.against]} ({found.items} items, look {found.look})"
    worse = "".join(f"; {_worsens(other, labels)}" for other in found.worsened)
    return f"On the vault it gains {_number(found.gain.mean)}, {bound}, {where}{worse}."


def _looks(verdict: Verdict) -> str:
    """Return how often these items were looked at; nothing where that was not counted."""
    if verdict.look is None or verdict.chance is None:
        return ""
    error = f"a false promotion by now has a chance of up to {verdict.chance:.1%}"
    return f"Look {verdict.look} at these items: {error}."


def _percent(level: float) -> str:
    return f"{_number(100 * level)} %"


def _opponents(verdict: Verdict, evaluation: Evaluation, labels: Mapping[str, str]) -> str:
    """Return what holds against each opponent: gain, interval, wins and losses, exact p, and the level."""
    gains = {d.against: d for d in evaluation.differences if d.metric == verdict.primary}
    found = [f"over {labels[each.against]} {_gain(gains[each.against])}" for each in verdict.opponents]
    return f"Gains at {_percent(LEVEL)} one-sided: {'; '.join(found)}."


def _gain(difference: Difference) -> str:
    gain = difference.gain
    size = f"{_number(gain.mean)} [{_number(gain.low)}, {_number(gain.high)}]"
    flips = f"{difference.wins} won, {difference.losses} lost"
    return f"{size} ({flips}{_exact(difference, ', p = ')})"


def _exact(difference: Difference, before: str, after: str = "") -> str:
    return "" if difference.p_value is None else f"{before}{difference.p_value:.2g}{after}"


def _number(value: float) -> str:
    return f"{value + 0.0:.3g}"  # no "-0"
