"""Activation relaxation: the activities relax to the gradients."""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal._numbers import number
from vicinal.clamped import Linearized
from vicinal.credit import Credit, Info
from vicinal.graph import Graph, Values
from vicinal.inference.relaxation import Order, check_relaxation, relax
from vicinal.losses import Loss, check_loss, loss_and_error, softmax_cross_entropy
from vicinal.rules.base import Rule, State

_FROZEN = ("all", "derivative", "product", "none")


class ActivationRelaxation(Rule):
    """Activation relaxation (AR): after a forward pass, the activity of each unit relaxes to its gradient.

        h        = feedforward values
        q_l      = h_l at first,           q_output = dLoss/d output, held
        q_l     -= step_size * (q_l  -  sum over children c of J_c^T q_c)
        gradient = the local product of the errors  error_l = -q_l

    There are no error units and there is one phase. At equilibrium `q_l = dLoss/dh_l`, which is backpropagation, on any
    graph. In the paper's order, from the output down, one sweep with a step size of 1 is exact. With smaller steps, a
    share of about `(1 - step_size)^steps` of the activities remains in the gradients, and activities are often many
    times larger than gradients: the paper's 100 sweeps of .1 (the default) come close to the gradient, no more.

    Biologically implausible parts can be left out one by one:

    - derivatives of the activation functions in errors (`derivatives=False`; the local product keeps them);
    - transposed weights, by a model with separate feedback weights (`vicinal.feedback`);
    - the memory of the forward pass, which the relaxation overwrites (`frozen`).

    Args:
        steps: Number of sweeps, or of simultaneous steps.
        step_size: Step size of the activities.
        order: `"sequential"`, from the output down, or `"simultaneous"`.
        derivatives: Whether `J` includes the derivatives of the activation functions: of every non-linear elementwise
            function of one array (unless a jitted function contains it together with a product).
        frozen: What reads the forward pass `h` during and after the relaxation: `"all"`; `"derivative"`, only `J`,
            while the local product reads the relaxed activities `q`; `"product"`, only the local product, while `J` is
            taken at the activities as they relax; or `"none"`.
        loss: Loss of one example, `loss(output, target) -> scalar`.

    Raises:
        ValueError: If a setting is unknown or out of its range.

    Example:
        >>> ActivationRelaxation(steps=100, step_size=0.1, derivatives=False).frozen
        'all'

    References:
        Millidge, Tschantz, Seth and Buckley, Activation relaxation: a local dynamical approximation to backpropagation
        in the brain, 2020, arXiv 2009.05359; and Investigating the scalability and biological plausibility of the
        activation relaxation algorithm, 2020, arXiv 2010.06219 (convolutions; without the frozen pass).

    *Differs from the paper*: the published code has one bias for each position in the batch, and takes the derivatives
    without it; here biases are parameters like others. We could not read the second paper's text on the frozen pass;
    the four choices of `frozen` are our reading.
    """

    local: ClassVar[bool] = True
    holds_errors: ClassVar[bool] = True

    steps: int = eqx.field(static=True, default=100)
    step_size: Float[Array, ""] = eqx.field(converter=number, default=0.1)
    order: Order = eqx.field(static=True, default="sequential")
    derivatives: bool = eqx.field(static=True, default=True)
    frozen: Literal["all", "derivative", "product", "none"] = eqx.field(static=True, default="all")
    loss: Loss = eqx.field(static=True, default=softmax_cross_entropy)

    def __check_init__(self):
        check_relaxation(self.steps, self.step_size, self.order)
        if self.frozen not in _FROZEN:
            raise ValueError(f"expected frozen as one of {', '.join(_FROZEN)}, got {self.frozen!r}")
        if not isinstance(self.derivatives, bool):
            raise ValueError(f"expected derivatives as True or False, got {self.derivatives!r}")
        check_loss(self.loss)

    def credit(
        self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Credit, State]:
        output, values = graph.feedforward(model, x)
        loss, output_error = loss_and_error(self.loss, output, y)
        clamped = graph.clamp(model, x)

        def around(errors: Values) -> Linearized:
            return clamped.linearize(jax.tree.map(jnp.negative, errors), self.derivatives)

        errors = relax(
            clamped.linearize(values, self.derivatives) if self.frozen in ("all", "derivative") else around,
            output_error,
            jax.tree.map(jnp.negative, values),
            steps=self.steps,
            step_size=self.step_size,
            order=self.order,
        )
        held = values if self.frozen in ("all", "product") else jax.tree.map(jnp.negative, errors)
        info = Info(output, steps=jnp.full(loss.shape, self.steps, jnp.int32))
        return Credit(loss, held, errors, output_error, info), state
