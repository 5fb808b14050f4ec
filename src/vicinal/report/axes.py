"""Scales and tick labels of the figures, written so that they stay short on a phone."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import LogLocator

__all__ = ["number_label", "place_points", "scale_values"]

_ROOM = 225.0  # length of the horizontal axis in units of the figure, less its margins
_LETTER = 6.2  # about the width of a digit, in the same units
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def scale_values(axes: "Axes", values: Sequence[float], *, logarithmic: bool, decades: float) -> None:
    """Choose the vertical scale: logarithmic where asked for and where the values spread enough.

    Args:
        axes: The axes, with their lines drawn or still without.
        values: All values the scale has to show; nan is ignored.
        logarithmic: Whether to prefer a logarithmic scale.
        decades: The most powers of ten that a logarithmic scale shows, counted from the largest value.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    positive = [value for value in values if value > 0]  # nan compares false
    largest = max(positive, default=1.0)
    smallest = max(min(positive, default=1.0), largest * 10.0**-decades)
    if logarithmic and positive and largest / smallest >= 4:
        axes.set_yscale("log", nonpositive="mask")
        axes.set_ylim(smallest / 1.25, largest * 1.25)
        axes.yaxis.set_major_locator(_log_ticks(smallest, largest))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.margins(y=0.08)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number_label(value)))


def place_points(axes: "Axes", label: str, points: Sequence[float], *, logarithmic: bool) -> None:
    """Label and scale the horizontal axis, which shows where the points of a sweep stand.

    On a logarithmic axis the ticks are the points themselves if all their labels have room, and else powers of
    ten (with their two- and fivefold if there are few).

    Args:
        axes: The axes.
        label: What the axis shows.
        points: All points the axis has to show; nan is ignored.
        logarithmic: Whether the axis is logarithmic; then all points are positive.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    axes.set_xlabel(label)
    places = sorted({point for point in points if not math.isnan(point)})
    if logarithmic and places:
        low, high = places[0], places[-1]
        margin = (high / low) ** 0.03 if high > low else 2.0
        axes.set_xscale("log")
        axes.set_xlim(low / margin, high * margin)
        if _have_room(places):
            axes.xaxis.set_major_locator(FixedLocator(places))
        elif high / low >= 10:
            axes.xaxis.set_major_locator(_log_ticks(low, high))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    else:
        low, high = (places[0], places[-1]) if places else (0.0, 1.0)
        margin = 0.03 * (high - low) or 0.5 * abs(high) or 1.0
        axes.set_xlim(low - margin, high + margin)
        whole = all(place == round(place) for place in places)
        ticks = MaxNLocator(nbins=5, integer=whole, steps=[1, 2, 2.5, 5, 10])
        axes.xaxis.set_major_locator(FixedLocator(places) if len(places) == 1 else ticks)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number_label(value)))


def _have_room(places: Sequence[float]) -> bool:
    """Say whether the labels of these places stay apart on a logarithmic axis."""
    if len(places) > 7:
        return False
    length = math.log(places[-1] / places[0]) or 1.0
    widths = [_LETTER * len(number_label(place)) for place in places]
    return all(
        _ROOM * math.log(places[i + 1] / places[i]) / length > (widths[i] + widths[i + 1]) / 2 + _LETTER
        for i in range(len(places) - 1)
    )


def _log_ticks(smallest: float, largest: float) -> "LogLocator":
    """Choose ticks of a logarithmic axis: powers of ten, with their two- and fivefold over a short range."""
    from matplotlib.ticker import LogLocator

    spread = math.log10(largest / smallest)
    return LogLocator(subs=(1.0, 2.0, 5.0) if spread < 2.2 else (1.0,), numticks=7)


def number_label(value: float) -> str:
    """Write a tick label.

    Args:
        value: The tick.

    Returns:
        A short text; a power of ten gets a superscript.

    Example:
        >>> number_label(0.05), number_label(2500), number_label(20000), number_label(1e-5)
        ('0.05', '2500', '20k', '10⁻⁵')
    """
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)) + 1e-9)
    if -3 <= exponent < 4:
        return f"{value:.6g}"
    if 4 <= exponent < 6:
        return f"{value / 1000:.6g}k"
    factor = f"{value / 10.0**exponent:.3g}"
    return ("" if factor == "1" else f"{factor}·") + f"10{exponent}"[:2] + str(exponent).translate(_SUPERSCRIPT)
