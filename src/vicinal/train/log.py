"""Records of a run as JSON lines: one dictionary a line, readable during the run."""

import contextlib
import errno
import io
import json
import math
import operator
import os
from collections.abc import Callable
from typing import Any, Self

import jax
import numpy as np

from vicinal._json import strict_json
from vicinal._reading import read_bytes
from vicinal.files import append_whole, write_atomically, write_text_atomically


class JSONLog:
    """A file with one JSON record a line, which survives a crash and continues an interrupted run.

    Each record is handed to the system as it is written. An existing file is continued: if a crash left half a line at
    its end, that part is removed first. Closing the log, or leaving its `with` block, closes the file.

    Args:
        path: The file; its folder must exist. `None` keeps the records in memory only.
        resume_at: The step at which an interrupted run resumes. Records with a larger number under `"step"`
            are removed, for the run will write them again; records without a step stay.

    Attributes:
        records: All records of the log, old ones included, as `read` returns them.

    Raises:
        TypeError: `resume_at` is not an integer.
        ValueError: The file exists and is damaged elsewhere than in its last line.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
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
        self._file, self._path = None, path
        if path is None:
            return
        if os.path.exists(path):
            content = read_bytes(path)
            kept = [(line, record) for line, record in _parse(path, content) if not _is_later(record, last)]
            self.records = [record for _, record in kept]
            lines = b"".join(line + b"\n" for line, _ in kept)
            if lines != content:
                write_atomically(path, lines)
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115, closed by `close`
        self._place, self._end = os.path.abspath(path), os.fstat(self._file.fileno()).st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the records stay readable."""
        if self._file is not None:
            self._file.close()

    def check(self) -> None:
        """Check that the file is in its place, and ends where this log has ended it.

        Raises:
            OSError: If it does not.
        """
        if self._file is None:
            return
        own, found = os.fstat(self._file.fileno()), None
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = os.stat(self._place)
        if found is None or not os.path.samestat(own, found) or found.st_size != self._end:
            reason = "the records were removed, moved or changed while the run wrote them; put them back and resume"
            raise OSError(errno.ENOENT, reason, str(self._path))

    def sync(self) -> None:
        """Wait until all records are on the disk, where a power failure does not reach them."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def write(self, record: dict[str, Any]) -> None:
        """Append one record.

        Args:
            record: Strings, booleans, numbers, `None`, NumPy and JAX arrays or scalars, and lists and
                dictionaries of these. Finite floats are read back exactly; NaN and infinity, which JSON does
                not have, become `None`.

        Raises:
            TypeError: The record is not a dictionary, or holds something that JSON cannot express; nothing
                was written.
            OSError: The record could not be written, and the file ends with the one before it; or `check` fails.
        """
        if not isinstance(record, dict):
            raise TypeError(f"Expected a dictionary, got {type(record).__name__}; name each value of the record.")
        line = json.dumps(_to_json(record, "record"), allow_nan=False)
        if self._file is not None:
            which = f"the record of step {record['step']}" if "step" in record else "a record"
            self._append(self._file, f"{line}\n".encode(), which)
        self.records.append(json.loads(line))

    def _append(self, file: io.FileIO, line: bytes, which: str) -> None:
        self.check()
        try:
            append_whole(file, line)
        except OSError as error:
            reason = f"could not write {which} ({error.strerror or error}); the records before it are whole"
            raise OSError(error.errno, reason, str(self._path)) from error
        self._end += len(line)


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the records of a log, whether its run has ended, crashed or is still running.

    Args:
        path: A file written by `JSONLog`.

    Returns:
        The records in order. Half a line at the end of the file is left out.

    Raises:
        OSError: There is no such file, or it cannot be read.
        ValueError: A line other than a half-written last one is not a record.
    """
    return [record for _, record in _parse(path, read_bytes(path))]


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
    # A last line without its line end counts only if the record is complete.
    with contextlib.suppress(ValueError):
        parsed.append((rest, _record(rest)))
    return parsed


def _record(line: bytes) -> dict[str, Any]:
    record = strict_json(line)
    if not isinstance(record, dict):
        raise ValueError("not a dictionary")
    return record


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
    """Keeps only the chosen records of a log; replaces the file in one step, and only if a record is dropped.

    Args:
        path: The file; nothing happens if it does not exist.
        chosen: Returns whether to keep a record.

    Raises:
        ValueError: The file is damaged elsewhere than in its last line.
    """
    if not os.path.exists(path):
        return
    records = read(path)
    kept = [record for record in records if chosen(record)]
    if kept != records:
        write_text_atomically(path, "".join(json.dumps(record) + "\n" for record in kept))
