"""A data set from a table: one column to predict, the others as inputs."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vicinal._foreign import is_a
from vicinal._memory import free_host_bytes
from vicinal._optional import optional
from vicinal.data.arrays import from_arrays
from vicinal.data.dataset import Dataset
from vicinal.data.errors import DataError
from vicinal.data.names import TARGET_COLUMNS
from vicinal.data.precision import check_apart
from vicinal.data.splitting import rows_of
from vicinal.data.targets import TaskKind

_SPLIT = "split"
WORDS = 20  # the most different words of a column that becomes inputs, one for each word
COLUMNS = 100_000  # the most columns of a table
_LONGEST_LINE = 2**24  # bytes of the names of the columns
ENDINGS = (".csv", ".csv.gz", ".tsv", ".parquet")


def from_frame(
    frame: Any,
    target: str | None = None,
    *,
    inputs: str | Sequence[str] | None = None,
    test: Any = None,
    test_share: float | None = None,
    task: TaskKind | None = None,
    name: str = "table",
    credit: str = "",
    origin: str | None = None,
) -> Dataset:
    """Makes a data set from a pandas DataFrame.

    Columns of numbers are one input each, as they are (`Dataset.standardized` brings them to one scale). Columns of
    words become an input for each value, 1 where the row has it and 0 elsewhere; so for categories. Columns of truth
    values are 0 and 1. A column `split` with the words `train` and `test` says what is for testing. A first column
    without a name that numbers the rows is left out.

    Args:
        frame: The table, one example a row.
        target: The column to predict; by default the one called y, target(s), label(s) or class, else the last one.
        inputs: The column or columns to predict it from; by default all others.
        test: A second table with the same columns, for testing.
        test_share: Which share of the rows is for testing, if nothing else says it; by default 0.2.
        task: `"classification"` or `"regression"`, if the column does not tell; see `from_arrays`.
        name: A short name, for tables and file names.
        credit: Whom to name.
        origin: What error messages call the table; by default the name.

    Returns:
        The data set, inputs `[n, columns]`, whose `feature_names` are those of the columns.

    Raises:
        TypeError: `frame` is no DataFrame.
        ValueError: A column is missing, a value is missing, a column holds something else, or one has too many words.
        ImportError: pandas is not installed.

    Example:
        >>> import pandas
        >>> frame = pandas.DataFrame({"size": [1.0, 2.5, 4.0, 3.0], "colour": ["red", "blue", "red", "red"],
        ...                           "ripe": ["no", "no", "yes", "yes"]})
        >>> data = from_frame(frame, target="ripe", test_share=0.5)
        >>> data.feature_names, data.class_names
        (('size', 'colour=blue', 'colour=red'), ('no', 'yes'))
    """
    origin = name if origin is None else origin
    table = _joined(frame, test, origin)
    column = target_column([*table.columns], target, f"{origin}: ")
    rows = None if test is None else np.arange(len(frame), len(table))
    split = _split_column(table, column, inputs, origin)
    if split is not None:
        if test is not None:
            raise ValueError(f"{origin}: expected a test table or a column {split!r}, got both")
        rows = rows_of(_plain_words(table[split]), len(table), f"{origin}: column {split!r}")[1]
        table = table.drop(columns=split)
    chosen = [name for name in table.columns if name != column] if inputs is None else inputs
    chosen = [chosen] if isinstance(chosen, str) else [*chosen]
    for wanted in chosen:
        if wanted not in table.columns or wanted == column:
            raise ValueError(f"{origin}: expected inputs among the columns beside {column!r}, got {wanted!r}")
    read = {name: _features(table[name], f"{origin}: column {str(name)!r}") for name in chosen}
    features = [(f"{name}{value}", row) for name, found in read.items() for value, row in found.items()]
    names = [feature for feature, _ in features]
    if len(set(names)) < len(names):
        twice = next(feature for feature in names if names.count(feature) > 1)
        raise ValueError(f"{origin}: expected inputs of different names, got {twice!r} twice; rename a column")
    if not features:
        raise ValueError(f"{origin}: expected columns beside the target {column!r}, got none")
    made = from_arrays(
        np.stack([row for _, row in features], axis=1),
        _present(table[column], f"{origin}: column {str(column)!r}").to_numpy(),
        test_rows=rows,
        test_share=test_share,
        task=task,
        name=name,
        credit=credit,
        origin=f"{origin}: target {str(column)!r}",
    )
    return replace(made, feature_names=tuple(names))


def target_column(columns: Sequence[Any], target: str | None, place: str = "") -> Any:
    """The column to predict: the one named, else one of `TARGET_COLUMNS`, else the last that is no split.

    Args:
        columns: The names of all columns.
        target: The one to predict, or None.
        place: The start of error messages.

    Returns:
        The name of the column.

    Raises:
        ValueError: There is no such column, or several have names of targets.

    Example:
        >>> target_column(["label", "size"], None), target_column(["size", "colour", "split"], None)
        ('label', 'colour')
    """
    chosen: Any = target
    if target is None:
        known = [name for name in columns if str(name).lower() in TARGET_COLUMNS]
        if len(known) > 1:
            raise ValueError(f"{place}expected one target, got {' and '.join(map(str, known))}; give target=")
        chosen = next(iter(known or [name for name in reversed(columns) if str(name).lower() != _SPLIT]), None)
    if chosen not in columns:
        among = ", ".join(map(str, columns)) or "the columns, of which there are none"
        raise ValueError(f"{place}expected the target among {among}, got {chosen!r}")
    return chosen


def is_table(path: Path) -> bool:
    """Whether a file's name says that it is a table that `read_table` reads."""
    return path.name.endswith(ENDINGS)


