"""Sources of batches for the training loop: arrays on the device, or any iterable.

A source gives batches a chunk at a time, in arrays whose shapes do not depend on how long the chunk is: one compiled
loop then serves the whole run, and the same machine code sees a batch however the run was cut into chunks.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from vicinal._foreign import is_array
from vicinal._numbers import check_count
from vicinal.data import Batches, epoch_order
from vicinal.data.streams import length_of, pair_of

_ROWS_AHEAD = 2**16  # epochs of small data are put in order together, so that a chunk can span many of them
_STACK_BATCHES, _STACK_BYTES = 64, 2**24  # a chunk from an iterable holds as many batches as both allow


Check = Callable[[Any, str], None]
"""Raises ValueError unless targets are as expected; its second argument names their place in the message."""


class ArrayBatches(eqx.Module):
    """Batches of examples on the device, in a given order.

    Attributes:
        x: All inputs, `[examples, ...]`.
        y: All targets, `[examples, ...]`.
        order: Indices of the examples, `[batches * batch_size]`.
        batch_size: Examples in a batch.
    """

    x: PyTree
    y: PyTree
    order: Int[Array, " rows"]
    batch_size: int = eqx.field(static=True)

    def get(self, index: Int[Array, ""]) -> tuple[PyTree, PyTree]:
        """The batch at an index."""
        rows = jax.lax.dynamic_slice_in_dim(self.order, index * self.batch_size, self.batch_size)
        return jax.tree.map(lambda a: a[rows], (self.x, self.y))


class StackedBatches(eqx.Module):
    """Some batches from an iterable, stacked: `[batches, batch, ...]`."""

    x: PyTree
    y: PyTree

    def get(self, index: Int[Array, ""]) -> tuple[PyTree, PyTree]:
        """The batch at an index."""
        return jax.tree.map(lambda a: a[index], (self.x, self.y))


class ArraySource:
    """Epochs of shuffled batches from arrays; the order depends only on the key and the epoch.

    Args:
        x: Inputs, `[examples, ...]`.
        y: Targets, `[examples, ...]`.
        batch_size: Examples in a batch, at most the number of examples; what does not fill the last batch of an
            epoch is left out of it.
        key: The key of the orders.

    Attributes:
        batch_size: As given.
        steps_per_epoch: Whole batches in an epoch.
        where: What `sample` gives, in words.
    """

    where = "the training set"

    def __init__(self, x: PyTree, y: PyTree, batch_size: int, key: PRNGKeyArray):
        examples = count_examples(x, y)
        batch_size = check_count("batch_size", batch_size)
        if batch_size > examples:
            raise ValueError(f"expected a batch size from 1 to {examples}, the number of examples, got {batch_size}")
        self.x, self.y = jax.tree.map(jnp.asarray, (x, y))
        self.batch_size, self.steps_per_epoch = batch_size, examples // batch_size
        self._key, self._examples = key, examples
        self._epochs_ahead = max(1, _ROWS_AHEAD // examples)
        self._block: tuple[int, ArrayBatches] | None = None

    @property
    def order_bytes(self) -> int:
        """The memory of the order that a chunk holds."""
        return 4 * self._epochs_ahead * self.steps_per_epoch * self.batch_size

    def chunk(self, step: int, count: int) -> tuple[ArrayBatches, int, int]:
        """Batches around `step`, the index of that step's batch, and how many of the `count` batches they hold."""
        steps = self._epochs_ahead * self.steps_per_epoch
        block, index = divmod(step, steps)
        if self._block is None or self._block[0] != block:
            epochs = block * self._epochs_ahead + jnp.arange(self._epochs_ahead)
            order = _orders(self._key, epochs, self._examples, self.steps_per_epoch * self.batch_size)
            self._block = (block, ArrayBatches(self.x, self.y, order, self.batch_size))
        return self._block[1], index, min(count, steps - index)

    def example(self) -> PyTree:
        """One input."""
        return jax.tree.map(lambda a: a[0], self.x)

    def sample(self) -> tuple[PyTree, PyTree]:
        """All inputs and targets."""
        return self.x, self.y

    def examples_in(self, batches: Any) -> int:
        """How many examples one of these batches holds."""
        return batches.batch_size


