"""The `repr` of modules and graphs: numbers rather than dtypes, edges rather than names."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from vicinal._numbers import number_text

_FEW = 6  # numbers of an array, or vertices of a graph, that are written out


def module_text(module: Any) -> str:
    """A module as the call that makes it: its numbers, and all fields that differ from their defaults.

    Traced numbers have no value yet and are written as `f32[]`.

    Args:
        module: A frozen dataclass, such as a rule, with array leaves.

    Returns:
        One line.
    """
    shown = []
    for field in dataclasses.fields(module):
        value = getattr(module, field.name, None)  # a module that is being built may lack it
        if field.repr and value is not None and (_holds_numbers(value) or not _is_default(field, value)):
            shown.append(f"{field.name}={value_text(value)}")
    return f"{type(module).__name__}({', '.join(shown)})"


def value_text(value: Any) -> str:
    """One value of a module: a number, a function by name, a module, or Equinox's own format."""
    if isinstance(value, eqx.Module):
        return repr(value) if type(value).__repr__ is not eqx.Module.__repr__ else module_text(value)
    if isinstance(value, bool | str):
        return repr(value)
    if isinstance(value, int | float | np.generic):
        return number_text(value)
    if isinstance(value, jax.Array | np.ndarray):
        return _array(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {value_text(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        inner = ", ".join(map(value_text, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
    if isinstance(value, Callable) and not dataclasses.is_dataclass(value):
        return getattr(value, "__name__", None) or eqx.tree_pformat(value, width=10**6)
    return repr(value) if dataclasses.is_dataclass(value) else eqx.tree_pformat(value, width=10**6)


def graph_text(graph: Any) -> str:
    """A graph's nodes with their shapes and what each reads; only the first and last of many nodes.

    Args:
        graph: A `vicinal.Graph`.

    Returns:
        One line.
    """
    nodes = [
        f"{node}{_shape(graph.shapes[node])} <- {names_text(reads_of(graph, node), 4) or 'parameters alone'}"
        for node in graph.parents
    ]
    if len(nodes) > _FEW + 2:
        return f"Graph({len(graph.vertices)} vertices: {'; '.join([*nodes[: _FEW // 2], '...', *nodes[-2:]])})"
    return f"Graph({'; '.join(nodes)})"


def reads_of(graph: Any, node: str) -> tuple[str, ...]:
    """What the prediction of a node reads directly: vertices, and perhaps `"input"`."""
    return ("input",) * (node in graph.reads_input) + tuple(graph.parents[node])


def names_text(names: Iterable[str], most: int = 8) -> str:
    """A list of names as text; only the first of many, and their number.

    Example:
        >>> names_text("abc", 4), names_text("abcdefgh", 4)
        ('a, b, c', 'a, b, c, ... (8 in all)')
    """
    names = list(names)
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 1])}, ... ({len(names)} in all)"


def record_text(record: Mapping[str, Any], quantities: Sequence[str]) -> str:
    """Some numbers of a record, `test_loss=0.31, test_accuracy=0.94`."""
    found = {name: record[name] for name in quantities if isinstance(record.get(name), int | float)}
    return ", ".join(f"{name}={value if isinstance(value, int) else f'{value:.4g}'}" for name, value in found.items())


def _holds_numbers(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_numbers, value.values()))
    if isinstance(value, eqx.Module):
        return any(_holds_numbers(getattr(value, field.name, None)) for field in dataclasses.fields(value))
    return isinstance(value, jax.Array | np.ndarray | int | float) and not isinstance(value, bool)


def _is_default(field: dataclasses.Field, value: Any) -> bool:
    if field.default is not dataclasses.MISSING:
        return value is field.default or (type(value) is type(field.default) and value == field.default)
    return field.default_factory is not dataclasses.MISSING and value == field.default_factory()


def _array(array: Any) -> str:
    known = not isinstance(array, jax.core.Tracer) and not (isinstance(array, jax.Array) and array.is_deleted())
    if not known or array.size > _FEW or not np.issubdtype(array.dtype, np.number) or array.dtype.itemsize < 2:
        return eqx.tree_pformat(array, width=10**6)
    numbers = [number_text(number) for number in np.asarray(array).reshape(-1)]
    return numbers[0] if array.ndim == 0 else f"[{', '.join(numbers)}]"


def _shape(shapes: Any) -> str:
    leaves = jax.tree.leaves(shapes)
    return f"[{','.join(map(str, leaves[0].shape))}]" if len(leaves) == 1 else f"({len(leaves)} arrays)"
