"""Relaxed predictive coding: without transposed weights, without derivatives, and with any wiring of error units."""

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
    """Predictive coding under fixed predictions, with what is hard to believe of a brain left out one thing at a time.

        h        = feedforward values, held with the Jacobians J at h
        error_l  = value_l - C_l h_l,           output error = -dLoss/d output at h
        value_l += step_size * (sum over children c of J_c^T error_c  -  error_l)
        gradient = the local product of the errors at h
        C_l     += connection_rate * mean over the batch of (error_l h_l^T)          (descent on 1/2 ||error_l||^2)

    Values begin at `h`. Three things can be left out, in any combination:

    - the transposed weights, by a model with weights of their own on the way down (`vicinal.feedback.attach`, with
      `kolen_pollack` for the paper's learned backward weights);
    - the derivatives of the activation functions on the way down (`derivatives=False`; the local product keeps them);
    - the one-to-one wiring of value units and error units (`connections`): `C_l = 1`, or a dense matrix of every
      vertex, `|normal|` with deviation `connection_scale` at first, that stays or learns. The output's is one-to-one.

    At rest the errors do not depend on `C`: `value_l - C_l h_l` relaxes to what the children send, whatever `C_l h_l`
    is. What depends on it is the way there, and so what is left after some steps.

    Args:
        steps: Steps, or sweeps.
        step_size: Of the activities. (The published .01 stands before a slope of twice this energy: .02 here.)
        order: `"simultaneous"`, or `"sequential"` from the output down.
        derivatives: Whether `J` holds the derivatives of the activation functions.
        connections: `"one-to-one"`, `"fixed"` or `"learned"`: the wiring of error units. Dense matrices are the rule's
            state, by vertex, `[units, units]`; `init` needs a key for them.
        connection_scale: Standard deviation of the normal numbers whose size the first connections have.
        connection_rate: Learning rate of the connections, of the batch mean; negative for the sign of the published
            code. (The published 5e-4 is of the sum over a batch of 64: .032 here.)
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

    *Differs from the paper*: the published code changes the connections by `C -= rate * error h^T`, which climbs the
    energy (it is left from an earlier form of the error); here they descend it. It clips what moves at ±1000 and drops
    the last two batches of an epoch. Here an output's error is the loss's, and a test-time network has no error units.
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
        check("the rate of the connections", self.connection_rate, jnp.isfinite, "that is finite")
        check_loss(self.loss)

    def init(self, graph: Graph, model: PyTree, *, key: PRNGKeyArray | None = None) -> State:
        """Returns `C` of every vertex, or `()` where the wiring is one-to-one.

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
        """`C h`."""
        if self.connections == "one-to-one":
            return value
        flat = value.reshape(value.shape[0], -1)
        return jnp.dot(flat, state[name].T).reshape(value.shape)

    def _change(self, error: Array, value: Array) -> Array:
        """`connection_rate * mean (error h^T)`."""
        batch, wide = value.shape[0], widened(value[:1]).dtype  # a sum over a batch needs more than half precision
        rate = self.connection_rate.astype(wide) / batch
        products = jnp.dot(error.reshape(batch, -1).T, value.reshape(batch, -1), preferred_element_type=wide)
        return (rate * products).astype(value.dtype)
