"""Fixed prediction: predictive coding with predictions and Jacobians frozen at the feedforward pass."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal._numbers import number
from vicinal.credit import Credit, Info
from vicinal.graph import Graph
from vicinal.inference.relaxation import Order, check_relaxation, relax
from vicinal.losses import Loss, check_loss, loss_and_error, softmax_cross_entropy
from vicinal.rules.base import Rule, State


class FixedPrediction(Rule):
    """Predictive coding under the fixed-prediction assumption; its equilibrium is backpropagation, on any graph.

        h        = feedforward values, held with the Jacobians J at h
        error_l  = value_l - h_l,          output error = -dLoss/d output at h
        value_l += step_size * (sum over children c of J_c^T error_c  -  error_l)
        gradient = the local product of the errors at h

    With a step size of 1, one top-down sweep is exact (the default), and so are as many simultaneous steps as there
    are vertices on the longest path to the output. With a smaller one the errors approach their fixed point
    geometrically.

    The literature distinguishes three modes. *Strict* is `InferenceLearning`, where predictions and Jacobians follow
    the activities, so that it differs from backpropagation. *Fixed prediction* is this rule, and *exact* is `Backprop`.
    Fixed prediction has to store the feedforward pass while activities relax: do not report it as strict predictive
    coding.

    Args:
        steps: Number of sweeps, or of simultaneous steps.
        step_size: Step size of the activities.
        order: `"sequential"`, from the output down, or `"simultaneous"`.
        loss: Loss of one example, `loss(output, target) -> scalar`.

    Raises:
        ValueError: If a setting is out of its range.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model, x, y = vc.nn.MLP((3, 4, 4, 2), key=jax.random.key(0)), jnp.ones((5, 3)), jnp.zeros(5, int)
        >>> graph = vc.capture(model, x[0])
        >>> ours, exact = vc.rules.FixedPrediction(), vc.rules.Backprop()
        >>> found, expected = (rule.value_and_grad(graph, model, (), x, y)[1] for rule in (ours, exact))
        >>> round(float(vc.analysis.angles(found, expected)["concatenated"]))
        0

    References:
        Millidge, Tschantz and Buckley, Predictive coding approximates backprop along arbitrary computation graphs,
        Neural Computation 34, 2022, arXiv 2006.04182. Rosenbaum, On the relationship between predictive coding and
        backpropagation, PLoS ONE 17, 2022, arXiv 2106.13082 (the modes' names).
    """

    local: ClassVar[bool] = True
    holds_errors: ClassVar[bool] = True

    steps: int = eqx.field(static=True, default=1)
    step_size: Float[Array, ""] = eqx.field(converter=number, default=1.0)
    order: Order = eqx.field(static=True, default="sequential")
    loss: Loss = eqx.field(static=True, default=softmax_cross_entropy)

    def __check_init__(self):
        check_relaxation(self.steps, self.step_size, self.order)
        check_loss(self.loss)

    def credit(
        self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Credit, State]:
        output, values = graph.feedforward(model, x)
        loss, output_error = loss_and_error(self.loss, output, y)
        errors = relax(
            graph.clamp(model, x).linearize(values),
            output_error,
            jax.tree.map(jnp.zeros_like, values),
            steps=self.steps,
            step_size=self.step_size,
            order=self.order,
        )
        info = Info(output, steps=jnp.full(loss.shape, self.steps, jnp.int32))
        return Credit(loss, values, errors, output_error, info), state
