"""Implicit SGD: the proximal step, which inference learning approximates."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal._minimise import minimise
from vicinal._numbers import check, check_turns, is_half, number, widened
from vicinal.credit import Credit
from vicinal.graph import Graph, Values
from vicinal.inference import Result
from vicinal.losses import Loss, softmax_cross_entropy
from vicinal.rules.backprop import Backprop
from vicinal.rules.base import Rule, State


class ImplicitSGD(Rule):
    """Implicit SGD: the gradient of the loss at the end of the step, not at its start.

        theta+   = argmin  loss(theta) + ||theta - theta_b||^2 / (2 alpha)
        gradient = (theta_b - theta+) / alpha = grad loss(theta+)

    so that gradient descent with the same learning rate `alpha` takes the proximal step. L-BFGS minimises
    `alpha * loss + ||theta - theta_b||^2 / 2`, whose gradient is the optimality residual
    `theta+ - theta_b + alpha * grad loss(theta+)`. This works for any model and any batch; a step costs some tens of
    gradients. See `vicinal.analysis.proximal_activities` for the same step in the space of activities.

    Args:
        learning_rate: `alpha`; give the optimiser (`optax.sgd`) the same.
        loss: Loss of one example, `loss(output, target) -> scalar`.
        steps: Largest number of L-BFGS iterations.
        tolerance: Stop once the norm of the residual is below this, or below this times the norm of the step.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.nn.Linear(2, 1, use_bias=False, key=jax.random.key(0))
        >>> x, y, alpha = jnp.array([[3.0, 4.0]]), jnp.array([[1.0]]), 2.0
        >>> rule = vc.rules.ImplicitSGD(learning_rate=alpha, loss=vc.losses.squared_error)
        >>> _, gradient, _, _ = rule.value_and_grad(vc.capture(model, x[0]), model, (), x, y)
        >>> closed_form = -(y - x @ model.weight.T) * x / (1 + alpha * 25.0)
        >>> bool(jnp.allclose(gradient.weight, closed_form, atol=1e-5))
        True

    References:
        Toulis and Airoldi, Asymptotic and finite-sample properties of estimators based on stochastic gradients,
        Annals of Statistics 45, 2017. Alonso et al., A theoretical framework for inference learning, NeurIPS 2022,
        arXiv 2206.00164.
    """

    local: ClassVar[bool] = False

    learning_rate: Float[Array, ""] = eqx.field(converter=number, default=1.0)
    loss: Loss = eqx.field(static=True, default=softmax_cross_entropy)
    steps: int = eqx.field(static=True, default=200)
    tolerance: Float[Array, ""] = eqx.field(converter=number, default=1e-6)

    def __check_init__(self):
        check("the learning rate", self.learning_rate, lambda v: v >= 0, "of at least 0")
        check("the tolerance", self.tolerance, lambda v: v >= 0, "of at least 0")
        check_turns("steps", self.steps, 0)

    def credit(
        self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Credit, State]:
        """Assigns the credit of backpropagation at the end of the step, with the loss at its start."""
        return self.assign(graph, model, state, x, y, key=key)[1:]

    def errors(self, graph: Graph, model: PyTree, credit: Credit, x: PyTree) -> Values:
        return Backprop(loss=self.loss).errors(graph, model, credit, x)

    def assign(
        self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, Credit, State]:
        reference = Backprop(loss=self.loss)
        before, _ = reference.credit(graph, model, (), x, y)
        ended, converged, steps = self.solve(graph, model, x, y)
        gradient, after, _ = reference.assign(graph, ended, (), x, y)
        code = jnp.where(converged, jnp.int32(Result.CONVERGED), jnp.int32(Result.STEP_LIMIT))
        code = jnp.where(jnp.all(jnp.isfinite(after.loss)), code, jnp.int32(Result.NON_FINITE))
        batch = before.loss.shape
        info = dataclasses.replace(
            before.info, result=jnp.broadcast_to(code, batch), steps=jnp.broadcast_to(steps, batch)
        )
        credit = dataclasses.replace(after, loss=before.loss, info=info)
        return gradient, credit, state

    def solve(self, graph: Graph, model: PyTree, x: PyTree, y: PyTree) -> tuple[PyTree, Array, Array]:
        """Finds the proximal point.

        Args:
            graph: The captured graph.
            model: The model, at `theta_b`.
            x: Inputs, `[batch, ...]`.
            y: Targets, `[batch, ...]`.

        Returns:
            `(model, converged, steps)`: the model at `theta+`, whether the residual met the tolerance, and the
            L-BFGS iterations taken.
        """
        parameters, rest = graph.partition(model)
        # Find the step in float32, also for a model in half precision; it is cast where the parameters are used.
        flat, rebuild = jax.flatten_util.ravel_pytree(jax.tree.map(widened, parameters))
        alpha = self.learning_rate.astype(flat.dtype)

        def at(step: Array) -> PyTree:
            moved = jax.tree.map(lambda wide, p: wide.astype(p.dtype), rebuild(flat + step), parameters)
            return eqx.combine(moved, rest)

        def objective(step: Array) -> Array:
            output, _ = graph.feedforward(at(step), x)
            return alpha * jnp.mean(widened(jax.vmap(self.loss)(output, y))) + 0.5 * jnp.sum(jnp.square(step))

        tolerance, minimised = self.tolerance, objective
        if is_half(parameters):
            tolerance = jnp.maximum(tolerance, _rounding(parameters))
            minimised = _with_slope(objective, lambda step: alpha * self._slope(graph, at(step), x, y) + step)
        step, converged, steps = minimise(minimised, jnp.zeros_like(flat), steps=self.steps, tolerance=tolerance)
        return at(step), converged, steps

    def _slope(self, graph: Graph, model: PyTree, x: PyTree, y: PyTree) -> Array:
        """Computes the gradient of the mean loss in float32, by the products of `Backprop`, which keep small errors."""
        _, gradient, _, _ = Backprop(loss=self.loss).value_and_grad(graph, model, (), x, y)
        return jax.flatten_util.ravel_pytree(jax.tree.map(widened, gradient))[0]


def _with_slope(function: Callable[[Array], Array], slope: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Gives a function this derivative: through a mean, errors in half precision would underflow to 0."""
    found = jax.custom_vjp(function)
    found.defvjp(lambda step: (function(step), step), lambda step, cotangent: (cotangent * slope(step),))
    return found


def _rounding(parameters: PyTree) -> Array:
    """Returns the relative precision of the parameters, below which a residual cannot fall."""
    return jnp.asarray(max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(parameters)), float)
