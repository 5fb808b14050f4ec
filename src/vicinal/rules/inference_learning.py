"""Inference learning: activities settle first, then each synapse learns from what its two ends hold."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal._numbers import check, number
from vicinal.credit import Credit, Info
from vicinal.energy import SUBTRACTIVE, Encoding, Weighted, check_encoding, check_precision, converted
from vicinal.graph import Graph, Values
from vicinal.inference import Inference, Problem, Proximal, Result, Simultaneous
from vicinal.losses import Loss, check_loss, loss_and_error, softmax_cross_entropy
from vicinal.rules.base import Rule, State


class InferenceLearning(Rule):
    """Inference learning (IL), the algorithm that trains predictive-coding circuits ("strict" predictive coding).

        F        = nudge * loss(output, y) + sum over vertices of precision/2 ||value_l - prediction_l||^2
        values   = inference on F, from the feedforward values
        error_l  = precision * (value_l - prediction_l),    output error = -nudge * dLoss/d output
        gradient = dF/dtheta at the settled values          (the local product)

    Statistics of the batch (batch norm) are taken in the feedforward pass and held while activities settle, and so are
    the masks of dropout.

    Args:
        inference: How activities settle.
        loss: Loss of one example, `loss(output, target) -> scalar`.
        nudge: 1 clamps the output to the target; `n < 1` holds it at `n * target + (1 - n) * prediction`. The soft
            target of weight `beta`, `(beta * target + prediction) / (1 + beta)`, is `n = beta / (1 + beta)`.
        start: `"feedforward"`, or `"random"`: independent standard normal activities (needs a key).
        precision: One number for all vertices, or one for each by name; 1 by default.
        encoding: How errors are encoded (`vicinal.energy`): as differences by default, or as ratios (`Divisive`).
        proximal: Holds the output at its proximal optimum for a learning rate instead of at the target (IL-prox).
        throw: Whether diverged or non-finite inference raises (`RuntimeError`) instead of being reported in `Info`.

    Raises:
        ValueError: If `start` is unknown, or a precision names no vertex of the graph.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 2), key=jax.random.key(0))
        >>> graph = vc.capture(model, jnp.ones(3))
        >>> settle = vc.inference.Simultaneous(steps=50, step_size=0.1, tolerance=1e-3)
        >>> rule = vc.rules.InferenceLearning(inference=settle)
        >>> _, gradient, _, info = rule.value_and_grad(graph, model, (), jnp.ones((1, 3)), jnp.zeros(1, int))
        >>> vc.inference.Result(int(info.result[0])).name
        'CONVERGED'

    References:
        Rao and Ballard, Predictive coding in the visual cortex, Nature Neuroscience 2, 1999. Alonso et al., A
        theoretical framework for inference learning, NeurIPS 2022, arXiv 2206.00164.

    *Differs from the paper*: the published code of 2206.00164 halves the softmax output's error during inference,
    though not in the weight update; here the weight is 1 in both.
    """

    local: ClassVar[bool] = True

    inference: Inference = eqx.field(default_factory=Simultaneous)  # made when needed: importing starts no backend
    loss: Loss = eqx.field(static=True, default=softmax_cross_entropy)
    nudge: Float[Array, ""] = eqx.field(converter=number, default=1.0)
    start: str = eqx.field(static=True, default="feedforward")
    precision: Any = eqx.field(converter=converted, default=None)
    throw: bool = eqx.field(static=True, default=False)
    proximal: Proximal | None = None
    encoding: Encoding = SUBTRACTIVE

    def __check_init__(self):
        if self.start not in ("feedforward", "random"):
            raise ValueError(f"expected start as 'feedforward' or 'random', got {self.start!r}")
        if not isinstance(self.inference, Inference):
            raise TypeError(f"expected a vicinal.inference strategy, got {type(self.inference).__name__}")
        check("nudge", self.nudge, lambda v: (v > 0) & (v <= 1), "in (0, 1]")
        check_loss(self.loss)
        check_encoding(self.encoding)

    def credit(
        self,
        graph: Graph,
        model: PyTree,
        state: State,
        x: PyTree,
        y: PyTree,
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Credit, State]:
        problem = self.problem(graph, model, x, y)
        output, feedforward = graph.feedforward(model, x)
        loss, _ = loss_and_error(self.loss, output, y)
        settled = self.inference.settle(problem, self.begin(feedforward, key))
        if self.throw:
            settled = _throw(settled)
        errors = problem.errors(settled.values)
        info = Info(output, settled.result, settled.steps, settled.energies, settled.trace)
        return Credit(loss, settled.values, errors.vertices, errors.output, info), state

    def problem(self, graph: Graph, model: PyTree, x: PyTree, y: PyTree) -> Problem:
        """What inference minimises: the energy with input and target held.

        Args:
            graph: The captured graph.
            model: The model.
            x: Inputs, `[batch, ...]`.
            y: Targets, `[batch, ...]`.

        Returns:
            The problem; `vicinal.analysis.conditioning` and `equilibrium_residual` measure it.

        Raises:
            ValueError: If a precision names no vertex of the graph.
        """
        check_precision(self.precision, graph)
        return Problem(graph, model, x, y, self.loss, self.nudge, self.precision, self.proximal, self.encoding)

    def errors(self, graph: Graph, model: PyTree, credit: Credit, x: PyTree) -> Values:
        _, predictions = graph.predict(model, credit.values, x)
        return Weighted(self.precision, self.encoding).errors(credit.values, predictions)

    def begin(self, feedforward: Values, key: PRNGKeyArray | None = None) -> Values:
        """The activities that inference begins with.

        Args:
            feedforward: The feedforward values, `[batch, ...]`.
            key: Needed for the random start.

        Raises:
            ValueError: If the start is random and there is no key.
        """
        if self.start == "feedforward":
            return feedforward
        if key is None:
            raise ValueError("expected a key for the random start, got None; pass key=jax.random.key(...)")
        keys = jax.random.split(key, max(len(feedforward), 1))
        return {
            name: jax.random.normal(k, value.shape, value.dtype)
            for k, (name, value) in zip(keys, feedforward.items(), strict=False)
        }


def _throw(settled: Any) -> Any:
    for code in (Result.NON_FINITE, Result.DIVERGED):
        failed = jnp.any(settled.result == code)
        settled = eqx.error_if(settled, failed, f"inference {code.sentence}")
    return settled
