"""Scales and tick labels of the figures, written so that they stay short on a phone."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["count_steps", "number_label", "scale_values"]

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def count_steps(axes: "Axes", label: str) -> None:
    """Label the horizontal axis, which counts steps.

    Args:
        axes: The axes, with their lines drawn.
        label: What a step is.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number_label(value)))
    axes.margins(x=0.02)


def scale_values(axes: "Axes", values: Sequence[float], *, logarithmic: bool, decades: float = 12) -> None:
    """Choose the vertical scale: logarithmic where asked for and where the values spread enough.

    Args:
        axes: The axes, with their lines drawn.
        values: All values the scale has to show; nan is ignored.
        logarithmic: Whether to prefer a logarithmic scale.
        decades: The most powers of ten that a logarithmic scale shows, counted from the largest value.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    positive = [value for value in values if value > 0]  # nan compares false
    largest = max(positive, default=1.0)
    smallest = max(min(positive, default=1.0), largest * 10.0**-decades)
    if logarithmic and positive and largest / smallest >= 4:
        axes.set_yscale("log", nonpositive="mask")
        axes.set_ylim(smallest / 1.25, largest * 1.25)
        spread = math.log10(largest / smallest)
        multiples = (1.0, 2.0, 5.0) if spread < 2.2 else (1.0,)
        axes.yaxis.set_major_locator(LogLocator(subs=multiples, numticks=7))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.margins(y=0.08)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number_label(value)))


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
