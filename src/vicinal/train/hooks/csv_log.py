"""A table of the records, for spreadsheets and data frames."""

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

from vicinal._records import flat_record
from vicinal.files import append_whole, write_text_atomically
from vicinal.train.advance import TrainingState
from vicinal.train.hooks.base import Hook, Record, Start


@dataclasses.dataclass
class CSVLog(Hook):
    """Writes the records as a table with comma-separated values, one row each.

    A nested entry of a record gets a column `name.inner name`. When a record brings a new name, the
    table gets a column, empty in the rows above. A resumed run rewrites the table from its log, so that no row
    appears twice. In a sweep each member has its own file, `metrics-3.csv`.

    Args:
        path: The file; its folder is made if it is missing.

    Raises:
        ValueError: If the file exists and the run is not resumed.

    Example:
        >>> import jax, numpy as np, optax, tempfile, vicinal as vc
        >>> x = np.eye(4, dtype=np.float32)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "metrics.csv"
        ...     _ = vc.train.fit(
        ...         vc.rules.Backprop(), vc.nn.MLP((4, 4), key=jax.random.key(0)), optax.sgd(1.0), (x, np.arange(4)),
        ...         key=jax.random.key(1), steps=2, batch_size=4, hooks=[vc.train.hooks.CSVLog(path)], progress=False)
        ...     [line.split(",")[:2] for line in path.read_text().splitlines()]
        [['step', 'epoch'], ['1', '1.0'], ['2', '2.0']]
    """

    path: str | Path

    def begin(self, start: Start) -> None:
        """Writes the existing records."""
        path = Path(self.path)
        self._file = path if start.member is None else path.with_stem(f"{path.stem}-{start.member}")
        if self._file.exists() and self._file.stat().st_size and not start.resumed:
            raise ValueError(
                f"expected no file at {str(self._file)!r}, got one; resume its run, remove it, or choose another path"
            )
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._rows = [_row(record) for record in start.records]
        self._columns = list(dict.fromkeys(name for row in self._rows for name in row))
        self._write()

    def __call__(self, record: Record, state: TrainingState) -> None:
        """Adds a row, or rewrites the table if the row brings new columns."""
        row = _row(record)
        self._rows.append(row)
        new = [name for name in row if name not in self._columns]
        self._columns += new
        if new:
            self._write()
        else:
            with open(self._file, "ab", buffering=0) as stream:
                append_whole(stream, _lines([row], self._columns).encode())

    def _write(self) -> None:
        header = _lines([dict(zip(self._columns, self._columns, strict=True))] if self._columns else [], self._columns)
        write_text_atomically(self._file, header + _lines(self._rows, self._columns))


def _row(record: Record) -> dict[str, Any]:
    return {name: _cell(value) for name, value in flat_record(record).items()}


def _cell(value: Any) -> Any:
    """A value as text: a number with all its digits, a list as JSON, a missing or undefined value as empty text."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if value is None or value != value:
        return ""
    return json.dumps(value) if isinstance(value, list | tuple) else value


def _lines(rows: list[dict[str, Any]], columns: list[str]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, restval="", lineterminator="\n").writerows(rows)
    return text.getvalue()
