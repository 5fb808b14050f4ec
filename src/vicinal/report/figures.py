"""The figures of a comparison: learning curves, energies along inference, angles and norms of updates.

Each is described once, as plots, and drawn twice: as SVG to put into a page (`learning_curves`, `energies`, `angles`),
and as a matplotlib figure (`plot_learning_curves`, `plot_energies`, `plot_angles`).
"""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vicinal.report.axes import count_steps, number_label, scale_values
from vicinal.report.cells import ALL_WEIGHTS, angle_cell, layer_names
from vicinal.report.groups import FigureGroup
from vicinal.report.interval import mean_interval
from vicinal.report.lines import Band, draw_line, mark_first_loss, over_repetitions
from vicinal.report.palette import DARK, INK, MUTED, LineStyle, rule_styles, vertex_styles
from vicinal.report.plots import Plot, Plots, as_figure, as_group
from vicinal.report.records import heading, is_share
from vicinal.report.results import CONCATENATED, Comparison, RuleResult
from vicinal.report.svg import shorten
from vicinal.report.words import MISSING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["angles", "energies", "learning_curves", "plot_angles", "plot_energies", "plot_learning_curves"]

_SUM = LineStyle(INK, DARK[INK], (), "o")


def learning_curves(comparison: Comparison, *, prefix: str = "figure") -> FigureGroup:
    """Draw test accuracy, test loss, train loss and what else was measured over training, one panel each.

    A line is the mean over the seeds that have a value, the band spans the seeds from lowest to highest, and
    a cross marks where a seed was lost.

    Args:
        comparison: The results.
        prefix: Start of every identifier in the figures, unique within a page.

    Returns:
        The panels, and a key of the rules.
    """
    return as_group(_learning(comparison), prefix)


def plot_learning_curves(comparison: Comparison) -> "Figure":
    """Draw test accuracy, test loss, train loss and what else was measured over training, as a matplotlib figure.

    Args:
        comparison: The results.

    Returns:
        A figure; save it with `savefig`.

    Raises:
        ValueError: If there is nothing to draw.

    Example:
        >>> from vicinal.report import Comparison, Curve, RuleResult
        >>> curve = Curve(steps=[0, 10], test_accuracy=[[0.1, 0.9]], test_loss=[[2.3, 0.3]])
        >>> rule = RuleResult("bp", "backpropagation", "", [0.9], [0.3], {}, 0.5, [10], curve)
        >>> figure = plot_learning_curves(Comparison("Digits", "", {}, {}, [rule], "", ""))
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['Test accuracy (%)', 'Test loss']
    """
    return as_figure(_learning(comparison))


def energies(comparison: Comparison, *, prefix: str = "figure") -> FigureGroup:
    """Draw how the energy falls along inference, two panels per rule that settles.

    The first shows each vertex and their sum on a logarithmic scale of six decades at most, which the rules share; an
    energy of zero, or below that, is not drawn. The second shows the sum on a linear scale of its own, where it can be
    seen whether it is still falling.

    Args:
        comparison: The results.
        prefix: Start of every identifier in the figures, unique within a page.

    Returns:
        The panels, and a key of the vertices and their sum.
    """
    return as_group(_energies(comparison), prefix)


def plot_energies(comparison: Comparison) -> "Figure":
    """Draw how the energy falls along inference, as a matplotlib figure; see `energies`.

    Args:
        comparison: The results.

    Returns:
        A figure; save it with `savefig`.

    Raises:
        ValueError: If no rule settles.
    """
    return as_figure(_energies(comparison))


def angles(comparison: Comparison, *, prefix: str = "figure") -> FigureGroup:
    """Draw the angle between each rule's update and backpropagation's, layer by layer, and the ratio of their norms.

    A mark is the mean over seeds, the bar its 95 % confidence interval (of three seeds or more).

    Args:
        comparison: The results.
        prefix: Start of every identifier in the figures, unique within a page.

    Returns:
        A panel of angles, one of norms if they were measured, and a key of the rules; no panel without an angle.
    """
    return as_group(_angles(comparison), prefix)


def plot_angles(comparison: Comparison) -> "Figure":
    """Draw angles to backpropagation's update and the ratios of norms, as a matplotlib figure; see `angles`.

    Args:
        comparison: The results.

    Returns:
        A figure; save it with `savefig`.

    Raises:
        ValueError: If no angle was measured.
    """
    return as_figure(_angles(comparison))


