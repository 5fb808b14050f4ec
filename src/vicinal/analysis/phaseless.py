"""Rules without phases: the angles of their learned feedback and of their updates, and their voltages over time."""

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
    """Learned feedback compared with its layer's weight; angles in degrees.

    Attributes:
        weight: The angle between `B^T` and `W`.
        transported: The angle between `B^T` and `E[phi' W phi']`, how noise crosses the layer; averaged over examples.
        norm_ratio: The norm of `B` divided by that of `W`.
        sign_agreement: The share of entries with equal signs, in [0, 1].
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
    """Compares each learned feedback with its layer's weight, and with how noise crosses the layer.

    Noise passes the derivatives of both layers, so that feedback learned from it converges to the direction of
    `E[phi'_above W phi'_below]`. The two angles differ where units are saturated.

    Args:
        graph: The captured graph, a chain of layers.
        model: The model.
        feedback: The `feedback` of the state of `PhaselessAlignment` or `Microcircuit`.
        x: Inputs to average over, `[batch, ...]`.
        output_activation: The activation function of the output's rates, as in the rule.

    Returns:
        The angles, by the node that the layer predicts (`"hidden2"`, `"output"`).

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
        # With pooling in between, the derivative is not one number for each input of the layer.
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
    """The angles between a rule's update without noise and backpropagation's, in degrees.

    Backpropagation differentiates the loss of the output's potentials. The weights of a `Microcircuit` learn from
    rates; unless the output's activation is the identity, its output weights are not at 0 degrees.

    Args:
        rule: The rule.
        graph: The captured graph.
        model: The model.
        state: The rule's state.
        x: Inputs, `[batch, ...]`.
        y: Targets, `[batch, ...]`.

    Returns:
        The angles, as `vicinal.analysis.angles` names them: one for each weight matrix, and `"concatenated"`.
    """
    ours, _ = rule.noiseless(graph, model, state, x, y)
    _, exact, _, _ = Backprop(loss=rule.loss).value_and_grad(graph, model, (), x, y)
    return angles(ours, exact)


class Traces(eqx.Module):
    """The state of one network over time; each array is `[time, units]`.

    Attributes:
        time: Time in ms, `[time]`.
        voltages: `u` of each vertex.
        prospective: The prospective voltage `u + tau du/dt` of each vertex, from which rates are computed.
        errors: The error of each vertex and of the output.
        noise: The noise of each node that has some.
        rates: The rates of the nodes that send feedback.
        filtered: The same rates after the high-pass filter.
        apical: The apical voltages of a `Microcircuit`; empty for `PhaselessAlignment`.
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
    """Presents examples to one network, one after another, and records its state after each step.

    The network starts at rest, with the feedback of the state and the noise of its key. Feedback keeps learning; the
    weights are held.

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
    single: PhaselessAlignment | Microcircuit = dataclasses.replace(rule, batch_size=1)
    state = dataclasses.replace(state, running=single.init(graph, model, key=state.key).running)

    def present(state: State, example: tuple[PyTree, PyTree]) -> tuple[State, PyTree]:
        x, y = jax.tree.map(lambda leaf: leaf[None], example)

        def move(state: State, _: None) -> tuple[State, PyTree]:
            state = single.advance(graph, model, state, x, y)
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
