"""Under `Microcircuit`: conductances, and what the cells hold."""

import dataclasses
from collections.abc import Iterable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal._numbers import positive
from vicinal.graph import OUTPUT, Graph, Values
from vicinal.rules._chains import Link
from vicinal.rules._presentations import running


@dataclasses.dataclass(frozen=True)
class Conductances:
    """How strongly compartments and targets pull at a soma, in the unit of 1/ms at a capacitance of 1.

    Args:
        leak: Of every soma, towards 0.
        basal: From the basal dendrite of a pyramidal cell.
        apical: From its apical dendrite.
        dendritic: From the dendrite of an interneuron.
        interneuron: From a pyramidal cell of the layer above to its interneuron.
        target: From the target to a cell of the output.

    Raises:
        ValueError: If one is not above zero, or not finite.

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
        for field in dataclasses.fields(self):
            value = positive(f"the conductance {field.name}", getattr(self, field.name))
            object.__setattr__(self, field.name, value)  # in place of a number of numpy's

    @property
    def membrane(self) -> float:
        """Time constant of a pyramidal soma, in ms: `1 / (g_l + g_bas + g_api)`."""
        return 1 / (self.leak + self.basal + self.apical)

    @property
    def apical_share(self) -> float:
        """Of a pyramidal soma: `g_api / (g_l + g_bas + g_api)`."""
        return self.apical / (self.leak + self.basal + self.apical)

    @property
    def interneuron_share(self) -> float:
        """Of an interneuron's soma, from above: `g_nI / (g_l + g_den + g_nI)`."""
        return self.interneuron / (self.leak + self.dendritic + self.interneuron)

    @property
    def target_share(self) -> float:
        """Of an output's soma: `g_tgt / (g_l + g_bas + g_tgt)`."""
        return self.target / (self.leak + self.basal + self.target)

    @property
    def error_share(self) -> float:
        """What is left of an error of the layer above once it has come down: `apical (1 - interneuron)` share."""
        return self.apical_share * (1 - self.interneuron_share)


class Cells(eqx.Module):
    """What the cells hold, for each example that is shown; all `[batch, units]`.

    Attributes:
        voltages: Of pyramidal somata, by vertex.
        values: Their prospective voltages.
        apical: Of their apical dendrites, in the last step, without noise.
        interneurons: Rates of the interneurons, by the node they predict.
        errors: Rate less what the basal dendrite predicts of it, of each vertex; of the output what its target adds.
        noise: `xi`, of the apical dendrites.
        rates: Of the nodes that feedback comes from.
        filtered: The same high-passed.
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
    """What `Microcircuit` carries; weights by the node whose rates, or predicted rates, they carry down.

    Attributes:
        feedback: `B^PP` transposed, `[above, below]`.
        lateral: `B^PI` transposed, `[above, below]`, from interneurons to apical dendrites.
        interneurons: `W^IP` as `(weight, bias)`, `[above, below]` and `[above]` (None without biases).
        products: The low-passed gradient.
        key: What noise is drawn from.
        running: What the cells hold; None if each presentation begins anew.
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
    """Everything at zero."""

    def zeros(names: Iterable[str]) -> Values:
        return {name: jnp.zeros((batch, *graph.shapes[name].shape), graph.shapes[name].dtype) for name in names}

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
