"""Clean values into plain Python data, and write plain data as strict JSON.

Numpy scalars and arrays become Python numbers and lists, and every number that is not finite becomes
`math.nan`, so two results are equal exactly when their JSON is.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Any, TypeVar

from vicinal._json import strict_json

__all__ = ["check_lengths", "format_of", "number", "numbers", "plain", "read_json", "set_field", "texts", "write_json"]

T = TypeVar("T")
_LONGEST = 500  # letters of a message


def set_field(instance: Any, name: str, value: Any) -> None:
    """Set a field of a frozen dataclass while it is built.

    Args:
        instance: The dataclass.
        name: The field.
        value: Its cleaned value.
    """
    object.__setattr__(instance, name, value)  # frozen for everybody but the constructor


def number(value: Any) -> float:
    """Turn a value into a float.

    Args:
        value: A number, or None if it is missing.

    Returns:
        The number; `math.nan` if it is missing or not finite.
    """
    result = math.nan if value is None else float(value)
    # Always the same nan object: lists compare by identity first, so equal results compare equal.
    return result if math.isfinite(result) else math.nan


def numbers(values: Iterable[Any]) -> list[float]:
    """Turn each value into a float, as `number` does.

    Args:
        values: Numbers, or None where one is missing.

    Returns:
        As many floats.
    """
    return [number(value) for value in values]


def texts(name: str, values: Iterable[Any]) -> list[str]:
    """Turn each value into a text.

    Args:
        name: What they are, for the error message.
        values: The values.

    Returns:
        As many texts.

    Raises:
        ValueError: If a single text is given instead of a list; it would split into letters.
    """
    if isinstance(values, str):
        raise ValueError(f"{name}: expected a list of texts, got one text {values!r}. Put it into a list.")
    return [str(value) for value in values]


def check_lengths(name: str, rows: Sequence[Sized], length: int, entry: str, missing: str) -> None:
    """Refuse rows that are shorter or longer than they should be.

    Args:
        name: What they are, for the error message.
        rows: The rows.
        length: The entries each should have.
        entry: What an entry is, such as `"cell per column"`.
        missing: What to write for a missing entry.

    Raises:
        ValueError: If a row has another length.
    """
    for index, row in enumerate(rows):
        if len(row) != length:
            raise ValueError(
                f"{name}: expected {length} entries in every row, one {entry}, got {len(row)} in row {index}. "
                f"Write {missing} where there is none."
            )


def plain(value: Any) -> Any:
    """Reduce a value to what strict JSON can hold.

    Args:
        value: Anything.

    Returns:
        None, a truth value, a number, a text, or lists and dictionaries of them. A number that is not finite
        becomes None; what JSON cannot hold becomes text.

    Example:
        >>> plain({"sizes": (2, 3), "loss": float("inf"), 5: 1j})
        {'sizes': [2, 3], 'loss': None, '5': '1j'}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy and JAX scalars and arrays
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (value if isinstance(value, list | tuple) else sorted(value))]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def write_json(kind: str, instance: Any) -> str:
    """Write a dataclass as strict JSON, in which a number that is not finite is `null`.

    Args:
        kind: Its format, which is stored with it.
        instance: The dataclass.

    Returns:
        Text that `read_json` reads.
    """
    content = plain({"format": kind, **dataclasses.asdict(instance)})
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def format_of(text: str) -> str | None:
    """The format that `write_json` stored with a text; None for other JSON.

    Raises:
        ValueError: If the text is not JSON.
    """
    content = strict_json(text)
    found = content.get("format") if isinstance(content, dict) else None
    return found if isinstance(found, str) else None


def read_json(kind: str, what: str, text: str, build: Callable[[dict[str, Any]], T]) -> T:
    """Read what `write_json` wrote.

    Args:
        kind: The format to expect.
        what: What the text should be, for the error message, such as `"comparison"`.
        text: The JSON text.
        build: Makes the dataclass from its fields: name -> plain value.

    Returns:
        The dataclass.

    Raises:
        ValueError: If the text is not JSON of that format, or its fields do not fit.
    """
    try:
        content = strict_json(text)
    except ValueError as error:
        raise ValueError(f"This is not a stored {what}: it is not JSON ({error}).") from error
    found = content.pop("format", None) if isinstance(content, dict) else None
    if found != kind:
        raise ValueError(f"This is not a stored {what}: expected format {kind!r}, found {str(found)[:60]!r}.")
    try:
        return build(content)
    except ValueError as error:
        if len(str(error)) < _LONGEST:
            raise
        raise ValueError(f"{str(error)[:_LONGEST]}...") from error  # it quotes a text of the file
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"This stored {what} is incomplete or was changed by hand: {str(error)[:200]}.") from error
