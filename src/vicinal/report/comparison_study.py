"""A comparison as a study: its sections with tables and figures, so that one page and one printer serve both."""

import math
from collections.abc import Sequence
from typing import Any

from vicinal.report.array_counts import array_section
from vicinal.report.class_tables import class_table, confusion_tables
from vicinal.report.comparison import Comparison, RuleResult
from vicinal.report.comparison_tables import (
    angle_table,
    labels_of,
    layer_name,
    layers_of,
    main_columns,
    main_table,
    measures_accuracy,
    more_table,
)
from vicinal.report.palette import INK, color_ramp
from vicinal.report.presentation import presentation_sections
from vicinal.report.records import curve_panel, percent
from vicinal.report.study import Panel, Section, Series, Study, Table
from vicinal.report.summary import summary

__all__ = ["as_study"]

_SUM = "sum over vertices"


def as_study(results: Comparison | Study) -> Study:
    """Turn a comparison into the study that its page shows; a study stays as it is.

    Args:
        results: The results.

    Returns:
        The study.

    Raises:
        TypeError: If the results are neither.

    Example:
        >>> from vicinal.report import Comparison, Curve, RuleResult
        >>> curve = Curve(steps=[0, 10], test_accuracy=[[0.1, 0.9]], test_loss=[[2.3, 0.3]])
        >>> rule = RuleResult("bp", "backpropagation", "", [0.9], [0.3], {}, 0.5, [10], curve)
        >>> study = as_study(Comparison("Digits", "", {}, {}, [rule], "", ""))
        >>> [section.heading for section in study.sections]
        ['Results', 'Learning curves', 'The rules', 'How to read this']
    """
    if isinstance(results, Study):
        return results
    if not isinstance(results, Comparison):
        raise TypeError(f"expected a Study or a Comparison, got {type(results).__name__}")
    sections = [
        _results(results),
        _learning_curves(results),
        _angles(results),
        _energies(results),
        *_events(results),
        _classes(results),
        _arrays(results),
        _graph(results),
        _rules(results),
        _reading(results),
    ]
    return Study(
        title=results.title,
        summary=summary(results),
        command=results.command,
        settings=results.settings,
        environment=results.environment,
        sections=[section for section in sections if section is not None],
        data_credit=results.data_credit,
        when=results.when,
    )


def _tables(*tables: Table | None) -> list[Table]:
    return [table for table in tables if table is not None]


def _results(comparison: Comparison) -> Section:
    return Section("Results", tables=_tables(main_table(comparison), more_table(comparison)))


def _learning_curves(comparison: Comparison) -> Section | None:
    labels = labels_of(comparison)
    more = dict.fromkeys(name for rule in comparison.rules for name in rule.curve.more)
    panels = []
    for name in ("test_accuracy", "test_loss", "train_loss", *more):
        lines = [_line(labels[rule.name], rule, name) for rule in comparison.rules]
        panels += [panel for panel in [curve_panel(name, lines)] if panel is not None]
    panels += [panel for panel in [_at_the_end(comparison)] if panel is not None]
    return Section("Learning curves", panels=panels) if panels else None


def _line(label: str, rule: RuleResult, name: str) -> Series:
    rows = [[percent(name) * value for value in row] for row in rule.curve.rows(name)]
    return Series(label, [float(step) for step in rule.curve.steps], rows, rule.color)


def _at_the_end(comparison: Comparison) -> Panel | None:
    """The final accuracies or losses of all seeds on one scale, on which overlap can be seen."""
    labels = labels_of(comparison)
    found = {rule.name: [100 * value for value in rule.test_accuracy] for rule in comparison.rules}
    what = "Test accuracy at the end (%)"
    if not measures_accuracy(comparison):
        found, what = {rule.name: rule.test_loss for rule in comparison.rules}, "Test loss at the end"
    values = {value for row in found.values() for value in row if not math.isnan(value)}
    if len(values) < 2:
        return None
    series = [Series(labels[rule.name], [0], [[v] for v in found[rule.name]], rule.color) for rule in comparison.rules]
    return Panel("", "seeds", what, series, places=["seeds"])


