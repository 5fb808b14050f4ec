"""Synaptic operations of an update, by kind, of every rule of these experiments."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from vicinal.events import Events
from vicinal.graph import OUTPUT, Graph
from vicinal.hardware import synaptic_operations
from vicinal.rules import (
    Backprop,
    EventBackprop,
    EventInferenceLearning,
    InferenceLearning,
    Rule,
)

KINDS = ("values", "errors", "weights", "sweep")
"""The kinds of operations."""


def operations(
    rule: Rule, graph: Graph, model: PyTree, x: Array, y: Array, state: PyTree = None, before: Array | None = None
) -> dict[str, float]:
    """Counts the synaptic operations of an update of one example, the mean over a batch, with the weights held.

    Args:
        rule: A rule by events or spikes, or dense.
        graph: The graph of a chain of dense layers.
        model: The model, `model.layers[i].weight` of `[out, in]`.
        x: Inputs, `[batch, inputs]`.
        y: Labels, `[batch]`.
        state: The rule's state; by default a fresh one.
        before: The inputs before, for streams that have begun.

    Returns:
        The operations of each of `KINDS`, as `vicinal.hardware.synaptic_operations` counts them. Of dense rules, their
        multiplications. A spike counts at each of its synapses; its sweep and its weights are dense.
    """
    if isinstance(rule, EventBackprop | EventInferenceLearning):
        state = rule.init(graph, model) if state is None else state
        found = synaptic_operations(rule, graph, model, state, x, y, before=before)
        return {kind: float(getattr(found, kind).mean()) for kind in KINDS}
    steps = rule.inference.steps if isinstance(rule, InferenceLearning) else 1
    dense = synaptic_operations(EventInferenceLearning(steps=steps), graph, model, (), x, y).dense
    common = {"weights": dense["weights"], "sweep": dense["sweep"]}
    if isinstance(rule, Backprop):
        return {"values": 0.0, "errors": dense["backprop"] - dense["weights"] - dense["sweep"]} | common
    if isinstance(rule, InferenceLearning):
        return {"values": dense["settling"] / 2, "errors": dense["settling"] / 2} | common
    sent = _spikes(rule, graph, model, x, y)
    sizes = [layer.weight.shape for layer in model.layers]
    fan_out = {name: rows for name, (rows, _) in zip(graph.vertices, sizes[1:], strict=True)}
    fan_in = {name: columns for name, (_, columns) in zip([*graph.vertices[1:], OUTPUT], sizes[1:], strict=True)}
    return {
        "values": sum(float(jnp.mean(sent.values[name].astype(float))) * each for name, each in fan_out.items()),
        "errors": sum(float(jnp.mean(sent.errors[name].astype(float))) * each for name, each in fan_in.items()),
    } | common


@eqx.filter_jit
def _spikes(rule: Any, graph: Graph, model: PyTree, x: Array, y: Array) -> Events:
    return rule.credit(graph, model, (), x, y)[0].info.events
