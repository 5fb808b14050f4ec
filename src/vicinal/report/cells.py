"""Numbers as text: the rows and columns that the terminal table and the HTML page share."""

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from vicinal.report.interval import interval_words, mean_interval
from vicinal.report.records import heading, is_share
from vicinal.report.results import CONCATENATED, Comparison, RuleResult
from vicinal.report.words import MISSING, decimals, significant

__all__ = [
    "ALL_WEIGHTS",
    "COLUMNS",
    "WHOLE",
    "Cell",
    "Column",
    "accuracy_cell",
    "angle_cell",
    "angle_cells",
    "layer_names",
    "layer_range",
    "loss_cell",
    "main_columns",
    "mean_by_layer",
    "measures_accuracy",
    "more_cells",
    "row_cells",
    "seeds_text",
    "size_text",
]

ALL_WEIGHTS = "all weights"
WHOLE = (
    "The angle of all weights, joined into one vector, weighs each layer by its size: where a rule's update is small "
    "in some layers and not in others, it turns away from backpropagation's though every layer points along it. Read "
    "the layers first."
)
"""What the angle of the whole update means."""


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
        "the width of its 95 % confidence interval (Student's t). Few seeds make a wide interval; of two seeds both "
        "values are shown, for an interval from two says nothing.",
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
        "same weights and the same batch, layer by layer: the smallest and the largest of the layers. 0° is the same "
        "direction; at 90° the two have nothing in common; beyond 90° the update points uphill in the loss. After "
        "× stands the norm of the update over that of BP's, again the smallest and the largest of the layers.",
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


def main_columns(comparison: Comparison) -> list[Column]:
    """The columns that have something to show: without labels there is no accuracy, and without a rule beside
    backpropagation no angle.

    Args:
        comparison: The results.

    Returns:
        Some of `COLUMNS`.
    """
    losses = [value for rule in comparison.rules for value in rule.test_loss]
    without = set()
    if not measures_accuracy(comparison) and not all(map(math.isnan, losses)):
        without |= {"test accuracy", "steps to 90 %"}
    if not any(rule.angles for rule in comparison.rules):
        without.add("angle to BP")
    return [column for column in COLUMNS if column.heading not in without]


def measures_accuracy(comparison: Comparison) -> bool:
    """Whether any rule had a test accuracy at any time."""
    rows = [row for rule in comparison.rules for row in (rule.test_accuracy, *rule.curve.test_accuracy)]
    return any(not math.isnan(value) for row in rows for value in row)


def row_cells(rule: RuleResult, columns: Sequence[Column] = COLUMNS) -> tuple[Cell, ...]:
    """Write one rule's row.

    Args:
        rule: The results of one rule.
        columns: Which of `COLUMNS`.

    Returns:
        One cell per column.
    """
    cells = dict(zip((column.heading for column in COLUMNS), _all_cells(rule), strict=True))
    return tuple(cells[column.heading] for column in columns)


def more_cells(comparison: Comparison) -> tuple[list[str], list[tuple[Cell, ...]]]:
    """Write what else was measured at the end of training, which has no column of its own.

    Args:
        comparison: The results.

    Returns:
        Headings, and a row of cells for each rule; no headings if there is nothing.
    """
    names = list(dict.fromkeys(name for rule in comparison.rules for name in rule.more))
    units = [100.0 if is_share(name) else 1.0 for name in names]
    rows = [
        tuple(
            loss_cell([unit * value for value in rule.more.get(name, [])])
            for name, unit in zip(names, units, strict=True)
        )
        for rule in comparison.rules
    ]
    return [(words := heading(name))[:1].lower() + words[1:] for name in names], rows


def _all_cells(rule: RuleResult) -> tuple[Cell, ...]:
    milliseconds = rule.milliseconds_per_step
    return (
        accuracy_cell(rule),
        loss_cell(rule.test_loss),
        _layers_cell(rule),
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
    """Write a rule's angle to backpropagation's update in degrees, such as `"23.1 ± 0.8°"`, with its size in the note.

    Args:
        rule: The results of one rule.
        layer: Layer name or `CONCATENATED`.

    Returns:
        The cell, with the norm over that of backpropagation's (`"× 0.040"`) and the seeds left out as its note;
        `MISSING` where there is no number.
    """
    cell = _interval_cell(rule.angles.get(layer, []), "°")
    ratio, _ = mean_interval(rule.norm_ratios.get(layer, []))
    notes = [] if math.isnan(ratio) or cell.number == MISSING else [f"× {size_text(ratio)}"]
    return Cell(cell.number, cell.unit, "; ".join([*notes, *[cell.note] * bool(cell.note)]))


def mean_by_layer(values: Mapping[str, Sequence[float]]) -> list[float]:
    """Average what was measured layer by layer over the seeds.

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


def size_text(ratio: float) -> str:
    """Write a ratio of norms with two significant digits.

    Example:
        >>> size_text(0.0402), size_text(1.0), size_text(25.3)
        ('0.040', '1.0', '25')
    """
    return significant(ratio, 2)


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


def _layers_cell(rule: RuleResult) -> Cell:
    angles, sizes = layer_range(rule.angles, "{:.1f}".format), layer_range(rule.norm_ratios, size_text)
    return Cell(angles, "°", f"× {sizes}" if sizes else "") if angles else Cell(MISSING)


def _interval_cell(values: Sequence[float], unit: str) -> Cell:
    text = interval_words(values, "{:.1f}".format, "{:.1f}".format)
    return Cell(text, unit, _left_out(values)) if text else Cell(MISSING)


def loss_cell(values: Sequence[float]) -> Cell:
    """Write numbers with three significant digits, such as `"0.412 ± 0.009"`.

    Args:
        values: One per seed.

    Returns:
        The cell, with a note if some seeds have no number.
    """
    mean, _ = mean_interval(values)
    if math.isnan(mean):
        return Cell(MISSING)
    exponent = mean != 0 and not 1e-4 <= abs(mean) < 1e6
    margin = "{:.1e}" if exponent else f"{{:.{decimals(mean, 3)}f}}"
    return Cell(interval_words(values, significant, margin.format), "", _left_out(values))


def _steps_cell(steps: Sequence[int | None]) -> Cell:
    reached = [step for step in steps if step is not None]
    if not reached:
        return Cell("not reached")
    note = "" if len(reached) == len(steps) else f"{len(reached)} of {len(steps)} seeds"
    return Cell(f"{statistics.median(reached):g}", "", note)


def _left_out(values: Sequence[float]) -> str:
    finite = sum(math.isfinite(value) for value in values)
    return "" if finite == len(values) else f"{finite} of {len(values)} seeds"
