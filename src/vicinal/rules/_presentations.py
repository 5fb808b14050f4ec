"""Under rules that are always on: the presentation of a batch, in which all that learns learns in every step."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from vicinal.credit import Credit, Info, presynaptic_norms
from vicinal.graph import OUTPUT, Graph
from vicinal.losses import Loss, loss_and_error
from vicinal.rules._latent_equilibrium import TimeConstants, scaled
from vicinal.rules._schedules import after_a_batch, with_schedules_of
from vicinal.rules.base import apply_gradient

Moving = TypeVar("Moving", bound=Any)
"""What moves in a presentation: a pytree with `products`, the low-passed gradient, and `running`, what neurons hold,
or None between presentations."""

Advance = Callable[[PyTree, Moving], Moving]
"""A step of `dt`: from the model and what moves to what has moved."""


class AlwaysOn(Protocol[Moving]):
    """A rule whose neurons run on, or begin anew with each batch if `batch_size` is None."""

    times: TimeConstants
    batch_size: int | None
    loss: Loss

    def advance(self, graph: Graph, model: PyTree, state: Moving, x: PyTree, y: PyTree) -> Moving: ...

    def fresh(self, graph: Graph, model: PyTree, state: Moving, x: PyTree, batch: int) -> Moving: ...


def running(state: Any) -> Any:
    """What the neurons of a state hold.

    Raises:
        ValueError: If they hold nothing.
    """
    if state.running is None:
        raise ValueError("expected a state that is running, got one between presentations; give a batch_size")
    return state.running


def begin(
    rule: AlwaysOn[Moving], graph: Graph, model: PyTree, state: Moving, x: PyTree, y: PyTree
) -> tuple[Advance, Moving, Array, Array]:
    """A step of `dt`, the state at the start, and the loss and output of each example, without noise.

    Raises:
        ValueError: If the batch is not of the size of the networks that are running.
    """
    output, _ = graph.feedforward(model, x)
    loss, _ = loss_and_error(rule.loss, output, y)
    if rule.batch_size is None:
        state = rule.fresh(graph, model, state, x, loss.shape[0])
    elif loss.shape[0] != rule.batch_size:
        raise ValueError(
            f"expected batches of {rule.batch_size} for as many running networks, got one of {loss.shape[0]}; "
            "leave out what is left of an epoch, or take batch_size=None"
        )
    return lambda model, state: rule.advance(graph, model, state, x, y), state, loss, output


def held_credit(rule: AlwaysOn[Moving], moved: Moving, loss: Array, output: Array) -> Credit:
    """What the neurons hold at the end of a presentation."""
    errors = dict(running(moved).errors)
    output_error = errors.pop(OUTPUT)
    info = Info(output, steps=jnp.full(loss.shape, rule.times.steps, jnp.int32))
    return Credit(loss, moved.values, errors, output_error, info)


def with_weights_held(
    rule: AlwaysOn[Moving], graph: Graph, model: PyTree, state: Moving, x: PyTree, y: PyTree
) -> tuple[PyTree, Credit, Moving]:
    """A presentation; the gradient is the mean of the low-passed products along the way. As `Rule.assign`."""
    advance, state, loss, output = begin(rule, graph, model, state, x, y)

    def body(carry: tuple[Moving, PyTree], _: None) -> tuple[tuple[Moving, PyTree], None]:
        moving, total = carry
        moving = advance(model, moving)
        return (moving, jax.tree.map(jnp.add, total, moving.products)), None

    start = (state, jax.tree.map(jnp.zeros_like, state.products))
    (moved, total), _ = jax.lax.scan(body, start, length=rule.times.steps)
    gradient = jax.tree.map(lambda t: t / scaled(rule.times.steps, t), total)
    return gradient, held_credit(rule, moved, loss, output), _end(rule, moved)


def with_weights_moving(
    rule: AlwaysOn[Moving],
    graph: Graph,
    optimizer: optax.GradientTransformation,
    model: PyTree,
    optimizer_state: optax.OptState,
    state: Moving,
    x: PyTree,
    y: PyTree,
) -> tuple[PyTree, optax.OptState, Moving, Float[Array, ""], Info]:
    """A presentation in which the optimiser is called at every step, with that step's share. As `Rule.step`.

    Schedules count presentations.
    """
    advance, state, loss, output = begin(rule, graph, model, state, x, y)
    arrays, static = eqx.partition(model, eqx.is_array)
    memory, fixed = eqx.partition(optimizer_state, eqx.is_array_like)

    def body(carry: Any, _: None) -> tuple[Any, None]:
        arrays, memory, moving = carry
        model = eqx.combine(arrays, static)
        moving = advance(model, moving)
        gradient = jax.tree.map(lambda p: p / scaled(rule.times.steps, p), moving.products)
        presynaptic = presynaptic_norms(graph, model, moving.values, x)
        before = eqx.combine(memory, fixed)
        model, after = apply_gradient(optimizer, gradient, before, model, presynaptic=presynaptic, value=jnp.mean(loss))
        memory = eqx.filter(with_schedules_of(before, after), eqx.is_array_like)
        return (eqx.filter(model, eqx.is_array), memory, moving), None

    (arrays, memory, moved), _ = jax.lax.scan(body, (arrays, memory, state), length=rule.times.steps)
    info = held_credit(rule, moved, loss, output).info
    ended = after_a_batch(optimizer_state, eqx.combine(memory, fixed))
    return eqx.combine(arrays, static), ended, _end(rule, moved), jnp.mean(loss), info


def _end(rule: AlwaysOn[Moving], moved: Moving) -> Moving:
    return moved if rule.batch_size is not None else dataclasses.replace(moved, running=None)
