"""The verdict in words, made from its fields and never parsed."""

from tasks.base.records import Difference, Evaluation, Reason, Verdict, Worsening

BESIDE_AVERAGE = {
    "no_better": "the plain average of the same checkpoints is as good or better",
    "not_shown_better": "it is not shown to beat the plain average of the same checkpoints",
}


def with_sentence(evaluation: Evaluation) -> Evaluation:
    """Return the evaluation with its verdict in words; a record without a reason keeps its own."""
    verdict = evaluation.verdict
    if verdict.reason is None:
        return evaluation
    label = next(model.label for model in evaluation.models if model.role == verdict.against)
    sentence = _sentence(verdict, verdict.reason, evaluation.decisive, label)
    return evaluation.model_copy(update={"verdict": verdict.model_copy(update={"sentence": sentence})})


def _sentence(verdict: Verdict, reason: Reason, gain: Difference, label: str) -> str:
    parts = [f"{verdict.decision}: {_change(gain, label)}, {_because(reason, gain)}"]
    if verdict.items_needed:
        parts.append(f"about {verdict.items_needed} items would settle it")
    if verdict.beside_average:
        parts.append(BESIDE_AVERAGE[verdict.beside_average])
    sentences = ["; ".join(parts) + "."]
    if verdict.not_measured:
        absent = " and ".join(verdict.not_measured)
        sentences.append(
            f"Not measured on this machine: {absent}, of which the recorded verdict is {verdict.recorded}."
        )
    return " ".join(sentences)


def _change(difference: Difference, label: str) -> str:
    """Return the gain in words; "falls" would be ambiguous where lower is better."""
    gain, items = difference.gain, f"{difference.items} items"
    if gain.high < 0:
        change = f"worsens by {_number(-gain.mean)} [{_number(-gain.high)}, {_number(-gain.low)}] against"
    else:
        verb = "improves by" if gain.low > 0 else "gains"
        change = f"{verb} {_number(gain.mean)} [{_number(gain.low)}, {_number(gain.high)}] over"
    return f"{difference.metric} {change} {label} ({items})"


def _because(reason: Reason, gain: Difference) -> str:
    """Return the reason as the rest of a sentence that gives the gain."""
    match reason.rule:
        case "equal":
            return "the two being equal on every item"
        case "gain_ruled_out":
            return f"so a gain of more than {_number(reason.min_gain)} is ruled out"
        case "gain_open":
            return f"which leaves open whether it gains more than {_number(reason.min_gain)}"
        case "may_be_chance":
            few = f"{gain.wins} items won and {gain.losses} lost"
            return f"but {few} may be chance (exact p = {gain.p_value:.2g})"
        case "others_worsen":
            return "but " + " and ".join(map(_worsens, reason.worsened))
        case "better":
            return "and nothing else worsens by more than its margin"


def _worsens(other: Worsening) -> str:
    loss, margin = _number(other.loss), _number(other.margin)
    return f"{other.metric} worsens by {loss}, more than its margin of {margin}"


def _number(value: float) -> str:
    return f"{value + 0.0:.3g}"  # no "-0"
