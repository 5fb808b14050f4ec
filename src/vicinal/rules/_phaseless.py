"""For `PhaselessAlignment`: the state of the neurons and of the rule."""

import functools

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal.graph import OUTPUT, Graph, Values
from vicinal.rules._chains import Link, zeros_at
from vicinal.rules._presentations import running


class Running(eqx.Module):
    """The state of the neurons, for each example that is shown; all `[batch, ...]`.

    Attributes:
        voltages: `u`, of each vertex.
        values: Prospective voltages, of each vertex.
        errors: Of each vertex and of `"output"`.
        noise: `xi`, of the vertices below learned feedback.
        rates: Of the nodes that feedback comes from.
        filtered: These rates high-passed, `rhat`.
    """

    voltages: Values
    values: Values
    errors: Values
    noise: Values
    rates: Values
    filtered: Values


class PhaselessState(eqx.Module):
    """The state of `PhaselessAlignment`.

    Attributes:
        feedback: The learned feedback `B^T`, by the node that its layer predicts, `[above, below]` as the weight.
        products: `G`, the low-passed gradient.
        key: The key of the noise; the same key gives the same noise.
        running: The state of the neurons; None if each presentation restarts.
    """

    feedback: dict[str, Float[Array, "above below"]]
    products: PyTree
    key: PRNGKeyArray
    running: Running | None

    @property
    def values(self) -> Values:
        """The prospective voltages."""
        return running(self).values


def at_rest(graph: Graph, chain: tuple[Link, ...], batch: int) -> Running:
    """Returns neurons at rest: everything is zero."""
    zeros = functools.partial(zeros_at, graph, batch)
    every, above = graph.vertices, [link.node for link in chain]
    return Running(
        zeros(every),
        zeros(every),
        zeros((*every, OUTPUT)),
        zeros(link.below for link in chain),
        zeros(above),
        zeros(above),
    )
