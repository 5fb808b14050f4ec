"""Records of a run as JSON lines: one dictionary a line, readable while the run goes on."""

import contextlib
import json
import math
import operator
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from vicinal.files import write_atomically, write_text_atomically


class JSONLog:
    """A file with one JSON record a line, which survives a crash and continues an interrupted run.

    Each record is flushed as it is written. An existing file is continued: if a crash left half a line at its
    end, that part is removed first. Closing the log, or leaving its `with` block, closes the file.

    Args:
        path: The file; its folder must exist. `None` keeps the records in memory only.
        resume_at: The step at which an interrupted run goes on. Records with a larger number under `"step"`
            are removed, for the run will write them again; records without a step stay.

    Attributes:
        records: All records of the log, old ones included, as `read` returns them.

    Raises:
        TypeError: `resume_at` is not an integer.
        ValueError: The file exists and is damaged elsewhere than in its last line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "metrics.jsonl"
        ...     with JSONLog(path) as log:
        ...         log.write({"step": 1, "loss": np.float32(0.5)})
        ...         log.write({"step": 2, "loss": float("nan")})
        ...     with JSONLog(path, resume_at=1) as log:
        ...         log.write({"step": 2, "loss": 0.25})
        ...     read(path)
        [{'step': 1, 'loss': 0.5}, {'step': 2, 'loss': 0.25}]
    """

    def __init__(self, path: str | os.PathLike[str] | None, *, resume_at: int | None = None):
        last = None if resume_at is None else operator.index(resume_at)
        self.records: list[dict[str, Any]] = []
        self._file = None
        if path is None:
            return
        if os.path.exists(path):
            content = Path(path).read_bytes()
            kept = [(line, record) for line, record in _parse(path, content) if not _is_later(record, last)]
            self.records = [record for _, record in kept]
            lines = b"".join(line + b"\n" for line, _ in kept)
            if lines != content:
                write_atomically(path, lines)
        self._file = open(path, "ab")  # noqa: SIM115, closed by `close`

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the records stay readable."""
        if self._file is not None:
            self._file.close()

    def write(self, record: dict[str, Any]) -> None:
        """Append one record.

        Args:
            record: Strings, booleans, numbers, `None`, NumPy and JAX arrays or scalars, and lists and
                dictionaries of these. Finite floats are read back exactly; NaN and infinity, which JSON does
                not have, become `None`.

        Raises:
            TypeError: The record is not a dictionary, or holds something that JSON cannot express; nothing
                was written.
        """
        if not isinstance(record, dict):
            raise TypeError(f"Expected a dictionary, got {type(record).__name__}; name each value of the record.")
        line = json.dumps(_to_json(record, "record"), allow_nan=False)
        if self._file is not None:
            self._file.write(line.encode() + b"\n")
            self._file.flush()
        self.records.append(json.loads(line))


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the records of a log, whether its run has ended, goes on or crashed.

    Args:
        path: A file written by `JSONLog`.

    Returns:
        The records in order. Half a line at the end of the file is left out.

    Raises:
        OSError: There is no such file, or it cannot be read.
        ValueError: A line other than a half-written last one is not a record.
    """
    return [record for _, record in _parse(path, Path(path).read_bytes())]


def _parse(path: str | os.PathLike[str], content: bytes) -> list[tuple[bytes, dict[str, Any]]]:
    """Each line with its record."""
    *lines, rest = content.split(b"\n")
    parsed = []
    for number, line in enumerate(lines, start=1):
        try:
            parsed.append((line, _record(line)))
        except ValueError as error:
            raise ValueError(
                f"Expected a JSON record on line {number} of {str(path)!r}, got {line[:40]!r} ({error}); "
                "remove or repair that line."
            ) from error
    # Without its line end the last line was being written; it counts only if all else of it is there.
    with contextlib.suppress(ValueError):
        parsed.append((rest, _record(rest)))
    return parsed


def _record(line: bytes) -> dict[str, Any]:
    record = json.loads(line.decode(), parse_constant=_refuse)
    if not isinstance(record, dict):
        raise ValueError("not a dictionary")
    return record


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _is_later(record: dict[str, Any], last: int | None) -> bool:
    step = record.get("step")
    return last is not None and isinstance(step, int | float) and step > last


def _to_json(value: Any, where: str) -> Any:
    """The value in Python's JSON types; `where` names it in errors."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        value = np.asarray(value).tolist()
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"Expected strings as keys of {where}, got {key!r}; convert it with str().")
        return {key: _to_json(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(
        f"Expected a value that JSON can express at {where}, got {type(value).__name__}; "
        "convert it to numbers, strings, lists or dictionaries."
    )


def keep(path: str | os.PathLike[str], chosen: Callable[[dict[str, Any]], bool]) -> None:
    """Leave in a log only the records that are chosen; the file is replaced in one step, and only if one goes.

    Args:
        path: The file; nothing happens if it is not there.
        chosen: Says of a record whether it stays.

    Raises:
        ValueError: The file is damaged elsewhere than in its last line.
    """
    if not os.path.exists(path):
        return
    records = read(path)
    kept = [record for record in records if chosen(record)]
    if kept != records:
        write_text_atomically(path, "".join(json.dumps(record) + "\n" for record in kept))
