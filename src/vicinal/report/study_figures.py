"""The figures of a study: lines with bands against whatever was varied."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vicinal.report.axes import place_points, scale_values
from vicinal.report.groups import FigureGroup
from vicinal.report.lines import Band, draw_line, mark_gone, mark_losses, over_repetitions
from vicinal.report.palette import MUTED, LineStyle, line_styles
from vicinal.report.plots import Plot, Plots, as_figure, as_group
from vicinal.report.study import Panel, Series, Study
from vicinal.report.svg import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_panel", "panel_group", "panel_plots", "plot_panels", "share_keys", "study_styles"]

_LINE = 14.0  # height of a line of text, in units of the figure


def study_styles(study: Study) -> dict[str, LineStyle]:
    """Give each label of a study its look, in order of first appearance.

    Args:
        study: The study.

    Returns:
        Label -> look.
    """
    panels = [panel for section in study.sections for panel in section.panels]
    return line_styles(list(dict.fromkeys(series.label for panel in panels for series in panel.series)))


def share_keys(panels: Sequence[Panel]) -> list[list[Panel]]:
    """Sort the figures of a section into groups that can share a key.

    Args:
        panels: The figures.

    Returns:
        One group if some figure has all the lines of the others; else a group for each figure.
    """
    labels = [{series.label for series in panel.series} for panel in panels]
    if any(row >= set().union(*labels) for row in labels):
        return [list(panels)]
    return [[panel] for panel in panels]


def panel_group(panels: Sequence[Panel], styles: Mapping[str, LineStyle], *, prefix: str = "figure") -> FigureGroup:
    """Draw figures that share a key.

    Args:
        panels: The figures.
        styles: Label -> look.
        prefix: Start of every identifier in the figures, unique within a page.

    Returns:
        A drawing per figure, and a key of all their lines.
    """
    return as_group(panel_plots(panels, styles), prefix)


def plot_panels(panels: Sequence[Panel]) -> "Figure":
    """Draw figures of a study as one matplotlib figure, three in a row, with a key of their lines below.

    Args:
        panels: The figures, such as those of a section.

    Returns:
        A figure; save it with `savefig`.

    Raises:
        ValueError: If there is none.

    Example:
        >>> from vicinal.report import Panel, Series
        >>> panel = Panel("Rates", "learning rate", "test accuracy", [Series("bp", [0.1, 1.0], [[0.8, 0.9]])])
        >>> plot_panels([panel]).axes[0].get_xlabel()
        'learning rate'
    """
    labels = dict.fromkeys(series.label for panel in panels for series in panel.series)
    return as_figure(panel_plots(panels, line_styles(list(labels))))


def panel_plots(panels: Sequence[Panel], styles: Mapping[str, LineStyle]) -> Plots:
    """Describe figures that share a key.

    Args:
        panels: The figures.
        styles: Label -> look.

    Returns:
        The plots.
    """
    labels = dict.fromkeys(series.label for panel in panels for series in panel.series if series.label)
    plots = tuple(_plot(panel, styles, str(index)) for index, panel in enumerate(panels, 1))
    return Plots(plots, tuple((label, styles[label]) for label in labels))


def draw_panel(panel: Panel, styles: Mapping[str, LineStyle], *, identifier: str) -> str:
    """Draw one figure, without its title: that stands above it in the page, where it can wrap.

    Args:
        panel: What to draw.
        styles: Label -> look.
        identifier: Start of every identifier in the figure, unique within a page.

    Returns:
        An `<svg>` element.
    """
    first, _, last = identifier.rpartition("-")
    return as_group(Plots((_plot(panel, styles, last),), tuple(styles.items())), first or "figure").panels[0]


def _plot(panel: Panel, styles: Mapping[str, LineStyle], name: str) -> Plot:
    bands = {series.label: over_repetitions(series.y) for series in panel.series}
    below, above = _wrapped(panel.x_label, 38), _wrapped(panel.y_label, 46)

    def paint(axes: "Axes") -> None:
        values = [value for band in bands.values() for row in band for value in row]
        place_points(axes, below, [x for series in panel.series for x in series.x], logarithmic=panel.log_x)
        scale_values(axes, values, logarithmic=panel.log_y, decades=80)  # all that single precision can hold
        if all(math.isnan(value) for value in values):
            axes.set_yticks([])
        axes.set_title(above, fontsize=11, fontweight="normal", color=MUTED)
        gone = []
        for series in panel.series:
            band, style = bands[series.label], styles[series.label]
            draw_line(axes, series.x, band, style)
            gone += [(place, style) for place in mark_losses(axes, series.x, band.mean, series.y, style)]
        mark_gone(axes, gone)

    more = _LINE * below.count("\n"), _LINE * above.count("\n")
    return Plot(
        name,
        paint,
        panel.title or f"{panel.y_label} against {panel.x_label}",
        _describe(panel, bands),
        height=222 + sum(more),
        bottom=42 + more[0],
        top=26 + more[1],
    )


def _wrapped(label: str, width: int) -> str:
    """Break the label of an axis into two lines at most."""
    return "\n".join(shorten(line, width) for line in textwrap.wrap(label, width, max_lines=2, placeholder="…"))


def _describe(panel: Panel, bands: Mapping[str, Band]) -> str:
    texts = [f"{series.label or 'the line'} {_ends(series, bands[series.label].mean)}" for series in panel.series]
    what = f"{panel.y_label} against {panel.x_label}, mean over repetitions at the first and the last point"
    return f"{what}: {'; '.join(texts) or 'no lines'}."


def _ends(series: Series, mean: Sequence[float]) -> str:
    """Say in words where a line begins and ends, and how much of it was lost."""
    pairs = zip(series.x, mean, strict=False)  # without a repetition there is no mean
    points = [f"{value:.3g} (at {x:g})" for x, value in pairs if not math.isnan(x + value)]
    if not points:
        return "no values"
    ends = f"from {points[0]} to {points[-1]}" if len(points) > 1 else points[0]
    values = [value for row in series.y for value in row]
    lost = sum(map(math.isnan, values))
    return f"{ends}, {lost} of {len(values)} values lost" if lost else ends
