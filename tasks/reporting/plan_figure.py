"""A run as a curve of its learning rate, with the checkpoints that a merge would take and their weights."""

from pathlib import Path

from tasks.base.errors import BadInput
from tasks.base.records.selection import RunPlan
from tasks.reporting.drawing import save


def draw_plan(path: Path, plan: RunPlan) -> None:
    """Draw the learning rate, and on it the window with its weights; raises BadInput where it cannot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    rate, weights = figure.subplots(2, sharex=True, height_ratios=[2, 1])
    if plan.rates:
        rate.plot(*zip(*plan.rates, strict=True), color="tab:blue")
    for axes in (rate, weights):
        axes.axvspan(plan.window[0], plan.window[-1], color="tab:orange", alpha=0.15)
    if plan.before_decay:
        early = plan.before_decay[0], plan.before_decay[-1]
        rate.axvspan(*early, color="tab:green", alpha=0.15, label="before the decay")
        rate.legend(frameon=False)
    rate.set(ylabel="learning rate", ylim=(0, 1.08 * (plan.peak or 1.0)), title=plan.schedule)
    weights.stem(plan.window, plan.weights, basefmt=" ")
    weights.set(ylabel="weight", xlabel="training step", ylim=(0, None))
    try:
        save(figure, path)
    except (OSError, ValueError) as error:
        raise BadInput(path, f"no picture can be written there ({error})", "name a .png file") from None
