"""The figures of a study: lines with bands against whatever was varied, or marks with intervals at named places."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from vicinal.report.axes import place_points, scale_values
from vicinal.report.comparison import Comparison
from vicinal.report.comparison_study import as_study
from vicinal.report.lines import Band, draw_line, draw_strokes, mark_gone, mark_losses, over_repetitions
from vicinal.report.marks import draw_marks, mark_labels
from vicinal.report.palette import MUTED, LineStyle, line_styles
from vicinal.report.plots import FigureGroup, Plot, Plots, as_figure, as_group
from vicinal.report.study import Panel, Series, Study
from vicinal.report.svg import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["panel_group", "plot_panels", "plot_section", "share_keys", "study_styles", "styles_of"]

_LINE = 14.0  # height of a line of text, in units of the figure


def styles_of(panels: Sequence[Panel]) -> dict[str, LineStyle]:
    """Give each label its look, in order of first appearance.

    Args:
        panels: The figures.

    Returns:
        Label -> look.
    """
    lines = [series for panel in panels for series in panel.series]
    colors = {series.label: series.color for series in reversed(lines)}
    return line_styles(list(dict.fromkeys(series.label for series in lines)), colors)


def study_styles(study: Study) -> dict[str, LineStyle]:
    """Give each label of a study its look, which it keeps in all figures.

    Args:
        study: The study.

    Returns:
        Label -> look.
    """
    return styles_of([panel for section in study.sections for panel in section.panels])


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
    """Draw figures that share a key, for a page: each without its title, which can wrap there.

    Args:
        panels: The figures.
        styles: Label -> look.
        prefix: Start of every identifier in the figures, unique within a page.

    Returns:
        A drawing per figure, and a key of all their lines.
    """
    return as_group(_plots(panels, styles), prefix)


def plot_panels(panels: Sequence[Panel]) -> "Figure":
    """Draw figures of a study as one matplotlib figure, three in a row, with a key of their lines below.

    Args:
        panels: The figures, such as those of a section.

    Returns:
        A figure; save it with `savefig`.

    Raises:
        ValueError: If there are no figures.

    Example:
        >>> from vicinal.report import Panel, Series
        >>> panel = Panel("Rates", "learning rate", "test accuracy", [Series("bp", [0.1, 1.0], [[0.8, 0.9]])])
        >>> plot_panels([panel]).axes[0].get_xlabel()
        'learning rate'
    """
    return as_figure(_plots(panels, styles_of(panels)))


def plot_section(results: Study | Comparison, heading: str) -> "Figure":
    """Draw the figures of a section as one matplotlib figure, as `plot_panels` does.

    Args:
        results: A study, or a comparison, whose sections are `"Learning curves"`, `"Angles"` and `"Energies"`.
        heading: Heading of the section.

    Returns:
        A figure; save it with `savefig`.

    Raises:
        ValueError: If the results have no figures under this heading.

    Example:
        >>> from vicinal.report import Comparison, Curve, RuleResult
        >>> curve = Curve(steps=[0, 10], test_accuracy=[[0.1, 0.9]], test_loss=[[2.3, 0.3]])
        >>> rule = RuleResult("bp", "backpropagation", "", [0.9], [0.3], {}, 0.5, [10], curve)
        >>> figure = plot_section(Comparison("Digits", "", {}, {}, [rule], "", ""), "Learning curves")
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['Test accuracy (%)', 'Test loss']
    """
    drawn = {section.heading: section.panels for section in as_study(results).sections if section.panels}
    if heading not in drawn:
        known = ", ".join(map(repr, drawn)) or "none"
        raise ValueError(f"expected the heading of a section with figures, one of {known}, got {heading!r}")
    return plot_panels(drawn[heading])


def _plots(panels: Sequence[Panel], styles: Mapping[str, LineStyle]) -> Plots:
    labels = dict.fromkeys(series.label for panel in panels for series in panel.series if series.label)
    plots = tuple(_plot_of(panel)(panel, styles, str(index)) for index, panel in enumerate(panels, 1))
    marks = any(panel.places for panel in panels)
    return Plots(plots, tuple((label, styles[label]) for label in labels), marks)


def _plot_of(panel: Panel) -> Callable[[Panel, Mapping[str, LineStyle], str], Plot]:
    if panel.rows:
        return _stroke_plot
    return _mark_plot if panel.places else _line_plot


def _line_plot(panel: Panel, styles: Mapping[str, LineStyle], name: str) -> Plot:
    bands = {series.label: over_repetitions(series.y) for series in panel.series}
    below, above = _wrapped(panel.x_label, 38), _wrapped(panel.y_label, 46)

    def paint(axes: "Axes") -> None:
        values = [value for band in bands.values() for row in band for value in row]
        place_points(axes, below, [x for series in panel.series for x in series.x], logarithmic=panel.log_x)
        scale_values(axes, values, logarithmic=panel.log_y, decades=panel.decades)
        if all(math.isnan(value) for value in values):
            axes.set_yticks([])
        elif panel.level is not None:
            axes.axhline(panel.level, color=MUTED, linewidth=1.0)
        axes.set_title(above, **_TITLE)
        gone = []
        for series in panel.series:
            band, style = bands[series.label], styles[series.label]
            draw_line(axes, series.x, band, style)
            gone += [(place, style) for place in mark_losses(axes, series.x, band.mean, series.y, style)]
        mark_gone(axes, gone)

    texts = [f"{series.label or 'the line'} {_ends(series, bands[series.label])}" for series in panel.series]
    what = f"{panel.y_label} against {panel.x_label}, mean over repetitions at the first and the last point"
    more = _LINE * below.count("\n"), _LINE * above.count("\n")
    room = {"height": 222 + sum(more), "bottom": 42 + more[0], "top": 26 + more[1]}
    return Plot(name, paint, _title(panel), f"{what}: {'; '.join(texts) or 'no lines'}.", **room)


def _mark_plot(panel: Panel, styles: Mapping[str, LineStyle], name: str) -> Plot:
    above = _wrapped(panel.y_label, 46)

    def paint(axes: "Axes") -> None:
        draw_marks(axes, panel, styles)
        if panel.level is not None:
            axes.axvline(panel.level, color=MUTED, linewidth=1.0)
        axes.set_title(above, **_TITLE)

    texts = []
    for series in panel.series:
        means = over_repetitions(series.y).mean or [math.nan] * len(panel.places)
        pairs = zip(panel.places, means, strict=True)
        known = [f"{place} {mean:.3g}" for place, mean in pairs if not math.isnan(mean)]
        texts.append(f"{series.label}: {', '.join(known) or 'no values'}")
    more = _LINE * above.count("\n")
    room = {
        "height": 52 + more + len(panel.places) * max(26.0, 8.0 * len(panel.series) + 6.0),
        "bottom": 26,
        "top": 26 + more,
        "left": 20 + 6.0 * max(map(len, mark_labels(panel))),
    }
    return Plot(name, paint, _title(panel), f"{panel.y_label}, mean over repetitions: {'; '.join(texts)}.", **room)


def _stroke_plot(panel: Panel, styles: Mapping[str, LineStyle], name: str) -> Plot:
    (left, right), (low, high) = panel.extent
    points = {
        series.label: [(x, y) for row in series.y for x, y in zip(series.x, row, strict=True)]
        for series in panel.series
    }
    names = [shorten(row, 14) for row in panel.rows]

    def paint(axes: "Axes") -> None:
        place_points(axes, panel.x_label, [left, right], logarithmic=False)
        for label, found in points.items():
            draw_strokes(axes, [x for x, _ in found], [y for _, y in found], styles[label])
        axes.set_xlim(left, right)
        axes.set_ylim(low, high)
        axes.set_yticks(list(panel.rows.values()), names)
        axes.grid(False, axis="y")
        axes.set_title(panel.title, **_TITLE)

    counts = ", ".join(f"{len(found)} {label}" for label, found in points.items())
    height = min(max(150.0, 3.2 * (high - low)), 420.0)
    room = {"height": height + 68, "bottom": 42, "top": 26, "left": 16 + 6.0 * max(map(len, names))}
    return Plot(name, paint, _title(panel), f"Strokes at {panel.x_label} and {panel.y_label}: {counts}.", **room)


_TITLE = {"fontsize": 11, "fontweight": "normal", "color": MUTED}


def _title(panel: Panel) -> str:
    return panel.title or f"{panel.y_label} against {panel.x_label}"


def _wrapped(label: str, width: int) -> str:
    """Break the label of an axis into two lines at most."""
    return "\n".join(shorten(line, width) for line in textwrap.wrap(label, width, max_lines=2, placeholder="…"))


def _ends(series: Series, band: Band) -> str:
    """Say in words where a line begins and ends, and how much of it was lost."""
    pairs = zip(series.x, band.mean, strict=False)  # without a repetition there is no mean
    points = [f"{value:.3g} (at {x:g})" for x, value in pairs if not math.isnan(x + value)]
    if not points:
        return "no values"
    ends = f"from {points[0]} to {points[-1]}" if len(points) > 1 else points[0]
    values = [value for row in series.y for value in row]
    lost = sum(map(math.isnan, values))
    return f"{ends}, {lost} of {len(values)} values lost" if lost else ends
