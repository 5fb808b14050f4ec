"""The tables of a comparison: what each rule reached, and the angles to backpropagation's update."""

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vicinal._counted import counted
from vicinal.report.comparison import CONCATENATED, Comparison, RuleResult
from vicinal.report.formatting import MISSING, name_list, significant
from vicinal.report.interval import FEWEST, interval_text, mean_interval
from vicinal.report.records import heading, percent
from vicinal.report.study import Table

__all__ = [
    "Column",
    "angle_table",
    "labels_of",
    "layer_name",
    "layer_range",
    "layers_of",
    "main_columns",
    "main_table",
    "mean_by_layer",
    "measures_accuracy",
    "more_table",
    "seeds_text",
    "size_text",
]

_WHOLE = (
    "The angle of all weights, joined into one vector, weighs each layer by its size: where a rule's update is small "
    "in some layers and not in others, it turns away from backpropagation's though every layer points along it. Read "
    "the layers first."
)


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the main table.

    Args:
        heading: What stands above it, with its unit.
        meaning: What it means, in a sentence or two.
        cell: Writes the cell of a rule.
    """

    heading: str
    meaning: str
    cell: Callable[[RuleResult], str | None]


def main_columns(comparison: Comparison) -> list[Column]:
    """The columns that have something to show.

    Without labels there is no accuracy, and without a rule beside backpropagation no angle.

    Args:
        comparison: The results.

    Returns:
        The columns, from left to right.
    """
    accuracy, loss, angle, milliseconds, steps = _COLUMNS
    losses = [value for rule in comparison.rules for value in rule.test_loss]
    labelled = measures_accuracy(comparison) or all(map(math.isnan, losses))
    angles = any(rule.angles for rule in comparison.rules)
    return [*[accuracy] * labelled, loss, *[angle] * angles, milliseconds, *[steps] * labelled]


def main_table(comparison: Comparison) -> Table:
    """The main table: a row for each rule."""
    columns, labels = main_columns(comparison), labels_of(comparison)
    rows: list[list[Any]] = [
        [labels[rule.name], *[column.cell(rule) for column in columns]] for rule in comparison.rules
    ]
    notes = ["± is half a 95 % confidence interval."] * any(rule.seeds >= FEWEST for rule in comparison.rules)
    notes += ["Of two seeds both values are shown."] * any(rule.seeds == 2 for rule in comparison.rules)
    stopped = [labels[rule.name] for rule in comparison.rules if rule.stopped]
    notes += [f"Stopped early: {name_list(stopped)}."] if stopped else []
    title = f"Mean over {seeds_text(comparison)}"
    return Table(title, ["rule", *[column.heading for column in columns]], rows, " ".join(notes))


def more_table(comparison: Comparison) -> Table | None:
    """Other measurements at the end of training, such as R2 or custom metrics; None without any."""
    names = list(dict.fromkeys(name for rule in comparison.rules for name in rule.more))
    if not names:
        return None
    labels = labels_of(comparison)
    rows: list[list[Any]] = [
        [
            labels[rule.name],
            *[_cell(rule.more.get(name, []), percent(name)) for name in names],
        ]
        for rule in comparison.rules
    ]
    words = [heading(name) for name in names]
    return Table("Also measured at the end", ["rule", *[word[:1].lower() + word[1:] for word in words]], rows)


def angle_table(comparison: Comparison) -> Table | None:
    """The angles to backpropagation's update, layer by layer, with the ratios of norms; None if none was measured.

    Rules or layers become the columns, whichever are fewer.
    """
    labels, layers = labels_of(comparison), layers_of(comparison)
    if not layers:
        return None
    whole = any(CONCATENATED in rule.angles and len(rule.angles) > 1 for rule in comparison.rules)
    sized = any(rule.norm_ratios for rule in comparison.rules)
    title = "Angle to backpropagation's update (°)" + ", and × the norm over that of BP's" * sized
    cells = [[_angle_cell(rule, layer) for rule in comparison.rules] for layer in layers]
    names = [layer_name(layer) for layer in layers]
    corner, sides, heads = "layer", names, list(labels.values())
    if len(labels) >= len(layers):
        corner, sides, heads, cells = "rule", heads, names, [list(row) for row in zip(*cells, strict=True)]
    rows: list[list[Any]] = [[side, *row] for side, row in zip(sides, cells, strict=True)]
    return Table(title, [corner, *heads], rows, _WHOLE * whole)


def labels_of(comparison: Comparison) -> dict[str, str]:
    """Name of a rule -> its label, with the name behind it where several rules share a label."""
    labels = [rule.label for rule in comparison.rules]
    return {
        rule.name: rule.label if labels.count(rule.label) == 1 else f"{rule.label} ({rule.name})"
        for rule in comparison.rules
    }


def measures_accuracy(comparison: Comparison) -> bool:
    """Whether any rule had a test accuracy at any time."""
    rows: list[list[Any]] = [
        row for rule in comparison.rules for row in (rule.test_accuracy, *rule.curve.test_accuracy)
    ]
    return any(not math.isnan(value) for row in rows for value in row)


def layers_of(comparison: Comparison) -> list[str]:
    """The layers for which some rule has an angle, in order of first appearance; `CONCATENATED` last."""
    names = dict.fromkeys(name for rule in comparison.rules for name in rule.angles)
    return [name for name in names if name != CONCATENATED] + [CONCATENATED] * (CONCATENATED in names)


def layer_name(layer: str) -> str:
    """The name of a layer for people."""
    return "all weights" if layer == CONCATENATED else layer


def mean_by_layer(values: Mapping[str, Sequence[float]]) -> list[float]:
    """Average a quantity of each layer over the seeds.

    Args:
        values: Layer name (and `CONCATENATED`, which is left out if there is another) -> one number per seed.

    Returns:
        One mean for each layer that has a number.
    """
    layers = [row for name, row in values.items() if name != CONCATENATED] or list(values.values())
    return [mean for mean, _ in map(mean_interval, layers) if not math.isnan(mean)]


def layer_range(values: Mapping[str, Sequence[float]], write: Callable[[float], str]) -> str:
    """Write the smallest and the largest of the layers.

    Args:
        values: As for `mean_by_layer`.
        write: Writes a number.

    Returns:
        Such as `"5.2 to 11.3"`, or one number where both read the same; empty if there is none.

    Example:
        >>> layer_range({"layers[0]": [5.0, 5.4], "layers[1]": [11.3], "concatenated": [50.0]}, "{:.1f}".format)
        '5.2 to 11.3'
    """
    means = mean_by_layer(values)
    ends = dict.fromkeys([write(min(means)), write(max(means))]) if means else {}
    return " to ".join(ends)


def size_text(value: float) -> str:
    """Write an angle or a ratio of norms with two significant digits.

    Example:
        >>> size_text(0.0402), size_text(1.0), size_text(25.3)
        ('0.040', '1.0', '25')
    """
    return significant(value, 2)


def seeds_text(comparison: Comparison) -> str:
    """Write how many seeds the rules were trained with.

    Args:
        comparison: The results.

    Returns:
        Such as `"3 seeds"`, `"1 seed"` or `"3 to 5 seeds"`.
    """
    counts = sorted({rule.seeds for rule in comparison.rules})
    return counted(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _cell(values: Sequence[float], unit: float = 1.0) -> str | None:
    """Write a mean with its interval; on a second line, how many of the seeds have a number if not all."""
    text = interval_text(values, unit)
    return None if text is None else text.replace(" (", "\n(")


def _angle_cell(rule: RuleResult, layer: str) -> str | None:
    text = _cell(rule.angles.get(layer, []))
    ratio, _ = mean_interval(rule.norm_ratios.get(layer, []))
    return text if text is None or math.isnan(ratio) else f"{text}\n× {size_text(ratio)}"


def _steps_cell(rule: RuleResult) -> str:
    reached = [step for step in rule.steps_to_90 if step is not None]
    if not reached:
        return "not reached"
    part = "" if len(reached) == rule.seeds else f"\n({len(reached)} of {rule.seeds})"
    return f"{statistics.median(reached):g}{part}"


_COLUMNS = (
    Column(
        "test accuracy (%)",
        "Share of the test set classified correctly at the end of training: the mean over seeds, and ± half the width "
        "of its 95 % confidence interval (Student's t). Few seeds make a wide interval; of two seeds both values are "
        "shown, because an interval from two says nothing.",
        lambda rule: _cell(rule.test_accuracy, 100.0),
    ),
    Column(
        "test loss",
        "Mean output loss per test example at the end of training, with the same kind of interval. Lower is better.",
        lambda rule: _cell(rule.test_loss),
    ),
    Column(
        "angle to BP (°)",
        "Angle between the update this rule proposes and the one backpropagation (BP) would make with the same weights "
        "and the same batch, layer by layer: the smallest and the largest of the layers. 0° is the same direction; at "
        "90° the two have nothing in common; beyond 90° the update points uphill in the loss.",
        lambda rule: layer_range(rule.angles, size_text) or None,
    ),
    Column(
        "ms per step",
        "Median wall time of one training step in milliseconds, without compilation. It depends on the machine: "
        "compare it within this run only.",
        lambda rule: MISSING if rule.milliseconds_per_step is None else significant(rule.milliseconds_per_step),
    ),
    Column(
        "steps to 90 %",
        "Training steps until the test accuracy first reached 90 %: the median over the seeds that got there, and how "
        "many did if not all.",
        _steps_cell,
    ),
)
