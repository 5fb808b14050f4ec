"""Numbers as text: the rows and columns that the terminal table and the HTML page share."""

import dataclasses
import math
import statistics
from collections.abc import Sequence

from vicinal.report.interval import mean_interval
from vicinal.report.results import CONCATENATED, Comparison, RuleResult
from vicinal.report.words import MISSING, decimals, significant

__all__ = [
    "ALL_WEIGHTS",
    "COLUMNS",
    "Cell",
    "Column",
    "accuracy_cell",
    "angle_cell",
    "angle_cells",
    "layer_names",
    "row_cells",
    "seeds_text",
]

ALL_WEIGHTS = "all weights"


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the main table.

    Args:
        heading: What stands above it.
        unit: Unit of its numbers, or an empty text.
        meaning: What it means, in a sentence or two.
    """

    heading: str
    unit: str
    meaning: str


@dataclasses.dataclass(frozen=True)
class Cell:
    """What one cell shows.

    Args:
        number: The number with its interval, or `MISSING`.
        unit: What follows the number, with the space before it where there is one.
        note: A remark, such as how many of the seeds have a number; may be empty.
    """

    number: str
    unit: str = ""
    note: str = ""

    @property
    def text(self) -> str:
        """The number and its unit."""
        return self.number + self.unit


COLUMNS = (
    Column(
        "test accuracy",
        " %",
        "Share of the test set classified correctly at the end of training: the mean over seeds, and ± half "
        "the width of its 95 % confidence interval (Student's t). Few seeds make a wide interval.",
    ),
    Column(
        "test loss",
        "",
        "Mean output loss per test example at the end of training, with the same kind of interval. Lower is better.",
    ),
    Column(
        "angle to BP",
        "°",
        "Angle between the update this rule proposes and the one backpropagation (BP) would make with the "
        "same weights and the same batch, all weights joined into one vector. 0° is the same direction; "
        "at 90° the two have nothing in common; beyond 90° the update points uphill in the loss.",
    ),
    Column(
        "ms per step",
        "",
        "Median wall time of one training step in milliseconds, compilation left out. It depends on the "
        "machine, so compare it within this run only.",
    ),
    Column(
        "steps to 90 %",
        "",
        "Training steps until the test accuracy first reached 90 %: the median over the seeds that got "
        "there, and how many did if not all.",
    ),
)


def row_cells(rule: RuleResult) -> tuple[Cell, ...]:
    """Write one rule's row, in the order of `COLUMNS`.

    Args:
        rule: The results of one rule.

    Returns:
        One cell per column.
    """
    milliseconds = rule.milliseconds_per_step
    return (
        accuracy_cell(rule),
        _loss_cell(rule.test_loss),
        angle_cell(rule, CONCATENATED),
        Cell(MISSING if milliseconds is None else significant(milliseconds)),
        _steps_cell(rule.steps_to_90),
    )


def accuracy_cell(rule: RuleResult) -> Cell:
    """Write a rule's final test accuracy in percent, such as `"96.8 ± 0.4 %"`.

    Args:
        rule: The results of one rule.

    Returns:
        The cell, with a note if some seeds have no number.
    """
    return _interval_cell([100 * value for value in rule.test_accuracy], " %")


def angle_cell(rule: RuleResult, layer: str) -> Cell:
    """Write a rule's angle to backpropagation's update in degrees, such as `"23.1 ± 0.8°"`.

    Args:
        rule: The results of one rule.
        layer: Layer name or `CONCATENATED`.

    Returns:
        The cell; `MISSING` where there is no number.
    """
    return _interval_cell(rule.angles.get(layer, []), "°")


def angle_cells(comparison: Comparison) -> list[tuple[str, list[Cell]]]:
    """Write every angle, layer by layer, all weights last.

    Args:
        comparison: The results.

    Returns:
        Pairs of a layer's name and one cell per rule; empty if no angle was measured.
    """
    rules = comparison.rules
    rows = [(name, [angle_cell(rule, name) for rule in rules]) for name in layer_names(comparison)]
    if any(CONCATENATED in rule.angles for rule in rules):
        rows.append((ALL_WEIGHTS, [angle_cell(rule, CONCATENATED) for rule in rules]))
    return rows


def layer_names(comparison: Comparison) -> list[str]:
    """List the layers for which some rule has an angle, in order of first appearance.

    Args:
        comparison: The results.

    Returns:
        Layer names, without `CONCATENATED`.
    """
    names = dict.fromkeys(name for rule in comparison.rules for name in rule.angles)
    return [name for name in names if name != CONCATENATED]


def seeds_text(comparison: Comparison) -> str:
    """Write how many seeds the rules were trained with.

    Args:
        comparison: The results.

    Returns:
        Such as `"3 seeds"`, `"1 seed"` or `"3 to 5 seeds"`.
    """
    counts = sorted({rule.seeds for rule in comparison.rules})
    if counts == [1]:
        return "1 seed"
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _interval_cell(values: Sequence[float], unit: str) -> Cell:
    mean, half_width = mean_interval(values)
    if math.isnan(mean):
        return Cell(MISSING)
    margin = "" if half_width is None else f" ± {half_width:.1f}"
    return Cell(f"{mean:.1f}{margin}", unit, _left_out(values))


def _loss_cell(values: Sequence[float]) -> Cell:
    mean, half_width = mean_interval(values)
    if math.isnan(mean):
        return Cell(MISSING)
    margin = ""
    if half_width is not None:
        exponent = mean != 0 and not 1e-4 <= abs(mean) < 1e6
        margin = f" ± {half_width:.1e}" if exponent else f" ± {half_width:.{decimals(mean, 3)}f}"
    return Cell(significant(mean) + margin, "", _left_out(values))


def _steps_cell(steps: Sequence[int | None]) -> Cell:
    reached = [step for step in steps if step is not None]
    if not reached:
        return Cell("not reached")
    note = "" if len(reached) == len(steps) else f"{len(reached)} of {len(steps)} seeds"
    return Cell(f"{statistics.median(reached):g}", "", note)


def _left_out(values: Sequence[float]) -> str:
    finite = sum(math.isfinite(value) for value in values)
    return "" if finite == len(values) else f"{finite} of {len(values)} seeds"
