"""Draw plots that belong together, as SVG for a page or as a matplotlib figure for a paper."""

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from vicinal.report.figure_style import LINE_WIDTH, RIGHT, house_style
from vicinal.report.palette import LineStyle
from vicinal.report.svg import draw, swatch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["FigureGroup", "KeyEntry", "Plot", "Plots", "as_figure", "as_group"]

_ABREAST = 3  # plots in a row of a figure
_KEY_LINE, _LETTER = 18.0, 6.2  # height of a line of the key, and about the width of a letter


@dataclasses.dataclass(frozen=True)
class Plot:
    """One pair of axes.

    Args:
        name: What it shows: letters, digits and hyphens.
        paint: Draws on the axes it is given.
        title: Accessible title.
        description: Accessible description.
        height: Height in units; a unit is a point in a figure, and a CSS pixel in a page.
        left: Room in units at the left of the axes.
        bottom: Room in units below the axes.
        top: Room in units above the axes.
    """

    name: str
    paint: "Callable[[Axes], None]"
    title: str
    description: str
    height: float = 222.0
    left: float = 46.0
    bottom: float = 42.0
    top: float = 30.0

    width = 300.0


@dataclasses.dataclass(frozen=True)
class Plots:
    """Plots that share a key.

    Args:
        plots: The plots.
        key: What each look stands for.
        marks: Whether the plots show marks in place of lines.
    """

    plots: tuple[Plot, ...] = ()
    key: tuple[tuple[str, LineStyle], ...] = ()
    marks: bool = False


@dataclasses.dataclass(frozen=True)
class KeyEntry:
    """One line of a key.

    Args:
        label: What the line stands for.
        swatch: A small `<svg>` sample of the line.
    """

    label: str
    swatch: str


@dataclasses.dataclass(frozen=True)
class FigureGroup:
    """Drawings that share a key.

    Args:
        panels: One `<svg>` element each; empty if there is nothing to draw.
        key: Which line is which. It is not drawn inside the panels, so that long names can wrap.
    """

    panels: tuple[str, ...]
    key: tuple[KeyEntry, ...]


def as_group(plots: Plots, prefix: str) -> FigureGroup:
    """Draw plots for a page.

    Args:
        plots: The plots.
        prefix: Start of every identifier in the figures, unique within a page.

    Returns:
        A panel per plot, and the key.
    """
    dark = {style.color: style.dark for _, style in plots.key}
    panels = [
        draw(
            plot.paint,
            identifier=f"{prefix}-{plot.name}",
            title=plot.title,
            description=plot.description,
            height=plot.height,
            left=plot.left,
            bottom=plot.bottom,
            top=plot.top,
            dark=dark,
        )
        for plot in plots.plots
    ]
    return FigureGroup(tuple(panels), tuple(KeyEntry(label, swatch(style)) for label, style in plots.key))


def as_figure(plots: Plots) -> "Figure":
    """Draw plots as one figure, three in a row, with the key below.

    Args:
        plots: The plots.

    Returns:
        A matplotlib figure, which no window shows: save it with `savefig`.

    Raises:
        ValueError: If there is nothing to draw.
    """
    from matplotlib.figure import Figure

    if not plots.plots:
        raise ValueError("expected something to draw, got no such numbers in the results")
    columns = min(_ABREAST, len(plots.plots))
    rows = [plots.plots[i : i + columns] for i in range(0, len(plots.plots), columns)]
    heights = [max(plot.height for plot in row) for row in rows]
    width = columns * Plot.width
    entries = _abreast([label for label, _ in plots.key], width)
    keyed = len(plots.key) > 1 or (plots.marks and plots.key)  # marks may be of one rule among several
    key_height = _KEY_LINE * math.ceil(len(plots.key) / entries) + 8.0 if keyed else 0.0
    height = sum(heights) + key_height
    with house_style():
        figure = Figure(figsize=(width / 72, height / 72))
        floor = height
        for row, tall in zip(rows, heights, strict=True):
            floor -= tall
            for column, plot in enumerate(row):
                low = floor + tall - plot.height
                box = (
                    (column * Plot.width + plot.left) / width,
                    (low + plot.bottom) / height,
                    (Plot.width - plot.left - RIGHT) / width,
                    (plot.height - plot.top - plot.bottom) / height,
                )
                plot.paint(figure.add_axes(box))
        if key_height:
            handles = [_handle(label, style, plots.marks) for label, style in plots.key]
            figure.legend(handles=handles, loc="lower center", ncols=entries, frameon=False, handlelength=3.0)
        figure.draw_without_rendering()  # ticks are made when they are drawn, in the style of that time
    return figure


def _abreast(labels: list[str], width: float) -> int:
    """Count the entries of a key that fit in a row, in columns as wide as their longest entry."""
    for entries in range(len(labels), 1, -1):
        rows = math.ceil(len(labels) / entries)  # the key is filled column by column
        columns = [labels[i : i + rows] for i in range(0, len(labels), rows)]
        if sum(_LETTER * max(map(len, column)) + 60.0 for column in columns) <= width:
            return entries
    return 1


def _handle(label: str, style: LineStyle, mark: bool) -> "Line2D":
    from matplotlib.lines import Line2D

    if mark:
        return Line2D([], [], color=style.color, marker=style.marker, linestyle="none", label=label)
    dashes = (0, style.dashes) if style.dashes else "-"
    return Line2D([], [], color=style.color, linestyle=dashes, linewidth=LINE_WIDTH, label=label)