def _angles(comparison: Comparison) -> Section | None:
    layers, labels = layers_of(comparison), labels_of(comparison)
    table = angle_table(comparison)
    if table is None:
        return None
    rules = [rule for rule in comparison.rules if rule.angles]

    def panel(title: str, kind: str, level: float, *, log: bool) -> Panel:
        series = [_by_layer(labels[rule.name], getattr(rule, kind), layers, rule) for rule in rules]
        return Panel("", "layer", title, series, log_y=log, places=[layer_name(layer) for layer in layers], level=level)

    panels = [panel("Angle to backpropagation's update (°)", "angles", 0.0, log=False)]
    if any(value > 0 for rule in rules for row in rule.norm_ratios.values() for value in row):
        panels.append(panel("Norm over that of backpropagation's", "norm_ratios", 1.0, log=True))
    if not any(not math.isnan(value) for rule in rules for row in rule.angles.values() for value in row):
        panels = []
    text = (
        "How far each rule's update points away from backpropagation's, layer by layer and in degrees. 0° is the same "
        "direction; 90° has nothing in common with it. × is how large the update is beside backpropagation's: the "
        "ratio of their norms. A small angle is not a goal in itself: a rule may go another way to the same place."
    )
    return Section("Angles", text, [table], panels)


def _by_layer(label: str, values: dict[str, list[float]], layers: list[str], rule: RuleResult) -> Series:
    columns = [values.get(layer) or [math.nan] * rule.seeds for layer in layers]
    return Series(label, _count(layers), [list(row) for row in zip(*columns, strict=True)], rule.color)


def _energies(comparison: Comparison) -> Section | None:
    rules = [rule for rule in comparison.rules if any(rule.energies.values())]
    if not rules:
        return None
    vertices = list(dict.fromkeys(name for rule in rules for name in rule.energies))
    colors = dict(zip(vertices, color_ramp(len(vertices)), strict=True))
    panels = []
    for rule in rules:
        total = [math.fsum(column) for column in zip(*rule.energies.values(), strict=False)]
        lines = [Series(name, _count(row), [row], colors[name]) for name, row in rule.energies.items()]
        whole = Series(_SUM, _count(total), [total], INK)
        what, label = "energy per example", labels_of(comparison)[rule.name]
        panels.append(Panel(label, "inference step", what, [*lines, whole], log_y=True, decades=6.0))
        panels.append(Panel(f"{label}: sum", "inference step", what, [whole], note=_falling(total)))
    text = (
        "Before the weights change, the vertices settle. The energy of a vertex measures how far it is from what the "
        "network predicts for it, averaged over examples. The sum should fall and level out: if it still falls at the "
        "right edge of the linear scale, inference was cut short. The logarithmic scale shows six decades at most."
    )
    return Section("Energies", text, panels=panels)


def _count(values: Sequence[Any]) -> list[float]:
    return [float(index) for index in range(len(values))]


def _falling(total: list[float]) -> str:
    """Say how much of the whole fall the last step made."""
    if not total:
        return ""
    fall, ends = total[0] - total[-1], f"From {total[0]:.3g} to {total[-1]:.3g}"
    if len(total) < 2 or not fall > 0:
        return f"{ends}: it does not fall."
    return f"{ends}; the last step makes {100 * (total[-2] - total[-1]) / fall:.2g} % of the fall."


def _classes(comparison: Comparison) -> Section | None:
    tables = [*_tables(class_table(comparison)), *confusion_tables(comparison)]
    return Section("Class by class", tables=tables) if tables else None


def _arrays(comparison: Comparison) -> Section | None:
    labels = labels_of(comparison)
    return array_section({labels[rule.name]: rule.array_counts for rule in comparison.rules if rule.array_counts})


def _events(comparison: Comparison) -> list[Section]:
    labels = labels_of(comparison)
    shown = {labels[rule.name]: rule.presentation for rule in comparison.rules if rule.presentation is not None}
    return presentation_sections(shown)


def _graph(comparison: Comparison) -> Section | None:
    text = (
        "A box is a vertex, which holds a value of its own, with its shape and the parameters of its prediction. An "
        "arrow goes from what is read to what reads it."
    )
    return Section("Graph", text, graph=comparison.graph) if comparison.graph else None


def _rules(comparison: Comparison) -> Section:
    """Names and papers."""
    lines = [
        " · ".join(filter(None, [rule.label, rule.name, rule.paper, rule.paper_link])) for rule in comparison.rules
    ]
    return Section("The rules", "\n\n".join(lines))


def _reading(comparison: Comparison) -> Section:
    """What each column means."""
    lines = [f"{column.heading}: {column.meaning}" for column in main_columns(comparison)]
    lines.append(
        "overlap: Two rules whose intervals do not overlap very likely differ on this task. Overlapping intervals "
        "leave the question open; more seeds narrow them."
    )
    return Section("How to read this", "\n\n".join(lines))
