"""The members of a sweep that are under way together: their states, and who has stopped."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from vicinal.keys import is_key
from vicinal.train.advance import TrainingState
from vicinal.train.fleet import Fleet, row_of


class Wave:
    """Members that run together; one whose next step would break a number is frozen at its last good state.

    The states of the members lie in rows, on the devices of the fleet. Rows of frozen members, and those that only
    fill up the layout, are not live: what is computed for them is thrown away.

    Args:
        fleet: The compiled steps.
        states: Of each member.
        numbers: Of each member, by name.
        orders: For each member the row of its order of the examples.
    """

    def __init__(self, fleet: Fleet, states: list[TrainingState], numbers: list[dict[str, float]], orders: list[int]):
        self.fleet, self.members = fleet, len(states)
        self._static = eqx.partition(states[0], eqx.is_array)[1]
        stacked = jax.tree.map(
            lambda *leaves: jnp.stack(leaves), *[eqx.filter(state, eqx.is_array) for state in states]
        )
        columns = {name: jnp.asarray([row[name] for row in numbers], float) for name in numbers[0]}
        self._given = columns, jnp.asarray(orders)
        self.load(stacked, np.ones(self.members, bool))

    def load(self, stacked: PyTree, live: np.ndarray) -> None:
        """Takes the states that `stacked` gave, with these members live."""
        rows = np.minimum(np.arange(self.fleet.layout.rows), self.members - 1)
        self.held = self.fleet.spread(_take((stacked, *self._given), rows))
        self._row = np.arange(self.members)
        self._live = np.zeros(len(rows), bool)
        self._live[: self.members] = live
        self._balance()

    @property
    def live(self) -> np.ndarray:
        """Whether each member goes on."""
        return self._live[self._row]

    def advance(self, orders: Array, index: int, count: int) -> None:
        """Takes `count` steps from batch `index` on with each live member, or as many as leave its numbers finite."""
        start = self.held
        new, good = self.fleet.advance(start, np.where(self._busy(), count, 0), orders, index)
        arrays, broken = self._select(self._live & good, new, start[0]), self._live & ~good
        if broken.any():
            arrays = self._freeze(arrays, start, broken, orders, index, count)
        self.held, self._live = (arrays, *start[1:]), self._live & good
        if broken.any():
            self._balance()

    def stop(self, members: list[int]) -> None:
        """Freezes members as they are."""
        self._live = self._live.copy()  # `mark` may hold it
        self._live[self._row[members]] = False
        self._balance()

    def mark(self) -> Any:
        """Where the wave is, for `back_to`."""
        return self.held, self._live, self._row

    def back_to(self, mark: Any) -> None:
        """Undoes what was done since `mark`."""
        self.held, self._live, self._row = mark

    def bytes_needed(self, orders: Array) -> int:
        """The memory that taking steps needs, the data left out."""
        return self.fleet.bytes_needed(self.held, orders)

    def seconds_per_step(self, orders: Array, *, roughly: bool = False) -> float:
        """How long a step of all members takes; measured on a few steps, or for half a second."""
        return self.fleet.seconds_per_step(self.held, orders, roughly)

    def _freeze(
        self, arrays: PyTree, start: PyTree, broken: np.ndarray, orders: Array, index: int, count: int
    ) -> PyTree:
        """`arrays` with each broken row at its last good state, found by bisection, in all groups at once.

        The rows of a group take the same number of steps, so a group with several broken rows finds them in turn.
        """
        size = self.fleet.layout.size
        waiting = [list(np.flatnonzero(rows) + i * size) for i, rows in enumerate(broken.reshape(-1, size))]
        while any(waiting):
            row = np.array([rows.pop() if rows else -1 for rows in waiting])
            good, bad = np.zeros(len(row), int), np.where(row >= 0, count, 0)
            while (bad - good > 1).any():
                middle = np.where(bad - good > 1, (good + bad) // 2, 0)
                new, finite = self.fleet.advance(start, middle, orders, index)
                better = (middle > 0) & finite[row]
                good, bad = np.where(better, middle, good), np.where((middle > 0) & ~better, middle, bad)
                chosen = np.isin(np.arange(len(broken)), row[better])
                arrays = self._select(chosen, new, arrays)
        return arrays

    def _balance(self) -> None:
        """Packs the live rows into as few groups as possible, as many on each device, if that makes a chunk shorter."""
        layout = self.fleet.layout
        busiest = self._busy().reshape(layout.devices, -1).sum(axis=1).max()
        live, rest = np.flatnonzero(self._live), list(np.flatnonzero(~self._live))
        if -(-len(live) // (layout.devices * layout.size)) >= busiest:
            return
        rows: list[int] = []
        for device in range(layout.devices):
            own = list(live[device :: layout.devices])
            rows += own + [rest.pop() for _ in range(layout.groups * layout.size - len(own))]
        held = self.fleet.spread(_take(self.held, np.array(rows)))
        self.held, self._live, self._row = held, self._live[rows], np.argsort(rows)[self._row]

    def _busy(self) -> np.ndarray:
        """Whether each group has a live row."""
        return np.any(self._live.reshape(-1, self.fleet.layout.size), axis=1)

    def evaluate(self) -> list[dict[str, float]]:
        """`test_loss` and so on, of each member; without meaning for one that is not live."""
        found = self.fleet.evaluate(self.held, self._busy())
        return [found[row] for row in self._row]

    def sums(self) -> list[dict[str, Any]]:
        """What each member has summed since `reset_sums`."""
        held = jax.device_get(self.held[0].sums)
        return [row_of(held, int(row)) for row in self._row]

    def reset_sums(self) -> None:
        """Begins the sums anew."""
        arrays = self.held[0]
        zeros = self.fleet.spread(jax.tree.map(np.zeros_like, jax.device_get(arrays.sums)))
        self.held = eqx.tree_at(lambda held: held.sums, arrays, zeros), *self.held[1:]

    def steps(self) -> np.ndarray:
        """The updates that each member has taken."""
        return np.asarray(self.held[0].step)[self._row]

    def state(self, member: int) -> TrainingState:
        """The state of a member."""
        row = int(self._row[member])
        return eqx.combine(jax.tree.map(lambda leaf: _row_of(leaf, row), self.held[0]), self._static)

    def stacked(self) -> PyTree:
        """The arrays of all states, `[members, ...]`."""
        return _take(self.held[0], self._row)

    def _select(self, rows: np.ndarray, new: PyTree, old: PyTree) -> PyTree:
        """`new` in the rows chosen, `old` in the others."""
        return _choose(self.fleet.spread(rows), new, old)


# Rows travel between devices through the host: a gather across devices would need a collective, which CPU devices
# that share two cores may wait for without end.


def _take(tree: PyTree, rows: np.ndarray) -> PyTree:
    """These rows of arrays on any devices, on the default one."""

    def take(leaf: Array) -> Array:
        if is_key(leaf):
            data = np.asarray(jax.random.key_data(leaf))[rows]
            return jax.random.wrap_key_data(jnp.asarray(data), impl=jax.random.key_impl(leaf))
        return jnp.asarray(np.asarray(leaf)[rows])

    return jax.tree.map(take, tree)


def _row_of(leaf: Array, row: int) -> Array:
    """One row, from the device where it lies."""
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
