"""Turn the records of runs into lines of figures, and into the rows of `curves.csv`.

A record is what `vicinal.train.fit` measures at one step: a dictionary of numbers, some of them in dictionaries of
their own (`angles`). A number that is not finite is None, as in the log.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vicinal._records import flat_record, is_number
from vicinal.report.study import Panel, Series

__all__ = [
    "COMMON",
    "curve_panel",
    "curve_rows",
    "curves_csv",
    "heading",
    "percent",
    "quantities",
    "rows_at",
    "series_of",
    "steps_of",
]

Records = Sequence[Mapping[str, Any]]

COMMON = ("test_accuracy", "test_loss", "train_loss", "train_accuracy")
"""The quantities that come first if they were measured."""
_WORDS = {"rmse": "RMSE", "mse": "MSE", "mae": "MAE", "r2": "R2"}
_PLACES = ("step", "epoch", "examples_per_second")  # place and speed of a record: no curves


def quantities(runs: Iterable[Records]) -> list[str]:
    """List the quantities that make curves: accuracies and losses first, then all others.

    Args:
        runs: The records of each run.

    Returns:
        Names, without those of nested dictionaries.
    """
    found = dict.fromkeys(
        name
        for records in runs
        for record in records
        for name, value in record.items()
        if name not in _PLACES and is_number(value)
    )
    return [name for name in COMMON if name in found] + [name for name in found if name not in COMMON]


def heading(quantity: str) -> str:
    """Write the name of a quantity in words.

    Example:
        >>> heading("test_accuracy"), heading("train_loss"), heading("validation_rmse")
        ('Test accuracy (%)', 'Training loss', 'Validation RMSE')
    """
    first, *others = quantity.split("_")
    words = " ".join(_WORDS.get(word, word) for word in ("training" if first == "train" else first, *others))
    return f"{words[:1].upper()}{words[1:]}{' (%)' * _is_share(quantity)}"


def percent(quantity: str) -> float:
    """The factor that shows a quantity: 100 for a share, which is shown in percent, otherwise 1."""
    return 100.0 if _is_share(quantity) else 1.0


def _is_share(quantity: str) -> bool:
    return quantity.endswith(("accuracy", "_limited"))


def series_of(label: str, runs: Sequence[Records], quantity: str, unit: float = 1.0) -> Series:
    """Make a line of a figure from a quantity along training.

    Args:
        label: What the line stands for.
        runs: The records of each run.
        quantity: A name in the records.
        unit: What to multiply each value by.

    Returns:
        The line, with a row for each run; nan where a run has no number.
    """
    steps = steps_of(runs, quantity)
    return Series(label, [float(step) for step in steps], rows_at(steps, runs, quantity, unit))


def curve_panel(quantity: str, lines: Sequence[Series]) -> Panel | None:
    """Make a figure of a quantity along training.

    Args:
        quantity: A name in the records.
        lines: The quantity as lines, in percent if it is a share.

    Returns:
        The figure; None if there is nothing but zeros, such as the failures of inference.
    """
    if all(value == 0 or math.isnan(value) for line in lines for row in line.y for value in row):
        return None
    return Panel("", "training step", heading(quantity), list(lines), log_y=quantity.endswith("loss"))


def steps_of(runs: Iterable[Records], quantity: str) -> list[int]:
    """List the steps at which some run recorded a quantity, in increasing order."""
    return sorted({record["step"] for records in runs for record in records if quantity in record})


def rows_at(steps: Sequence[int], runs: Iterable[Records], quantity: str, unit: float = 1.0) -> list[list[float]]:
    """Collect the values of a quantity at given steps.

    Args:
        steps: The steps.
        runs: The records of each run.
        quantity: A name in the records.
        unit: What to multiply each value by.

    Returns:
        A row for each run, nan where it has no number; `[runs][steps]`.
    """
    found = [
        {record["step"]: unit * record[quantity] for record in records if is_number(record.get(quantity))}
        for records in runs
    ]
    return [[row.get(step, math.nan) for step in steps] for row in found]


def curve_rows(names: Mapping[str, Any], records: Records) -> list[dict[str, Any]]:
    """Make a row of each number of a run: the run, the step, the quantity and the value.

    Args:
        names: Identify the run, such as its rule and seed: the first columns.
        records: Its records.

    Returns:
        One row for each finite number except the epoch.
    """
    return [
        {**names, "step": record["step"], "quantity": quantity, "value": value}
        for record in records
        for quantity, value in flat_record(record).items()
        if quantity not in ("step", "epoch") and is_number(value) and math.isfinite(value)
    ]


def curves_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as comma-separated text with a heading.

    Args:
        rows: From `curve_rows`; a missing name is left empty.

    Returns:
        The text; without rows only the heading.

    Example:
        >>> print(curves_csv(curve_rows({"rule": "bp", "seed": 0}, [{"step": 5, "test_loss": 0.25}])), end="")
        rule,seed,step,quantity,value
        bp,0,5,test_loss,0.25
    """
    text, last = io.StringIO(), ("step", "quantity", "value")
    names = dict.fromkeys(name for row in rows for name in row if name not in last)
    writer = csv.DictWriter(text, [*names, *last], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
