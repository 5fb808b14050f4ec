"""Synaptic operations of a chain of dense layers with ReLU, vertices at potentials: what arrives at its synapses.

An event of a value counts once for each synapse above it, and only if the rate, what synapses read, has changed; an
event of an error once for each synapse to a vertex below. Synapses from the input are left out: the input is held.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from vicinal.graph import OUTPUT, Graph
from vicinal.rules import EventBackprop, EventInferenceLearning, Rule

KINDS = ("values", "errors", "weights", "sweep")
"""The kinds of operations."""


def operations(rule: Rule, graph: Graph, model: PyTree, x: Array, y: Array, state: PyTree = None) -> dict[str, float]:
    """Counts the synaptic operations of one presentation, with the weights held.

    Args:
        rule: Inference learning or backpropagation, by events or dense.
        graph: The graph of a chain.
        model: The model, `model.layers[i].weight` of `[out, in]`.
        x: Inputs, `[batch, inputs]`.
        y: Labels, `[batch]`.
        state: The rule's state; by default a fresh one. Units that are carried on send nothing in a sweep.

    Returns:
        The mean over examples of `values`, `errors` and `weights` (non-zero pairs of the local product at the end), and
        of the `sweep` before. Of dense rules, all multiplications.
    """
    sizes = [layer.weight.shape for layer in model.layers]
    dense = float(sum(rows * columns for rows, columns in sizes[1:]))
    if not isinstance(rule, EventBackprop | EventInferenceLearning):
        steps = getattr(getattr(rule, "inference", None), "steps", None)
        settling = {"values": 0.0 if steps is None else steps * dense, "errors": dense * (steps or 1)}
        return settling | {"weights": dense + sizes[0][0] * sizes[0][1], "sweep": dense}
    names = [*graph.vertices, OUTPUT]
    state = rule.init(graph, model) if state is None else state
    rates, errors = _sent(rule, graph, model, x, y, state)
    carried = isinstance(rule, EventInferenceLearning) and rule.carry and bool(state[1])
    batch, above = len(x), dict(zip(graph.vertices, (rows for rows, _ in sizes[1:]), strict=True))
    below = dict(zip(names[1:], (columns for _, columns in sizes[1:]), strict=True))
    ends = [jnp.abs(x), *(rates[name][-1] for name in graph.vertices)]
    pairs = [
        _number(errors[name][-1], per_example=True) * _number(held, per_example=True)
        for name, held in zip(names, ends, strict=True)
    ]
    return {
        "values": sum(_changes(rates[name]) * fan_out for name, fan_out in above.items()) / batch,
        "errors": sum(_changes(errors[name]) * fan_in for name, fan_in in below.items()) / batch,
        "weights": float(sum(jnp.sum(pair) for pair in pairs)) / batch,
        "sweep": sum(_number(rates[name][0]) * fan_out for name, fan_out in above.items()) / batch * (not carried),
    }


@eqx.filter_jit
def _sent(
    rule: Any, graph: Graph, model: PyTree, x: Array, y: Array, state: PyTree
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The rates and errors that were sent, over time."""
    if isinstance(rule, EventInferenceLearning):
        seen = rule.record(graph, model, state, x, y)
        activities, errors = seen.activities, seen.errors
    else:
        credit, _ = rule.credit(graph, model, (), x, y)
        activities = {name: value[None] for name, value in credit.values.items()}
        last = credit.errors | {OUTPUT: credit.output_error}
        errors = {name: jnp.stack([jnp.zeros_like(error), error]) for name, error in last.items()}
    return {name: jnp.maximum(value, 0) for name, value in activities.items()}, errors


def _changes(over_time: Array) -> float:
    return float(jnp.sum(over_time[1:] != over_time[:-1]))


def _number(values: Array, per_example: bool = False) -> Any:
    """How many are not 0."""
    return jnp.sum(values != 0, axis=1) if per_example else float(jnp.sum(values != 0))
