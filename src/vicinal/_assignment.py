"""Parses hyper-parameters on the command line: NAME=VALUE,VALUE,..."""

import contextlib
from typing import Any


def assignment(text: str) -> tuple[str, list[Any]]:
    """Parses `NAME=VALUE,VALUE,...` into the name and its values: integers, floats, booleans, or text.

    Raises:
        ValueError: If the text has another form.

    Example:
        >>> assignment("inference.step_size=0.01,1e-1"), assignment("inference.steps=5,10")
        (('inference.step_size', [0.01, 0.1]), ('inference.steps', [5, 10]))
    """
    name, _, values = text.partition("=")
    try:
        return name.replace("-", "_"), [_value(value) for value in values.split(",")]
    except ValueError:
        raise ValueError(f"expected NAME=VALUE or NAME=VALUE,VALUE,..., got {text!r}") from None


def _value(text: str) -> float | int | bool | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if not text.strip():
        raise ValueError
    return text
