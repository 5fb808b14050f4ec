"""Members of a sweep that share a program: their first states, their batches, and why one of them stopped."""

import functools
from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import PRNGKeyArray, PyTree

from vicinal._counted import counted
from vicinal._numbers import weakened
from vicinal.graph import OUTPUT, Graph
from vicinal.roles import Where
from vicinal.rules import Rule
from vicinal.train.advance import TrainingState, first_not_finite, first_state, may_be_infinite, take_steps
from vicinal.train.arguments import check_model, graph_of
from vicinal.train.batches import ArraySource, StackedBatches
from vicinal.train.checks import check_examples
from vicinal.train.combinations import SharedProgram, Value
from vicinal.train.compiled import CompiledSteps, Examples, Layout
from vicinal.train.diagnosis import Facts, after_the_rule, diagnosis, look
from vicinal.train.evaluate import first_sums
from vicinal.train.fingerprint import Fingerprint, fingerprint
from vicinal.train.metrics import metrics_of
from vicinal.train.needs import check_build, check_training
from vicinal.train.options import Options


def keys_of(seed: int) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    """The keys of a seed: for the model's weights, and for training.

    Raises:
        ValueError: If the seed does not fit 32 bits.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"expected a seed from 0 to {2**32 - 1}, got {seed}")
    model_key, train_key = jax.random.split(jax.random.key(seed))
    return model_key, train_key


class Part:
    """The members of a sweep that share a program, and what they have in common.

    Args:
        program: The members, the functions that make their rules and models, and the names of their traced numbers.
        runs: Numbers and seed of each member of the sweep.
        examples: Arrays to train and to evaluate on.
        options: Batch size and metrics.
        devices: Where to run.
        graph: The captured graph, or None.
        fixed: Returns the parts of a model that never change; or None.

    Attributes:
        members: The indices of the members in the sweep.
        runs: As given.
        examples: As given.
        devices: As given.
        graph: The graph of their models.
        metrics: What is measured in training.
        batch_size: Examples in a batch.
        steps_per_epoch: Whole batches in an epoch.
    """

    def __init__(
        self,
        program: SharedProgram,
        runs: list[tuple[dict[str, Value], int]],
        examples: Examples,
        options: Options,
        devices: list[jax.Device],
        graph: Graph | None = None,
        fixed: Where | None = None,
    ):
        self._program, self.members = program, program.members
        self.runs, self.examples, self.devices = runs, examples, devices
        numbers, _ = runs[self.members[0]]
        build = functools.partial(program.build, **{name: numbers[name] for name in program.of_build})
        check_build(build, 2, "the model and the next one")
        check_build(build, len(self.members), f"{counted(len(self.members), 'model')} at the end")
        self._seeds = list(dict.fromkeys(runs[i][1] for i in self.members))
        self._keys = {seed: tuple(jax.random.split(keys_of(seed)[1], 3)) for seed in self._seeds}
        orders = (self._keys[seed][0] for seed in self._seeds)
        self._sources = [ArraySource(*examples.data, options.batch_size, key) for key in orders]
        self.batch_size, self.steps_per_epoch = self._sources[0].batch_size, self._sources[0].steps_per_epoch
        self._example = self._sources[0].example()
        self._built = functools.lru_cache(maxsize=64)(
            lambda seed, numbers: program.build(keys_of(seed)[0], **dict(numbers))
        )
        model = self._model(self.members[0])
        check_model(model)
        self.graph = graph_of(graph, fixed, model, self._example, self.batch_size)
        rule, optimizer = program.make(**numbers)
        check_training(rule, self.graph, optimizer, model, self.batch_size, self._keys[self._seeds[0]][1])
        loss, output = rule.loss, self.graph.shapes[OUTPUT]
        for name, arrays in {"training": examples.data, **examples.sets}.items():
            check_examples(self.graph, loss, model, arrays, f"the {name} set")
        self.metrics = metrics_of(loss, output, *examples.data, options.metrics)
        self._sums = first_sums(self.graph, self.metrics, examples.data[1], rule.sends_events)
        of_sets = {name: metrics_of(loss, output, *arrays, options.metrics) for name, arrays in examples.sets.items()}
        self._of_sets, self._compiled = of_sets, dict[Layout, CompiledSteps]()
        self._order: tuple[Any, Any] = (None, None)

    def fingerprint(self) -> Fingerprint:
        """The digests that a resumed sweep must share, in addition to its settings: those of the first member."""
        numbers, _ = self.runs[self.members[0]]
        first, (rule, optimizer) = self.first(self.members[0]), self._program.make(**numbers)
        sets = {f"{name} set": arrays for name, arrays in self.examples.sets.items()}
        data = {"training data": self.examples.data} | sets
        return fingerprint(rule, self.graph, optimizer, first.model, first.optimizer_state, data)

    def first(self, i: int) -> TrainingState:
        """The first state of a member."""
        numbers, seed = self.runs[i]
        rule, optimizer = self._program.make(**(numbers | self.columns(i)))
        _, rule_key, step_key = self._keys[seed]
        parts = (rule, self.graph, optimizer, self.metrics)
        return first_state(parts, self._model(i), self._example, self._sums, rule_key=rule_key, step_key=step_key)

    def _model(self, i: int) -> PyTree:
        """The first model of a member; made once for the members that share it."""
        numbers, seed = self.runs[i]
        return self._built(seed, tuple((name, numbers[name]) for name in self._program.of_build))

    def columns(self, i: int) -> dict[str, float]:
        """The traced numbers of a member, as arguments of the compiled steps."""
        return {name: float(cast(float, self.runs[i][0][name])) for name in self._program.traced}

    def compiled(self, members: int, size: int) -> CompiledSteps:
        """The compiled steps of this many members in groups of this size; made once for each layout."""
        layout = Layout.of(members, len(self.devices), size)
        if layout not in self._compiled:
            first, make = self.first(self.members[0]), self._program.make
            static, exempt = eqx.partition(first, eqx.is_array)[1], may_be_infinite(first)
            measured = self.metrics, self._of_sets
            self._compiled[layout] = CompiledSteps(
                make, self.graph, layout, self.devices, self.batch_size, self.examples, measured, static, exempt
            )
        return self._compiled[layout]

    @property
    def compilations(self) -> int:
        """The number of compiled layouts."""
        return len(self._compiled)

    @property
    def order_bytes(self) -> int:
        """The memory of the orders of the examples."""
        return len(self._seeds) * self._sources[0].order_bytes

    def order_of(self, i: int) -> int:
        """The row of a member's order of the examples in `orders`."""
        return self._seeds.index(self.runs[i][1])

    def orders(self, compiled: CompiledSteps, step: int, count: int) -> tuple[jax.Array, int, int]:
        """Orders of the examples around a step, `[seeds, positions]`; the index of its batch; how many of `count`."""
        chunks = [source.chunk(step, count) for source in self._sources]
        block = (compiled.layout.devices, *(id(batches) for batches, _, _ in chunks))
        if self._order[0] != block:
            self._order = block, compiled.everywhere(jnp.stack([batches.order for batches, _, _ in chunks]))
        return self._order[1], chunks[0][1], chunks[0][2]

    def why_it_stopped(self, i: int, state: TrainingState) -> str:
        """Why the next update of a member is non-finite, as for a single run; compiled once for all members."""
        step = int(state.step)
        batches, index, _ = self._sources[self.order_of(i)].chunk(step, 1)
        batch, key = batches.get(jnp.int32(index)), jax.random.fold_in(state.key, state.step)
        traced = {name: jnp.asarray(value, float) for name, value in self.columns(i).items()}
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
        return self._program.make(**{name: weakened(value) for name, value in numbers.items()})
