"""The section select: which checkpoints of the trajectory are merged."""

from typing import Annotated, Literal

from pydantic import Field

from tasks.parameters.section import Section


class SelectParams(Section):
    """Which checkpoints of the trajectory are merged."""

    rule: Literal["last_k", "top_k", "spaced", "steps"] = "last_k"
    """last_k: the newest; top_k: the best by `metric`; spaced: over the last `fraction`; steps: those."""
    k: Annotated[int, Field(ge=1)] = 8
    """How many checkpoints last_k, top_k and spaced take."""
    metric: str = "eval_loss"
    """A metric the Trainer logged; it also names the best single checkpoint the merge is compared with."""
    mode: Literal["min", "max"] = "min"
    """Whether a smaller or a larger `metric` is better."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    """spaced: the share of the run, counted from its end, that the checkpoints are spread over."""
    far: Literal["leave_out", "keep"] = "leave_out"
    """Whether a checkpoint is left out that lies far from the others chosen, as one that has diverged does.
    The plan names it either way; the rule steps keeps it."""
    steps: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """steps: exactly these training steps."""