def read_table(path: Path) -> Any:
    """Reads a table into a DataFrame: `.csv` or `.tsv` with a line of names first, or `.parquet`.

    A first column without a name that numbers the rows, as pandas writes it, is left out.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no table, or has no line of names.
        DataError: The operating system refuses to read it.
        ImportError: pandas is not installed.
    """
    pandas = _pandas()
    if not path.is_file():
        raise FileNotFoundError(f"expected a table at {path}, found none; check the path.")
    try:
        if path.name.endswith(".parquet"):
            _check_parquet(path)
            return pandas.read_parquet(path)
        _check_size(path)
        frame = _separated(path)
    except ImportError as error:
        raise ImportError("Parquet files need pyarrow; pip install 'vicinal[tables]'") from error
    except Exception as error:  # of pandas and pyarrow, which have many kinds
        if isinstance(error, OSError) and error.errno is not None:  # of the system, and not of a format
            raise DataError(f"could not read {path}: {error.strerror}; check its permissions.") from error
        reason = " ".join(str(error).split())
        raise ValueError(f"expected a table at {path}, got: {reason}") from error
    if len(frame) and _are_values([*map(str, frame.columns)]):
        raise ValueError(f"{path}: expected a first line with the names of the columns, got numbers; add one.")
    return _without_index(frame.rename(columns=lambda name: str(name).strip()))  # "size, kind" names kind


def _check_size(path: Path) -> None:
    """Raises a ValueError if a text, unpacked, has more bytes than are free, or a first line that is too long."""
    free = free_host_bytes()
    with gzip.open(path) if path.name.endswith(".gz") else open(path, "rb") as stream:
        first = stream.readline(_LONGEST_LINE)
        if (columns := 1 + max(first.count(mark) for mark in (b",", b";", b"\t"))) > COLUMNS:
            raise ValueError(f"more than {COLUMNS} columns ({columns}); write the numbers as an npz file")
        if len(first) == _LONGEST_LINE:
            raise ValueError(f"a first line of more than {_LONGEST_LINE} bytes")
        size = path.stat().st_size
        if path.name.endswith(".gz"):
            size = len(first)
            while size <= free and (piece := stream.read(1 << 20)):
                size += len(piece)
    if size > free:
        raise ValueError(f"{size} bytes or more, where {free} of memory are free")


