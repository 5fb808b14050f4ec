"""Many runs side by side: their layout on devices, and their compiled steps.

Each device holds groups of members. It takes the groups one after another, each for a whole chunk of steps, so that
the weights of a group stay in the cache; the members of a group are mapped side by side. A group of one member is
not mapped at all: its code is that of a single run.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from vicinal._numbers import weakened
from vicinal.graph import Graph
from vicinal.rules import Rule
from vicinal.train.advance import TrainingState, all_finite, take_steps
from vicinal.train.batches import ArrayBatches
from vicinal.train.evaluate import summary, totals
from vicinal.train.metrics import Metrics

Make = Callable[..., tuple[Rule, optax.GradientTransformation]]
"""From the numbers that vary, by name, to a rule and an optimiser; called with traced numbers too."""

_AXIS = "members"


class Layout(NamedTuple):
    """The layout of members: `devices * groups * size` rows, some of which may be padding.

    Attributes:
        devices: Number of devices.
        groups: Groups per device, which run one after another.
        size: Members in a group, which are mapped by `vmap`.
    """

    devices: int
    groups: int
    size: int

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.devices * self.groups * self.size

    @classmethod
    def of(cls, members: int, devices: int, size: int) -> "Layout":
        """The smallest layout for this many members in groups of this size."""
        devices = min(devices, members)
        size = min(size, -(-members // devices))
        return cls(devices, -(-members // (devices * size)), size)


class Examples:
    """Arrays to train and to evaluate on, shared by all members of a sweep.

    Args:
        data: Inputs and targets to train on, `[examples, ...]` each.
        sets: The same to evaluate on, by the name that records give it.

    Attributes:
        data: As given, where they were last put.
        sets: The same.
    """

    def __init__(self, data: tuple[PyTree, PyTree], sets: dict[str, tuple[PyTree, PyTree]]):
        self.data, self.sets = data, sets

    def put(self, sharding: NamedSharding) -> None:
        """Moves the arrays to a sharding; copies nothing if they are there already."""
        self.data, self.sets = jax.device_put(jax.tree.map(jnp.asarray, (self.data, self.sets)), sharding)


class CompiledSteps:
    """The compiled steps of many members.

    Args:
        make: Makes rule and optimiser from the numbers of a member.
        graph: The captured graph.
        layout: The layout of the members.
        devices: At least as many as the layout needs.
        batch_size: Examples in a batch.
        examples: What to train and to evaluate on; copied to every device.
        measured: The metrics in training, and those of each set.
        static: What the states of all members have in common beside their arrays.
        exempt: The leaves that may be infinite; see `may_be_infinite`.

    Attributes:
        layout: As given.
        seconds_to_compile: How long compiling the steps took; 0 until they are.
    """

    def __init__(
        self,
        make: Make,
        graph: Graph,
        layout: Layout,
        devices: Sequence[jax.Device],
        batch_size: int,
        examples: Examples,
        measured: tuple[Metrics, dict[str, Metrics]],
        static: TrainingState,
        exempt: tuple[str, ...] = (),
    ):
        self.layout = layout
        mesh = Mesh(np.asarray(devices[: layout.devices]), (_AXIS,))
        self._split, self._copied = (NamedSharding(mesh, spec) for spec in (PartitionSpec(_AXIS), PartitionSpec()))
        examples.put(self._copied)
        self._data, self._sets = examples.data, examples.sets
        seen, self._measured = measured

        def steps(member: PyTree, count: Array, orders: Array, data: Any, index: Array) -> tuple[PyTree, Array]:
            arrays, numbers, which = member
            # Weakly typed, like the Python numbers of a single run, so that they take the dtype of their operands.
            rule, optimizer = make(**{name: weakened(value) for name, value in numbers.items()})
            batches = ArrayBatches(data[0], data[1], orders[which], batch_size)
            new = take_steps((rule, graph, optimizer, seen), batches, eqx.combine(arrays, static), index, count)
            return eqx.filter(new, eqx.is_array), all_finite(new, exempt)

        def measure(member: PyTree, asked: Array, sets: Any) -> PyTree:
            arrays, numbers, _ = member
            model, loss = eqx.combine(arrays, static).model, make(**numbers)[0].loss

            def found() -> PyTree:
                each = ((name, *sets[name], wanted) for name, wanted in self._measured.items())
                return {name: totals(graph, model, loss, x, y, wanted) for name, x, y, wanted in each}

            nothing = jax.tree.map(lambda like: jnp.full(like.shape, jnp.nan, like.dtype), jax.eval_shape(found))
            return jax.lax.cond(asked > 0, found, lambda: nothing)

        self._steps = _on_devices(steps, layout, mesh, extra=3)
        self._measure = _on_devices(measure, layout, mesh, extra=1)
        self._step: Any = None
        self.seconds_to_compile = 0.0

    def everywhere(self, tree: PyTree) -> PyTree:
        """A copy on every device."""
        return jax.device_put(jax.tree.map(jnp.asarray, tree), self._copied)

    def spread(self, members: PyTree) -> PyTree:
        """The rows of a tree of arrays `[rows, ...]` on their devices."""
        return jax.device_put(members, self._split)

    def advance(self, members: PyTree, counts: np.ndarray, orders: Array, index: int) -> tuple[PyTree, np.ndarray]:
        """Takes steps.

        Args:
            members: `(arrays of the states, numbers, row of its order)`, `[rows, ...]` each.
            counts: Steps of each group, `[devices * groups]`.
            orders: Orders of the examples, `[seeds, positions]`, on every device.
            index: The index of the first batch.

        Returns:
            The arrays of the new states, and whether all watched numbers are finite, `[rows]`.
        """
        counts = self.spread(counts.astype(np.int32))
        arrays, good = self._compiled(members, orders)(members, counts, orders, self._data, np.int32(index))
        return arrays, np.asarray(good)

    def bytes_needed(self, members: PyTree, orders: Array) -> int:
        """The memory that `advance` takes, on all devices: the compiler's count for old and new states and what is
        held on the way, and once more the new ones, for a member that diverges. The data are left out."""
        found = self._compiled(members, orders).memory_analysis()
        held = found.temp_size_in_bytes + 2 * found.output_size_in_bytes
        return self.layout.devices * held + sum(leaf.nbytes for leaf in jax.tree.leaves(members))

    def _compiled(self, members: PyTree, orders: Array) -> Any:
        if self._step is None:
            counts = self.spread(np.zeros(self.layout.devices * self.layout.groups, np.int32))
            begun = time.perf_counter()
            self._step = self._steps.lower(members, counts, orders, self._data, np.int32(0)).compile()
            self.seconds_to_compile = time.perf_counter() - begun
        return self._step

    def evaluate(self, members: PyTree, asked: np.ndarray) -> list[dict[str, float]]:
        """`test_loss` and so on, of each row of the groups asked for; empty without sets to evaluate on."""
        if not self._sets:
            return [{}] * self.layout.rows
        found = jax.device_get(self._measure(members, self.spread(asked.astype(np.int32)), self._sets))
        return [self._record(row_of(found, row)) for row in range(self.layout.rows)]

    def _record(self, found: dict[str, Any]) -> dict[str, float]:
        each = {name: summary(wanted, found[name]) for name, wanted in self._measured.items()}
        return {f"{name}_{metric}": value for name, row in each.items() for metric, value in row.items()}

    def seconds_per_step(self, members: PyTree, orders: Array, roughly: bool) -> float:
        """How long a step of all members takes, compilation left out; measured on two, or for half a second."""
        groups = self.layout.devices * self.layout.groups

        def time_of(steps: int) -> float:
            begun = time.perf_counter()
            self.advance(members, np.full(groups, steps), orders, 0)
            taken = time.perf_counter() - begun
            return taken / steps if taken > 0 else math.inf  # unknown, as the clock went back

        time_of(1)
        two = time_of(2)
        if roughly:
            return two
        rough = time_of(max(1, int(0.05 / two)))
        return min(time_of(max(1, int(0.2 / rough))) for _ in range(2))


def row_of(tree: PyTree, row: int) -> PyTree:
    """One row of arrays `[rows, ...]` on the host."""
    return jax.tree.map(lambda leaf: leaf[row], tree)


def _on_devices(function: Callable, layout: Layout, mesh: Mesh, extra: int) -> Any:
    """Compiles `function(member, count, *shared)` of one member for all rows, `shared` being `extra` arguments."""

    def group(member: PyTree, count: Array, *shared: Any) -> PyTree:
        def run(member: PyTree) -> PyTree:
            return function(member, count, *shared)

        if layout.size > 1:
            return jax.vmap(run)(member)
        alone = run(jax.tree.map(lambda leaf: leaf[0], member))
        return jax.tree.map(lambda leaf: leaf[None], alone)

    def device(members: PyTree, counts: Array, *shared: Any) -> PyTree:
        grouped = jax.tree.map(lambda leaf: leaf.reshape(layout.groups, layout.size, *leaf.shape[1:]), members)
        done = jax.lax.map(lambda one: group(*one, *shared), (grouped, counts))
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), done)

    split, copied = PartitionSpec(_AXIS), PartitionSpec()
    specs = (split, split, *[copied] * extra)
    return jax.jit(jax.shard_map(device, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False))