class IterableSource:
    """Batches `(x, y)` from any iterable, restarted when it ends.

    To resume a run, the iterable must give the same batches again: those already seen are skipped.

    Args:
        batches: Yields pairs of arrays, or dictionaries of them, `[batch, ...]` each. Batches of another size need
            another compilation.
        epochs: Whether to count passes, if the iterable has a length.

    Attributes:
        batch_size: None: the iterable determines it.
        steps_per_epoch: How many batches a pass has; None unless passes are counted and the iterable has a length.
        where: What `sample` gives, in words.
        check_targets: Called with the targets of each batch that is read, and the name of the batch; or None.
    """

    batch_size, where = None, "the first batch"

    def __init__(self, batches: Iterable[Any], epochs: bool = False):
        self._batches, self._length = batches, length_of(batches)
        self.steps_per_epoch = self._length if epochs else None
        self._pass, self._read_in_pass, self._position = 0, 0, 0
        self._iterator = self._pass_from(0)
        self._ahead: tuple[PyTree, PyTree] | None = None  # read but not yet used
        self.check_targets: Check | None = None

    def chunk(self, step: int, count: int) -> tuple[StackedBatches, int, int] | None:
        """Up to `count` batches of equal shape from `step` on, stacked; None if the iterable has ended."""
        self._skip_to(step)
        first = self._peek()
        if first is None:
            return None
        form = _form(first)
        size = max(1, min(_STACK_BATCHES, _STACK_BYTES // sum(leaf.nbytes for leaf in jax.tree.leaves(first))))
        taken: list[Any] = []
        while len(taken) < min(count, size) and self._peek() is not None and _form(self._peek()) == form:
            taken.append(self._pop())
        # Stacked by NumPy, which need not compile for it; always as many, see the top of this file.
        filled = taken + taken[-1:] * (size - len(taken))
        x, y = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *filled)
        return StackedBatches(x, y), 0, len(taken)

    def example(self) -> PyTree:
        """One input; its batch is not consumed."""
        return jax.tree.map(lambda a: jnp.asarray(a[0]), self.sample()[0])

    def sample(self) -> tuple[PyTree, PyTree]:
        """The next batch, without consuming it."""
        first = self._peek()
        if first is None:
            raise ValueError("expected at least one batch, got an empty iterable")
        return first

    def examples_in(self, batches: Any) -> int:
        """How many examples one of these batches holds."""
        return jax.tree.leaves(batches.x)[0].shape[1]

    def _pop(self) -> tuple[PyTree, PyTree] | None:
        batch, self._ahead = self._peek(), None
        self._position += 1
        return batch

    def _peek(self) -> tuple[PyTree, PyTree] | None:
        if self._ahead is None:
            self._ahead = self._read()
        return self._ahead

    def _skip_to(self, step: int) -> None:
        """Skips the batches before a step; skips whole passes without reading them if possible."""
        length = self._length
        if (
            isinstance(self._batches, Batches)
            and self._batches.at_will
            and length is not None
            and step - self._position > 1
        ):
            self._pass, self._read_in_pass = divmod(step, length)
            self._iterator = self._pass_from(self._read_in_pass)
            self._ahead, self._position = None, step
        while self._position < step and self._peek() is not None:
            self._pop()

    def _pass_from(self, skip: int) -> Iterator[Any]:
        """The batches of the present pass, without the first `skip`."""
        return self._batches.epoch(self._pass, skip) if isinstance(self._batches, Batches) else iter(self._batches)

    def _read(self) -> tuple[PyTree, PyTree] | None:
        batch = next(self._iterator, _END)
        if batch is _END:
            expected, read = self.steps_per_epoch, self._read_in_pass
            if expected is not None and read != expected:
                raise ValueError(
                    f"expected the {expected} batches of the iterable's length, got {read} in a pass; give steps="
                )
            self._pass, self._read_in_pass = self._pass + 1, 0
            iterator = self._pass_from(0)
            if iterator is self._iterator:  # a generator: it cannot start again
                return None
            self._iterator = iterator
            batch = next(iterator, _END)
        if batch is _END:
            return None
        self._read_in_pass += 1
        pair = _pair(batch)
        if self.check_targets is not None:
            self.check_targets(pair[1], f"batch {self._position} of the training data, counted from 0")
        return pair


_END = object()


@functools.partial(jax.jit, static_argnums=(2, 3))
def _orders(key: PRNGKeyArray, epochs: Int[Array, " epochs"], examples: int, used: int) -> Int[Array, " rows"]:
    """The orders of some epochs in sequence, each without the examples that do not fill a batch."""
    return jax.lax.map(lambda epoch: epoch_order(key, epoch, examples)[:used], epochs).reshape(-1)


def count_examples(x: PyTree, y: PyTree) -> int:
    """How many examples inputs and targets hold, `[examples, ...]` each.

    Raises:
        TypeError: If a leaf is not an array with an axis of examples.
        ValueError: If lengths differ, or there are no examples.
    """
    leaves = jax.tree.leaves((x, y))
    for leaf in leaves:
        if not getattr(leaf, "shape", ()):
            got = "a scalar" if hasattr(leaf, "shape") else f"a Python {type(leaf).__name__}"
            raise TypeError(f"expected arrays whose first axis runs over the examples, got {got}; use jnp.asarray")
    sizes = sorted({leaf.shape[0] for leaf in leaves})
    if len(sizes) > 1:
        raise ValueError(f"expected as many targets as inputs, got {' and '.join(map(str, sizes))} examples")
    if sum(sizes) == 0:
        raise ValueError("expected at least one example, got none")
    return sizes[0]


def _pair(batch: Any) -> tuple[PyTree, PyTree]:
    x, y = pair_of(batch)
    count_examples(x, y)
    return jax.tree.map(np.asarray, (x, y))


def _form(batch: PyTree) -> Any:
    leaves, structure = jax.tree.flatten(batch)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]


