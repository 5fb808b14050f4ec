"""Checks what a folder's checkpoints and log say of the members of a run, before the run goes on from them.

A resumed run continues the records of its log, and hooks decide by them. So a log that is not the one which the run
wrote is refused: the checkpoint holds the number of records before it and their digest.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from vicinal._records import is_number
from vicinal.train.checkpoint import CheckpointError, read_metadata

Record = dict[str, Any]
Known = Mapping[int | None, tuple[int, bool]]
"""The steps that each member has taken at its checkpoint, and whether it goes on."""


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_names(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _each(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(fits, value))


_TYPES: dict[str, Callable[[Any], bool]] = {
    "wave": lambda value: _each(value, _is_count) and 0 < len(value) == len(set(value)),
    "waves": lambda value: _each(value, lambda wave: _each(wave, _is_count)),
    "step": _is_count,
    "steps": lambda value: _each(value, _is_count),
    "live": lambda value: _each(value, lambda item: type(item) is bool),
    "group_size": lambda value: _is_count(value) and value > 0,
    "members": lambda value: _each(value, lambda item: isinstance(item, dict)),
    "fingerprint": lambda value: isinstance(value, dict) and all(map(_is_names, map(value.get, ("versions", "exact")))),
    "log": lambda value: isinstance(value, dict) and _is_count(value.get("records")) and "sha256" in value,
}
PACE = "examples_per_second"
_OF_WAVES = ("wave", "waves", "steps", "live", "group_size", "members")


def metadata_of(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the metadata of the checkpoint of a run, a wave of a sweep or a best model, whose entries fit each other.

    Raises:
        CheckpointError: If it cannot be read, or an entry has another type or length.
    """
    found = read_metadata(path)
    wrong = [name for name, fits in _TYPES.items() if name in found and not fits(found[name])]
    if not wrong and "wave" in found:
        wrong = [name for name in _OF_WAVES if name not in found]
        wrong = wrong or [name for name in ("steps", "live") if len(found[name]) != len(found["wave"])]
        wrong = wrong or ["waves"] * (found["wave"] not in found["waves"])
        wrong = wrong or ["members"] * any(i >= len(found["members"]) for wave in found["waves"] for i in wave)
    if wrong:
        raise CheckpointError(
            f"Expected a checkpoint of a run at {os.fspath(path)!r}, got one with {wrong[0]} as "
            f"{str(found.get(wrong[0]))[:60]}; restore it from a copy or use an earlier one."
        )
    return found


def log_digest(records: Iterable[Record]) -> dict[str, Any]:
    """The number of records and their digest, as a checkpoint holds them, without their pace, which no run repeats."""
    lines = [json.dumps(record | {PACE: None}).encode() for record in records]
    return {"records": len(lines), "sha256": hashlib.sha256(b"\n".join(lines)).hexdigest()}


def check_log(path: str, records: list[Record], count: int | None, known: Known, interval: int | None) -> None:
    """Checks that a log is one that a run or a sweep has written, up to its checkpoints.

    Args:
        path: The log, for messages.
        records: Its records, one a line.
        count: The members of the sweep, or None for a run alone.
        known: The members with a checkpoint.
        interval: The steps between two records, or None if that is unknown.

    Raises:
        ValueError: If a line is no record of theirs, comes twice or too late, or is missing.
    """
    seen: dict[int | None, list[int]] = {}
    kind = "run" if count is None else "sweep"
    for number, record in enumerate(records, start=1):
        if fault := _fault(record, count):
            raise _refusal(path, f"a record of this {kind} on line {number}", fault)
        if "stopped" in record:
            continue
        steps = seen.setdefault(record.get("member"), [0])
        if record["step"] <= steps[-1]:
            got = f"step {record['step']} after step {steps[-1]}"
            raise _refusal(path, f"increasing steps on line {number}", got)
        steps.append(record["step"])
    for member, (step, _) in known.items():
        written = set(seen.get(member, ()))
        marks = range(interval, step + 1, interval) if interval else ()
        if (lost := next((mark for mark in marks if mark not in written), None)) is not None:
            whose = "" if member is None else f" of member {member}"
            raise _refusal(path, f"the record at step {lost}{whose}, which the checkpoint has passed,", "none")


def check_same_log(path: str, stored: Any, records: list[Record]) -> None:
    """Checks the records before a checkpoint by its digest; a checkpoint of an older version has none.

    Raises:
        ValueError: If they are others.
    """
    if stored is not None and stored != log_digest(records):
        got = f"{len(records)} records" if stored["records"] != len(records) else "records of which one was changed"
        raise _refusal(path, f"the {stored['records']} records that the checkpoint knows", got)


def _fault(record: Record, count: int | None) -> str | None:
    """What is wrong with a record, or None."""
    values: Any = record
    member, step, stopped = values.get("member"), values.get("step"), values.get("stopped", "")
    if count is None and "member" in record:
        return f"member {_short(member)} in a run alone"
    if count is not None and not (_is_count(member) and member < count):
        return f"member {_short(member)} in a sweep of {count}"
    if not _is_count(step) or step >= 2**31 or (step == 0 and "stopped" not in record):
        return f"step {_short(step)}"
    if not is_number(values.get(PACE, 1.0)):
        return f"{PACE} {_short(values[PACE])}"
    if not isinstance(stopped, str) or not isinstance(record.get("stopped_by", ""), str):
        return "a reason to stop that is no text"
    return None


def _short(value: Any) -> str:
    return json.dumps(value)[:40]


def _refusal(path: str, expected: str, got: str) -> ValueError:
    return ValueError(
        f"expected {expected} in {path!r}, got {got}; restore the log from a copy, or start the run again in another "
        "folder"
    )
