"""Records of a run as flat rows, as lines of a figure, and as the points of `curves.csv`.

A record is what `vicinal.train.fit` measures at one step: a dictionary of numbers, some of them in dictionaries of
their own (`angles`). A number that is not finite is None, as in the log.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vicinal._records import flat_record, is_number
from vicinal.report.study import Series

__all__ = ["COMMON", "curve_rows", "curves_csv", "heading", "is_share", "quantities", "series_of"]

Records = Sequence[Mapping[str, Any]]

COMMON = ("test_accuracy", "test_loss", "train_loss", "train_accuracy")
"""The quantities that come first, where they were measured."""
_WORDS = {"rmse": "RMSE", "mse": "MSE", "mae": "MAE", "r2": "R2"}
_PLACES = ("step", "epoch", "examples_per_second")  # where a record stands, and how fast it came: no curves


def quantities(runs: Iterable[Records]) -> list[str]:
    """The names of the numbers that make curves: accuracies and losses first, then what else was measured.

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
    """The name of a quantity in words.

    Example:
        >>> heading("test_accuracy"), heading("train_loss"), heading("validation_rmse")
        ('Test accuracy (%)', 'Training loss', 'Validation RMSE')
    """
    first, *others = quantity.split("_")
    words = " ".join(_WORDS.get(word, word) for word in ("training" if first == "train" else first, *others))
    return f"{words[:1].upper()}{words[1:]}{' (%)' * is_share(quantity)}"


def is_share(quantity: str) -> bool:
    """Whether a quantity is a share, which is shown in percent."""
    return quantity.endswith("accuracy")


def series_of(label: str, runs: Sequence[Records], quantity: str, unit: float = 1.0) -> Series:
    """A quantity along training, a row for each run; nan where a run has no number.

    Args:
        label: What the line stands for.
        runs: The records of each run.
        quantity: A name in the records.
        unit: What to multiply each value by.

    Returns:
        The line.
    """
    steps = sorted({record["step"] for records in runs for record in records if is_number(record.get(quantity))})
    known = [[record for record in records if is_number(record.get(quantity))] for records in runs]
    rows = [{record["step"]: unit * record[quantity] for record in records} for records in known]
    values = [[row.get(step, math.nan) for step in steps] for row in rows]
    return Series(label, [float(step) for step in steps], values)


def curve_rows(names: Mapping[str, Any], records: Records) -> list[dict[str, Any]]:
    """Every number of a run, a row each: who, at which step, of what.

    Args:
        names: What tells the run from others, such as its rule and seed: the first columns.
        records: Its records.

    Returns:
        One row for each finite number, but for the epoch.
    """
    return [
        {**names, "step": record["step"], "quantity": quantity, "value": value}
        for record in records
        for quantity, value in flat_record(record).items()
        if quantity not in ("step", "epoch") and is_number(value) and math.isfinite(value)
    ]


def curves_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as comma-separated text with a heading.

    Args:
        rows: From `curve_rows`; a name that a row lacks is left empty.

    Returns:
        The text; only the heading of steps, quantities and values if there is no row.

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
