"""For `Microcircuit`: conductances, and the state of the cells and of the rule."""

import dataclasses
import functools

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal._numbers import all_positive
from vicinal._show import names_text
from vicinal.graph import OUTPUT, Graph, Values
from vicinal.rules._chains import Link, leaves_by_path, links, zeros_at
from vicinal.rules._presentations import running

_NAME = "the microcircuit"


@dataclasses.dataclass(frozen=True)
class Conductances:
    """The conductances from compartments and targets to a soma, in 1/ms at a capacitance of 1.

    Args:
        leak: Leak of every soma, towards 0.
        basal: From the basal dendrite of a pyramidal cell.
        apical: From its apical dendrite.
        dendritic: From the dendrite of an interneuron.
        interneuron: From a pyramidal cell of the layer above to its interneuron.
        target: From the target to a cell of the output.

    Raises:
        ValueError: If a conductance is not above zero, or not finite.

    Example:
        >>> found = Conductances()
        >>> round(found.apical_share, 3), round(found.interneuron_share, 3), round(found.target_share, 3)
        (0.316, 0.316, 0.316)
    """

    leak: float = 0.03
    basal: float = 0.1
    apical: float = 0.06
    dendritic: float = 0.1
    interneuron: float = 0.06
    target: float = 0.06

    def __post_init__(self) -> None:
        all_positive(self, "the conductance")

    @property
    def membrane(self) -> float:
        """Time constant of a pyramidal soma, in ms: `1 / (g_l + g_bas + g_api)`."""
        return 1 / (self.leak + self.basal + self.apical)

    @property
    def apical_share(self) -> float:
        """The share of the apical dendrite in a pyramidal soma: `g_api / (g_l + g_bas + g_api)`."""
        return self.apical / (self.leak + self.basal + self.apical)

    @property
    def interneuron_share(self) -> float:
        """The share of the layer above in the soma of an interneuron: `g_nI / (g_l + g_den + g_nI)`."""
        return self.interneuron / (self.leak + self.dendritic + self.interneuron)

    @property
    def target_share(self) -> float:
        """The share of the target in an output's soma: `g_tgt / (g_l + g_bas + g_tgt)`."""
        return self.target / (self.leak + self.basal + self.target)

    @property
    def error_share(self) -> float:
        """The factor of an error per layer on its way down: `apical_share (1 - interneuron_share)`."""
        return self.apical_share * (1 - self.interneuron_share)


class Cells(eqx.Module):
    """The state of the cells, for each example that is shown; all `[batch, units]`.

    Attributes:
        voltages: Of pyramidal somata, by vertex.
        values: Their prospective voltages.
        apical: Of their apical dendrites, in the last step, without noise.
        interneurons: Rates of the interneurons, by the node they predict.
        errors: Rate minus the rate predicted by the basal dendrite, of each vertex; for the output, the pull of its
            target.
        noise: `xi`, of the apical dendrites.
        rates: Of the nodes that feedback comes from.
        filtered: These rates high-passed.
    """

    voltages: Values
    values: Values
    apical: Values
    interneurons: Values
    errors: Values
    noise: Values
    rates: Values
    filtered: Values


class MicrocircuitState(eqx.Module):
    """The state of `Microcircuit`; weights by the node whose rates, or predicted rates, they carry down.

    Attributes:
        feedback: `B^PP` transposed, `[above, below]`.
        lateral: `B^PI` transposed, `[above, below]`, from interneurons to apical dendrites.
        interneurons: `W^IP` as `(weight, bias)`, `[above, below]` and `[above]` (None without biases).
        products: The low-passed gradient.
        key: The key of the noise.
        running: The state of the cells; None if each presentation restarts.
    """

    feedback: dict[str, Float[Array, "above below"]]
    lateral: dict[str, Float[Array, "above below"]]
    interneurons: dict[str, tuple[Float[Array, "above below"], Float[Array, " above"] | None]]
    products: PyTree
    key: PRNGKeyArray
    running: Cells | None

    @property
    def values(self) -> Values:
        """The prospective voltages of pyramidal somata."""
        return running(self).values


def at_rest(graph: Graph, chain: tuple[Link, ...], batch: int) -> Cells:
    """Returns cells at rest: everything is zero."""
    zeros = functools.partial(zeros_at, graph, batch)
    every, above, below = graph.vertices, [link.node for link in chain], [link.below for link in chain]
    return Cells(
        voltages=zeros(every),
        values=zeros(every),
        apical=zeros(below),
        interneurons=zeros(above),
        errors=zeros((*every, OUTPUT)),
        noise=zeros(below),
        rates=zeros(above),
        filtered=zeros(above),
    )


def dendrite(weights: tuple[Array, Array | None], rates: Array) -> Array:
    """Computes the dendrites of interneurons from the rates below: `W r + b`."""
    weight, bias = weights
    product = jnp.dot(rates, weight.T)
    return product if bias is None else product + bias[None]


def predicting(chain: tuple[Link, ...], model: PyTree) -> dict[str, tuple[Array, Array | None]]:
    """Returns the weights and biases of interneurons that equal those of the cells they predict."""
    arrays = leaves_by_path(model)
    return {link.node: (arrays[link.weight], None if link.bias is None else arrays[link.bias]) for link in chain}


def dense_chain(graph: Graph) -> tuple[Link, ...]:
    """Finds the dense layers of a graph, from the lowest up.

    Raises:
        ValueError: If the graph has other layers, or its model draws random numbers.
    """
    if graph.needs_key:
        raise ValueError(f"expected a model that draws nothing (no dropout) for {_NAME}; take PhaselessAlignment")
    chain = links(graph, _NAME)
    if len(chain) != len(graph.vertices) or any(graph.shapes[k.below].shape != (k.shape[1],) for k in chain):
        got = names_text(graph.vertices)
        raise ValueError(f"expected only dense layers for {_NAME}, got {got}; take PhaselessAlignment")
    return chain
