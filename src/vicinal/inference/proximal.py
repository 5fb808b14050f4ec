"""The proximal output: the learning rate and the input of the output layer set the pull of the target."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from vicinal._numbers import check, number
from vicinal._show import module_text
from vicinal.graph import OUTPUT, Graph, Values


class Proximal(eqx.Module):
    """Holds the output at its closed-form proximal optimum, computed at every inference step.

        value_L = (prediction_L + alpha n target) / (1 + alpha n),      n = ||what enters the output||^2 + 1[bias] + eps

    so that the output's error is `alpha n / (1 + alpha n)` times `target - prediction`. The learning rate `alpha`
    enters here and nowhere else: as it grows, the output is clamped, and no step can overshoot.

    Args:
        learning_rate: `alpha`, at least 0.
        eps: Added to the squared norm, as in `vicinal.optim.nlms`.
        norm: The squared norm to use: `"example"`, of each example; `"mean"`, the mean over the batch, as in the paper;
            or `"sum"`, the sum over the batch, a slip of the published code, for replication.

    Raises:
        ValueError: If `norm` is unknown.

    References:
        Alonso et al., A theoretical framework for inference learning, NeurIPS 2022, arXiv 2206.00164.

    *Differs from the paper*: by default each example has its own norm, so that inference does not depend on the
    batch. At batch size 1 all three are the same.
    """

    learning_rate: Float[Array, ""] = eqx.field(converter=number)
    eps: Float[Array, ""] = eqx.field(converter=number, default=0.0)
    norm: str = eqx.field(static=True, default="example")

    def __repr__(self) -> str:
        return module_text(self)

    def __check_init__(self):
        if self.norm not in ("example", "mean", "sum"):
            raise ValueError(f"expected norm as 'example', 'mean' or 'sum', got {self.norm!r}")
        check("the learning rate", self.learning_rate, lambda v: v >= 0, "of at least 0")
        check("eps", self.eps, lambda v: v >= 0, "of at least 0")

    def gain(self, graph: Graph, model: PyTree, values: Values, x: PyTree) -> Float[Array, " batch"]:
        """Computes the share of `target - prediction` that becomes the error of the output, in [0, 1), `[batch]`.

        Raises:
            ValueError: If no parameter multiplies an activity on the way to the output.
        """
        square = graph.entering(OUTPUT, model, values, x)
        if self.norm != "example":
            over = jnp.mean if self.norm == "mean" else jnp.sum
            square = jnp.broadcast_to(over(square), square.shape)
        pull = self.learning_rate.astype(square.dtype) * (square + self.eps.astype(square.dtype))
        return pull / (1 + pull)
