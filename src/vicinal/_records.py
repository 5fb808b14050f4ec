"""What a record holds: a dictionary of numbers, some in dictionaries of their own; one that is not finite is None."""

import math
from collections.abc import Mapping
from typing import Any


def flat_record(record: Mapping[str, Any], separator: str = ".", prefix: str = "") -> dict[str, Any]:
    """A record without dictionaries in it: a nested name comes after that of its dictionary.

    Args:
        record: Numbers, and dictionaries of them.
        separator: What stands between two names.
        prefix: What stands before each name.

    Returns:
        Name -> value.

    Example:
        >>> flat_record({"step": 5, "angles": {"layers[0]": 5.2}})
        {'step': 5, 'angles.layers[0]': 5.2}
    """
    found: dict[str, Any] = {}
    for name, value in record.items():
        inner = isinstance(value, Mapping)
        found |= flat_record(value, separator, f"{prefix}{name}{separator}") if inner else {f"{prefix}{name}": value}
    return found


def or_nan(value: Any) -> Any:
    """A number of a record, NaN where the record has none or one that is not finite."""
    return math.nan if value is None else value


def is_number(value: Any) -> bool:
    """Whether a value is a plain number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def stop_words(reason: str) -> str:
    """Why a run ended, in words that begin with `stopped`, once.

    Example:
        >>> stop_words("stopped at step 5: it is enough"), stop_words("the data ended")
        ('stopped at step 5: it is enough', 'stopped: the data ended')
    """
    return reason if reason.startswith("stopped ") else f"stopped: {reason}"
