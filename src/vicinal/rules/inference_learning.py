"""Inference learning: activities settle first, then each synapse learns from its two ends."""

import numbers
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal._numbers import check, number
from vicinal.credit import Credit, Info, local_gradient
from vicinal.energy import SUBTRACTIVE, Encoding, VertexEnergy, check_encoding, check_precision, converted
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

    With `average = r` the local product is not taken at the end alone, but as its mean over the values `v(t)` after
    each of the last `m = ceil(r T)` of the `T` inference steps:

        gradient = 1/m sum over t = T-m+1 .. T of dF/dtheta at v(t)

    This is for networks whose activities are read with noise (`vicinal.hardware`): the error of a vertex is a small
    difference of a value and of a prediction that was read, and each step reads with noise of its own, which the mean
    leaves less of. What is read from the same values at each step, such as the first layer's prediction of a held
    input, keeps its draw.

    Statistics of the batch (batch norm) and masks of dropout are those of the feedforward pass, and are held while
    activities settle.

    Args:
        inference: The strategy by which activities settle (`vicinal.inference`).
        loss: Loss of one example, `loss(output, target) -> scalar`.
        nudge: 1 clamps the output to the target; `n < 1` holds it at `n * target + (1 - n) * prediction`. The soft
            target of weight `beta`, `(beta * target + prediction) / (1 + beta)`, is `n = beta / (1 + beta)`.
        start: Initial activities: `"feedforward"`, or `"random"`, independent standard normal (this needs a key).
        precision: A number for all vertices, or a mapping from names to numbers; 1 by default.
        encoding: The encoding of errors (`vicinal.energy`): differences by default, or ratios (`Divisive`).
        proximal: Holds the output at its proximal optimum for a learning rate (IL-prox). None: at the target.
        average: The last part of the inference steps over which the local product is averaged, from 0 to 1; 0.5 is the
            last half, 0 the end alone. It needs inference without a tolerance. Norms for the normalised step are those
            at the end.
        throw: Whether diverged or non-finite inference raises (`RuntimeError`) instead of being reported in `Info`.

    Raises:
        TypeError: If `inference` is not a strategy, or `average` no number.
        ValueError: If `start` is unknown, a number is out of range, a precision names no vertex of the graph, or the
            local product is averaged and inference has a tolerance or settles in a way of its own.

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
    average: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        if self.start not in ("feedforward", "random"):
            raise ValueError(f"expected start as 'feedforward' or 'random', got {self.start!r}")
        if not isinstance(self.inference, Inference):
            raise TypeError(f"expected a vicinal.inference strategy, got {type(self.inference).__name__}")
        check("nudge", self.nudge, lambda v: (v > 0) & (v <= 1), "in (0, 1]")
        check_loss(self.loss)
        check_encoding(self.encoding)
        if isinstance(self.average, bool) or not isinstance(self.average, numbers.Real):
            raise TypeError(f"expected average as a Python number from 0 to 1, got {self.average!r}")
        check("average, a part of the steps,", self.average, lambda v: (v >= 0) & (v <= 1), "from 0 to 1")
        if self.average:
            self.inference.check_steps()
            if type(self.inference).settle is not Inference.settle:
                kind = type(self.inference).__name__
                raise ValueError(
                    f"expected a strategy that settles step by step, since the local product is averaged, got {kind}, "
                    "which settles in a way of its own; set average=0"
                )

    @property
    def takes_product_of_credit(self) -> bool:
        return not self.average

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
        return self._settled(self.problem(graph, model, x, y), key)[0], state

    def assign(
        self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, Credit, State]:
        if not self.average:
            return super().assign(graph, model, state, x, y, key=key)
        problem = self.problem(graph, model, x, y)

        def product(values: Values) -> PyTree:
            errors = problem.errors(values)
            here = Credit(errors.loss, values, errors.by_vertex, errors.output, Info(None))
            return local_gradient(graph, model, here, x)

        credit, gradient = self._settled(problem, key, observe=product, part=self.average)
        return gradient, credit, state

    def _settled(self, problem: Problem, key: PRNGKeyArray | None, **observed: Any) -> tuple[Credit, PyTree]:
        """The credit at the end of inference, and the mean of what was observed, if anything."""
        output, feedforward = problem.graph.feedforward(problem.model, problem.x)
        loss, _ = loss_and_error(self.loss, output, problem.y)
        settled = self.inference.settle(problem, self.begin(feedforward, key), **observed)
        if self.throw:
            settled = _throw(settled)
        errors = problem.errors(settled.values)
        info = Info(output, settled.result, settled.steps, settled.energies, settled.trace)
        return Credit(loss, settled.values, errors.by_vertex, errors.output, info), settled.observed

    def problem(self, graph: Graph, model: PyTree, x: PyTree, y: PyTree) -> Problem:
        """Returns the problem that inference solves: the energy with input and target held.

        Args:
            graph: The captured graph.
            model: The model.
            x: Inputs, `[batch, ...]`.
            y: Targets, `[batch, ...]`.

        Returns:
            The problem, for `vicinal.analysis.conditioning` and `equilibrium_residual`, for example.

        Raises:
            ValueError: If a precision names no vertex of the graph.
        """
        check_precision(self.precision, graph)
        return Problem(graph, model, x, y, self.loss, self.nudge, self.precision, self.proximal, self.encoding)

    def errors(self, graph: Graph, model: PyTree, credit: Credit, x: PyTree) -> Values:
        _, predictions = graph.predict(model, credit.values, x)
        return VertexEnergy(self.precision, self.encoding).errors(credit.values, predictions)

    def begin(self, feedforward: Values, key: PRNGKeyArray | None = None) -> Values:
        """Returns the activities at the start of inference.

        Args:
            feedforward: The feedforward values, `[batch, ...]`.
            key: A key for the random start.

        Returns:
            The activities, `[batch, ...]`.

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
