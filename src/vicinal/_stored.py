"""Stored arrays in a traced program: which axes of a parameter the axes of a rearranged, cast or scaled copy hold."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

Axes = tuple[frozenset[int], ...]
Part = tuple[int | str, ...]
_KEPT = {"mul", "div", "neg", "add", "add_any", "sub", "max", "min", "clamp", "select_n"}  # scaled, or corrected
_KEPT |= {"convert_element_type", "rev", "pure_callback"}


@dataclasses.dataclass(frozen=True)
class Stored:
    """An array that holds a parameter, or a part of it, in some arrangement.

    Attributes:
        path: The path of the parameter.
        axes: For each axis of the array, the axes of the parameter that it runs over; none for an axis of copies.
        part: The places taken along axes that the array no longer has (the layer of stacked weights, for one), and the
            functions taken of its entries: a separate array holds their signs, for one.
    """

    path: str
    axes: Axes
    part: Part = ()

    @classmethod
    def whole(cls, path: str, dimensions: int) -> "Stored":
        """A parameter as it is stored."""
        return cls(path, tuple(frozenset([axis]) for axis in range(dimensions)))

    def row(self, index: int) -> "Stored":
        """The array at one place of the first axis."""
        return Stored(self.path, self.axes[1:], (*self.part, index) if self.axes[0] else self.part)


def rearranged(
    name: str, params: Mapping[str, Any], stored: Stored, old: Sequence[int], new: Sequence[int]
) -> Stored | None:
    """What an operation that only rearranges makes of a stored array.

    Args:
        name: The name of the primitive.
        params: Its parameters.
        stored: What the operand holds.
        old: The operand's shape.
        new: The result's shape.

    Returns:
        What the result holds; None if the operation is none of these.
    """
    axes = stored.axes
    if name == "transpose":
        return dataclasses.replace(stored, axes=tuple(axes[i] for i in params["permutation"]))
    if name == "squeeze":
        gone = {i % len(axes) for i in params["dimensions"]}
        return dataclasses.replace(stored, axes=tuple(a for i, a in enumerate(axes) if i not in gone))
    if name == "broadcast_in_dim":
        found: list[frozenset[int]] = [frozenset()] * len(new)
        for axis, length, place in zip(axes, old, params["broadcast_dimensions"], strict=True):
            found[place] = axis if length == new[place] else frozenset()
        return dataclasses.replace(stored, axes=tuple(found))
    if name == "reshape":
        groups = _regrouped(axes, old, new)
        return None if groups is None else dataclasses.replace(stored, axes=groups)
    if name == "slice":
        picked = [start for start, a, b in zip(params["start_indices"], old, new, strict=True) if b == 1 < a]
        return dataclasses.replace(stored, part=(*stored.part, *map(int, picked)))
    if name == "dynamic_slice" or (tuple(old) == tuple(new) and name in _KEPT):  # a slice at an unknown place
        return stored
    return dataclasses.replace(stored, part=(*stored.part, name)) if tuple(old) == tuple(new) else None


def _regrouped(axes: Axes, old: Sequence[int], new: Sequence[int]) -> Axes | None:
    """The axes after a reshape: those of each smallest group of axes whose sizes multiply to the same number."""
    if 0 in old:
        return None
    found: list[frozenset[int]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        i_end, j_end = min(i + 1, len(old)), min(j + 1, len(new))
        while (a := math.prod(old[i:i_end])) != (b := math.prod(new[j:j_end])):
            i_end, j_end = i_end + (a < b), j_end + (a > b)
        long = [axis for axis, length in zip(axes[i:i_end], old[i:i_end], strict=True) if length > 1]
        group = frozenset().union(*(long or axes[i:i_end]))
        found += [group] * (j_end - j)
        i, j = i_end, j_end
    return tuple(found)


def shape_of(variable: Any) -> tuple[int, ...]:
    """The shape of a variable or a literal."""
    return tuple(variable.aval.shape)


def dtype_of(variable: Any) -> Any:
    """The dtype of a variable or a literal."""
    return variable.aval.dtype
