"""Numbers and words as the command line gives them: NAME=VALUE,VALUE,..."""

import contextlib
from typing import Any


def assignment(word: str) -> tuple[str, list[Any]]:
    """The name and the values in `NAME=VALUE,VALUE,...`: whole numbers, other numbers, true or false, or words.

    Raises:
        ValueError: If the word is none.

    Example:
        >>> assignment("inference.step_size=0.01,1e-1"), assignment("inference.steps=5,10")
        (('inference.step_size', [0.01, 0.1]), ('inference.steps', [5, 10]))
    """
    name, _, values = word.partition("=")
    try:
        return name.replace("-", "_"), [_value(value) for value in values.split(",")]
    except ValueError:
        raise ValueError(f"expected NAME=VALUE or NAME=VALUE,VALUE,..., got {word!r}") from None


def _value(word: str) -> float | int | bool | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(word)
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    if not word.strip():
        raise ValueError
    return word