def _check_parquet(path: Path) -> None:
    """Raises a ValueError if a table says that it has too many columns, or more bytes than are free."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        found = file.metadata
        size = sum(found.row_group(i).total_byte_size for i in range(found.num_row_groups))
        size = max(size, found.num_rows * found.num_columns)  # runs of one value take next to no bytes
        if found.num_columns > COLUMNS:
            raise ValueError(f"more than {COLUMNS} columns ({found.num_columns}); write the numbers as an npz file")
    if size > (free := free_host_bytes()):
        raise ValueError(f"{size} bytes or more, where {free} of memory are free")


def _separated(path: Path) -> Any:
    """A table separated by commas, or by semicolons or tabs, as spreadsheets write it where numbers contain commas."""
    pandas, separator = _pandas(), "\t" if path.name.endswith(".tsv") else ","
    for other in (";", "\t"):
        first = [*pandas.read_csv(path, sep=separator, nrows=0).columns]
        if len(first) == 1 and other in str(first[0]):
            separator = other
    frame = pandas.read_csv(path, sep=separator)
    if separator == ";":
        commas = pandas.read_csv(path, sep=separator, decimal=",")
        numbers = [table.select_dtypes("number").shape[1] for table in (frame, commas)]
        return commas if numbers[1] > numbers[0] else frame
    return frame


def _are_values(names: list[str]) -> bool:
    """Whether a first line is an example and not names: mostly numbers, and no scale of columns.

    A scale counts by ones (0, 1, 2, ... or years), or rises from one end to the other (wavelengths). To equal names
    pandas appends a number (0.5, 0.5.1).
    """
    plain = [name.rpartition(".")[0] if name.rpartition(".")[0] in names else name for name in names]
    numbers = [float(name) for name in plain if _is_number(name)]
    if len(numbers) == len(names):
        return True
    steps = np.diff(numbers)
    scale = (steps == 1).all() and all(number.is_integer() for number in numbers)
    return 2 * len(numbers) >= len(names) and not scale and not (len(numbers) > 5 and (steps > 0).all())


def _without_index(frame: Any) -> Any:
    """The table without a first column that has no name and numbers the rows, whatever their order."""
    first = frame.columns[0] if len(frame.columns) else None
    if str(first).startswith("Unnamed") and frame[first].dtype.kind in "iu" and frame[first].is_unique:
        return frame.drop(columns=first)
    return frame


def _pandas() -> Any:
    return optional("pandas", "reading tables", "pandas", "tables")


def _is_number(name: Any) -> bool:
    try:
        return bool(np.isfinite(float(name)))
    except (TypeError, ValueError):
        return False


def _joined(frame: Any, test: Any, origin: str) -> Any:
    pandas = _pandas()
    for table in (frame, *([] if test is None else [test])):
        if not is_a(table, "pandas.DataFrame"):
            advice = "; call its to_pandas()" if type(table).__module__.startswith(("polars", "pyarrow")) else ""
            raise TypeError(f"{origin}: expected a pandas DataFrame, got {type(table).__name__}{advice}")
        if len(table) == 0 or table.columns.duplicated().any():
            raise ValueError(f"{origin}: expected rows, and columns with different names")
    frame = _without_index(frame)
    if test is None:
        return frame
    test = _without_index(test)
    if set(frame.columns) != set(test.columns):
        different = sorted(map(str, set(frame.columns) ^ set(test.columns)))
        raise ValueError(f"{origin}: expected the same columns in both tables, got {', '.join(different)} in only one")
    return pandas.concat([frame, test[[*frame.columns]]], ignore_index=True)


def _split_column(table: Any, target: Any, inputs: str | Sequence[str] | None, origin: str) -> Any:
    """The column that says which rows are for testing, or None; a column `split` with other words is refused."""
    chosen = [inputs] if isinstance(inputs, str) else [*(inputs or [])]
    for name in table.columns:
        if str(name).lower() != _SPLIT or name == target or name in chosen:
            continue
        column = table[name]
        if column.dtype.kind in "iuf" and not column.isin([0, 1]).all():
            return None  # a measurement
        found = np.unique(_plain_words(column))
        if np.isin(found, ("train", "test")).all():
            return name
        raise ValueError(
            f"{origin}: expected the words train and test in column {name!r}, got {', '.join(found[:5])}; write "
            "these two, drop other rows, or name the column otherwise if it is an input."
        )
    return None


def _plain_words(column: Any) -> np.ndarray:
    return np.array([str(value).strip().lower() for value in column])


def _present(column: Any, origin: str) -> Any:
    """The column, if no value is missing."""
    missing = int(column.isna().sum())
    if missing:
        raise ValueError(
            f"{origin}: expected a value in every row, got none in {missing} of {len(column)}; drop these rows or fill "
            "them first (pandas: dropna, fillna; from files it reads NA, None, null and empty cells as missing)."
        )
    return column


def _features(column: Any, origin: str) -> dict[str, np.ndarray]:
    """The inputs made from a column, by what is appended to its name."""
    types, column = _pandas().api.types, _present(column, origin)
    words = types.is_string_dtype(column) or isinstance(column.dtype, _pandas().CategoricalDtype)
    if types.is_numeric_dtype(column) and not types.is_complex_dtype(column):  # truth values too
        numbers = column.to_numpy(dtype=np.float64)
        if not np.isfinite(numbers).all():
            raise ValueError(f"{origin}: expected finite numbers, got infinity; remove these rows or replace them.")
        check_apart(numbers, origin)
        return {"": numbers}
    if not words:
        raise ValueError(f"{origin}: expected numbers, truth values or words, got {column.dtype}; convert or drop it.")
    values = np.char.strip(column.astype(str).to_numpy(dtype=str))
    different = np.unique(values)
    if len(different) > WORDS or len(different) == len(values) > 2:
        raise ValueError(
            f"{origin}: expected numbers, or at most {WORDS} different words that come again, got {len(different)} in "
            f"{len(values)} rows, such as {str(different[0])!r}; leave the column out (inputs=, --inputs), or make "
            "numbers of it."
        )
    return {f"={value}": (values == value).astype(np.float64) for value in different}
