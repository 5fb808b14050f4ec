"""For rules without phases: the presentation of a batch, in which weights and feedback learn in every step.

`credit`, `assign` and `update` are methods of these rules, which implement `advance`, one step, and `fresh`, the start.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal._numbers import check, check_count
from vicinal.activations import Activation, activation_function
from vicinal.credit import Credit, Info, presynaptic_norms
from vicinal.graph import OUTPUT, Graph
from vicinal.losses import Loss, check_loss, loss_and_error
from vicinal.rules._latent_equilibrium import TimeConstants, scaled
from vicinal.rules._schedules import learn_in_every_step

Moving = TypeVar("Moving", bound=Any)
"""The state of a rule: a pytree with `products`, the low-passed gradient, and `running`, the state of the neurons, or
None between presentations."""

Advance = Callable[[PyTree, Moving], Moving]
"""A step of `dt`: from the model and a state to the next state."""


class AlwaysOn(Protocol[Moving]):
    """A rule whose neurons run on, or restart with each batch if `batch_size` is None."""

    times: TimeConstants
    batch_size: int | None
    output_activation: Activation
    loss: Loss

    def advance(self, graph: Graph, model: PyTree, state: Moving, x: PyTree, y: PyTree) -> Moving: ...

    def fresh(self, graph: Graph, model: PyTree, state: Moving, x: PyTree, batch: int) -> Moving: ...


def running(state: Any) -> Any:
    """Returns the state of the neurons.

    Raises:
        ValueError: If there is none, between presentations.
    """
    if state.running is None:
        raise ValueError("expected a state that is running, got one between presentations; give a batch_size")
    return state.running


def begin(
    rule: AlwaysOn[Moving], graph: Graph, model: PyTree, state: Moving, x: PyTree, y: PyTree
) -> tuple[Advance, Moving, Array, Array]:
    """Returns a step of `dt`, the state at the start, and the loss and output of each example without noise.

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
    """Reads the credit from the neurons at the end of a presentation."""
    errors = dict(running(moved).errors)
    output_error = errors.pop(OUTPUT)
    info = Info(output, steps=jnp.full(loss.shape, rule.times.steps, jnp.int32))
    return Credit(loss, moved.values, errors, output_error, info)


def check_always_on(rule: AlwaysOn, numbers: Iterable[str]) -> None:
    """Checks the settings that rules without phases share.

    Args:
        rule: The rule.
        numbers: The names of its settings that are at least 0.

    Raises:
        TypeError: If its times are no `TimeConstants`, or its loss no function.
        ValueError: If a setting is out of its range.
    """
    if not isinstance(rule.times, TimeConstants):
        raise TypeError(f"expected times as vicinal.rules.TimeConstants, got {rule.times!r}")
    for name in numbers:
        check(name.replace("_", " "), getattr(rule, name), lambda v: v >= 0, "of at least 0")
    if rule.batch_size is not None:
        check_count("batch_size", rule.batch_size, 1)
    activation_function(rule.output_activation)
    check_loss(rule.loss)


def credit(
    rule: AlwaysOn[Moving],
    graph: Graph,
    model: PyTree,
    state: Moving,
    x: PyTree,
    y: PyTree,
    *,
    key: PRNGKeyArray | None = None,
) -> tuple[Credit, Moving]:
    """Assigns credit: values and errors of the last step of a presentation; noise comes from the state's key.

    The method `credit` of a rule without phases.
    """
    return assign(rule, graph, model, state, x, y, key=key)[1:]


def assign(
    rule: AlwaysOn[Moving],
    graph: Graph,
    model: PyTree,
    state: Moving,
    x: PyTree,
    y: PyTree,
    *,
    key: PRNGKeyArray | None = None,
) -> tuple[PyTree, Credit, Moving]:
    """Presents a batch with the weights held; the gradient is the mean of the low-passed products over the steps.

    The method `assign` of a rule without phases.
    """
    del key
    advance, state, loss, output = begin(rule, graph, model, state, x, y)

    def body(carry: tuple[Moving, PyTree], _: None) -> tuple[tuple[Moving, PyTree], None]:
        moving, total = carry
        moving = advance(model, moving)
        return (moving, jax.tree.map(jnp.add, total, moving.products)), None

    start = (state, jax.tree.map(jnp.zeros_like, state.products))
    (moved, total), _ = jax.lax.scan(body, start, length=rule.times.steps)
    gradient = jax.tree.map(lambda t: t / scaled(rule.times.steps, t), total)
    return gradient, held_credit(rule, moved, loss, output), _end(rule, moved)


def update(
    rule: AlwaysOn[Moving],
    graph: Graph,
    optimizer: optax.GradientTransformation,
    model: PyTree,
    optimizer_state: optax.OptState,
    state: Moving,
    x: PyTree,
    y: PyTree,
    *,
    key: PRNGKeyArray | None = None,
) -> tuple[PyTree, optax.OptState, Moving, Float[Array, ""], Info]:
    """Presents a batch and calls the optimiser at every step, with that step's share of the gradient.

    Schedules count presentations. The method `update` of a rule without phases.
    """
    del key
    advance, state, loss, output = begin(rule, graph, model, state, x, y)

    def step(model: PyTree, moving: Moving, _: Array) -> tuple[Moving, PyTree, PyTree]:
        moving = advance(model, moving)
        gradient = jax.tree.map(lambda p: p / scaled(rule.times.steps, p), moving.products)
        return moving, gradient, presynaptic_norms(graph, model, moving.values, x)

    mean = jnp.mean(loss)
    model, optimizer_state, moved = learn_in_every_step(
        step, optimizer, model, optimizer_state, state, steps=rule.times.steps, loss=mean
    )
    info = held_credit(rule, moved, loss, output).info
    return model, optimizer_state, _end(rule, moved), mean, info


def _end(rule: AlwaysOn[Moving], moved: Moving) -> Moving:
    return moved if rule.batch_size is not None else dataclasses.replace(moved, running=None)