def is_pair(data: Any) -> bool:
    """Whether `data` is a pair of inputs and targets (arrays or trees of arrays), and not a list of two batches.

    Example:
        >>> x, y = np.ones((4, 2)), np.zeros(4)
        >>> is_pair([x, y]), is_pair(({"a": x}, y)), is_pair([(x, y), (x, y)])
        (True, True, False)
    """
    if not isinstance(data, tuple | list) or len(data) != 2:
        return False
    if any(is_array(half) for half in data):  # if only one is an array, a later check raises
        return True
    batches = isinstance(data, list) and all(isinstance(half, tuple | list) or _is_batch(half) for half in data)
    return not batches and all(is_array(leaf) for leaf in jax.tree.leaves(data))


def _is_batch(half: Any) -> bool:
    try:
        return isinstance(half, Mapping) and bool(pair_of(half))
    except TypeError:
        return False


def source_of(data: Any, batch_size: int, key: PRNGKeyArray, epochs: bool = False) -> ArraySource | IterableSource:
    """The source for what a user gives: arrays `(x, y)`, or an iterable of batches.

    Args:
        data: Two arrays, or two trees of arrays; or anything to iterate over that gives such pairs.
        batch_size: Examples in a batch; ignored for an iterable.
        key: The key of the order of examples; ignored for an iterable.
        epochs: Whether to count the passes of an iterable.

    Raises:
        TypeError: If `data` is something else.
    """
    if is_pair(data):
        x, y = data
        return ArraySource(x, y, batch_size, key)
    if isinstance(data, Iterable) and not isinstance(data, str | bytes | Mapping) and not is_array(data):
        return IterableSource(data, epochs)
    raise TypeError(
        f"expected data as a Dataset, a pair of arrays (x, y) or an iterable of batches, got {type(data).__name__}"
        + (
            "; call it, and give what it returns, or vicinal.data.batches(it) to start it again"
            if callable(data)
            else ""
        )
        + (f"; vicinal.data.load({data!r}) reads it" if isinstance(data, str) else "")
    )
