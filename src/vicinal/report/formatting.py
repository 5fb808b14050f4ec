"""Numbers, names and settings as text."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["MISSING", "capitalized", "decimals", "flat_items", "name_list", "significant", "unbroken"]

MISSING = "\N{EN DASH}"
"""The text for a missing number."""


def significant(value: float, digits: int = 3) -> str:
    """Write a number with a few significant digits and, where it can be read, without an exponent.

    Args:
        value: The number.
        digits: Significant digits.

    Returns:
        The text; `MISSING` if the number is not finite.

    Example:
        >>> significant(0.41234), significant(143.21), significant(2.5e-7), significant(0.0)
        ('0.412', '143', '2.50e-07', '0.00')
    """
    if not math.isfinite(value):
        return MISSING
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{decimals(value, digits)}f}"


def name_list(names: Sequence[str]) -> str:
    """Join names for a sentence.

    Args:
        names: At least one name.

    Returns:
        The names with commas and a final "and".

    Example:
        >>> name_list(["A"]), name_list(["A", "B", "C"])
        ('A', 'A, B and C')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def capitalized(text: str) -> str:
    """Begin a text with a capital letter; `str.capitalize` would change the others too.

    Args:
        text: The text, which may be empty.

    Returns:
        The text.

    Example:
        >>> capitalized("mean over MNIST")
        'Mean over MNIST'
    """
    return text[:1].upper() + text[1:]


def flat_items(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Write settings line by line; a nested name gets a dot.

    Args:
        settings: Plain values, lists and dictionaries of them.
        prefix: What to put in front of each name.

    Returns:
        Pairs of a name and a text.

    Example:
        >>> flat_items({"seeds": 3, "inference": {"steps": 20}, "sizes": [64, 32, 10]})
        [('seeds', '3'), ('inference.steps', '20'), ('sizes', '64, 32, 10')]
    """
    items = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            items += flat_items(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            items.append((f"{prefix}{name}", ", ".join(map(_value_text, value)) or MISSING))
        else:
            items.append((f"{prefix}{name}", _value_text(value)))
    return items


def _value_text(value: Any) -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def decimals(value: float, digits: int) -> int:
    """Count the decimals that show a number with a few significant digits.

    Args:
        value: The number.
        digits: Significant digits.

    Returns:
        Digits after the point.
    """
    if value == 0:
        return digits - 1
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def unbroken(text: str) -> str:
    """Keep a number, its interval and its unit on one line.

    Args:
        text: A sentence.

    Returns:
        The sentence with spaces that do not break around `±` and before `%`.

    Example:
        >>> unbroken("96.8 ± 0.4 % of them").split()
        ['96.8', '±', '0.4', '%', 'of', 'them']
        >>> unbroken("96.8 ± 0.4 % of them").split(" ")[0].count("\N{NO-BREAK SPACE}")
        3
    """
    return text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}").replace(" %", "\N{NO-BREAK SPACE}%")
