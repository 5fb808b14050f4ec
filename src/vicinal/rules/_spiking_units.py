"""What the units of a spiking network hold and send, and what others read of it."""

import equinox as eqx
from jaxtyping import Array, Bool, Int, PyTree

from vicinal.graph import OUTPUT, Graph, Values
from vicinal.spikes import Spiking, count

Counts = dict[str, Int[Array, " batch"]]
"""Numbers of spikes by node, `[batch]` each."""


class Units(eqx.Module):
    """What the units of a network hold and send.

    Attributes:
        potentials: What each vertex holds, `[batch, ...]`.
        values: The generators of potentials, and their traces.
        errors: The generators of the errors of vertices and the output, and their traces.
        crowded: Whether a rate has come too close to the largest that can be sent, `[batch]`.
    """

    potentials: Values
    values: Spiking
    errors: Spiking
    crowded: Bool[Array, " batch"]


def traces_of(units: Units) -> tuple[Values, tuple[PyTree, Values]]:
    """Returns the traces at the ends of synapses: of values, and of errors of the output and of vertices."""
    errors = units.errors.traces
    return units.values.traces, (errors[OUTPUT], {name: errors[name] for name in units.potentials})


def counts_of(graph: Graph, units: Units) -> tuple[Counts, Counts]:
    """Counts the spikes of the last step: of values, and of errors that somebody receives."""
    heard = [node for node in (*graph.vertices, OUTPUT) if graph.parents[node]]
    values = {name: count(spikes) for name, spikes in units.values.spikes.items()}
    return values, {node: count(units.errors.spikes[node]) for node in heard}
