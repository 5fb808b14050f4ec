"""How learned feedback comes to lie under rules without phases, what it does to updates, and voltages in time."""

import dataclasses
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from vicinal.activations import Activation
from vicinal.analysis.angles import angle, angles
from vicinal.graph import OUTPUT, Graph
from vicinal.rules import Backprop, Microcircuit, PhaselessAlignment, State
from vicinal.rules._chains import leaves_by_path, links, mean_outer, rates_and_slopes


class FeedbackAngles(eqx.Module):
    """How learned feedback lies beside its layer's weight; angles in degrees.

    Attributes:
        weight: Of `B^T` to `W`.
        transported: To `E[phi' W phi']` over the examples, what noise carries through the layer.
        norm_ratio: The norm of `B` over that of `W`.
        sign_agreement: The share of entries whose signs agree, in [0, 1].
    """

    weight: Float[Array, ""]
    transported: Float[Array, ""]
    norm_ratio: Float[Array, ""]
    sign_agreement: Float[Array, ""]


def learned_feedback_angles(
    graph: Graph,
    model: PyTree,
    feedback: Mapping[str, Float[Array, "above below"]],
    x: PyTree,
    output_activation: Activation = "identity",
) -> dict[str, FeedbackAngles]:
    """How like its layer's weight each learned feedback is, and how like what noise carries through the layer.

    Noise goes through the derivatives of both layers, so that feedback learned from it settles along
    `E[phi'_above W phi'_below]`. The two angles differ where units are saturated.

    Args:
        graph: The captured graph, a chain of layers.
        model: The model.
        feedback: Of the state of `PhaselessAlignment` or `Microcircuit`.
        x: Inputs to average over, `[batch, ...]`.
        output_activation: By which cells of the output fire, as the rule has it.

    Returns:
        By what the layer predicts (`"hidden2"`, `"output"`).

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 2), vertex_at="pre", key=jax.random.key(0))
        >>> graph = vc.capture(model, jnp.ones(3))
        >>> found = learned_feedback_angles(graph, model, {"output": 2 * model.layers[1].weight}, jnp.ones((5, 3)))
        >>> float(found["output"].weight), float(found["output"].norm_ratio), float(found["output"].transported) > 0
        (0.0, 2.0, True)

    References:
        Max, Kriener, Pineda García, Nowotny, Jaras, Senn and Petrovici, 2024, arXiv 2212.10249, figure 3.
    """
    output, values = graph.feedforward(model, x)
    _, slopes = rates_and_slopes(graph, model, values | {OUTPUT: output}, x, output_activation)
    arrays = leaves_by_path(model)
    found = {}
    for link in links(graph, "learned feedback"):
        weight, learned = arrays[link.weight], feedback[link.node]
        below = slopes[link.below].reshape(output.shape[0], -1)
        # Where pooling stands between, what noise goes through is not one derivative for each input of the layer.
        fits = below.shape[1] == link.shape[1]
        carried = weight * mean_outer(slopes[link.node], below) if fits else weight
        found[link.node] = FeedbackAngles(
            angle(learned, weight),
            angle(learned, carried) if fits else jnp.full((), jnp.nan, weight.dtype),
            jnp.linalg.norm(learned) / jnp.linalg.norm(weight),
            jnp.mean((jnp.sign(learned) == jnp.sign(weight)).astype(jnp.float32)),
        )
    return found


def phaseless_update_angles(
    rule: PhaselessAlignment | Microcircuit, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree
) -> dict[str, Float[Array, ""]]:
    """The angle to backpropagation of what the feedback of a state makes of a batch, noise off; in degrees.

    Backpropagation begins with the loss of the output's potentials, as it is. Weights of a `Microcircuit` learn from
    rates, so that those of an output that fires by another activation than the identity are not at 0 degrees.

    Args:
        rule: The rule.
        graph: The captured graph.
        model: The model.
        state: The rule's state.
        x: Inputs, `[batch, ...]`.
        y: Targets, `[batch, ...]`.

    Returns:
        As `vicinal.analysis.angles`: one for each weight matrix, and `"concatenated"`.
    """
    ours, _ = rule.noiseless(graph, model, state, x, y)
    _, exact, _, _ = Backprop(loss=rule.loss).value_and_grad(graph, model, (), x, y)
    return angles(ours, exact)


class Traces(eqx.Module):
    """What one network holds along some presentations; each array `[time, units]`.

    Attributes:
        time: In ms, `[time]`.
        voltages: `u` of each vertex.
        prospective: `u + tau du/dt` of each vertex, of which rates are made.
        errors: Of each vertex, and of the output.
        noise: Where there is some.
        rates: Of the nodes that feedback comes from.
        filtered: The same high-passed.
        apical: Of the apical dendrites of a `Microcircuit`; empty for `PhaselessAlignment`.
    """

    time: Float[Array, " time"]
    voltages: dict[str, Float[Array, "time ..."]]
    prospective: dict[str, Float[Array, "time ..."]]
    errors: dict[str, Float[Array, "time ..."]]
    noise: dict[str, Float[Array, "time ..."]]
    rates: dict[str, Float[Array, "time ..."]]
    filtered: dict[str, Float[Array, "time ..."]]
    apical: dict[str, Float[Array, "time ..."]]


def voltage_traces(
    rule: PhaselessAlignment | Microcircuit, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree
) -> Traces:
    """Shows examples to one network, one after another, and records what it holds after each step.

    The network begins at rest, with the feedback of the state and the noise of its key. Feedback goes on learning, the
    weights are held. The first presentation and each change of the input are seen as the network sees them.

    Args:
        rule: The rule.
        graph: The captured graph.
        model: The model.
        state: The rule's state.
        x: The inputs to show, `[presentations, ...]`.
        y: Their targets, `[presentations, ...]`.

    Returns:
        The traces, of `presentations * rule.times.steps` steps.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 2), vertex_at="pre", key=jax.random.key(0))
        >>> graph, rule = vc.capture(model, jnp.ones(3)), vc.rules.PhaselessAlignment()
        >>> state = rule.init(graph, model, key=jax.random.key(1))
        >>> traces = voltage_traces(rule, graph, model, state, jnp.ones((2, 3)), jnp.zeros(2, int))
        >>> traces.prospective["hidden1"].shape, round(float(traces.time[-1]), 3)
        ((200, 4), 20.0)
    """
    alone: PhaselessAlignment | Microcircuit = dataclasses.replace(rule, batch_size=1)
    state = dataclasses.replace(state, running=alone.init(graph, model, key=state.key).running)

    def present(state: State, example: tuple[PyTree, PyTree]) -> tuple[State, PyTree]:
        x, y = jax.tree.map(lambda leaf: leaf[None], example)

        def move(state: State, _: None) -> tuple[State, PyTree]:
            state = alone.advance(graph, model, state, x, y)
            return state, jax.tree.map(lambda leaf: leaf[0], state.running)

        return jax.lax.scan(move, state, length=rule.times.steps)

    _, seen = jax.lax.scan(present, state, (x, y))
    seen = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), seen)
    steps = jax.tree.leaves(seen)[0].shape[0]
    time = jnp.arange(1, steps + 1, dtype=jnp.float32) * jnp.float32(rule.times.dt)
    return Traces(
        time,
        seen.voltages,
        seen.values,
        seen.errors,
        seen.noise,
        seen.rates,
        seen.filtered,
        seen.apical if isinstance(rule, Microcircuit) else {},
    )
