"""The members of a sweep that train at the same time: their states, and which have stopped."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from vicinal.keys import is_key
from vicinal.train.advance import TrainingState
from vicinal.train.compiled import CompiledSteps, row_of
from vicinal.train.members import Members
from vicinal.train.part import Part


class Wave(Members):
    """Members that train together; one whose next step would make a number non-finite is frozen at its last good state.

    The states of the members lie in rows, on their devices. Rows of frozen members, and those that only
    fill up the layout, are not live: what is computed for them is thrown away.

    Args:
        part: What the members have in common.
        compiled: The compiled steps.
        ids: The indices of the members.
        waves: The indices of the members of every wave, this one included.
    """

    has_pace = False

    def __init__(self, part: Part, compiled: CompiledSteps, ids: Sequence[int], waves: Sequence[Sequence[int]] = ()):
        self._part, self.compiled, self.ids, self._own, self._waves = part, compiled, ids, ids, waves
        self.file = f"wave-{ids[0]}.npz"
        self.numbers = [{**part.runs[i][0], "seed": part.runs[i][1]} for i in ids]
        self.metrics, self.examples_per_step = part.metrics, part.batch_size
        states = [part.first(i) for i in ids]
        self._static = eqx.partition(states[0], eqx.is_array)[1]
        stacked = jax.tree.map(
            lambda *leaves: jnp.stack(leaves), *[eqx.filter(state, eqx.is_array) for state in states]
        )
        rows = [part.columns(i) for i in ids]
        columns = {name: jnp.asarray([row[name] for row in rows], float) for name in rows[0]}
        self._given = columns, jnp.asarray([part.order_of(i) for i in ids])
        self._load(stacked, np.ones(len(ids), bool))

    def _load(self, stacked: PyTree, live: np.ndarray) -> None:
        """Sets the states, `[members, ...]`, with these members live."""
        rows = np.minimum(np.arange(self.compiled.layout.rows), len(live) - 1)
        self.held = self.compiled.spread(_take((stacked, *self._given), rows))
        self._row = np.arange(len(live))
        self._live = np.zeros(len(rows), bool)
        self._live[: len(live)] = live
        self._balance()

    @property
    def live(self) -> np.ndarray:
        return self._live[self._row]

    def advance(self, step: int, count: int) -> tuple[int, dict[int, str]]:
        """Takes up to `count` steps with each live member, or fewer if its numbers would become non-finite."""
        orders, index, count = self._part.orders(self.compiled, step, count)
        before = self.live
        self._advance(orders, index, count)
        return count, {int(row): self._why(int(row)) for row in np.flatnonzero(before & ~self.live)}

    def _why(self, row: int) -> str:
        state = self.state(row)
        reason = self._part.why_it_stopped(self._own[row], state)
        return f"stopped at step {int(state.step)}, the last good state: {reason}"

    def _advance(self, orders: Array, index: int, count: int) -> None:
        start = self.held
        new, good = self.compiled.advance(start, np.where(self._busy(), count, 0), orders, index)
        arrays, broken = self._select(self._live & good, new, start[0]), self._live & ~good
        if broken.any():
            arrays = self._freeze(arrays, start, broken, orders, index, count)
        self.held, self._live = (arrays, *start[1:]), self._live & good
        if broken.any():
            self._balance()

    def stop(self, rows: list[int]) -> None:
        self._live = self._live.copy()  # `mark` may hold it
        self._live[self._row[rows]] = False
        self._balance()

    def mark(self) -> Any:
        return self.held, self._live, self._row

    def back_to(self, mark: Any) -> None:
        self.held, self._live, self._row = mark

    def bytes_needed(self) -> int:
        """The memory that steps need, without the data."""
        return self.compiled.bytes_needed(self.held, self._part.orders(self.compiled, 0, 1)[0])

    def seconds_per_step(self, *, roughly: bool = False) -> float:
        """How long a step of all members takes; measured on a few steps, or for half a second."""
        return self.compiled.seconds_per_step(self.held, self._part.orders(self.compiled, 0, 1)[0], roughly)

    def _freeze(
        self, arrays: PyTree, start: PyTree, broken: np.ndarray, orders: Array, index: int, count: int
    ) -> PyTree:
        """`arrays` with each broken row at its last good state, found by bisection, in all groups at once.

        The rows of a group take the same number of steps, so a group with several broken rows finds them in turn.
        """
        size = self.compiled.layout.size
        waiting = [list(np.flatnonzero(rows) + i * size) for i, rows in enumerate(broken.reshape(-1, size))]
        while any(waiting):
            row = np.array([rows.pop() if rows else -1 for rows in waiting])
            good, bad = np.zeros(len(row), int), np.where(row >= 0, count, 0)
            while (bad - good > 1).any():
                middle = np.where(bad - good > 1, (good + bad) // 2, 0)
                new, finite = self.compiled.advance(start, middle, orders, index)
                better = (middle > 0) & finite[row]
                good, bad = np.where(better, middle, good), np.where((middle > 0) & ~better, middle, bad)
                chosen = np.isin(np.arange(len(broken)), row[better])
                arrays = self._select(chosen, new, arrays)
        return arrays

    def _balance(self) -> None:
        """Packs the live rows into as few groups as possible, as many on each device, if that makes a chunk shorter."""
        layout = self.compiled.layout
        busiest = self._busy().reshape(layout.devices, -1).sum(axis=1).max()
        live, rest = np.flatnonzero(self._live), list(np.flatnonzero(~self._live))
        if -(-len(live) // (layout.devices * layout.size)) >= busiest:
            return
        rows: list[int] = []
        for device in range(layout.devices):
            own = list(live[device :: layout.devices])
            rows += own + [rest.pop() for _ in range(layout.groups * layout.size - len(own))]
        held = self.compiled.spread(_take(self.held, np.array(rows)))
        self.held, self._live, self._row = held, self._live[rows], np.argsort(rows)[self._row]

    def _busy(self) -> np.ndarray:
        """Whether each group has a live row."""
        return np.any(self._live.reshape(-1, self.compiled.layout.size), axis=1)

    def evaluate(self) -> list[dict[str, float]]:
        found = self.compiled.evaluate(self.held, self._busy())
        return [found[row] for row in self._row]

    def sums(self) -> list[dict[str, Any]]:
        held = jax.device_get(self.held[0].sums)
        return [row_of(held, int(row)) for row in self._row]

    def reset_sums(self) -> None:
        arrays = self.held[0]
        zeros = self.compiled.spread(jax.tree.map(np.zeros_like, jax.device_get(arrays.sums)))
        self.held = eqx.tree_at(lambda held: held.sums, arrays, zeros), *self.held[1:]

    def steps(self) -> np.ndarray:
        return np.asarray(self.held[0].step)[self._row]

    def state(self, row: int) -> TrainingState:
        place = int(self._row[row])
        return eqx.combine(jax.tree.map(lambda leaf: _row_of(leaf, place), self.held[0]), self._static)

    def saved(self) -> tuple[PyTree, dict[str, Any]]:
        """The arrays of all states, `[members, ...]`, and the indices of their members."""
        return _take(self.held[0], self._row), {
            "waves": [list(ids) for ids in self._waves],
            "wave": list(self.ids),
            "live": self.live.tolist(),
            "steps": self.steps().tolist(),
            "group_size": self.compiled.layout.size,
        }

    def restore(self, saved: PyTree, metadata: dict[str, Any]) -> None:
        """Restores what `saved` returned; a member that stopped stays so: the others have trained on without it."""
        self._load(saved, np.array(metadata["live"]))

    def _select(self, rows: np.ndarray, new: PyTree, old: PyTree) -> PyTree:
        """`new` in the rows chosen, `old` in the others."""
        return _choose(self.compiled.spread(rows), new, old)


# Rows travel between devices through the host: a gather across devices would need a collective, which CPU devices
# that share two cores may wait for without end.


def _take(tree: PyTree, rows: np.ndarray) -> PyTree:
    """Copies these rows of arrays to the default device."""

    def take(leaf: Array) -> Array:
        if is_key(leaf):
            data = np.asarray(jax.random.key_data(leaf))[rows]
            return jax.random.wrap_key_data(jnp.asarray(data), impl=jax.random.key_impl(leaf))
        return jnp.asarray(np.asarray(leaf)[rows])

    return jax.tree.map(take, tree)


def _row_of(leaf: Array, row: int) -> Array:
    """Reads one row from its device."""
    for shard in leaf.addressable_shards:
        start = shard.index[0].start or 0
        if start <= row < start + shard.data.shape[0]:
            return jax.device_put(shard.data[row - start], jax.local_devices()[0])
    raise IndexError(row)


@jax.jit
def _choose(rows: Array, new: PyTree, old: PyTree) -> PyTree:
    def choose(a: Array, b: Array) -> Array:
        return jnp.where(rows.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)
