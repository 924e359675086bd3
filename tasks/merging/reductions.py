"""Notes on settings under which a method is a simpler one."""

import math

from tasks.merging.program import Settings
from tasks.parameters.varying import varies


def of_task_arithmetic(settings: Settings) -> list[str]:
    """Task arithmetic with λ = 1/N is averaging, whatever the base."""
    lam, N = settings.params.lam, settings.count
    if settings.params.weights == "uniform" and _is(1.0 if lam is None else lam, 1 / N):
        return ["equal to averaging: λ = 1/N"]
    return []


def of_widen(settings: Settings) -> list[str]:
    """WIDEN with t < 0 scores everything s (Yu et al. 2024, remark 2)."""
    t, s = settings.params.widen.t, settings.params.widen.s
    if varies(t) or t >= 0:
        return []
    if _is(s, 1 / settings.count):
        return ["equal to averaging: t < 0 and s = 1/N"]
    return ["equal to task arithmetic with λ = s: t < 0"]


def _is(value: float, other: float) -> bool:
    return not varies(value) and math.isclose(value, other, rel_tol=1e-9)