def _learning(comparison: Comparison) -> Plots:
    styles = rule_styles(comparison)
    more = dict.fromkeys(name for rule in comparison.rules for name in rule.curve.more)
    plots = []
    for name in ("test_accuracy", "test_loss", "train_loss", *more):
        title, unit = heading(name), 100.0 if is_share(name) else 1.0
        found = {rule.name: rule.curve.rows(name) for rule in comparison.rules}
        curves = {label: over_repetitions(rows, unit) for label, rows in found.items()}
        values = [value for band in curves.values() for row in band for value in row]
        if all(math.isnan(value) for value in values):
            continue

        def paint(axes: "Axes", name=name, title=title, curves=curves, found=found, values=values) -> None:
            scale_values(axes, values, logarithmic=name.endswith("loss"))
            for rule in comparison.rules:
                band, style = curves[rule.name], styles[rule.name]
                draw_line(axes, rule.curve.steps, band, style)
                mark_first_loss(axes, rule.curve.steps, band.mean, found[rule.name], style)
            axes.set_title(shorten(title, 34))
            count_steps(axes, "training step")

        plots.append(
            Plot(
                re.sub(r"[^0-9A-Za-z]+", "-", name),
                paint,
                f"{title} over training steps",
                _describe_curves(comparison, title, curves),
            )
        )
    return Plots(tuple(plots), tuple((rule.label, styles[rule.name]) for rule in comparison.rules))


def _energies(comparison: Comparison) -> Plots:
    rules = [rule for rule in comparison.rules if any(rule.energies.values())]
    names = list(dict.fromkeys(name for rule in rules for name in rule.energies))
    styles = vertex_styles(names)
    values = [value for rule in rules for row in (*rule.energies.values(), _total(rule)) for value in row]
    plots = []
    for index, rule in enumerate(rules):
        total = _total(rule)

        def paint(axes: "Axes", rule=rule, total=total) -> None:
            scale_values(axes, values, logarithmic=True, decades=6)
            for name, row in rule.energies.items():
                draw_line(axes, range(len(row)), Band(row, row, row), styles[name])
            if len(rule.energies) > 1:
                draw_line(axes, range(len(total)), Band(total, total, total), _SUM)
            axes.set_title(shorten(rule.label, 30))
            count_steps(axes, "inference step")

        def paint_sum(axes: "Axes", total=total) -> None:
            scale_values(axes, total, logarithmic=False)
            draw_line(axes, range(len(total)), Band(total, total, total), _SUM)
            axes.set_title("Sum over vertices, linear")
            count_steps(axes, "inference step")

        ends = [f"{name} from {row[0]:.3g} to {row[-1]:.3g}" for name, row in rule.energies.items() if row]
        plots.append(
            Plot(
                f"energy-{index}",
                paint,
                f"Energy per vertex along inference: {rule.label}",
                f"Mean energy per example, first to last inference step: {'; '.join(ends)}.",
            )
        )
        if total:
            plots.append(
                Plot(
                    f"energy-sum-{index}",
                    paint_sum,
                    f"Sum of the energies along inference, on a linear scale: {rule.label}",
                    f"Mean energy per example from {total[0]:.3g} to {total[-1]:.3g}; {_falling(total)}.",
                )
            )
    key = [(name, styles[name]) for name in names]
    return Plots(tuple(plots), (*key, *[("sum over vertices", _SUM)] * bool(rules)))


