"""Reads JSON text as its standard has it, where Python's reader lets more pass."""

import json
import math
import re
from typing import Any

DEEPEST = 100
"""Lists and dictionaries inside one another that JSON may have."""
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def strict_json(content: bytes | str, *, finite: bool = True) -> Any:
    """Reads JSON text as its standard has it, and refuses what Python's reader lets pass.

    Args:
        content: The text, or its bytes in UTF-8.
        finite: Whether to refuse NaN, infinity and numbers that a float cannot hold.

    Raises:
        ValueError: If it is no such text, a dictionary has a name twice, or it is nested deeper than `DEEPEST`; the
            message is the reason alone.

    Example:
        >>> strict_json('{"step": 1, "step": 2}')
        Traceback (most recent call last):
            ...
        ValueError: the name 'step' comes twice
    """
    hooks: dict[str, Any] = {"object_pairs_hook": _once}
    if finite:
        hooks |= {"parse_constant": _refuse, "parse_float": _finite, "parse_int": _whole}
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        value = json.loads(text, **hooks)
        if _HALF.search(text):  # half a character, which no file or terminal can hold
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start}") from error
    except UnicodeEncodeError as error:
        raise ValueError("a text holds half a character") from error
    except RecursionError:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels") from None
    _check_depth(value)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)!r} comes twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > 300:  # a float holds up to 308 digits
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [item for inner in level for item in _items(inner) if isinstance(item, dict | list)]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {DEEPEST} levels")


def _items(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
