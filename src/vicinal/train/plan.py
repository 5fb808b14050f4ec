"""What a sweep runs: its members, their first states, how they share memory and devices."""

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree

from vicinal._numbers import weakened
from vicinal.graph import OUTPUT, Graph
from vicinal.roles import Where
from vicinal.rules import Rule
from vicinal.train.advance import TrainingState, first_not_finite, first_state, may_be_infinite, take_steps
from vicinal.train.arguments import check_model, graph_of
from vicinal.train.batches import ArraySource, StackedBatches
from vicinal.train.checks import check_examples
from vicinal.train.combinations import Group, Value
from vicinal.train.diagnosis import Facts, after_the_rule, diagnosis, look
from vicinal.train.evaluate import first_sums
from vicinal.train.fingerprint import Fingerprint, fingerprint
from vicinal.train.fleet import Fleet, Layout, Make
from vicinal.train.metrics import metrics_of
from vicinal.train.wave import Wave

COPIES = 4  # of a member's state: the last good one, the new one, and those that the compiled loop carries

SAVED, MEASURING_SECONDS = 0.5, 0.5
"""What another group size saves at most, as a share of the time; and how long it is measured."""


def keys_of(seed: int) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    """The keys of a seed: for the model's weights, and for training.

    Raises:
        ValueError: If the seed does not fit 32 bits.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"expected a seed from 0 to {2**32 - 1}, got {seed}")
    model_key, train_key = jax.random.split(jax.random.key(seed))
    return model_key, train_key


class Plan:
    """What is run: members, their data, and how their first states are made.

    Args:
        make: From numbers to rule and optimiser.
        build: From a key to a model.
        arrays: Training data, and what to evaluate on, by name.
        batch_size: Examples in a batch.
        runs: Numbers and seed of each member.
        graph: The captured graph, or None.
        devices: Where to run.
        metrics: Metrics of one's own, or None.
        fixed: What of a model never changes, or None.
        group: Those of the runs that are meant, and which of their numbers can be traced; by default all.
    """

    def __init__(
        self,
        make: Make,
        build: Callable[[PRNGKeyArray], PyTree],
        arrays: tuple[tuple[PyTree, PyTree], dict[str, tuple[PyTree, PyTree]]],
        batch_size: int,
        runs: list[tuple[dict[str, Value], int]],
        graph: Graph | None,
        devices: list[jax.Device],
        metrics: Mapping[str, Callable] | None = None,
        fixed: Where | None = None,
        group: Group | None = None,
    ):
        self.make, self.runs, self.devices = make, runs, devices
        self.members = list(range(len(runs))) if group is None else group.members
        self._traced = tuple(runs[0][0]) if group is None else group.traced
        self._data, self._sets = arrays
        self._seeds = list(dict.fromkeys(runs[i][1] for i in self.members))
        self._keys = {seed: tuple(jax.random.split(keys_of(seed)[1], 3)) for seed in self._seeds}
        self._sources = [ArraySource(*self._data, batch_size, self._keys[seed][0]) for seed in self._seeds]
        self._model = functools.lru_cache(maxsize=64)(lambda seed: build(keys_of(seed)[0]))
        check_model(self._model(self._seeds[0]))
        self._batch_size = self._sources[0].batch_size
        self._example = self._sources[0].example()
        self.graph = graph_of(graph, fixed, self._model(self._seeds[0]), self._example, self._batch_size)
        loss, output = make(**runs[self.members[0]][0])[0].loss, self.graph.shapes[OUTPUT]
        for name, part in {"training": self._data, **self._sets}.items():
            check_examples(self.graph, loss, self._model(self._seeds[0]), part, f"the {name} set")
        self.metrics = metrics_of(loss, output, *self._data, metrics)
        self._sums = first_sums(self.graph, self.metrics, self._data[1])
        self._measured = {n: metrics_of(loss, output, *arrays, metrics) for n, arrays in self._sets.items()}
        self._fleets: dict[Layout, Fleet] = {}
        self._order: tuple[Any, Any] = (None, None)
        self.description = {
            "batch_size": self._batch_size,
            "steps_per_epoch": self._sources[0].steps_per_epoch,
            "members": [{"seed": seed, "numbers": row} for row, seed in runs],
        }

    def fingerprint(self) -> Fingerprint:
        """The digests of what a resumed sweep must have in common beside `description`: those of its first member."""
        first, (rule, optimizer) = self.first(self.members[0]), self.make(**self.runs[self.members[0]][0])
        data = {"training data": self._data} | {f"{name} set": part for name, part in self._sets.items()}
        return fingerprint(rule, self.graph, optimizer, first.model, first.optimizer_state, data)

    @property
    def batch_size(self) -> int:
        """Examples in a batch."""
        return self._batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self._sources[0].steps_per_epoch

    @property
    def compilations(self) -> int:
        """How many layouts were compiled."""
        return len(self._fleets)

    def first(self, i: int) -> TrainingState:
        """The first state of a member."""
        numbers, seed = self.runs[i]
        rule, optimizer = self.make(**(numbers | self._columns(i)))
        _, rule_key, step_key = self._keys[seed]
        parts = (rule, self.graph, optimizer, self.metrics)
        return first_state(parts, self._model(seed), self._example, self._sums, rule_key=rule_key, step_key=step_key)

    def _columns(self, i: int) -> dict[str, float]:
        """The numbers of a member that are traced, as the compiled steps have them."""
        return {name: float(cast(float, self.runs[i][0][name])) for name in self._traced}

    def share(self, other: "Plan") -> None:
        """Takes the data from where another plan put them."""
        self._data, self._sets = other._data, other._sets

    def choose(self, memory: int, size: int | None, steps: int) -> tuple[list[list[int]], Fleet]:
        """The members that run together, wave by wave, so that each fits into so many bytes; and their fleet.

        A first guess is from the size of the states; the compiler's count then says whether it was enough.

        Args:
            memory: Bytes.
            size: Members side by side, or None to find out.
            steps: How many each member will take.
        """
        copies = len(self.devices) if self.devices[0].platform == "cpu" else 1  # of the data, in the same memory
        orders = len(self._seeds) * self._sources[0].order_bytes
        room = memory - copies * (_bytes((self._data, self._sets)) + orders)
        each = COPIES * _bytes(self.first(self.members[0]))
        members, needed = min(len(self.members), room // each), each
        while members >= 1:
            waves = self._waves(members)
            ahead = steps * len(waves)
            fleet = self.calibrate(waves[0], ahead) if size is None else self.fleet(len(waves[0]), size)
            needed = self.wave(fleet, waves[0]).bytes_needed(self.orders(fleet, 0, 1)[0])
            if needed <= room:
                return waves, fleet
            members = min(len(waves[0]) - 1, len(waves[0]) * room // needed)
        raise ValueError(
            f"expected memory of at least {(memory - room + needed) / 1e6:.3g} MB, for the data and one member, "
            f"got {memory / 1e6:.3g} MB; take less data or a smaller model"
        )

    def _waves(self, members: int) -> list[list[int]]:
        """All members in as few waves as possible, of nearly the same length, and of at most so many."""
        count = -(-len(self.members) // members)
        length = -(-len(self.members) // count)
        return [self.members[start : start + length] for start in range(0, len(self.members), length)]

    def fleet(self, members: int, size: int) -> Fleet:
        """The compiled steps of so many members in groups of a size; the same again if it was made before."""
        layout = Layout.of(members, len(self.devices), size)
        if layout not in self._fleets:
            data, measured = (self._data, self._sets), (self.metrics, self._measured)
            first = self.first(self.members[0])
            static, given = eqx.partition(first, eqx.is_array)[1], (self._batch_size, data, measured)
            fleet = Fleet(self.make, self.graph, layout, self.devices, *given, static, may_be_infinite(first))
            self._data, self._sets = fleet.data, fleet.sets  # the next one need not copy them again
            self._fleets[layout] = fleet
        return self._fleets[layout]

    def wave(self, fleet: Fleet, members: Sequence[int]) -> Wave:
        """Members under way from their first states; a wave with fewer than the fleet has room for fits too."""
        row = {seed: i for i, seed in enumerate(self._seeds)}
        numbers, orders = [self._columns(i) for i in members], [row[self.runs[i][1]] for i in members]
        return Wave(fleet, [self.first(i) for i in members], numbers, orders)

    def calibrate(self, members: Sequence[int], steps: int) -> Fleet:
        """The fleet whose group size takes a step of these members in the least time.

        On a CPU small groups keep their weights in the cache and large ones spend less on each operation; so sizes
        1, 4, 16, ... are tried until one is slower, or the steps ahead are too few to pay for another compilation.
        Other devices want all members at once.
        """
        per_device = -(-len(members) // len(self.devices))
        if self.devices[0].platform != "cpu" or per_device == 1:
            return self.fleet(len(members), per_device)
        best, fastest = self.fleet(len(members), 1), math.inf
        for size in [*itertools.takewhile(lambda n: n < per_device, (4**i for i in range(8))), per_device]:
            fleet = self.fleet(len(members), size)
            wave, orders = self.wave(fleet, members), self.orders(fleet, 0, 1)[0]
            rough = wave.seconds_per_step(orders, roughly=True)
            if size == 1 and not another_pays(rough, steps, fleet.seconds_to_compile):
                return fleet
            seconds = wave.seconds_per_step(orders)
            if seconds > fastest:
                break
            best, fastest = fleet, seconds
            if not another_pays(fastest, steps, fleet.seconds_to_compile):
                break
        return best

    def why_it_stopped(self, i: int, state: TrainingState) -> str:
        """What the next update of a member meets that is not finite, as for a single run; compiled for all at once."""
        seed, step = self.runs[i][1], int(state.step)
        batches, index, _ = self._sources[self._seeds.index(seed)].chunk(step, 1)
        batch, key = batches.get(jnp.int32(index)), jax.random.fold_in(state.key, state.step)
        traced = {name: jnp.asarray(value, float) for name, value in self._columns(i).items()}
        see = functools.partial(self._look, traced)
        found = diagnosis(see, self.graph, state.model, state.rule_state, batch, key, step)
        if found is not None:
            return found
        broken = first_not_finite(self._next(traced, state, batch), may_be_infinite(self.first(i)))
        return after_the_rule(broken, state.model)

    @functools.cached_property
    def _look(self) -> Callable[..., Facts]:
        return eqx.filter_jit(lambda numbers, *given: look(self._made(numbers)[0], *given))

    @functools.cached_property
    def _next(self) -> Callable[..., TrainingState]:
        def after(numbers: dict[str, Any], state: TrainingState, batch: PyTree) -> TrainingState:
            one = StackedBatches(*jax.tree.map(lambda leaf: leaf[None], batch))
            rule, optimizer = self._made(numbers)
            return take_steps((rule, self.graph, optimizer, self.metrics), one, state, jnp.int32(0), jnp.int32(1))

        return eqx.filter_jit(after)

    def _made(self, numbers: dict[str, Any]) -> tuple[Rule, optax.GradientTransformation]:
        return self.make(**{name: weakened(value) for name, value in numbers.items()})

    def orders(self, fleet: Fleet, step: int, count: int) -> tuple[jax.Array, int, int]:
        """Orders of the examples around a step, `[seeds, positions]`; the index of its batch; how many of `count`."""
        chunks = [source.chunk(step, count) for source in self._sources]
        block = (fleet.layout.devices, *(id(batches) for batches, _, _ in chunks))
        if self._order[0] != block:
            self._order = block, fleet.everywhere(jnp.stack([batches.order for batches, _, _ in chunks]))
        return self._order[1], chunks[0][1], chunks[0][2]


def another_pays(seconds_per_step: float, steps: int, seconds_to_compile: float) -> bool:
    """Whether trying another group size may save more time than it takes.

    Half of the time is what a better size saves at most, as a rule. So what is lost by a wrong answer is never much
    more than a compilation.

    Args:
        seconds_per_step: Of the best size so far.
        steps: Those ahead.
        seconds_to_compile: What the last compilation took.

    Example:
        >>> another_pays(1e-3, steps=1000, seconds_to_compile=4.0)
        False
        >>> another_pays(1e-3, steps=20_000, seconds_to_compile=4.0)
        True
    """
    return SAVED * seconds_per_step * steps > seconds_to_compile + MEASURING_SECONDS


def _bytes(tree: PyTree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree) if eqx.is_array(leaf) or isinstance(leaf, np.ndarray))


def free_bytes(devices: list[jax.Device]) -> int:
    """The memory that is free: of the devices where they say so, else of the machine."""
    stats = [device.memory_stats() if device.platform != "cpu" else None for device in devices]
    if all(found and "bytes_limit" in found for found in stats):
        return sum(found["bytes_limit"] - found["bytes_in_use"] for found in stats if found)
    found = [_read_bytes("/proc/meminfo", "MemAvailable:", 1024)]
    limit, used = (_read_bytes(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    found.append(None if limit is None or used is None else limit - used)
    known = [value for value in found if value is not None]
    return min(known) if known else 2**32  # a system that does not tell


def _read_bytes(path: str, name: str = "", unit: int = 1) -> int | None:
    """The number of a line that begins with a name, in a file of the system; None if it is not there."""
    with contextlib.suppress(OSError):
        for line in Path(path).read_text().splitlines():
            words = line.removeprefix(name).split()
            if line.startswith(name) and words and words[0].isdigit():
                return unit * int(words[0])
    return None
