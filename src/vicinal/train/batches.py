"""Where a training loop finds its batches: in arrays on the device, or in any iterable."""

from collections.abc import Iterable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from vicinal.data import epoch_order


class ArrayBatches(eqx.Module):
    """One epoch of examples that lie on the device, in a given order.

    Attributes:
        x: All inputs, `[examples, ...]`.
        y: All targets, `[examples, ...]`.
        order: A permutation of the examples.
        batch_size: Examples in a batch; what does not fill the last one is left out of this epoch.
    """

    x: PyTree
    y: PyTree
    order: Int[Array, " examples"]
    batch_size: int = eqx.field(static=True)

    def get(self, index: Int[Array, ""]) -> tuple[PyTree, PyTree]:
        rows = jax.lax.dynamic_slice_in_dim(self.order, index * self.batch_size, self.batch_size)
        return jax.tree.map(lambda a: a[rows], (self.x, self.y))


class StackedBatches(eqx.Module):
    """Some batches from an iterable, stacked: `[batches, batch, ...]`."""

    x: PyTree
    y: PyTree

    def get(self, index: Int[Array, ""]) -> tuple[PyTree, PyTree]:
        return jax.tree.map(lambda a: a[index], (self.x, self.y))


class ArraySource:
    """Epochs of shuffled batches from arrays; the order depends on the key and the epoch alone.

    Args:
        x: Inputs, `[examples, ...]`.
        y: Targets, `[examples, ...]`.
        batch_size: Examples in a batch, at most the number of examples.
        key: Decides the orders.
    """

    def __init__(self, x: PyTree, y: PyTree, batch_size: int, key: PRNGKeyArray):
        sizes = {leaf.shape[0] for leaf in jax.tree.leaves((x, y))}
        if len(sizes) != 1:
            raise ValueError(f"expected as many targets as inputs, got {sorted(sizes)} examples")
        (examples,) = sizes
        if not isinstance(batch_size, int) or not 1 <= batch_size <= examples:
            raise ValueError(f"expected a batch size from 1 to {examples}, the number of examples, got {batch_size!r}")
        self.x, self.y = jax.tree.map(jnp.asarray, (x, y))
        self.batch_size, self.steps_per_epoch, self._key = batch_size, examples // batch_size, key
        self._order: tuple[int, Array] | None = None

    def chunk(self, step: int, count: int) -> tuple[ArrayBatches, int, int]:
        """The epoch's batches around `step`, the index of that step's, and how many of `count` are in this epoch."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, epoch_order(self._key, epoch, jax.tree.leaves(self.x)[0].shape[0]))
        batches = ArrayBatches(self.x, self.y, self._order[1], self.batch_size)
        return batches, index, min(count, self.steps_per_epoch - index)

    def example(self) -> PyTree:
        return jax.tree.map(lambda a: a[0], self.x)

    def examples_in(self, batches: ArrayBatches) -> int:
        return self.batch_size


class IterableSource:
    """Batches `(x, y)` from any iterable, begun anew when it ends.

    To resume a run, the iterable must give the same batches again: those already seen are skipped.
    """

    def __init__(self, batches: Iterable[tuple[PyTree, PyTree]]):
        self._batches, self._iterator = batches, iter(batches)
        self._position, self._next = 0, None
        self.steps_per_epoch = None

    def chunk(self, step: int, count: int) -> tuple[StackedBatches, int, int] | None:
        """Up to `count` batches of equal shape from `step` on, stacked; None if the iterable cannot go on."""
        while self._position < step:
            if self._take() is None:
                return None
        taken: list[Any] = []
        while len(taken) < count and (batch := self._take()) is not None:
            if taken and _shapes(batch) != _shapes(taken[0]):
                self._next = batch
                self._position -= 1
                break
            taken.append(batch)
        if not taken:
            return None
        x, y = jax.tree.map(lambda *leaves: jnp.stack(leaves), *taken)
        return StackedBatches(x, y), 0, len(taken)

    def example(self) -> PyTree:
        if self._next is None:
            self._next = self._take()
            self._position = 0
        if self._next is None:
            raise ValueError("expected at least one batch, got an empty iterable")
        return jax.tree.map(lambda a: a[0], self._next[0])

    def examples_in(self, batches: StackedBatches) -> int:
        return jax.tree.leaves(batches.x)[0].shape[1]

    def _take(self) -> tuple[PyTree, PyTree] | None:
        batch, self._next = self._next, None
        if batch is None:
            batch = next(self._iterator, None)
        if batch is None and iter(self._batches) is not self._iterator:
            self._iterator = iter(self._batches)
            batch = next(self._iterator, None)
        if batch is None:
            return None
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise ValueError(f"expected batches as pairs (x, y), got {type(batch).__name__}")
        self._position += 1
        return jax.tree.map(jnp.asarray, tuple(batch))


def _shapes(batch: PyTree) -> list[Any]:
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(batch)]


def source_of(data: Any, batch_size: int, key: PRNGKeyArray) -> ArraySource | IterableSource:
    """The source for what a user gives: arrays `(x, y)`, or an iterable of batches."""
    if isinstance(data, tuple) and len(data) == 2 and all(hasattr(leaf, "shape") for leaf in jax.tree.leaves(data)):
        return ArraySource(*data, batch_size, key)
    if isinstance(data, Iterable) and not isinstance(data, str | dict | Iterator):
        return IterableSource(data)
    if isinstance(data, Iterator):
        return IterableSource(data)
    raise TypeError(
        f"expected data as a Dataset, a pair of arrays (x, y) or an iterable of batches, got {type(data).__name__}"
    )
