"""Selection rules: which checkpoints of a run are chosen, and why the others are left out."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from tasks.base.errors import BadInput
from tasks.base.records.selection import FarCheckpoint, RunPlan, Selection
from tasks.base.records.training_run import Checkpoint, LeftOut, TrainingRun
from tasks.parameters.selection import SelectParams
from tasks.trajectory.learning_rate import Rate
from tasks.trajectory.plan import plan_run

FindFar: TypeAlias = Callable[[Sequence[Checkpoint]], Sequence[FarCheckpoint]]


class Window(NamedTuple):
    """What the rule takes of one run."""

    chosen: list[Checkpoint]
    left_out: list[LeftOut]
    distinct: list[Checkpoint]
    """All usable checkpoints of the run, each model once."""
    plan: RunPlan


def choose(params: SelectParams, run: TrainingRun, find_far: FindFar = lambda chosen: ()) -> Selection:
    """Apply the rule to each run; `find_far` tells which of those chosen lie far from the others.

    Raises BadInput where fewer than two checkpoints are chosen, or none of one of several runs.
    """
    windows = [_window(params, own, find_far) for own in run.runs]
    chosen = [checkpoint for window in windows for checkpoint in window.chosen]
    idle = [own.source for own, window in zip(run.runs, windows, strict=True) if not window.chosen]
    if run.several and idle:
        raise BadInput("fetch.source", f"no checkpoint of {idle[0]} can be chosen", "leave that run out")
    left_out = [*run.left_out, *(left for window in windows for left in window.left_out)]
    if len(chosen) < 2:
        others = "; ".join(f"{left.name}: {left.reason}" for left in left_out)
        raise BadInput(
            "nothing to merge",
            f"select.rule={params.rule} takes {len(chosen)} checkpoint of {run.source}, "
            "and a merge needs two",
            "choose more, or look at the run again with --refresh" + (f" ({others})" if others else ""),
        )
    distinct = [checkpoint for window in windows for checkpoint in window.distinct]
    newest = [window.distinct[-1] for window in windows]
    plans = {own.name: window.plan for own, window in zip(run.several, windows, strict=False)}
    return Selection(
        run=run.name,
        rule=f"{params.rule}: {_rule_text(params)}" + (" of each run" if run.several else ""),
        chosen=tuple(chosen),
        left_out=tuple(left_out),
        best=best_by(params, distinct),
        last=best_by(params, newest) or newest[-1],
        metric=params.metric,
        plan=None if run.several else windows[0].plan,
        plans=plans,
    )


def _window(params: SelectParams, run: TrainingRun, find_far: FindFar) -> Window:
    distinct, left_out = _distinct(run.checkpoints)
    means = {mean.step: mean for mean in run.means}
    if means:
        lone = [c for c in distinct if c.step not in means]
        left_out += [LeftOut(name=c.name, reason="no mean of the steps before it was kept") for c in lone]
    able = [c for c in distinct if c.step in means] if means else distinct
    chosen, far = _chosen(params, able, find_far)
    reasons = {own.step: own.sentence for own in far}
    taken = {checkpoint.name for checkpoint in chosen}
    reason = _reason(params)
    left_out += [
        LeftOut(name=c.name, reason=reasons.get(c.step, reason)) for c in able if c.name not in taken
    ]
    plan = plan_run([c.step for c in distinct], [Rate(*rate) for rate in run.rates], params, far)
    return Window([means.get(c.step, c) for c in chosen], left_out, distinct, plan)


def _chosen(
    params: SelectParams, able: list[Checkpoint], find_far: FindFar
) -> tuple[list[Checkpoint], list[FarCheckpoint]]:
    """Apply the rule, and again without those that lie far; return those far, too.

    What comes in place of a far one must not lie far itself: the older ones of a falling rate may.
    """
    rule = _RULES[params.rule]
    chosen = rule(params, able)
    far = list(find_far(chosen))
    if not far or params.far == "keep" or params.rule == "steps":  # those were named one by one
        return chosen, far
    near = [c for c in able if c.step not in {own.step for own in far}]
    others = rule(params, near)
    far += find_far(others)
    return [c for c in others if c.step not in {own.step for own in far}], far


def best_by(params: SelectParams, checkpoints: Sequence[Checkpoint]) -> Checkpoint | None:
    """Return the checkpoint with the best logged metric; the earlier one of two equals."""
    logged = [checkpoint for checkpoint in checkpoints if params.metric in checkpoint.metrics]
    return _ranked(params, logged)[0] if logged else None


def _distinct(checkpoints: Sequence[Checkpoint]) -> tuple[list[Checkpoint], list[LeftOut]]:
    first: dict[str, Checkpoint] = {}
    left_out = []
    for checkpoint in sorted(checkpoints, key=lambda checkpoint: checkpoint.step):
        if (same := first.setdefault(checkpoint.identity, checkpoint)) is not checkpoint:
            left_out.append(LeftOut(name=checkpoint.name, reason=f"holds the same weights as {same.name}"))
    return list(first.values()), left_out


def _last_k(params: SelectParams, checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    return checkpoints[-params.k :]


def _top_k(params: SelectParams, checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    for checkpoint in checkpoints:
        if params.metric not in checkpoint.metrics:
            logged = ", ".join(sorted({name for c in checkpoints for name in c.metrics})) or "nothing"
            raise BadInput(
                "select.metric", f"{params.metric} was not logged for {checkpoint.name}", f"logged: {logged}"
            )
    return sorted(_ranked(params, checkpoints)[: params.k], key=lambda checkpoint: checkpoint.step)


def _ranked(params: SelectParams, checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    sign = 1 if params.mode == "min" else -1
    return sorted(checkpoints, key=lambda c: (sign * c.metrics[params.metric], c.step))


def _spaced(params: SelectParams, checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """Take the checkpoints nearest to k evenly spaced steps over the last fraction, both ends included."""
    end = checkpoints[-1].step
    start = end * (1 - params.fraction)
    window = [checkpoint for checkpoint in checkpoints if checkpoint.step >= start]
    if params.k == 1 or len(window) <= params.k:
        return window[-params.k :]
    start = window[0].step
    targets = [start + (end - start) * i / (params.k - 1) for i in range(params.k)]
    nearest = {min(window, key=lambda c: (abs(c.step - target), c.step)).step for target in targets}
    return [checkpoint for checkpoint in window if checkpoint.step in nearest]


def _steps(params: SelectParams, checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    there = {checkpoint.step for checkpoint in checkpoints}
    if missing := sorted(set(params.steps) - there):
        known = ", ".join(map(str, sorted(there)))
        of = f" of {run}" if (run := checkpoints[0].run) else ""
        raise BadInput("select.steps", f"no usable checkpoint{of} at step {missing[0]}", f"there are {known}")
    return [checkpoint for checkpoint in checkpoints if checkpoint.step in params.steps]


_RULES = {"last_k": _last_k, "top_k": _top_k, "spaced": _spaced, "steps": _steps}


def _rule_text(params: SelectParams) -> str:
    return {
        "last_k": f"the newest {params.k}",
        "top_k": f"the {params.k} with the {params.mode}imum {params.metric}",
        "spaced": f"{params.k} spread over the last {params.fraction:.0%} of the run",
        "steps": "those named",
    }[params.rule]


def _reason(params: SelectParams) -> str:
    return f"is not among {_rule_text(params)}"
