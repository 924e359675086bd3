"""The nights of a registered model as a picture: what the merges scored, and gained, with intervals."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tasks.base.records import Evaluation, Interval
from tasks.registry.history import MergedRun
from tasks.registry.looks import Look
from tasks.reporting.figures import VERDICT_COLOURS, in_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Night(NamedTuple):
    """A merged run, its evaluation, and the look at a vault that it took, if any."""

    run: MergedRun
    evaluation: Evaluation
    vault: Look | None = None


def draw_history(path: Path, nights: Sequence[Night]) -> None:
    """Draw nights with one primary metric, the oldest first: above the scores, below the deciding gains."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.6), layout="constrained")
    scores, gains = figure.subplots(2, sharex=True)
    places = range(1, len(nights) + 1)
    champions = {place: found for place in places if (found := _score(nights[place - 1], "champion"))}
    scores.plot([*champions], [each.mean for each in champions.values()], color="0.5", label="champion")
    for place, night in zip(places, nights, strict=True):
        verdict = night.evaluation.verdict
        colour = VERDICT_COLOURS[verdict.decision]
        if score := _score(night, "merge"):
            _mark(scores, place, score, colour, "o")
        _mark(gains, place, night.evaluation.decisive.gain, colour, "o")
        if night.vault and night.vault.gain:
            _mark(gains, place + 0.15, night.vault.gain, colour, "D")
    gains.axhline(0, color="0.6", linewidth=1)
    scores.set(ylabel=in_figure(nights[-1].evaluation.primary))
    gains.set(ylabel="gain (up is better)", xlabel="night")
    _explain(scores)
    days = [datetime.fromtimestamp(night.run.when).astimezone().strftime("%m-%d") for night in nights]
    step = max(1, len(nights) // 12)
    gains.set_xticks(list(places)[::step], days[::step])
    save(figure, path)


def _score(night: Night, role: str) -> Interval | None:
    wanted = (role, night.evaluation.primary)
    return next((s.value for s in night.evaluation.scores if (s.model, s.metric) == wanted), None)


def _mark(axes: "Axes", place: float, value: Interval, colour: str, marker: str) -> None:
    errors = [[value.mean - value.low], [value.high - value.mean]]
    axes.errorbar([place], [value.mean], yerr=errors, fmt=marker, color=colour, capsize=3, markersize=5)


def _explain(axes: "Axes") -> None:
    """Name the colours and marks once."""
    for decision, colour in VERDICT_COLOURS.items():
        axes.plot([], [], "o", color=colour, label=decision)
    axes.plot([], [], "D", color="0.4", label="on the vault")
    axes.figure.legend(frameon=False, ncols=5, fontsize="small", loc="outside upper center")
