"""Charts as SVG of a few kilobytes: every mark tells its numbers under the pointer, without a script.

Each is drawn twice, for a desktop or paper and for a phone, so that text is never scaled; the page's style
shows one of them.
"""

import html
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tasks.base.errors import one_line

WIDE, NARROW = 760, 360
HEIGHTS = {WIDE: 300, NARROW: 230}
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 40
ROW, LINE = 40, 12
A_CHARACTER = 6.5
LONGEST_LABEL = 60
STAR = "l2 5.5h6l-4.7 3.6l1.7 5.6l-5 -3.4l-5 3.4l1.7 -5.6l-4.7 -3.6h6z"


class Point(NamedTuple):
    """A mark of a chart."""

    x: float
    y: float
    text: str
    """What it tells under the pointer."""
    colour: str = ""
    """That of its series where empty."""
    low: float | None = None
    high: float | None = None


class Series(NamedTuple):
    """Marks of one kind."""

    points: Sequence[Point]
    colour: str
    label: str = ""
    """Nothing is said of it in the legend where empty."""
    shape: str = "dot"
    """dot, ring, star, diamond or none"""
    line: bool = False


class ChartLevel(NamedTuple):
    """A horizontal line over the whole width."""

    y: float
    label: str
    colour: str = "#777"


class IntervalRow(NamedTuple):
    """An estimate with its interval, in a row of its own."""

    label: str
    mean: float
    low: float
    high: float
    colour: str


class AxisScale(NamedTuple):
    """From numbers to places."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a number lies; what is outside lies at the edge."""
        low, high, at = (
            (math.log(self.low), math.log(self.high), math.log(max(value, self.low)))
            if self.log
            else (self.low, self.high, value)
        )
        share = min(max((at - low) / (high - low), 0.0), 1.0)
        return round(self.start + share * (self.end - self.start), 1)


def svg_chart(
    series: Sequence[Series],
    xlabel: str,
    ylabel: str,
    levels: Sequence[ChartLevel] = (),
    names: Sequence[tuple[float, str]] = (),
    log: bool = False,
    floor: float | None = None,
    share: float = 1.0,
    across: tuple[float, float] | None = None,
) -> str:
    """Draw series over a common axis, with a legend; `names` are ticks of the x axis in place of numbers.

    A point without a finite place is left out. `floor` is where the y axis begins, whatever lies below;
    `share` is that of the usual height; `across` is the range of the x axis, for charts below each other.
    """
    series = [own._replace(points=[p for p in own.points if math.isfinite(p.y)]) for own in series]
    wide, narrow = (
        "".join(_chart(width, height * share, series, xlabel, ylabel, levels, names, log, floor, across))
        for width, height in HEIGHTS.items()
    )
    return _figure(wide, narrow, _legend(series))


def svg_rows(rows: Sequence[IntervalRow], xlabel: str, bars: Sequence[tuple[float, str]] = ()) -> str:
    """Draw estimates with intervals below each other, the first on top; `bars` are vertical lines."""
    wide, narrow = ("".join(_rows(width, rows, xlabel, bars)) for width in (WIDE, NARROW))
    return _figure(wide, narrow)


def heat_table(
    rows: Sequence[tuple[str, Sequence[float]]], columns: Sequence[str], low: float, high: float, form: str
) -> str:
    """Draw numbers as a coloured table that scrolls where it is wide; NaN is an empty cell."""
    head = "".join(f"<th>{_text(name)}</th>" for name in columns)
    body = "".join(
        f"<tr><th>{_text(name)}</th>{''.join(_cell(value, low, high, form) for value in values)}</tr>"
        for name, values in rows
    )
    return f'<table class="heat"><tr><th></th>{head}</tr>{body}</table>'


def _figure(wide: str, narrow: str, legend: str = "") -> str:
    return f'<figure><div class="wide">{wide}</div><div class="narrow">{narrow}</div>{legend}</figure>'


def _cell(value: float, low: float, high: float, form: str) -> str:
    if math.isnan(value):
        return "<td></td>"
    share = min(max((value - low) / ((high - low) or 1), 0.0), 1.0)
    ink = "#fff" if share > 0.6 else "#222"
    colour = f"background: hsl(205 60% {96 - 60 * share:.0f}%); color: {ink}"
    return f'<td style="{colour}">{format(value, form)}</td>'


def _chart(
    width: int,
    height: float,
    series: Sequence[Series],
    xlabel: str,
    ylabel: str,
    levels: Sequence[ChartLevel],
    names: Sequence[tuple[float, str]],
    log: bool,
    floor: float | None,
    across: tuple[float, float] | None,
) -> Iterator[str]:
    points = [point for own in series for point in own.points]
    x = AxisScale(*(across or _span([p.x for p in points], pad=0.02)), LEFT, width - RIGHT)
    shown = [v for p in points for v in (p.y, p.low, p.high) if v is not None] + [level.y for level in levels]
    y = AxisScale(*_heights(shown, log, floor), height - BOTTOM, TOP + 14, log)
    yield _open(width, height, f"{ylabel} over {xlabel}")
    yield _label(LEFT - 44, TOP + 4, ylabel, (width - LEFT) / A_CHARACTER)
    for value in _ticks(y, 5):
        yield f'<path d="M{LEFT} {y.place(value)}H{width - RIGHT}" stroke="#eee"/>'
        yield _label(LEFT - 6, y.place(value) + 4, f"{value:.4g}", 9, "end")
    yield from _x_axis(x, xlabel, names, width, height)
    for level in levels:
        at = y.place(level.y)
        yield f'<path d="M{LEFT} {at}H{width - RIGHT}" stroke="{level.colour}" stroke-dasharray="5 3"/>'
        yield _label(width - RIGHT, at - 4, level.label, 40, "end", level.colour)
    for own in series:
        if own.line and own.points:
            path = "L".join(f"{x.place(p.x)} {y.place(p.y)}" for p in own.points)
            yield f'<path d="M{path}" fill="none" stroke="{own.colour}" stroke-width="1.3"/>'
        if own.shape != "none":
            yield from (_mark(x, y, point, own) for point in own.points)
    yield "</svg>"


