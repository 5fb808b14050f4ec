"""Batches one after another, from any iterable; a pass can start at any batch."""

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from vicinal._foreign import as_arrays
from vicinal.data.names import INPUTS, TARGETS

Pair = tuple[PyTree, PyTree]
"""Inputs and targets of a batch, `[batch, ...]` each."""


class Batches:
    """Batches `(x, y)`, restarted for each pass.

    Args:
        begin: `begin(number, skip)` gives the batches of a pass, the passes counted from 0, without the first `skip`.
        length: How many batches a pass has; None: the length is unknown.
        class_names: What the classes are called; None if they have no names.
        at_will: Whether `begin` can start any pass at any batch. If not, passes must be started and read in order:
            each may depend on earlier ones.

    Attributes:
        length: As given.
        class_names: As given.
        at_will: As given.
    """

    def __init__(
        self,
        begin: Callable[[int, int], Iterator[Pair]],
        length: int | None = None,
        class_names: tuple[str, ...] | None = None,
        *,
        at_will: bool = True,
    ):
        self._begin, self.length, self.class_names, self.at_will = begin, length, class_names, at_will

    def epoch(self, number: int = 0, skip: int = 0) -> Iterator[Pair]:
        """The batches of a pass.

        Args:
            number: Which pass, counted from 0.
            skip: Batches at its start to leave out.

        Returns:
            An iterator over pairs `(x, y)`.
        """
        return self._begin(number, skip)

    def __iter__(self) -> Iterator[Pair]:
        """The batches of the first pass."""
        return self.epoch()

    def collected(self) -> Pair:
        """Inputs and targets of the first pass in two arrays, in memory: what `sweep` needs.

        Raises:
            ValueError: There is no batch, or batches differ in more than their size.
        """
        found = list(self)
        if not found:
            raise ValueError("expected at least one batch, got none")
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)

    def __repr__(self) -> str:
        return f"Batches({'of unknown number' if self.length is None else f'{self.length} in a pass'})"


def batches(
    source: Iterable[Any] | Callable[..., Iterable[Any]],
    inputs: str | Sequence[str] | None = None,
    target: str | None = None,
) -> Batches:
    """Makes batches from any iterable of pairs or dictionaries.

    Args:
        source: An iterable of batches, such as a PyTorch `DataLoader` or a list; or a function that starts a pass and
            returns its batches, such as a generator function. An argument, if it takes one, is the number of the
            pass, counted from 0, from which it can shuffle each pass differently. A batch is a pair `(x, y)`
            or a dictionary of arrays.
        inputs: The columns of a dictionary that are inputs: one name; or several, which become a dictionary. By
            default the one called x, data, inputs or image.
        target: The column that is the target; by default the one called y, target or label.

    Returns:
        The batches, each a pair of arrays.

    Raises:
        TypeError: The source is no iterable and no such function.

    Example:
        >>> given = batches([{"pixels": np.ones((2, 3)), "digit": np.array([7, 1])}], inputs="pixels", target="digit")
        >>> [y.tolist() for x, y in given]
        [[7, 1]]
    """
    if not callable(source) and not isinstance(source, Iterable):
        raise TypeError(f"expected an iterable of batches, or a function that gives one, got {type(source).__name__}")
    if isinstance(source, Iterator):
        raise TypeError(
            f"expected batches that can be restarted, got a {type(source).__name__}, which cannot; give the function "
            "that makes it"
        )

    numbered = callable(source) and bool(inspect.signature(source).parameters)

    def begin(number: int, skip: int) -> Iterator[Pair]:
        found: Any = source(*[number] * numbered) if callable(source) else source
        return (pair_of(batch, inputs, target) for batch in itertools.islice(iter(found), skip, None))

    return Batches(begin, None if callable(source) else length_of(source), at_will=False)


def length_of(source: Any) -> int | None:
    """The number of batches of an iterable; None if it is unknown."""
    if isinstance(source, Batches):
        return source.length
    try:
        return len(source) or None
    except (TypeError, NotImplementedError):  # a DataLoader has a length, which its data may not have
        return None


def pair_of(batch: Any, inputs: str | Sequence[str] | None = None, target: str | None = None) -> Pair:
    """Inputs and targets of a batch, as arrays, from arrays of any library.

    Args:
        batch: A pair `(x, y)`, or a dictionary of arrays.
        inputs: The columns of a dictionary that are inputs, as for `batches`.
        target: The column that is the target, as for `batches`.

    Returns:
        The pair.

    Raises:
        TypeError: The batch is no pair and no dictionary with these columns.
        KeyError: A named column is missing.

    Example:
        >>> pair_of({"x": np.ones((1, 2)), "y": np.zeros(1)})[1].tolist()
        [0.0]
    """
    if isinstance(batch, Mapping):
        return as_arrays((_inputs(batch, inputs), batch[_name(batch, TARGETS, target, "targets")]))
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        got = f"{len(batch)} items" if isinstance(batch, tuple | list) else type(batch).__name__
        raise TypeError(f"expected each batch as a pair of arrays (x, y), got {got}")
    return as_arrays(tuple(batch))


def _inputs(batch: Mapping[str, Any], inputs: str | Sequence[str] | None) -> PyTree:
    if inputs is None or isinstance(inputs, str):
        return batch[_name(batch, INPUTS, inputs, "inputs")]
    return {name: batch[_name(batch, (), name, "inputs")] for name in inputs}


def _name(batch: Mapping[str, Any], known: Sequence[str], wanted: str | None, what: str) -> str:
    found = [name for name in known if name in batch] if wanted is None else [wanted] * (wanted in batch)
    if len(found) != 1:
        expected = f"the {what} as one of {', '.join(known)}" if wanted is None else f"{what} called {wanted!r}"
        raise TypeError(
            f"expected {expected} in a dictionary of arrays, got {', '.join(map(str, batch)) or 'an empty one'}; "
            "vicinal.data.batches(..., inputs=, target=) says which to read"
        )
    return found[0]
