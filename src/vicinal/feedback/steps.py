"""Optimisers for models with feedback: which arrays learn by which."""

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
    """Which optimiser each array of a model belongs to.

    Args:
        model: A model, its floating-point arrays, or a gradient.

    Returns:
        The same tree with `"forward"` in place of the weights, and of feedback that learns as they do (Kolen and
        Pollack); `"feedback"` in place of feedback that learns by itself, `"fixed"` in place of what does not learn.

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
    """One optimiser for the forward weights, another for feedback that learns; fixed feedback stays as it is.

    Feedback of Kolen and Pollack has the gradient of its weights and their optimiser, weight decay included; the two
    learn alike if that goes number by number (gradient descent, momentum, Adam), and not if it weighs a layer's weight
    and bias together (`vicinal.optim.nlms`, `vicinal.optim.mq`). An optimiser of the feedback may have a schedule, or
    noise that makes its updates imprecise (`optax.chain(optax.add_noise(...), optax.adam(...))`).

    Args:
        forward: Of the weights and biases.
        feedback: Of feedback that learns by a penalty (`weight_mirror` and others); that of the weights if None.

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
    """A tree of arrays with None in place of those that have another role; what is no such tree as it is."""
    if isinstance(tree, jax.tree_util.Partial) or jax.tree_util.all_leaves([tree]):  # a line search's function, a loss
        return tree
    return jax.tree.map(lambda found, part: part if found == role else None, roles, tree)


class AlternatingState(NamedTuple):
    """How many updates there were, and the states of the two optimisers."""

    count: Int[Array, ""]
    inner: Any


def alternating(
    forward: optax.GradientTransformation,
    feedback: optax.GradientTransformation,
    forward_steps: int = 1,
    feedback_steps: int = 1,
) -> optax.GradientTransformation:
    """Forward weights and feedback take turns: while one learns, the other waits, its optimiser's memory included.

    Feedback of Kolen and Pollack, which learns as the weights do, learns in their turn.

    Args:
        forward: Of the weights and biases.
        feedback: Of feedback that learns by a penalty.
        forward_steps: Updates in a row of the weights, at least 1.
        feedback_steps: Updates in a row of the feedback, which come first, at least 1.

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