def _rows(
    width: int, rows: Sequence[IntervalRow], xlabel: str, bars: Sequence[tuple[float, str]]
) -> Iterator[str]:
    first = TOP + 2 + LINE * len(bars)
    height = first + ROW * len(rows) + BOTTOM
    values = [v for row in rows for v in (row.low, row.high)] + [value for value, _ in bars]
    x = AxisScale(*_span(values, pad=0.06), 12, width - 12)
    bottom = height - BOTTOM
    yield _open(width, height, xlabel)
    for number, (value, name) in enumerate(bars):
        yield f'<path d="M{x.place(value)} {TOP}V{bottom}" stroke="#999" stroke-dasharray="4 3"/>'
        yield _label(
            x.place(value) + 3,
            TOP + 4 + LINE * number,
            name,
            30,
            "start" if x.place(value) < width / 2 else "end",
            "#777",
        )
    for number, row in enumerate(rows):
        at = first + ROW * number
        told = f"{row.label}: {row.mean:+.3g} [{row.low:+.3g}, {row.high:+.3g}]"
        yield _label(12, at + 12, row.label, (width - 24) / A_CHARACTER)
        yield (
            f'<g class="mark" stroke="{row.colour}" fill="{row.colour}" stroke-width="2">'
            f'<title>{_text(told)}</title><path d="M{x.place(row.low)} {at + 24}H{x.place(row.high)}"/>'
            f'<circle cx="{x.place(row.mean)}" cy="{at + 24}" r="4"/></g>'
        )
    yield from _x_axis(x, xlabel, (), width, height)
    yield "</svg>"


def _x_axis(
    x: AxisScale, xlabel: str, names: Sequence[tuple[float, str]], width: int, height: float
) -> Iterator[str]:
    bottom = height - BOTTOM
    yield f'<path d="M{x.start} {bottom}H{x.end}" stroke="#999"/>'
    ticks = names or [(value, f"{value:.6g}") for value in _ticks(x, width // 90)]
    room = max((len(name) for _, name in ticks), default=1) * A_CHARACTER + 12
    step = max(1, math.ceil(len(ticks) * room / (x.end - x.start)))
    for value, name in ticks[::step]:
        yield f'<path d="M{x.place(value)} {bottom}v4" stroke="#999"/>'
        yield _label(x.place(value), bottom + 16, name, 20, "middle")
    yield _label((x.start + x.end) / 2, bottom + 33, xlabel, (width - 20) / A_CHARACTER, "middle", "#555")


def _mark(x: AxisScale, y: AxisScale, point: Point, own: Series) -> str:
    colour, cx, cy = point.colour or own.colour, x.place(point.x), y.place(point.y)
    whisker = ""
    if point.low is not None and point.high is not None:
        low, high = y.place(point.low), y.place(point.high)
        whisker = (
            f'<path d="M{cx} {low}V{high}M{cx - 3} {low}h6M{cx - 3} {high}h6" stroke="{colour}" fill="none"/>'
        )
    shapes = {
        "dot": f'<circle cx="{cx}" cy="{cy}" r="3.5" fill="{colour}"/>',
        "ring": f'<circle cx="{cx}" cy="{cy}" r="2.5" fill="#fff" stroke="{colour}"/>',
        "diamond": f'<path d="M{cx} {cy - 5}l5 5l-5 5l-5 -5z" fill="{colour}"/>',
        "star": f'<path d="M{cx} {cy - 8}{STAR}" fill="{colour}"/>',
    }
    return f'<g class="mark"><title>{_text(point.text)}</title>{whisker}{shapes[own.shape]}</g>'


def _legend(series: Sequence[Series]) -> str:
    signs = {"dot": "●", "ring": "○", "diamond": "◆", "star": "★", "none": "—"}
    told = [
        f'<span><b style="color: {own.colour}">{signs[own.shape]}</b> {_text(own.label)}</span> '
        for own in series
        if own.label
    ]
    return f'<p class="legend">{"".join(told)}</p>' if told else ""


def _span(values: Sequence[float], pad: float) -> tuple[float, float]:
    """Return a range that holds numbers, with some room; any range for none."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    room = pad * (high - low) or abs(high) * pad or 1.0
    return low - room, high + room


def _heights(values: Sequence[float], log: bool, floor: float | None) -> tuple[float, float]:
    if not log:
        low, high = _span(values, pad=0.06)
        return (low if floor is None else floor), high
    positive = [value for value in values if value > 0] or [1.0]
    low = floor or min(positive)
    return low, max(1.5 * max(positive), 2 * low)


def _ticks(scale: AxisScale, count: int) -> list[float]:
    """Return round numbers within a scale."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    few = LogLocator(subs=(1.0, 2.0, 5.0)) if scale.log else MaxNLocator(max(count, 2))
    return [float(v) for v in few.tick_values(scale.low, scale.high) if scale.low <= v <= scale.high]


def _open(width: int, height: float, about: str) -> str:
    return f'<svg viewBox="0 0 {width} {height:g}" role="img" aria-label="{_text(about)}">'


def _label(x: float, y: float, text: str, longest: float, anchor: str = "start", colour: str = "#333") -> str:
    """Write a text, cut where there is no room for it."""
    shown = one_line(text, max(int(longest), 4))
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{html.escape(shown)}</text>'


def _text(text: str) -> str:
    return html.escape(one_line(text, 2 * LONGEST_LABEL))
