"""Reads records: dictionaries of numbers, perhaps nested, with None for non-finite numbers."""

import math
from collections.abc import Mapping
from typing import Any


def flat_record(record: Mapping[str, Any], separator: str = ".", prefix: str = "") -> dict[str, Any]:
    """Flattens a record: a nested name follows the name of its dictionary.

    Args:
        record: Numbers and dictionaries of numbers.
        separator: The text between two names.
        prefix: The text before each name.

    Returns:
        The values by name.

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
    """A number of a record; NaN if it is missing or not finite."""
    return math.nan if value is None else value


def is_number(value: Any) -> bool:
    """Whether a value is a plain number; booleans are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def stop_words(reason: str) -> str:
    """Why a run ended, as text that starts with `stopped`.

    Example:
        >>> stop_words("stopped at step 5: it is enough"), stop_words("the data ended")
        ('stopped at step 5: it is enough', 'stopped: the data ended')
    """
    return reason if reason.startswith("stopped ") else f"stopped: {reason}"
