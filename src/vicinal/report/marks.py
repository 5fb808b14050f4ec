"""Marks with intervals: for each named place and each series the mean, its 95 % interval and the repetitions."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from vicinal.report.axes import number_label
from vicinal.report.interval import mean_interval
from vicinal.report.palette import LineStyle
from vicinal.report.study import Panel
from vicinal.report.svg import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_marks", "mark_labels"]

_SHARE = 0.62  # of the height of a row, for the marks of its series
_MARGIN = 1.6  # on a logarithmic axis, as a factor


class _Mark(NamedTuple):
    style: LineStyle
    height: float
    values: list[float]
    mean: float
    half_width: float | None


def mark_labels(panel: Panel) -> list[str]:
    """The names of the rows, short enough to stand beside the axes."""
    return [shorten(place, 14) for place in panel.places]


def draw_marks(axes: "Axes", panel: Panel, styles: Mapping[str, LineStyle]) -> None:
    """Draw the marks of a panel that has `places`, a row for each.

    Args:
        axes: The axes.
        panel: What to draw. On a logarithmic axis, values that are not positive are left out.
        styles: Label -> look.
    """
    marks = _marks(panel, styles)
    values = [value for mark in marks for value in mark.values]
    levels = [] if panel.level is None else [panel.level]
    axes.set_ylim(len(panel.places) - 0.5, -0.5)
    axes.set_yticks(range(len(panel.places)), mark_labels(panel))
    axes.grid(False, axis="y")
    if not values:
        axes.set_xticks([])
        return
    low, high = _bounds(values, logarithmic=panel.log_y)
    ends = [*levels, *values]
    for mark in marks:
        if mark.half_width:
            interval = [max(mark.mean - mark.half_width, low), min(mark.mean + mark.half_width, high)]
            axes.plot(interval, [mark.height] * 2, color=mark.style.color, alpha=0.55)
            ends += interval
        axes.vlines(
            mark.values, mark.height - 0.07, mark.height + 0.07, color=mark.style.color, alpha=0.75, linewidth=1
        )
        look = {"color": mark.style.color, "marker": mark.style.marker, "linestyle": "none", "clip_on": False}
        axes.plot([mark.mean], [mark.height], **look)
    _scale(axes, min(ends), max(ends), logarithmic=panel.log_y)


def _marks(panel: Panel, styles: Mapping[str, LineStyle]) -> list[_Mark]:
    found = []
    for index, series in enumerate(panel.series):
        shift = _SHARE * ((index + 0.5) / len(panel.series) - 0.5)
        for place, column in enumerate(zip(*series.y, strict=True)):
            values = [value for value in column if (value > 0 if panel.log_y else not math.isnan(value))]
            if values:
                found.append(_Mark(styles[series.label], place + shift, values, *mean_interval(values)))
    return found


def _bounds(values: list[float], *, logarithmic: bool) -> tuple[float, float]:
    """The limits of an interval: a wide one must not squeeze the values, nor cross zero where no value does."""
    low, high = min(values), max(values)
    if logarithmic:
        return low / _MARGIN, high * _MARGIN
    least = 2 * low - high
    return least if low < 0 else max(least, 0.0), 2 * high - low


def _scale(axes: "Axes", low: float, high: float, *, logarithmic: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    if logarithmic:
        low, high = low / _MARGIN, high * _MARGIN
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high / low < 100 else (1.0,), numticks=6))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        margin = 0.03 * (high - low) or 0.5 * abs(high) or 1.0
        low, high = low - margin, high + margin
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set_xlim(low, high)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number_label(value)))
