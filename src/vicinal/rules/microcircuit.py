"""Phaseless alignment in a cortical microcircuit: pyramidal cells, and interneurons that predict the layer above."""

import dataclasses
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal._numbers import number, optional_number
from vicinal.activations import Activation
from vicinal.credit import Credit, Info, local_gradient
from vicinal.graph import OUTPUT, Graph, Values
from vicinal.losses import Loss, loss_and_error, squared_error
from vicinal.rules import _presentations
from vicinal.rules._chains import Link, drawn_below, mean_outer, rates_and_slopes
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
from vicinal.rules._microcircuit import (
    Cells,
    Conductances,
    MicrocircuitState,
    at_rest,
    dendrite,
    dense_chain,
    predicting,
)
from vicinal.rules._presentations import begin, check_always_on, held_credit, running
from vicinal.rules.base import Rule, State


class Microcircuit(Rule):
    """Phaseless alignment in a model of cortex: pyramidal cells of three compartments, and interneurons.

    The interneurons of a layer predict the rates of the layer above and cancel them in the apical dendrites; the rest
    is the error. Each step of `dt` computes, with rates `r = phi(u)` and prospective voltages `u`:

        p_l    = W_l r_{l-1} + b_l                                     the soma as the basal dendrite predicts it
        v_l    = B^PP_l r_{l+1} + B^PI_l r^I_{l+1}                     apical dendrite, from the rates of a step ago
        u_l    = p_l + apical_share (v_l + xi_l),  u_L = p_L - target_share dLoss/dp_L
        q      = W^IP_l r_l + b^I_l                                    dendrite of the interneurons of node l + 1
        u^I    = (1 - interneuron_share) q + interneuron_share u_{l+1}
        G_l   += dt/tau_LO (-(r_l - phi(p_l)) r_{l-1}^T - G_l)           the gradient that the optimiser gets
        W^IP  += dt interneuron_rate (r^I - phi(q)) r_l^T
        B^PI  -= dt apical_rate v_l r^I^T
        B^PP  += dt feedback_rate (xi_l rhat_{l+1}^T - decay B^PP)

    There are no phases. In the self-predicting state, `W^IP_l = W_{l+1}` and `B^PI = -B^PP`, apical dendrites are
    silent unless there is an error, or noise from above. `B^PI` does not learn from the noise of its own dendrite,
    which it would otherwise carry into the next errors. Small errors come down as `phi' B^PP error`, with a factor of
    `conductances.error_share` per layer, so that where `B^PP` is the transpose, the gradient `k` layers below the
    output is that of backpropagation times `target_share error_share^k`. Interneurons have to learn faster than forward
    weights change, and `B^PI` faster than `B^PP` but more slowly than errors change.

    Time, noise, `decay=None` (here `c sigma^2 apical_share`), the use of the optimiser, `batch_size` and evaluation are
    as in `PhaselessAlignment`. The graph must be a chain of dense layers with vertices at potentials. The optimiser is
    called `times.steps` times in each presentation. Use plain gradient descent: schedules count presentations, but
    weight decay acts in each call, and an optimiser that normalises its step, such as Adam, moves `times.steps` times
    as far.

    The loss reads the potentials of the output, whose cells fire `r_L = phi_L(u_L)` by `output_activation`, the
    identity by default. All weights learn from rates, so with another activation the error that they learn from is
    `-phi_L'(p_L) dLoss/dp_L`, and the cells of the output learn at different speeds.

    Args:
        times: Time constants, in ms; the conductances of a membrane set its time constant, not `times.membrane`.
        conductances: Conductances of the compartments.
        sigma: Scale of the noise in the apical dendrites.
        feedback_rate: Learning rate of `B^PP`, per ms.
        interneuron_rate: Learning rate of `W^IP`, per ms.
        apical_rate: Learning rate of `B^PI`, per ms.
        decay: Decay of `B^PP`, or None; `dt * feedback_rate * decay` has to stay below 2.
        start: Initial weights to and from interneurons: `"self-predicting"` or `"random"`.
        feedback_scale: Initial feedback is normal, with this standard deviation over the root of the layer's inputs.
        batch_size: None: each presentation restarts. A number: this many circuits keep running.
        output_activation: Activation of the output's cells, a name or a function; the loss reads their potentials.
        loss: Loss of one example, `loss(output, target) -> scalar`; a squared error is a target voltage.

    Raises:
        TypeError: If `times` or `conductances` have another type.
        ValueError: If a setting is out of its range, or the graph is not a chain of dense layers.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 5, 2), "sigmoid", vertex_at="pre", key=jax.random.key(0))
        >>> x, y = jnp.ones((6, 3)), jnp.zeros((6, 2))
        >>> graph, rule = vc.capture(model, x[0]), vc.rules.Microcircuit()
        >>> state = rule.init(graph, model, key=jax.random.key(1))
        >>> {name: weight.shape for name, (weight, _) in state.interneurons.items()}
        {'hidden2': (5, 4), 'output': (2, 5)}

    References:
        Max, Kriener, Pineda García, Nowotny, Jaras, Senn and Petrovici, Learning efficient backprojections across
        cortical hierarchies in real time, Nature Machine Intelligence 6, 2024, arXiv 2212.10249.
        Sacramento, Costa, Bengio and Senn, Dendritic cortical microcircuits approximate the backpropagation algorithm,
        NeurIPS 2018, arXiv 1810.11393.

    *Differs from the paper*: forward weights include the attenuation from dendrite to soma (`W` here is `g_bas / (g_l +
    g_bas + g_api)` times theirs, `W^IP` likewise), so that the circuit without feedback equals the model. Output units
    are linear by default; theirs are logistic. Rates reach the layer above within a step and the layer below in the
    next; in the published code they take a step both ways. The default decay is ours.
    """

    local: ClassVar[bool] = True
    phases: ClassVar[bool] = False
    holds_errors: ClassVar[bool] = True
    credit, assign, update = _presentations.credit, _presentations.assign, _presentations.update

    times: TimeConstants = eqx.field(static=True, default=TimeConstants())
    conductances: Conductances = eqx.field(static=True, default=Conductances())
    sigma: Float[Array, ""] = eqx.field(converter=number, default=0.05)
    feedback_rate: Float[Array, ""] = eqx.field(converter=number, default=10.0)
    interneuron_rate: Float[Array, ""] = eqx.field(converter=number, default=1.0)
    apical_rate: Float[Array, ""] = eqx.field(converter=number, default=0.05)
    decay: Float[Array, ""] | None = eqx.field(converter=optional_number, default=None)
    start: Literal["self-predicting", "random"] = eqx.field(static=True, default="self-predicting")
    feedback_scale: Float[Array, ""] = eqx.field(converter=number, default=1.0)
    batch_size: int | None = eqx.field(static=True, default=None)
    output_activation: Activation = eqx.field(static=True, default="identity")
    loss: Loss = eqx.field(static=True, default=squared_error)

    def __check_init__(self):
        rates = ("feedback_rate", "interneuron_rate", "apical_rate")
        check_always_on(self, ("sigma", *rates, "decay", "feedback_scale"))
        if not isinstance(self.conductances, Conductances):
            raise TypeError(f"expected conductances as vicinal.rules.Conductances, got {self.conductances!r}")
        if self.conductances.membrane < self.times.dt:
            raise ValueError(
                f"expected dt of at most the time constant of the somata, {self.conductances.membrane:g} ms by their "
                f"conductances, got {self.times.dt:g}; take smaller conductances or a shorter dt"
            )
        check_decay(self.times, self.feedback_rate, self._decay())
        if self.start not in ("self-predicting", "random"):
            raise ValueError(f"expected start as 'self-predicting' or 'random', got {self.start!r}")

    def init(self, graph: Graph, model: PyTree, *, key: PRNGKeyArray | None = None) -> MicrocircuitState:
        """Draws the weights that are not in the model.

        Raises:
            ValueError: If there is no key, or the graph is not a chain of dense layers with vertices at potentials.
        """
        if key is None:
            raise ValueError("expected a key for feedback and noise, got none; rule.init(graph, model, key=key)")
        chain = dense_chain(graph)
        noise_key, *keys = jax.random.split(key, len(chain) + 1)
        feedback, lateral, interneurons = {}, {}, predicting(chain, model)
        for link, drawn in zip(chain, keys, strict=True):
            weight, bias = interneurons[link.node]
            size = self.feedback_scale.astype(weight.dtype) / jnp.sqrt(jnp.asarray(link.shape[1], weight.dtype))
            feedback[link.node], lateral[link.node], other = size * jax.random.normal(
                drawn, (3, *link.shape), weight.dtype
            )
            interneurons[link.node] = (other, bias)
        products = jax.tree.map(jnp.zeros_like, graph.trainable(model))
        cells = None if self.batch_size is None else at_rest(graph, chain, self.batch_size)
        state = MicrocircuitState(feedback, lateral, interneurons, products, noise_key, cells)
        return state if self.start == "random" else self.self_predicting(graph, model, state)

    def noiseless(self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree) -> tuple[PyTree, Credit]:
        """Computes gradient and credit of the circuit at rest, without noise and with all weights held.

        This is what forward weights learn on average.

        Args:
            graph: The captured graph.
            model: The model.
            state: From `init` or the last update.
            x: Inputs, `[batch, ...]`.
            y: Targets, `[batch, ...]`.

        Returns:
            `(gradient, credit)`, after `20 (layers + 1)` steps from the state without errors.
        """
        none = {name: jnp.zeros_like(self.sigma) for name in ("sigma", "feedback_rate", "interneuron_rate")}
        still: Any = dataclasses.replace(self, **none, apical_rate=none["sigma"], batch_size=None)
        advance, begun, loss, output = begin(still, graph, model, state, x, y)
        steps = 20 * (len(graph.vertices) + 1)
        moved, _ = jax.lax.scan(lambda moving, _: (advance(model, moving), None), begun, length=steps)
        credit = held_credit(self, moved, loss, output)
        return local_gradient(graph, model, credit, x), credit

    def self_predicting(self, graph: Graph, model: PyTree, state: MicrocircuitState) -> MicrocircuitState:
        """Returns the state with interneurons that predict, and cancel, all feedback where there are no errors."""
        lateral = jax.tree.map(jnp.negative, state.feedback)
        return dataclasses.replace(state, lateral=lateral, interneurons=predicting(dense_chain(graph), model))

    def advance(self, graph: Graph, model: PyTree, state: MicrocircuitState, x: PyTree, y: PyTree) -> MicrocircuitState:
        """Takes one step of `dt` of all but the forward weights, from a state with running cells."""
        chain, times, held = dense_chain(graph), self.times, running(state)
        key, noise = drawn_below(chain, state.key, lambda name, k: drift(held.noise[name], self.sigma, times, k))
        apical = _apical(chain, state)
        somata, basal = self._somata(graph, model, apical, noise, x, y)
        rates, expected = self._rates(graph, model, somata, x), self._rates(graph, model, basal, x)
        errors = {name: rates[name] - expected[name] for name in somata}
        weights, interneurons = self._interneurons(chain, graph, model, state, rates, somata, x)
        filtered = {n: high_pass(held.filtered[n], rates[n], held.rates[n], times) for n in held.rates}
        feedback, lateral = self._coming_down(chain, state, filtered, noise, apical)
        values, own = ({name: of[name] for name in graph.vertices} for of in (somata, errors))
        loss = jnp.zeros(basal[OUTPUT].shape[:1], basal[OUTPUT].dtype)
        credit = Credit(loss, values, own, errors[OUTPUT], Info(basal[OUTPUT]))
        products = low_pass(state.products, local_gradient(graph, model, credit, x), times)
        voltages = leak(held.voltages, values, dataclasses.replace(times, membrane=self.conductances.membrane))
        kept = {n: rates[n] for n in held.rates}
        cells = Cells(voltages, values, apical, interneurons, errors, noise, kept, filtered)
        return MicrocircuitState(feedback, lateral, weights, products, key, cells)

    def _somata(
        self, graph: Graph, model: PyTree, apical: Values, noise: Values, x: PyTree, y: PyTree
    ) -> tuple[Values, Values]:
        """Returns `u_l = p_l + apical_share (v_l + xi_l)`, `u_L = p_L - target_share dLoss/dp_L`, and `p` of each."""
        shares = self.conductances
        lift = {name: scaled(shares.apical_share, v) * (v + noise[name]) for name, v in apical.items()}
        predicted, values = graph.clamp(model, x).propagate(lift)
        _, error = loss_and_error(self.loss, predicted, y)
        somata = values | {OUTPUT: predicted + scaled(shares.target_share, error) * error}
        return somata, {name: value - lift[name] for name, value in values.items()} | {OUTPUT: predicted}

    def _coming_down(
        self, chain: tuple[Link, ...], state: MicrocircuitState, filtered: Values, noise: Values, apical: Values
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Returns `B^PP + dt rate (xi rhat^T - decay B^PP)` and `B^PI - dt rate v r^I^T`, both transposed."""
        feedback, lateral = {}, {}
        for link in chain:
            down = state.feedback[link.node]
            taught = mean_outer(filtered[link.node], noise[link.below]) - scaled(self._decay(), down) * down
            feedback[link.node] = down + self._in_step(self.feedback_rate, down) * taught
            silenced = mean_outer(running(state).interneurons[link.node], apical[link.below])
            lateral[link.node] = state.lateral[link.node] - self._in_step(self.apical_rate, down) * silenced
        return feedback, lateral

    def _interneurons(
        self,
        chain: tuple[Link, ...],
        graph: Graph,
        model: PyTree,
        state: MicrocircuitState,
        rates: Values,
        somata: Values,
        x: PyTree,
    ) -> tuple[dict[str, tuple[Array, Array | None]], Values]:
        """Returns the interneurons' weights after the step, and their rates."""
        dendrites = {link.node: dendrite(state.interneurons[link.node], rates[link.below]) for link in chain}
        share = self.conductances.interneuron_share
        own = {n: scaled(1 - share, q) * q + scaled(share, q) * somata[n] for n, q in dendrites.items()}
        fired = self._rates(graph, model, somata | own, x)
        expected = self._rates(graph, model, somata | dendrites, x)
        moved = {}
        for link in chain:
            weight, bias = state.interneurons[link.node]
            missed = fired[link.node] - expected[link.node]
            rate = self._in_step(self.interneuron_rate, missed)
            bias = None if bias is None else bias + rate * jnp.mean(missed, axis=0)
            moved[link.node] = (weight + rate * mean_outer(missed, rates[link.below]), bias)
        return moved, {link.node: fired[link.node] for link in chain}

    def _rates(self, graph: Graph, model: PyTree, values: Values, x: PyTree) -> Values:
        return rates_and_slopes(graph, model, values, x, self.output_activation)[0]

    def _in_step(self, rate: Array, like: Array) -> Array:
        return scaled(self.times.dt, like) * scaled(rate, like)

    def _decay(self) -> Array:
        if self.decay is not None:
            return self.decay
        gain = self.times.gain(self.batch_size is None) * self.conductances.apical_share
        return gain * jnp.square(self.sigma)

    def fresh(self, graph: Graph, model: PyTree, state: MicrocircuitState, x: PyTree, batch: int) -> MicrocircuitState:
        """Returns cells without errors, with noise of its stationary variance that has not reached a soma yet."""
        chain = dense_chain(graph)
        rest = at_rest(graph, chain, batch)
        output, values = graph.feedforward(model, x)
        rates = self._rates(graph, model, values | {OUTPUT: output}, x)
        # Without learning and nudging the interneurons' rates are what follows.
        _, interneurons = self._interneurons(chain, graph, model, state, rates, values | {OUTPUT: output}, x)
        key, noise = drawn_below(
            chain, state.key, lambda name, k: stationary(rest.noise[name], self.sigma, self.times, k)
        )
        kept = {link.node: rates[link.node] for link in chain}
        cells = dataclasses.replace(rest, values=values, interneurons=interneurons, noise=noise, rates=kept)
        return dataclasses.replace(state, key=key, running=cells)


def _apical(chain: tuple[Link, ...], state: MicrocircuitState) -> Values:
    """Returns `v_l = B^PP_l r_{l+1} + B^PI_l r^I_{l+1}`, from the rates of a step ago."""
    held = running(state)
    return {
        link.below: jnp.dot(held.rates[link.node], state.feedback[link.node])
        + jnp.dot(held.interneurons[link.node], state.lateral[link.node])
        for link in chain
    }
