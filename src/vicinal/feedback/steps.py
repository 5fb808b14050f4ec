"""Optimisers for models with feedback."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from vicinal._numbers import check_count
from vicinal.feedback.attach import is_fed

FORWARD, FEEDBACK, FIXED = "forward", "feedback", "fixed"


def labels(model: PyTree) -> PyTree:
    """Labels each array of a model with the optimiser that it belongs to.

    Args:
        model: A model, its floating-point arrays, or a gradient.

    Returns:
        The same tree of labels: `"forward"` for weights, and for feedback with their gradient (Kolen and Pollack);
        `"feedback"` for feedback that descends its own penalty; `"fixed"` for feedback that does not learn.

    Example:
        >>> import jax, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 2), key=jax.random.key(0))
        >>> fed = vc.feedback.attach(model, vc.feedback.random(), key=jax.random.key(1))
        >>> found = vc.feedback.labels(fed)
        >>> found.layers[0].layer.weight, found.layers[0].path.feedback
        ('forward', 'fixed')
    """

    def name(node: Any) -> Any:
        if not is_fed(node):
            return FORWARD
        role = FORWARD if node.path.role == "parameter" else node.path.role
        return eqx.tree_at(
            lambda fed: (fed.layer, fed.path),
            node,
            (jax.tree.map(lambda _: FORWARD, node.layer), jax.tree.map(lambda _: role, node.path)),
            is_leaf=lambda leaf: leaf is None,
        )

    return jax.tree.map(name, model, is_leaf=is_fed)


def optimizers(
    forward: optax.GradientTransformation, feedback: optax.GradientTransformation | None = None
) -> optax.GradientTransformation:
    """Combines an optimiser for the forward weights with one for feedback that learns; fixed feedback is unchanged.

    Feedback of Kolen and Pollack has the gradient and the optimiser of the weights, weight decay included. Both get the
    same updates if the optimiser works elementwise (gradient descent, momentum, Adam), but not if it scales the weight
    and bias of a layer together (`vicinal.optim.nlms`, `vicinal.optim.mq`). The optimiser of the feedback may have a
    schedule, or noise that makes its updates imprecise (`optax.chain(optax.add_noise(...), optax.adam(...))`).

    Args:
        forward: The optimiser of the weights and biases.
        feedback: The optimiser of feedback that descends a penalty (`weight_mirror` and others). None: `forward`.

    Returns:
        An optax transformation for a model with feedback.

    References:
        Kunin et al., Two routes to scalable credit assignment without weight symmetry, ICML 2020, arXiv 2003.01513.
    """
    chosen = {FORWARD: forward, FEEDBACK: forward if feedback is None else feedback}
    takers = {role: optax.with_extra_args_support(optimizer) for role, optimizer in chosen.items()}

    def init(params: PyTree) -> dict[str, Any]:
        return {role: taker.init(_of(role, params, labels(params))) for role, taker in takers.items()}

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]:
        roles = labels(updates)
        changes, states = jax.tree.map(jnp.zeros_like, updates), {}
        for role, taker in takers.items():
            parts = {name: _of(role, value, roles) for name, value in extra.items()}
            own = None if params is None else _of(role, params, roles)
            change, states[role] = taker.update(_of(role, updates, roles), state[role], own, **parts)
            changes = eqx.combine(change, changes)
        return changes, states

    return optax.GradientTransformationExtraArgs(init, update)


def _of(role: str, tree: PyTree, roles: PyTree) -> PyTree:
    """Replaces arrays of other roles by None; returns a function or a single array unchanged."""
    if not jax.tree.leaves(tree) or jax.tree_util.all_leaves([tree]):  # a function for optimisers, a loss
        return tree
    return jax.tree.map(lambda found, part: part if found == role else None, roles, tree)


class AlternatingState(NamedTuple):
    """The number of updates, and the state of an optimiser."""

    count: Int[Array, ""]
    inner: Any


def alternating(
    forward: optax.GradientTransformation,
    feedback: optax.GradientTransformation,
    forward_steps: int = 1,
    feedback_steps: int = 1,
) -> optax.GradientTransformation:
    """Lets forward weights and feedback learn in turn; while one waits, the state of its optimiser is held too.

    Feedback of Kolen and Pollack learns together with the weights.

    Args:
        forward: The optimiser of the weights and biases.
        feedback: The optimiser of feedback that descends a penalty.
        forward_steps: Consecutive updates of the weights, at least 1.
        feedback_steps: Consecutive updates of the feedback, at least 1; they come first.

    Returns:
        An optax transformation for a model with feedback.

    Raises:
        ValueError: If a number of steps is below 1.
    """
    check_count("forward_steps", forward_steps, 1)
    check_count("feedback_steps", feedback_steps, 1)
    period = forward_steps + feedback_steps

    def in_turn(optimizer: optax.GradientTransformation, first: int, last: int) -> optax.GradientTransformation:
        takes_extra = optax.with_extra_args_support(optimizer)

        def init(params: PyTree) -> AlternatingState:
            return AlternatingState(jnp.zeros((), jnp.int32), takes_extra.init(params))

        def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]:
            place = state.count % period
            now = (place >= first) & (place < last)
            changes, inner = takes_extra.update(updates, state.inner, params, **extra)
            changes = jax.tree.map(lambda change: jnp.where(now, change, jnp.zeros_like(change)), changes)
            inner = jax.tree.map(lambda new, old: jnp.where(now, new, old), inner, state.inner)
            return changes, AlternatingState((state.count + 1) % period, inner)

        return optax.GradientTransformationExtraArgs(init, update)

    return optimizers(in_turn(forward, feedback_steps, period), in_turn(feedback, 0, feedback_steps))
