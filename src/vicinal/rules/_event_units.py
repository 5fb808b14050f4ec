"""What units hold and have sent, and the feedforward sweep of events, which every rule of events has."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from vicinal.clamped import Clamped
from vicinal.credit import Credit, Info
from vicinal.events import Code, Lines, count
from vicinal.graph import OUTPUT, Graph, Values

Counts = dict[str, Int[Array, " batch"]]
"""Numbers of events by node, `[batch]` each."""


class Units(eqx.Module):
    """What the units of a network hold and have sent.

    Attributes:
        values: What each vertex holds, `[batch, ...]`.
        activities: What vertices have sent upwards of their values.
        errors: What vertices and the output have sent downwards of their errors.
    """

    values: Values
    activities: Lines
    errors: Lines


class Recording(eqx.Module):
    """A presentation step by step; made by `EventInferenceLearning.record` and, without steps, `EventBackprop.record`.

    Attributes:
        values: What each vertex held after the feedforward sweep and after each step, `[steps + 1, batch, ...]`.
        activities: What each vertex had sent of its value, `[steps + 1, batch, ...]`.
        errors: What each vertex, and `"output"`, had sent of its error, `[steps + 2, batch, ...]`: at the start, after
            each step, and after the last turn at the end.
    """

    values: Values
    activities: Values
    errors: Values


def swept(code: Code, clamped: Clamped, graph: Graph, model: PyTree, x: PyTree, steps: int) -> tuple[Values, Lines]:
    """Sweeps from the input up: `v_l = p_l(v^)`, `v^_l = publish(v_l)`.

    Args:
        code: The code of values.
        clamped: The graph with model and input fixed.
        graph: The graph.
        model: The model.
        x: Inputs, `[batch, ...]`.
        steps: Number of inference steps, by which the code knows its threshold at the first.

    Returns:
        The value of each vertex, and what it has sent.
    """
    values = graph.feedforward(model, x)[1]
    lines = code.silent(values)
    for name in graph.vertices:
        value = clamped.counted({name: graph.prediction(name, model, lines.sent, x)})
        one = code.publish(code.silent(value), value, 0, steps)
        values, lines = values | value, merged(lines, one)
    return values, lines


def merged(lines: Lines, others: Lines) -> Lines:
    """Replaces the lines of some nodes, by name."""
    return Lines(lines.sent | others.sent, None if lines.peak is None else lines.peak | others.peak)


def first_counts(lines: Lines) -> Counts:
    """Counts the events of units that had sent nothing before."""
    return {name: count(jax.tree.map(jnp.zeros_like, line), line) for name, line in lines.sent.items()}


def counted(graph: Graph, before: Units, after: Units) -> tuple[Counts, Counts]:
    """Counts events between two moments: of values, and of errors that somebody receives."""
    values = {name: count(before.activities.sent[name], sent) for name, sent in after.activities.sent.items()}
    return values, {node: count(before.errors.sent[node], after.errors.sent[node]) for node in heard(graph)}


def heard(graph: Graph) -> list[str]:
    """The nodes whose errors somebody receives: those above a vertex."""
    return [node for node in (*graph.vertices, OUTPUT) if graph.parents[node]]


def parts(units: Units) -> tuple[Values, Values, PyTree]:
    """Returns what was sent: values, errors of vertices, error of the output."""
    errors = dict(units.errors.sent)
    output = errors.pop(OUTPUT)
    return units.activities.sent, {name: errors[name] for name in units.values}, output


def synapses_hold(units: Units) -> Credit:
    """Returns what the two ends of synapses hold now, as far as the local product needs it."""
    values, errors, output = parts(units)
    return Credit(jnp.zeros(batch_shape(units)), values, errors, output, Info(None))


def batch_shape(units: Units) -> tuple[int, ...]:
    """Returns `(batch,)`."""
    return jax.tree.leaves(units.errors.sent)[0].shape[:1]
