"""Draw lines with a band: the mean over repetitions, their span, and crosses where some were lost."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from vicinal.report.interval import mean_interval
from vicinal.report.palette import LineStyle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Band", "draw_line", "draw_strokes", "mark_gone", "mark_losses", "over_repetitions"]


class Band(NamedTuple):
    """Mean, lowest and highest value at each point; nan where no repetition has one."""

    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def over_repetitions(rows: Sequence[Sequence[float]], unit: float = 1.0) -> Band:
    """Reduce the repetitions to a band.

    Args:
        rows: The values, nan where one is missing; `[repetitions][points]`.
        unit: What to multiply each value by.

    Returns:
        One entry per point; none without a repetition.

    Example:
        >>> over_repetitions([[1.0, 2.0], [3.0, float("nan")]])
        Band(mean=[2.0, 2.0], low=[1.0, 2.0], high=[3.0, 2.0])
    """
    columns = [[unit * value for value in column if not math.isnan(value)] for column in zip(*rows, strict=True)]
    return Band(
        [mean_interval(column)[0] for column in columns],
        [min(column, default=math.nan) for column in columns],
        [max(column, default=math.nan) for column in columns],
    )


def draw_line(axes: "Axes", x: Sequence[float], band: Band, style: LineStyle) -> None:
    """Draw a mean and its band; a point without a neighbour becomes a mark and a bar.

    Args:
        axes: The axes; a vertical scale that is logarithmic must be set already.
        x: Where each point stands.
        band: What to draw.
        style: The look of the line.
    """
    mean, low, high = band
    if not any(not math.isnan(value) for value in mean):
        return
    axes.plot(x, mean, color=style.color, linestyle=(0, style.dashes) if style.dashes else "-")
    if list(low) != list(high):
        if axes.get_yscale() == "log":
            # matplotlib leaves out a corner without a place on the scale; the band has to reach the lower edge instead.
            edge = axes.get_ylim()[0] / 10
            low = [max(value, edge) for value in low]
        axes.fill_between(x, low, high, color=style.color, alpha=0.14, linewidth=0)
    for index in _alone(axes, x, mean):
        if low[index] < high[index]:
            axes.plot([x[index]] * 2, [low[index], high[index]], color=style.color, alpha=0.55)
        axes.plot([x[index]], [mean[index]], color=style.color, marker=style.marker, linestyle="none")


def draw_strokes(axes: "Axes", x: Sequence[float], y: Sequence[float], style: LineStyle) -> None:
    """Draw a short upright stroke at each point, as one path.

    Args:
        axes: The axes.
        x: Where each point stands.
        y: Its row; a stroke is .8 rows high.
        style: The look of the strokes.
    """
    places = [value for place in x for value in (place, place, math.nan)]
    heights = [value for row in y for value in (row - 0.4, row + 0.4, math.nan)]
    axes.plot(places, heights, color=style.color, linewidth=1.6, solid_capstyle="butt")


def mark_losses(
    axes: "Axes", x: Sequence[float], mean: Sequence[float], rows: Sequence[Sequence[float]], style: LineStyle
) -> list[float]:
    """Put a cross on a line wherever a repetition is lost that the point before it still had.

    Args:
        axes: The axes.
        x: Where each point stands.
        mean: The mean at each point.
        rows: The repetitions, nan where one was lost; `[repetitions][points]`.
        style: The look of the line.

    Returns:
        The points at which the last repetitions were lost, so that there is no line to put a cross on.
    """
    gone, before = [], set()
    for place, value, *column in zip(x, mean, *rows, strict=True) if rows else ():
        lost = {index for index, entry in enumerate(column) if math.isnan(entry)}
        if lost - before and math.isnan(value):
            gone.append(place)
        elif lost - before:
            axes.plot([place], [value], **_cross(style))
        before = lost
    return [place for place in gone if not math.isnan(place)]


def mark_gone(axes: "Axes", gone: Sequence[tuple[float, LineStyle]]) -> None:
    """Put crosses on the lower edge, side by side where several lines are gone.

    Args:
        axes: The axes.
        gone: Where a line is gone, and its look.
    """
    from matplotlib.transforms import blended_transform_factory, offset_copy

    edge = blended_transform_factory(axes.transData, axes.transAxes)
    for place in dict.fromkeys(place for place, _ in gone):
        styles = [style for other, style in gone if other == place]
        for index, style in enumerate(styles):
            shift = 8.0 * (index - (len(styles) - 1) / 2)
            aside = offset_copy(edge, x=shift, units="dots")  # a dot is a unit of the figure
            axes.plot([place], [0.0], transform=aside, **_cross(style))


def _cross(style: LineStyle) -> dict:
    return {"color": style.color, "marker": "x", "markersize": 8, "clip_on": False, "linestyle": "none"}


def _alone(axes: "Axes", x: Sequence[float], mean: Sequence[float]) -> list[int]:
    """Find the points to which no line leads, because the points beside them cannot be drawn."""
    above = 0.0 if axes.get_yscale() == "log" else -math.inf
    there = [value > above and not math.isnan(place) for place, value in zip(x, mean, strict=True)]
    beside = [False, *there, False]
    return [index for index, drawn in enumerate(there) if drawn and not beside[index] and not beside[index + 2]]
