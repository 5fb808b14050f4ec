"""How many cells an update programs, with how many pulses."""

import dataclasses
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from jaxtyping import PyTree

from vicinal._counting import Use
from vicinal.hardware._delivery import PulseCount, pulse_counts

__all__ = ["Programmed", "programmed"]


@dataclasses.dataclass(frozen=True)
class Programmed:
    """What an update does to the cells.

    Attributes:
        cells: Cells that are programmed.
        slots: Times of a pulse, one after another, in the array that takes longest: arrays are programmed side by side,
            each row by row, and a row for as long as the cell in it with the most pulses. None where it is not known
            which cells are programmed.
        pulses: Pulses in all; None where only the changes are known.
        fast: The fast arrays of `transfer`, with the columns that the update reads as forward reads.
    """

    cells: int
    slots: int | None
    pulses: int | None
    fast: tuple[Use, ...] = ()


def programmed(given: PyTree, uses: tuple[Use, ...], rows: int, *, counted: bool) -> Programmed:
    """Counts what an update does to the cells of all arrays.

    Args:
        given: For each parameter, the signed number of pulses of each of its cells, or the change of each weight: a
            tree like the gradient, with None for what is not on an array. Or the state of a step for cells.
        uses: The arrays.
        rows: Rows of an array of cells.
        counted: Whether the numbers are pulses.

    Returns:
        The counts; with changes, a changed cell takes one pulse at least, and the number of pulses is unknown.

    Raises:
        ValueError: If an array has another number of cells than its matrix, or none has any.
        TypeError: If pulses are no whole numbers.
    """
    if counted and (states := pulse_counts(given)):
        cells, pulses = (sum(int(getattr(n, name)) for n in states.values()) for name in ("cells", "last"))
        return Programmed(cells, None, pulses, tuple(_fast(states, uses)))
    matrices = _matrices(given, {use.path: use for use in uses if not use.part})
    if counted and not all(np.array_equal(m, np.rint(m)) for m in matrices):
        raise TypeError("expected pulses as whole numbers, got others; give changes of weights as changes=")
    each = [np.abs(m) if counted else (m != 0) for m in matrices]
    slots = [int(row.max(axis=0)[i : i + rows].sum()) for row in each for i in range(0, row.shape[1], rows)]
    pulses = int(sum(n.sum() for n in each)) if counted else None
    return Programmed(int(sum(np.count_nonzero(n) for n in each)), max(slots, default=0), pulses)


def _fast(states: Mapping[str, PulseCount], uses: tuple[Use, ...]) -> Iterator[Use]:
    """The fast arrays, each as large as the array that it teaches."""
    sizes = {use.path: use for use in uses if not use.part}
    for path, count in states.items():
        if count.columns is not None and path in sizes:
            own = sizes[path]
            yield Use(path, ("fast",), own.inputs, own.outputs, forward=float(count.columns))


def _matrices(given: PyTree, uses: Mapping[str, Use]) -> list[np.ndarray]:
    """The numbers of each array as `[outputs, inputs]`."""
    found = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(given)[0]:
        name = jax.tree_util.keystr(path)
        if name in uses:
            found.append(_matrix(name, np.asarray(leaf), uses[name]))
    if not found:
        raise ValueError("expected numbers for at least one array, got none; give a tree like the gradient")
    return found


def _matrix(name: str, numbers: np.ndarray, use: Use) -> np.ndarray:
    if numbers.size != use.inputs * use.outputs:
        cells = use.inputs * use.outputs
        raise ValueError(f"expected {cells} numbers for {name}, one for each weight, got {numbers.size}")
    if numbers.shape[0] != use.outputs:
        return numbers.reshape(use.inputs, use.outputs).T
    return numbers.reshape(use.outputs, use.inputs)
