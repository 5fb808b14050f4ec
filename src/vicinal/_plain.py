"""Makes settings from JSON data by the types that their dataclass declares, as the command line does from words."""

import dataclasses
import json
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
_NO = object()


def from_plain(kind: Any, plain: Any, may_miss: Callable[[dataclasses.Field], bool], name: str = "") -> Any:
    """Makes a dataclass from a dictionary of its settings.

    Args:
        kind: The dataclass; its settings are texts, numbers, truth values, choices, tuples of these, or dataclasses.
        plain: Read from JSON: lists in place of tuples, and perhaps whole numbers where others are meant.
        may_miss: Whether a setting that is missing has its default.
        name: The place of `plain` in a larger dictionary.

    Returns:
        The dataclass.

    Raises:
        KeyError: If a setting is unknown.
        ValueError: If one is missing or of another type.

    Example:
        >>> @dataclasses.dataclass
        ... class Settings:
        ...     sizes: tuple[int, ...] = ()
        >>> from_plain(Settings, {"sizes": [3, 4]}, lambda field: False)
        Settings(sizes=(3, 4))
        >>> from_plain(Settings, {"sizes": [3, True]}, lambda field: False)
        Traceback (most recent call last):
            ...
        ValueError: expected a list, each a whole number for sizes, got [3, true]
    """
    if not isinstance(plain, dict):
        raise ValueError(f"expected a dictionary of settings{f' for {name}' if name else ''}, got {_shown(plain)}")
    hints, fields = typing.get_type_hints(kind), {field.name: field for field in dataclasses.fields(kind)}
    prefix = f"{name}." if name else ""
    if unknown := plain.keys() - fields.keys():
        raise KeyError(f"{prefix}{min(unknown)}")
    missing = [field.name for field in fields.values() if field.name not in plain and not may_miss(field)]
    if missing:
        raise ValueError(f"expected the setting {prefix}{missing[0]}, got none")
    found = {}
    for own, value in plain.items():
        if dataclasses.is_dataclass(hints[own]):
            found[own] = from_plain(hints[own], value, may_miss, f"{prefix}{own}")
        elif (made := _typed(hints[own], value)) is _NO:
            raise ValueError(f"expected {_words(hints[own])} for {prefix}{own}, got {_shown(value)}")
        else:
            found[own] = made
    return kind(**found)


def _typed(hint: Any, value: Any) -> Any:
    """The value as the type has it, or `_NO`; a truth value is no number, and a whole number is a number too."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return next((made for one in inner if (made := _typed(one, value)) is not _NO), _NO)
    if origin is Literal:
        return value if any(type(value) is type(word) and value == word for word in inner) else _NO
    if origin is tuple:
        if not isinstance(value, list):
            return _NO
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        if len(kinds) != len(value):
            return _NO
        made = tuple(map(_typed, kinds, value))
        return _NO if any(item is _NO for item in made) else made
    if hint is float and type(value) is int:
        return float(value)
    return value if type(value) is hint else _NO


def _words(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(_words, inner))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is tuple:
        return f"a list, each {_words(inner[0])}" if inner[-1] is Ellipsis else f"a list of {len(inner)}"
    return _WORDS[hint]


def _shown(value: Any) -> str:
    """The beginning of a value as the file has it."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
