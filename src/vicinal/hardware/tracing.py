"""The program of an update, traced for the ledger."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from vicinal._counting import Counts, count, forward_pass
from vicinal.graph import Graph
from vicinal.rules import Rule

__all__ = ["counts", "shapes_of"]


def counts(
    rule: Rule,
    graph: Graph,
    model: PyTree,
    x: PyTree,
    y: PyTree,
    state: PyTree = None,
    *,
    turns: int | None = None,
    merge: bool = True,
) -> tuple[Counts, float]:
    """Traces the gradient of an update and counts what it asks of the arrays of the model and of the rule's state.

    Args:
        rule: The rule.
        graph: The captured graph.
        model: The model.
        x: Inputs, `[batch, ...]`, or their shapes.
        y: Targets, or their shapes.
        state: The rule's state; None for a fresh one.
        turns: The turns that a `while` takes.
        merge: Whether the same product of the same values is taken once.

    Returns:
        The counts of the batch, and the multiplications in the reads of a forward pass of one example.
    """
    key = jax.random.key(0)
    if state is None:
        state = _fresh_state(rule, graph, model, key)
    arrays, rest = eqx.partition(model, eqx.is_array)
    held, fixed = eqx.partition(state, lambda leaf: eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct))

    def gradient(arrays: PyTree, held: PyTree, x: PyTree, y: PyTree, key: PRNGKeyArray) -> PyTree:
        state = eqx.combine(held, fixed)
        return rule.value_and_grad(graph, eqx.combine(arrays, rest), state, x, y, key=key)[1]

    closed, shapes = jax.make_jaxpr(gradient, return_shape=True)(arrays, held, x, y, key)

    def feedforward(arrays: PyTree, x: PyTree, key: PRNGKeyArray) -> PyTree:
        return graph.feedforward(eqx.combine(arrays, rest), graph.with_keys(x, key)[0])

    of_model = jax.make_jaxpr(feedforward)(arrays, x, key)
    forward, macs = forward_pass(of_model, _filled(_paths(arrays), of_model))
    flat = jax.tree_util.tree_flatten_with_path(arrays)[0]
    shapes_by_path = {jax.tree_util.keystr(path): leaf.shape for path, leaf in flat}
    learned = [path for path, role in graph.roles.items() if role == "feedback" or path.endswith(".path.feedback")]
    forward = {path: frozenset(range(1, len(shapes_by_path[path]))) for path in learned} | forward
    parameters, batch = [*_paths(arrays), *_paths(held, "state")], jax.tree.leaves(x)[0].shape[0]
    found = count(closed, _filled(parameters, closed), _paths(shapes), forward, turns=turns, merge=merge)
    return found, macs / batch


def _fresh_state(rule: Rule, graph: Graph, model: PyTree, key: PRNGKeyArray) -> PyTree:
    try:
        return eqx.filter_eval_shape(lambda key: rule.init(graph, model, key=key), key)
    except jax.errors.JAXTypeError:  # a rule may look at the values of its first state
        return rule.init(graph, model, key=key)


def _paths(tree: PyTree, prefix: str = "") -> list[str | None]:
    """The path of each floating-point array; None for others, such as keys."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    is_stored = [jnp.issubdtype(leaf.dtype, jnp.inexact) for _, leaf in leaves]
    return [prefix + jax.tree_util.keystr(path) if s else None for (path, _), s in zip(leaves, is_stored, strict=True)]


def _filled(paths: list[str | None], closed: Any) -> list[str | None]:
    return [*paths, *[None] * (len(closed.jaxpr.invars) - len(paths))]


def shapes_of(tree: PyTree) -> PyTree:
    """Replaces arrays by their shapes and dtypes."""
    return jax.tree.map(lambda a: a if isinstance(a, jax.ShapeDtypeStruct) else jax.eval_shape(jnp.asarray, a), tree)
