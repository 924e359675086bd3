"""Kinds of layers that numbers may be searched for one by one."""

from collections.abc import Mapping

from tasks.parameters.varying import Rule, Rules

_BUT_NORMS = "(?i)^(?!.*(norm|(^|[._])ln_?))"
LAYER_KINDS: Mapping[str, str | None] = {
    "embeddings": rf"{_BUT_NORMS}.*(embed|wte|wpe|lm_head|(^|\.)shared\.|(^|\.)output\.weight$)",
    "attention": rf"{_BUT_NORMS}.*(attn|attention)",
    "mlp": rf"{_BUT_NORMS}.*(mlp|ffn|feed_forward|expert|moe|(^|[._])(fc\d|wi|wo|intermediate)\b)",
    "others": None,
}
"""Kind → what a tensor's name holds, the first that fits; None: every tensor."""


def for_layer_kinds(values: Mapping[str, float]) -> Rules:
    """Return a parameter's value for each kind as rules."""
    return Rules(tuple(Rule(pattern, values[kind]) for kind, pattern in LAYER_KINDS.items()))
