"""Phaseless alignment learning: feedback learns from noise at the same time as the weights learn."""

import math
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal._numbers import check, number, optional_number
from vicinal.activations import Activation
from vicinal.credit import Credit, Info, local_gradient
from vicinal.graph import OUTPUT, Graph, Values
from vicinal.losses import Loss, loss_and_error, softmax_cross_entropy
from vicinal.rules import _presentations
from vicinal.rules._chains import Link, arriving, drawn_below, links, mean_outer, rates_and_slopes, with_weights
from vicinal.rules._latent_equilibrium import (
    TimeConstants,
    check_decay,
    drift,
    high_pass,
    leak,
    low_pass,
    scaled,
    stationary,
)
from vicinal.rules._phaseless import PhaselessState, Running, at_rest
from vicinal.rules._presentations import check_always_on, running
from vicinal.rules.base import Rule, State

_NAME = "phaseless alignment"


class PhaselessAlignment(Rule):
    """Phaseless alignment learning (PAL): neurons in latent equilibrium, whose noise teaches feedback.

    Every batch is shown for `times.presentation` ms, in steps of `dt`. Each step computes, with rates `r = phi(value)`:

        xi_l     += (sqrt(tau_xi dt) sigma normal - dt xi_l) / tau_xi
        value_l   = W_l r_{l-1} + b_l + xi_l + nudge * error_l                the prospective voltage, u + tau du/dt
        error_L   = -dLoss/d output,    error_{l-1} = phi'(value_{l-1}) * (B_l error_l)
        rhat_l   += r_l(t) - r_l(t - dt) - dt/tau_HP rhat_l
        B_l      += dt * feedback_rate * (xi_{l-1} rhat_l^T - decay B_l)
        G_l      += dt/tau_LO (-error_l r_{l-1}^T - G_l)                      the gradient that the optimiser gets

    The error of the output is that of its potentials, as in the model. Its cells fire `r_L = phi_L(value_L)` by
    `output_activation`, the identity by default; feedback learns from these rates. Rates follow a change of the input
    at once, whatever the time constant of the membrane. Noise crosses a layer as `phi' W phi'`, so that feedback
    settles at

        B_l  =  (c sigma^2 / decay) E[phi'_{l-1} W_l^T phi'_l],      c = times.gain(batch_size is None)

    and with `regularizer="slopes"`, where the decay of `B_ij` has a factor `phi'_i phi'_j`, at `W^T` itself (times
    `c sigma^2 / decay`). There are no phases: W, b and B all learn in every step, from the mean over the batch.

    The optimiser is called at every step, `times.steps` times in each presentation, with `G / steps`. Use plain
    gradient descent: with a learning rate of `eta * presentation` it is `dW/dt = -eta G`. Schedules count
    presentations, but weight decay acts in each call, and an optimiser that normalises its step, such as Adam, moves as
    far in each call as in a whole update under another rule.

    `value_and_grad` holds the weights, while B learns, and returns the mean of `G` over the steps, which is what `step`
    applies to first order in the learning rate. As `G` starts at zero, the first `low_pass / presentation` updates are
    small.

    The graph must be a chain of layers with vertices at potentials. Feedback is learned for dense layers above a
    vertex. Errors go through convolutions and pooling as in the model: through the transposed kernels, or through
    the fixed random ones of `vicinal.feedback.attach`. Below the lowest learned feedback there is no noise.

    Evaluation (`vicinal.train.evaluate`, and the loss and output reported here) runs the model without noise.

    Args:
        times: Time constants, in ms (`vicinal.rules.TimeConstants`).
        sigma: Scale of the noise, in the unit of the potentials. With 0 feedback only decays.
        feedback_rate: Learning rate of the feedback, per ms; it takes `1 / (feedback_rate * decay)` ms to settle.
        decay: Decay of the feedback. None: `c sigma^2`, which makes the fixed point the transpose in a linear network.
            `dt * feedback_rate * decay` has to stay below 2, or feedback grows without bound.
        regularizer: `"plain"`, or `"slopes"` for the fixed point without derivatives. The latter needs one derivative
            per input of a layer, so no pooling between two layers.
        nudge: Weight with which an error moves its own voltage, in [0, 1). 0 is the published limit of weak nudging.
        feedback_scale: Initial feedback is normal, with this standard deviation over the root of the layer's inputs.
        batch_size: None: each presentation restarts with noise of its stationary variance and an empty filter. A
            number: this many networks, which share their weights, keep running; each batch must have this size.
        output_activation: Activation of the output's cells, a name or a function; the loss reads their potentials.
        loss: Loss of one example, `loss(output, target) -> scalar`.

    Raises:
        TypeError: If `times` are no `TimeConstants`.
        ValueError: If a setting is out of its range, the graph is not a chain of layers with vertices at potentials,
            two layers share a weight, or pooling lies below a layer with `regularizer="slopes"`.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 5, 2), vertex_at="pre", key=jax.random.key(0))
        >>> x, y = jnp.ones((5, 3)), jnp.zeros(5, int)
        >>> graph, rule = vc.capture(model, x[0]), vc.rules.PhaselessAlignment()
        >>> state = rule.init(graph, model, key=jax.random.key(1))
        >>> {name: feedback.shape for name, feedback in state.feedback.items()}
        {'hidden2': (5, 4), 'output': (2, 5)}
        >>> loss, gradient, state, info = rule.value_and_grad(graph, model, state, x, y)
        >>> gradient.layers[1].weight.shape, int(info.steps[0])
        ((5, 4), 100)

    References:
        Max, Kriener, Pineda García, Nowotny, Jaras, Senn and Petrovici, Learning efficient backprojections across
        cortical hierarchies in real time, Nature Machine Intelligence 6, 2024, arXiv 2212.10249.
        Haider, Ellenberger, Kriener, Jordan, Senn and Petrovici, Latent equilibrium, NeurIPS 2021, arXiv 2110.14549.

    *Differs from the paper*: the learning rate includes the factor `beta` of the paper's output error. The published
    code has no noise in the output layer, as here, but noise in all others; here, layers without learned feedback have
    none. The default decay is ours. The published settings are, in ms, those of `times` with sigma .05, feedback rate
    10 and decay 5e-5.
    """

    local: ClassVar[bool] = True
    phases: ClassVar[bool] = False
    holds_errors: ClassVar[bool] = True
    credit, assign, update = _presentations.credit, _presentations.assign, _presentations.update

    times: TimeConstants = eqx.field(static=True, default=TimeConstants())
    sigma: Float[Array, ""] = eqx.field(converter=number, default=0.05)
    feedback_rate: Float[Array, ""] = eqx.field(converter=number, default=10.0)
    decay: Float[Array, ""] | None = eqx.field(converter=optional_number, default=None)
    regularizer: Literal["plain", "slopes"] = eqx.field(static=True, default="plain")
    nudge: Float[Array, ""] = eqx.field(converter=number, default=0.0)
    feedback_scale: Float[Array, ""] = eqx.field(converter=number, default=1.0)
    batch_size: int | None = eqx.field(static=True, default=None)
    output_activation: Activation = eqx.field(static=True, default="identity")
    loss: Loss = eqx.field(static=True, default=softmax_cross_entropy)

    def __check_init__(self):
        check_always_on(self, ("sigma", "feedback_rate", "decay", "feedback_scale"))
        check("nudge", self.nudge, lambda v: (v >= 0) & (v < 1), "in [0, 1)")
        if self.regularizer not in ("plain", "slopes"):
            raise ValueError(f"expected regularizer as 'plain' or 'slopes', got {self.regularizer!r}")
        if self.regularizer == "plain":  # with slopes in the decay, the limit depends on them
            check_decay(self.times, self.feedback_rate, self._decay())

    def init(self, graph: Graph, model: PyTree, *, key: PRNGKeyArray | None = None) -> PhaselessState:
        """Draws the initial feedback; the neurons are at rest.

        Raises:
            ValueError: If there is no key, or this rule does not support the graph.
        """
        if key is None:
            raise ValueError("expected a key for feedback and noise, got none; rule.init(graph, model, key=key)")
        chain = links(graph, _NAME)
        for link in chain:
            if self.regularizer == "slopes" and math.prod(graph.shapes[link.below].shape) != link.shape[1]:
                raise ValueError(
                    f"expected regularizer='plain' where pooling stands between two layers, got 'slopes' and "
                    f"{link.node!r}, whose {link.shape[1]} inputs are pooled from {link.below!r}"
                )
        noise_key, *keys = jax.random.split(key, len(chain) + 1)
        feedback = {}
        for link, drawn in zip(chain, keys, strict=True):
            dtype = graph.shapes[link.below].dtype
            size = self.feedback_scale.astype(dtype) / jnp.sqrt(jnp.asarray(link.shape[1], dtype))
            feedback[link.node] = size * jax.random.normal(drawn, link.shape, dtype)
        products = jax.tree.map(jnp.zeros_like, graph.trainable(model))
        rest = None if self.batch_size is None else at_rest(graph, chain, self.batch_size)
        return PhaselessState(feedback, products, noise_key, rest)

    def noiseless(self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree) -> tuple[PyTree, Credit]:
        """Computes gradient and credit with the feedback of a state, without noise, nudging and low-pass.

        Args:
            graph: The captured graph.
            model: The model.
            state: From `init` or the last update.
            x: Inputs, `[batch, ...]`.
            y: Targets, `[batch, ...]`.

        Returns:
            `(gradient, credit)`, at feedforward values.
        """
        output, values = graph.feedforward(model, x)
        loss, output_error = loss_and_error(self.loss, output, y)
        errors = _errors(links(graph, _NAME), graph, model, state.feedback, values, output_error, x)
        credit = Credit(loss, values, errors, output_error, Info(output))
        return local_gradient(graph, model, credit, x), credit

    def advance(self, graph: Graph, model: PyTree, state: PhaselessState, x: PyTree, y: PyTree) -> PhaselessState:
        """Takes one step of `dt` of all but the weights, from a state with running neurons."""
        chain, times, held = links(graph, _NAME), self.times, running(state)
        key, noise = drawn_below(chain, state.key, lambda name, k: drift(held.noise[name], self.sigma, times, k))
        output, values = _propagate(graph, model, noise, held.errors, self.nudge, x)
        _, output_error = loss_and_error(self.loss, output, y)
        errors = _errors(chain, graph, model, state.feedback, values, output_error, x)
        rates, slopes = rates_and_slopes(graph, model, values | {OUTPUT: output}, x, self.output_activation)
        filtered = {n: high_pass(held.filtered[n], rates[n], held.rates[n], times) for n in held.rates}
        feedback = {}
        for link in chain:
            pair = filtered[link.node], arriving(graph, model, link, values, noise[link.below], x)
            feedback[link.node] = self._learned(state.feedback[link.node], pair, link, slopes)
        loss = jnp.zeros(output.shape[:1], output.dtype)
        credit = Credit(loss, values, errors, output_error, Info(output))
        products = low_pass(state.products, local_gradient(graph, model, credit, x), times)
        voltages = leak(held.voltages, values, times)
        every = errors | {OUTPUT: output_error}
        after = Running(voltages, values, every, noise, {n: rates[n] for n in held.rates}, filtered)
        return PhaselessState(feedback, products, key, after)

    def _learned(self, feedback: Array, pair: tuple[Array, Array], link: Link, slopes: Values) -> Array:
        """Returns `B^T + dt * rate * (rhat xi^T - decay B^T)`."""
        taught, lost = mean_outer(*pair), scaled(self._decay(), feedback) * feedback
        if self.regularizer == "slopes":
            lost = lost * mean_outer(slopes[link.node], slopes[link.below].reshape(pair[1].shape))
        return feedback + scaled(self.times.dt, feedback) * scaled(self.feedback_rate, feedback) * (taught - lost)

    def _decay(self) -> Array:
        return self.times.gain(self.batch_size is None) * jnp.square(self.sigma) if self.decay is None else self.decay

    def fresh(self, graph: Graph, model: PyTree, state: PhaselessState, x: PyTree, batch: int) -> PhaselessState:
        """Returns a state with noise of its stationary variance and empty filters."""
        chain = links(graph, _NAME)
        rest = at_rest(graph, chain, batch)
        key, noise = drawn_below(
            chain, state.key, lambda name, k: stationary(rest.noise[name], self.sigma, self.times, k)
        )
        output, values = _propagate(graph, model, noise, rest.errors, self.nudge, x)
        rates, _ = rates_and_slopes(graph, model, values | {OUTPUT: output}, x, self.output_activation)
        begun = Running(rest.voltages, values, rest.errors, noise, {n: rates[n] for n in rest.rates}, rest.filtered)
        return PhaselessState(state.feedback, state.products, key, begun)


def _propagate(
    graph: Graph, model: PyTree, noise: Values, errors: Values, nudge: Array, x: PyTree
) -> tuple[Array, Values]:
    """Computes output and values: every vertex at its prediction, plus noise and nudge."""
    pushes = {name: scaled(nudge, error) * error for name, error in errors.items()}
    deviations = {name: pushes[name] + noise[name] if name in noise else pushes[name] for name in graph.vertices}
    output, values = graph.clamp(model, x).propagate(deviations)
    return output + pushes[OUTPUT], values


def _errors(
    chain: tuple[Link, ...],
    graph: Graph,
    model: PyTree,
    feedback: dict[str, Array],
    values: Values,
    output_error: Array,
    x: PyTree,
) -> Values:
    """Computes `phi' * (B error)` from the top down: the adjoints of the graph with `B^T` in place of dense weights."""
    carrying = with_weights(model, {link.weight: feedback[link.node] for link in chain})
    return graph.adjoints(carrying, values, x, output_error)