def _angles(comparison: Comparison) -> Plots:
    styles = rule_styles(comparison)
    layers = layer_names(comparison)
    layers += [CONCATENATED] * any(CONCATENATED in rule.angles for rule in comparison.rules)
    rules = [rule for rule in comparison.rules if rule.angles]
    values = [value for rule in rules for row in rule.angles.values() for value in row]
    if all(math.isnan(value) for value in values):
        return Plots()
    labels = [shorten(_layer(layer), 14) for layer in layers]
    room = {
        "height": 58 + len(layers) * max(26.0, 8.0 * len(rules) + 6.0),
        "bottom": 26,
        "left": 20 + 6.0 * max(map(len, labels)),
    }

    def paint(axes: "Axes") -> None:
        largest = max((value for value in values if not math.isnan(value)), default=0.0)
        limit = next((bound for bound in (30, 90, 120, 150) if largest <= bound), 180)
        axes.set_xlim(-0.02 * limit, limit)
        ticks = range(0, limit + 1, 10 if limit == 30 else 30)
        axes.set_xticks(ticks, [f"{tick}°" for tick in ticks])
        _name_layers(axes, labels)
        for rule, place in _places(rules):
            for row, layer in enumerate(layers):
                _mark(axes, rule.angles.get(layer, []), row + place, styles[rule.name], (0.0, 180.0))
        axes.set_title("Angle to backpropagation")

    ratios = [value for rule in rules for row in rule.norm_ratios.values() for value in row if value > 0]

    def paint_norms(axes: "Axes") -> None:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

        low, high = min(*ratios, 1.0) / 1.6, max(*ratios, 1.0) * 1.6
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high / low < 100 else (1.0,), numticks=6))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number_label(value)))
        _name_layers(axes, labels)
        axes.axvline(1.0, color=MUTED, linewidth=1.0)
        for rule, place in _places(rules):
            for row, layer in enumerate(layers):
                found = [value for value in rule.norm_ratios.get(layer, []) if value > 0]
                _mark(axes, found, row + place, styles[rule.name], (low, high))
        axes.set_title("Norm over backpropagation's")

    texts = [
        f"{rule.label}: {', '.join(f'{_layer(name)} {angle_cell(rule, name).text}' for name in layers)}"
        for rule in rules
    ]
    sizes = [
        f"{rule.label}: {', '.join(f'{_layer(name)} {angle_cell(rule, name).note or MISSING}' for name in layers)}"
        for rule in rules
    ]
    plots = [
        Plot(
            "angles",
            paint,
            "Angle between each rule's update and backpropagation's, layer by layer",
            "; ".join(texts) + ".",
            **room,
        )
    ]
    if ratios:
        plots.append(
            Plot(
                "norms",
                paint_norms,
                "Norm of each rule's update over that of backpropagation's, layer by layer",
                "; ".join(sizes) + ".",
                **room,
            )
        )
    return Plots(tuple(plots), tuple((rule.label, styles[rule.name]) for rule in rules), marks=True)


def _name_layers(axes: "Axes", labels: Sequence[str]) -> None:
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_yticks(range(len(labels)), labels)
    axes.grid(False, axis="y")


def _places(rules: Sequence[RuleResult]) -> list[tuple[RuleResult, float]]:
    """Where the mark of each rule stands beside the name of a layer."""
    return [(rule, 0.62 * ((place + 0.5) / len(rules) - 0.5)) for place, rule in enumerate(rules)]


def _mark(axes: "Axes", values: Sequence[float], height: float, style: LineStyle, ends: tuple[float, float]) -> None:
    """Draw a mean and its interval, within the ends of the axis."""
    mean, half_width = mean_interval(values)
    if math.isnan(mean):
        return
    if half_width:
        interval = [max(mean - half_width, ends[0]), min(mean + half_width, ends[1])]
        axes.plot(interval, [height, height], color=style.color, alpha=0.55)
    axes.plot([mean], [height], color=style.color, marker=style.marker, linestyle="none", clip_on=False)


def _total(rule: RuleResult) -> list[float]:
    return [math.fsum(column) for column in zip(*rule.energies.values(), strict=False)]


def _falling(total: Sequence[float]) -> str:
    """Say how much of the whole fall the last step made."""
    fall = total[0] - total[-1]
    if len(total) < 2 or not fall > 0:
        return "it does not fall"
    return f"the last step makes {100 * (total[-2] - total[-1]) / fall:.2g} % of the fall"


def _describe_curves(comparison: Comparison, title: str, curves: dict[str, Band]) -> str:
    texts = []
    for rule in comparison.rules:
        mean = [value for value in curves[rule.name].mean if not math.isnan(value)]
        ends = f"from {mean[0]:.3g} to {mean[-1]:.3g}" if mean else "no values"
        texts.append(f"{rule.label} {ends}")
    return f"{title}, mean over seeds at the first and the last recorded step: {'; '.join(texts)}."


def _layer(name: str) -> str:
    return ALL_WEIGHTS if name == CONCATENATED else name
