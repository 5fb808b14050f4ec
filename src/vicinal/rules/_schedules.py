"""For rules that call the optimiser several times for a batch: schedules count batches, not calls.

A schedule over a run counts updates on a batch, as with every other rule. Other counts of an optimiser go up with each
call: Adam corrects the bias of averages that change with each call, and so does MQ.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from vicinal.rules.base import apply_gradient

Step = Callable[[PyTree, PyTree, Array], tuple[PyTree, PyTree, PyTree]]
"""`step(model, moving, t) -> (moving, gradient, presynaptic norms)`: one step of all but the weights."""

_HOLDERS = (optax.InjectHyperparamsState, optax.InjectStatefulHyperparamsState)


def learn_in_every_step(
    step: Step,
    optimizer: optax.GradientTransformation,
    model: PyTree,
    optimizer_state: optax.OptState,
    moving: PyTree,
    *,
    steps: int,
    loss: Float[Array, ""],
) -> tuple[PyTree, optax.OptState, PyTree]:
    """Runs the steps for a batch, and calls the optimiser at each.

    Args:
        step: Takes one step of all but the weights.
        optimizer: An optax transformation.
        model: The model.
        optimizer_state: Its state.
        moving: What the steps change beside the model, such as activities.
        steps: Number of steps.
        loss: The mean loss, for optimisers that take it.

    Returns:
        `(model, optimizer_state, moving)` after the last step.
    """
    arrays, static = eqx.partition(model, eqx.is_array)
    memory, fixed = eqx.partition(optimizer_state, eqx.is_array_like)

    def body(carry: Any, t: Array) -> tuple[Any, None]:
        arrays, memory, moving = carry
        model = eqx.combine(arrays, static)
        moving, gradient, presynaptic = step(model, moving, t)
        before = eqx.combine(memory, fixed)
        model, after = apply_gradient(optimizer, gradient, before, model, presynaptic=presynaptic, value=loss)
        memory = eqx.filter(with_schedules_of(before, after), eqx.is_array_like)
        return (eqx.filter(model, eqx.is_array), memory, moving), None

    (arrays, memory, moving), _ = jax.lax.scan(body, (arrays, memory, moving), jnp.arange(steps))
    return eqx.combine(arrays, static), after_a_batch(optimizer_state, eqx.combine(memory, fixed)), moving


def with_schedules_of(before: PyTree, after: PyTree) -> PyTree:
    """Returns the state `after` a call of the optimiser, with the schedule counts of the state `before`."""
    return _counted(lambda old, new: old, before, after)


def after_a_batch(before: PyTree, after: PyTree) -> PyTree:
    """Returns the state `after` the calls for a batch, with the schedule counts of the state `before` plus 1."""
    return _counted(lambda old, new: jnp.asarray(optax.safe_increment(jnp.asarray(old))), before, after)


def _counted(count: Callable[[Any, Any], Any], before: PyTree, after: PyTree) -> PyTree:
    def is_counter(node: Any) -> bool:
        # The state of a schedule has a count only. Some of these states have no public name: those of schedules in
        # `optax.inject_hyperparams`, and that of a schedule of the weight decay.
        return isinstance(node, _HOLDERS) or (isinstance(node, tuple) and getattr(node, "_fields", ()) == ("count",))

    def changed(old: Any, new: Any) -> Any:
        if not is_counter(new):
            return new
        inner = {
            name: _counted(count, getattr(old, name), getattr(new, name)) for name in new._fields if name != "count"
        }
        return new._replace(count=count(old.count, new.count), **inner)

    return jax.tree.map(changed, before, after, is_leaf=is_counter)
