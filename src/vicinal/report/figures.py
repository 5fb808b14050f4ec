"""The figures of a report, as SVG to put into a page: learning curves, energies along inference, angles."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vicinal.report.axes import count_steps, scale_values
from vicinal.report.cells import ALL_WEIGHTS, angle_cell, layer_names
from vicinal.report.groups import FigureGroup, KeyEntry
from vicinal.report.interval import mean_interval
from vicinal.report.lines import Band, draw_line, mark_first_loss, over_repetitions
from vicinal.report.palette import DARK, INK, LineStyle, rule_styles, vertex_styles
from vicinal.report.results import CONCATENATED, Comparison, RuleResult
from vicinal.report.svg import draw, shorten, swatch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["angles", "energies", "learning_curves"]

_SUM = LineStyle(INK, DARK[INK], (), "o")


def learning_curves(comparison: Comparison, *, prefix: str = "figure") -> FigureGroup:
    """Draw test accuracy, test loss and train loss over training, one panel each.

    A line is the mean over the seeds that have a value, the band spans the seeds from lowest to highest, and
    a cross marks where a seed was lost.

    Args:
        comparison: The results.
        prefix: Start of every identifier in the figures, unique within a page.

    Returns:
        Up to three panels, and a key of the rules.
    """
    styles = rule_styles(comparison)
    panels = []
    quantities = (
        ("test_accuracy", "Test accuracy (%)", 100.0),
        ("test_loss", "Test loss", 1.0),
        ("train_loss", "Training loss", 1.0),
    )
    for name, title, unit in quantities:
        curves = {rule.name: over_repetitions(getattr(rule.curve, name), unit) for rule in comparison.rules}
        values = [value for band in curves.values() for row in band for value in row]
        if all(math.isnan(value) for value in values):
            continue

        def paint(axes: "Axes", name=name, title=title, curves=curves, values=values) -> None:
            scale_values(axes, values, logarithmic=name != "test_accuracy")
            for rule in comparison.rules:
                band, style = curves[rule.name], styles[rule.name]
                draw_line(axes, rule.curve.steps, band, style)
                mark_first_loss(axes, rule.curve.steps, band.mean, getattr(rule.curve, name), style)
            axes.set_title(title)
            count_steps(axes, "training step")

        panels.append(
            draw(
                paint,
                identifier=f"{prefix}-{name.replace('_', '-')}",
                title=f"{title} over training steps",
                description=_describe_curves(comparison, title, curves),
                dark={style.color: style.dark for style in styles.values()},
            )
        )
    return FigureGroup(tuple(panels), _rule_key(comparison, styles))


def energies(comparison: Comparison, *, prefix: str = "figure") -> FigureGroup:
    """Draw how the energy of each vertex falls along inference, one panel per rule that settles.

    The panels share a logarithmic scale of six decades at most; an energy of zero, or below that, is not
    drawn.

    Args:
        comparison: The results.
        prefix: Start of every identifier in the figures, unique within a page.

    Returns:
        One panel per rule with energies, and a key of the vertices and their sum.
    """
    rules = [rule for rule in comparison.rules if any(rule.energies.values())]
    names = list(dict.fromkeys(name for rule in rules for name in rule.energies))
    styles = vertex_styles(names)
    values = [value for rule in rules for row in (*rule.energies.values(), _total(rule)) for value in row]
    panels = []
    for index, rule in enumerate(rules):

        def paint(axes: "Axes", rule=rule) -> None:
            scale_values(axes, values, logarithmic=True, decades=6)
            for name, row in rule.energies.items():
                draw_line(axes, range(len(row)), Band(row, row, row), styles[name])
            if len(rule.energies) > 1:
                total = _total(rule)
                draw_line(axes, range(len(total)), Band(total, total, total), _SUM)
            axes.set_title(shorten(rule.label, 30))
            count_steps(axes, "inference step")

        ends = [f"{name} from {row[0]:.3g} to {row[-1]:.3g}" for name, row in rule.energies.items() if row]
        panels.append(
            draw(
                paint,
                identifier=f"{prefix}-energy-{index}",
                title=f"Energy per vertex along inference: {rule.label}",
                description=f"Mean energy per example, first to last inference step: {'; '.join(ends)}.",
                dark={style.color: style.dark for style in styles.values()},
            )
        )
    key = [KeyEntry(name, swatch(styles[name])) for name in names]
    if any(len(rule.energies) > 1 for rule in rules):
        key.append(KeyEntry("sum over vertices", swatch(_SUM)))
    return FigureGroup(tuple(panels), tuple(key))


def angles(comparison: Comparison, *, prefix: str = "figure") -> FigureGroup:
    """Draw the angle between each rule's update and backpropagation's, layer by layer.

    A mark is the mean over seeds, the bar its 95 % confidence interval.

    Args:
        comparison: The results.
        prefix: Start of every identifier in the figures, unique within a page.

    Returns:
        One panel, and a key of the rules; no panel if no angle was measured.
    """
    styles = rule_styles(comparison)
    layers = layer_names(comparison)
    layers += [CONCATENATED] * any(CONCATENATED in rule.angles for rule in comparison.rules)
    rules = [rule for rule in comparison.rules if rule.angles]
    values = [value for rule in rules for row in rule.angles.values() for value in row]
    if all(math.isnan(value) for value in values):
        return FigureGroup((), ())
    labels = [shorten(ALL_WEIGHTS if layer == CONCATENATED else layer, 14) for layer in layers]

    def paint(axes: "Axes") -> None:
        for row, layer in enumerate(layers):
            for place, rule in enumerate(rules):
                height = row + 0.62 * ((place + 0.5) / len(rules) - 0.5)
                _mark(axes, rule.angles.get(layer, []), height, styles[rule.name])
        largest = max((value for value in values if not math.isnan(value)), default=0.0)
        limit = next((bound for bound in (90, 120, 150) if largest <= bound), 180)
        axes.set_xlim(-0.02 * limit, limit)
        axes.set_xticks(range(0, limit + 1, 30), [f"{tick}°" for tick in range(0, limit + 1, 30)])
        axes.set_ylim(len(layers) - 0.5, -0.5)
        axes.set_yticks(range(len(layers)), labels)
        axes.grid(False, axis="y")
        axes.set_title("Angle to backpropagation")

    texts = [
        f"{rule.label}: {', '.join(f'{_layer(name)} {angle_cell(rule, name).text}' for name in layers)}"
        for rule in rules
    ]
    panel = draw(
        paint,
        identifier=f"{prefix}-angles",
        title="Angle between each rule's update and backpropagation's, layer by layer",
        description="; ".join(texts) + ".",
        height=58 + len(layers) * max(26.0, 8.0 * len(rules) + 6.0),
        bottom=26,
        left=20 + 6.0 * max(map(len, labels)),
        dark={style.color: style.dark for style in styles.values()},
    )
    return FigureGroup((panel,), _rule_key(comparison, styles))


def _mark(axes: "Axes", values: Sequence[float], height: float, style: LineStyle) -> None:
    """Draw a mean and its interval."""
    mean, half_width = mean_interval(values)
    if math.isnan(mean):
        return
    if half_width:
        ends = [max(mean - half_width, 0.0), min(mean + half_width, 180.0)]
        axes.plot(ends, [height, height], color=style.color, alpha=0.55)
    axes.plot([mean], [height], color=style.color, marker=style.marker, linestyle="none", clip_on=False)


def _total(rule: RuleResult) -> list[float]:
    return [math.fsum(column) for column in zip(*rule.energies.values(), strict=False)]


def _rule_key(comparison: Comparison, styles: dict[str, LineStyle]) -> tuple[KeyEntry, ...]:
    return tuple(KeyEntry(rule.label, swatch(styles[rule.name])) for rule in comparison.rules)


def _describe_curves(comparison: Comparison, title: str, curves: dict[str, Band]) -> str:
    texts = []
    for rule in comparison.rules:
        mean = [value for value in curves[rule.name].mean if not math.isnan(value)]
        ends = f"from {mean[0]:.3g} to {mean[-1]:.3g}" if mean else "no values"
        texts.append(f"{rule.label} {ends}")
    return f"{title}, mean over seeds at the first and the last recorded step: {'; '.join(texts)}."


def _layer(name: str) -> str:
    return ALL_WEIGHTS if name == CONCATENATED else name
