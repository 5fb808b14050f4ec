"""Relaxed predictive coding: without transposed weights or derivatives, and with other wirings of error units."""

import math
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal._numbers import check, number, widened
from vicinal.credit import Credit, Info
from vicinal.graph import Graph
from vicinal.inference.relaxation import Order, check_relaxation, relax
from vicinal.losses import Loss, check_loss, loss_and_error, softmax_cross_entropy
from vicinal.rules.base import Rule, State

_CONNECTIONS = ("one-to-one", "fixed", "learned")


class RelaxedPC(Rule):
    """Predictive coding under fixed predictions, without some of its biologically implausible parts.

        h        = feedforward values, held with the Jacobians J at h
        error_l  = value_l - C_l h_l,           output error = -dLoss/d output at h
        value_l += step_size * (sum over children c of J_c^T error_c  -  error_l)
        gradient = the local product of the errors at h
        C_l     += connection_rate * mean over the batch of (error_l h_l^T)          (descent on 1/2 ||error_l||^2)

    Values start at `h`. Three parts can be left out, in any combination:

    - transposed weights, by a model with separate feedback weights (`vicinal.feedback.attach`, with `kolen_pollack` for
      the paper's learned backward weights);
    - derivatives of the activation functions in errors (`derivatives=False`; the local product keeps them);
    - the one-to-one wiring of value units and error units (`connections`): `C_l` is the identity, or a dense matrix at
      every vertex, drawn as `|normal|` with deviation `connection_scale`, which is fixed or learns. That of the output
      is always one-to-one.

    At equilibrium the errors do not depend on `C`: `value_l - C_l h_l` relaxes to what the children send, whatever
    `C_l h_l` is. But the transient does, and so do the errors after a finite number of steps.

    Args:
        steps: Number of sweeps, or of simultaneous steps.
        step_size: Step size of the activities. (The published .01 multiplies the slope of twice this energy: .02 here.)
        order: `"simultaneous"`, or `"sequential"` from the output down.
        derivatives: Whether `J` includes the derivatives of the activation functions.
        connections: `"one-to-one"`, `"fixed"` or `"learned"`: the wiring of error units. Dense matrices are the rule's
            state, by vertex, `[units, units]`; `init` needs a key for them.
        connection_scale: Standard deviation of the normal numbers whose magnitudes are the initial connections.
        connection_rate: Learning rate of the connections, for the batch mean; negative for the sign of the published
            code. (The published 5e-4 is for the sum over a batch of 64: .032 here.)
        loss: Loss of one example, `loss(output, target) -> scalar`.

    Raises:
        ValueError: If a setting is unknown or out of its range.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model, x, y = vc.nn.MLP((3, 4, 5, 2), key=jax.random.key(0)), jnp.ones((5, 3)), jnp.zeros(5, int)
        >>> graph, rule = vc.capture(model, x[0]), vc.rules.RelaxedPC(connections="learned")
        >>> state = rule.init(graph, model, key=jax.random.key(1))
        >>> {name: matrix.shape for name, matrix in state.items()}
        {'hidden1': (4, 4), 'hidden2': (5, 5)}

    References:
        Millidge, Tschantz, Seth and Buckley, Relaxing the constraints on predictive coding models, 2020, arXiv
        2010.01047.

    *Differs from the paper*: the published code updates the connections by `C -= rate * error h^T`, which ascends the
    energy (a remnant of an earlier definition of the error); here they descend it. The code clips values at ±1000 and
    drops the last two batches of an epoch. Here the loss gives the error of the output, and there are no error units in
    evaluation.
    """

    local: ClassVar[bool] = True
    holds_errors: ClassVar[bool] = True

    steps: int = eqx.field(static=True, default=100)
    step_size: Float[Array, ""] = eqx.field(converter=number, default=0.1)
    order: Order = eqx.field(static=True, default="simultaneous")
    derivatives: bool = eqx.field(static=True, default=True)
    connections: Literal["one-to-one", "fixed", "learned"] = eqx.field(static=True, default="one-to-one")
    connection_scale: Float[Array, ""] = eqx.field(converter=number, default=0.05)
    connection_rate: Float[Array, ""] = eqx.field(converter=number, default=5e-4)
    loss: Loss = eqx.field(static=True, default=softmax_cross_entropy)

    def __check_init__(self):
        check_relaxation(self.steps, self.step_size, self.order)
        if not isinstance(self.derivatives, bool):
            raise ValueError(f"expected derivatives as True or False, got {self.derivatives!r}")
        if self.connections not in _CONNECTIONS:
            raise ValueError(f"expected connections as one of {', '.join(_CONNECTIONS)}, got {self.connections!r}")
        check("the scale of the connections", self.connection_scale, lambda v: v >= 0, "of at least 0")
        check("the rate of the connections", self.connection_rate)
        check_loss(self.loss)

    def init(self, graph: Graph, model: PyTree, *, key: PRNGKeyArray | None = None) -> State:
        """Returns `C` of every vertex, `[units, units]`, or `()` for one-to-one wiring.

        Raises:
            ValueError: If connections are to be drawn and there is no key.
        """
        if self.connections == "one-to-one":
            return ()
        if key is None:
            raise ValueError("expected a key to draw the connections with, got none; rule.init(graph, model, key=key)")
        drawn = {}
        for name, drawing in zip(graph.vertices, jax.random.split(key, len(graph.vertices)), strict=True):
            held = graph.shapes[name]
            units = math.prod(held.shape)
            size = self.connection_scale.astype(held.dtype)
            drawn[name] = size * jnp.abs(jax.random.normal(drawing, (units, units), held.dtype))
        return drawn

    def credit(
        self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Credit, State]:
        output, values = graph.feedforward(model, x)
        loss, output_error = loss_and_error(self.loss, output, y)
        clamped = graph.clamp(model, x)
        errors = relax(
            clamped.linearize(values, self.derivatives),
            output_error,
            clamped.counted({name: value - self._wired(state, name, value) for name, value in values.items()}),
            steps=self.steps,
            step_size=self.step_size,
            order=self.order,
        )
        if self.connections == "learned":
            state = {name: matrix + self._change(errors[name], values[name]) for name, matrix in state.items()}
        info = Info(output, steps=jnp.full(loss.shape, self.steps, jnp.int32))
        return Credit(loss, values, errors, output_error, info), state

    def _wired(self, state: State, name: str, value: Array) -> Array:
        """Returns `C h`."""
        if self.connections == "one-to-one":
            return value
        flat = value.reshape(value.shape[0], -1)
        return jnp.dot(flat, state[name].T).reshape(value.shape)

    def _change(self, error: Array, value: Array) -> Array:
        """Returns `connection_rate * mean (error h^T)`."""
        batch, wide = value.shape[0], widened(value[:1]).dtype  # a sum over a batch needs more than half precision
        rate = self.connection_rate.astype(wide) / batch
        products = jnp.dot(error.reshape(batch, -1).T, value.reshape(batch, -1), preferred_element_type=wide)
        return (rate * products).astype(value.dtype)
