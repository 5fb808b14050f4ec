"""The compiled loop of a run: its state, many steps in one call, and the return to the last good state."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree

from vicinal._numbers import is_finite
from vicinal.graph import Graph
from vicinal.rules import Rule
from vicinal.train.diagnosis import after_the_rule, diagnosis, look_compiled
from vicinal.train.evaluate import measured
from vicinal.train.metrics import Metrics
from vicinal.train.totals import add

Parts = tuple[Rule, Graph, optax.GradientTransformation, Metrics]
"""The fixed parts of a run: rule, graph, optimiser and metrics."""


class TrainingState(eqx.Module):
    """All that changes during training, and all that a checkpoint holds.

    Attributes:
        model: The model.
        optimizer_state: The state of the optimiser.
        rule_state: The state of the rule.
        step: Updates taken; with the key it determines the next batch.
        key: The key of the rule's random numbers.
        sums: Sums of the measurements in training since the last record; see `vicinal.train.evaluate.measured`.
    """

    model: PyTree
    optimizer_state: PyTree
    rule_state: PyTree
    step: Int[Array, ""]
    key: PRNGKeyArray
    sums: dict[str, Any]


def first_state(
    parts: Parts,
    model: PyTree,
    example: PyTree,
    sums: dict[str, Any],
    *,
    rule_key: PRNGKeyArray,
    step_key: PRNGKeyArray,
) -> TrainingState:
    """The state before the first step, with the dtypes and on the devices that the steps return.

    Args:
        parts: Rule, graph, optimiser and metrics.
        model: The model.
        example: One input, on the devices of the data.
        sums: From `first_sums`.
        rule_key: For `rule.init`.
        step_key: For the steps.

    Raises:
        ValueError: If a number is not finite; only the optimiser's state may hold infinities.
    """
    rule, graph, optimizer, _ = parts
    with jax.numpy_dtype_promotion("standard"):  # as in `Rule.step`
        optimizer_state = optimizer.init(graph.trainable(model))
    rule_state = rule.init(graph, model, key=rule_key)
    # A carry of the loop must be an array, even if it starts as a Python number.
    memory = jax.tree.map(
        lambda leaf: jnp.asarray(leaf) if eqx.is_array_like(leaf) else leaf, (optimizer_state, rule_state)
    )
    optimizer_state, rule_state = memory
    state = TrainingState(model, optimizer_state, rule_state, jnp.zeros((), jnp.int32), step_key, sums)
    state = _placed(_strongly_typed(state), example)
    bad = first_not_finite(state, may_be_infinite(state))
    if bad is not None:
        raise ValueError(f"expected finite numbers to start from, got an infinite or undefined one in {bad}")
    return state


def take_steps(
    parts: Parts, batches: Any, state: TrainingState, index: Int[Array, ""], count: Int[Array, ""]
) -> TrainingState:
    """Takes `count` steps from batch `index` on, whether or not the numbers stay finite; to be compiled.

    The number of steps is not known when this is compiled. So the body is the same machine code however a run is cut
    into calls: a resumed run is equal to the last bit, and nothing compiles twice.
    """
    rule, graph, optimizer, metrics = parts
    arrays, static = eqx.partition(state, eqx.is_array)

    def body(i: Array, arrays: PyTree) -> PyTree:
        state = eqx.combine(arrays, static)
        x, y = batches.get(index + i)
        key = jax.random.fold_in(state.key, state.step)
        model, optimizer_state, rule_state, loss, info = rule.step(
            graph, optimizer, state.model, state.optimizer_state, state.rule_state, x, y, key=key
        )
        sums = add(state.sums, measured(loss, info, y, metrics, rule.sends_events))
        new = TrainingState(model, optimizer_state, rule_state, state.step + 1, state.key, sums)
        return _strongly_typed(eqx.filter(new, eqx.is_array))

    return eqx.combine(jax.lax.fori_loop(0, count, body, arrays), static)


def may_be_infinite(first: TrainingState) -> tuple[str, ...]:
    """The leaves of the optimiser's state that are infinite at the start, such as the best value so far, by name.

    Args:
        first: The state before the first step.
    """
    names = [(name, leaf) for name, leaf in _checked(first, ()) if name.startswith("optimizer_state")]
    return tuple(name for name, leaf in names if jnp.any(jnp.isinf(leaf)) and not jnp.any(jnp.isnan(leaf)))


def all_finite(state: TrainingState, exempt: tuple[str, ...] = ()) -> Bool[Array, ""]:
    """Whether all watched numbers of a state are finite; `exempt` are the leaves that `may_be_infinite` names."""
    return jnp.all(jnp.stack([is_finite(leaf) for _, leaf in _checked(state, exempt)]))


@eqx.filter_jit
def _advance(
    fixed: Any, state: TrainingState, index: Array, count: Array, exempt: tuple[str, ...]
) -> tuple[TrainingState, Array]:
    """Takes `count` steps, and tells whether all watched numbers of the new state are finite.

    The given state is not donated: the run must be able to go back to it.
    """
    *parts, batches = fixed
    new = take_steps((parts[0], parts[1], parts[2], parts[3]), batches, state, index, count)
    return new, all_finite(new, exempt)


def bytes_of_steps(fixed: Any, state: TrainingState, exempt: tuple[str, ...]) -> int:
    """The memory that steps need beside the state before, by the compiler's count; 0 if it does not tell.

    Args:
        fixed: As for `advance`.
        state: The state to start from.
        exempt: As for `advance`.
    """
    compiled: Any = _advance
    lowered = compiled.lower(fixed, state, jnp.int32(0), jnp.int32(0), exempt)
    found = lowered.compile().compiled.memory_analysis()
    return 0 if found is None else found.temp_size_in_bytes + found.output_size_in_bytes


def advance(
    fixed: Any, state: TrainingState, index: int, count: int, exempt: tuple[str, ...] = ()
) -> tuple[TrainingState, str | None]:
    """Takes `count` steps, or fewer if the next one would make a number non-finite.

    Args:
        fixed: Rule, graph, optimiser, metrics and batches.
        state: The state to start from; it is not changed.
        index: The index of the first batch.
        count: Steps to take.
        exempt: The leaves that `may_be_infinite` names.

    Returns:
        The new state; and None, or a sentence about the number that the next step would make non-finite.
    """

    def after(steps: int) -> tuple[TrainingState, Array]:
        return _advance(fixed, state, jnp.int32(index), jnp.int32(steps), exempt)

    new, is_good = after(count)
    if is_good:
        return new, None
    good, bad = 0, count
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if after(middle)[1] else (good, middle)
    last, broken = after(good)[0], after(bad)[0]
    reason = _diagnosis(fixed, last, index + good, broken, exempt)
    return last, f"stopped at step {int(last.step)}, the last good state: {reason}"


def _diagnosis(fixed: Any, state: TrainingState, index: int, broken: TrainingState, exempt: tuple[str, ...]) -> str:
    """Returns a sentence about the first non-finite number in the step from `state` to `broken`."""
    rule, graph, _, _, batches = fixed
    batch, key = batches.get(jnp.int32(index)), jax.random.fold_in(state.key, state.step)
    found = diagnosis(
        functools.partial(look_compiled, rule), graph, state.model, state.rule_state, batch, key, int(state.step)
    )
    return found or after_the_rule(first_not_finite(broken, exempt), state.model)


def _checked(state: TrainingState, exempt: tuple[str, ...]) -> list[tuple[str, Array]]:
    """The numbers that are watched, by name: parameters, optimiser, rule, and the loss since the last record."""
    watched = dataclasses.replace(state, sums={"loss": state.sums["loss"].high})
    leaves = jax.tree_util.tree_flatten_with_path(watched)[0]
    named = [(jax.tree_util.keystr(path).lstrip("."), leaf) for path, leaf in leaves if eqx.is_inexact_array(leaf)]
    return [(name, leaf) for name, leaf in named if name not in exempt]


def first_not_finite(state: TrainingState, exempt: tuple[str, ...] = ()) -> str | None:
    """The name of the first leaf with a watched number that is not finite; None if all are finite."""
    return next((name for name, leaf in _checked(state, exempt) if not is_finite(leaf)), None)


def _strongly_typed(tree: PyTree) -> PyTree:
    """The same arrays without weak types: a step may lose them, and would then compile again."""

    def strong(leaf: Any) -> Any:
        weak = eqx.is_array(leaf) and getattr(leaf, "weak_type", False)
        return jax.lax.convert_element_type(leaf, leaf.dtype) if weak else leaf

    return jax.tree.map(strong, tree)


def _placed(state: TrainingState, example: PyTree) -> TrainingState:
    """Moves uncommitted arrays to the committed ones' devices, so that the second step does not compile again."""
    leaves = [leaf for leaf in jax.tree.leaves((state, example)) if eqx.is_array(leaf)]
    chosen = next((leaf.sharding for leaf in leaves if leaf.committed), None)
    if chosen is None:
        return state
    if isinstance(chosen, jax.sharding.NamedSharding):
        chosen = jax.sharding.NamedSharding(chosen.mesh, jax.sharding.PartitionSpec())  # a copy on each device

    def place(leaf: Any) -> Any:
        return jax.device_put(leaf, chosen) if eqx.is_array(leaf) and not leaf.committed else leaf

    return jax.tree.map(place, state)
