"""What is measured while feedback learns from noise beside weights that are held."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal import nn
from vicinal.analysis import learned_feedback_angles, phaseless_update_angles, voltage_traces
from vicinal.graph import Graph, capture
from vicinal.rules import Microcircuit, PhaselessAlignment
from vicinal.train import keys_of

_SIZES = (5, 20, 10, 20, 5)
_NODES = ("hidden2", "hidden3", "output")
_MARKS = 10
PROBE = 64  # examples that angles are means over

Angles = dict[str, Float[np.ndarray, "..."]]
"""By what they are of, `[seeds, marks + 1, layers]`, and the times."""


@dataclasses.dataclass(frozen=True)
class Condition:
    """Weights that feedback has to align with, with the published rates.

    Attributes:
        name: Name in tables.
        bound: Weights are uniform between minus this and this.
        feedback_rate: Learning rate of the feedback, per ms.
        apical_rate: Learning rate of the circuit's weights from interneurons, per ms.
        presentations: Number of inputs shown.
    """

    name: str
    bound: float
    feedback_rate: float
    apical_rate: float
    presentations: int


CONDITIONS = (Condition("lin", 1.0, 50.0, 5.0, 10_000), Condition("nonlin", 5.0, 20.0, 0.5, 50_000))
"""Units in their linear range, and saturated ones."""

Learner = PhaselessAlignment | Microcircuit


def train(rule: Learner, condition: Condition, factors: list[float], seeds: int) -> Angles:
    """Times `[marks + 1]`, and angles `[seeds, marks + 1, layers]` by what they are of."""
    model, _ = _networks(condition, factors, keys_of(0)[0])
    graph, each = capture(model, jnp.zeros(_SIZES[0])), condition.presentations // _MARKS
    untaught = dataclasses.replace(rule, loss=_no_target)

    @eqx.filter_jit
    def along(key: PRNGKeyArray) -> dict[str, Array]:
        weights, inputs, start, probed = jax.random.split(key, 4)
        student, shown = _networks(condition, factors, weights)
        probe = jax.random.uniform(probed, (PROBE, _SIZES[0]))

        def present(state: PyTree, key: PRNGKeyArray) -> tuple[PyTree, None]:
            x = jax.random.uniform(key, (rule.batch_size or 1, _SIZES[0]))
            return untaught.value_and_grad(graph, student, state, x, jnp.zeros((len(x), _SIZES[-1])))[2], None

        def mark(state: PyTree, key: PRNGKeyArray) -> tuple[PyTree, dict[str, Array]]:
            state, _ = jax.lax.scan(present, state, jax.random.split(key, each))
            return state, measured(state)

        def measured(state: PyTree) -> dict[str, Array]:
            return _angles(rule, graph, student, state, probe, jax.vmap(shown)(probe))

        start_state = rule.init(graph, student, key=start)
        _, seen = jax.lax.scan(mark, start_state, jax.random.split(inputs, _MARKS))
        return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), measured(start_state), seen)

    runs = [along(keys_of(seed)[0]) for seed in range(seeds)]
    found = {name: np.stack([np.asarray(run[name]) for run in runs]) for name in runs[0]}
    return found | {"time": np.arange(_MARKS + 1) * each * rule.times.presentation}


def voltages(rule: Learner, condition: Condition, factors: list[float]) -> dict[str, Any]:
    """What one unit of the lowest layer holds while two inputs are shown, with first feedback and with targets."""
    weights, inputs, start = jax.random.split(keys_of(0)[0], 3)
    student, shown = _networks(condition, factors, weights)
    x, graph = jax.random.uniform(inputs, (2, _SIZES[0])), capture(student, jnp.zeros(_SIZES[0]))
    state = rule.init(graph, student, key=start)
    traces, layer = voltage_traces(rule, graph, student, state, x, jax.vmap(shown)(x)), graph.vertices[0]
    held = {"membrane": traces.voltages, "prospective": traces.prospective}
    held |= {"apical, without noise": traces.apical} if traces.apical else {}
    of_unit = {of: voltage[layer][:, 0].tolist() for of, voltage in held.items()}
    return {"layer": layer, "time": traces.time.tolist(), "of": of_unit}


def _no_target(output: Array, target: Array) -> Array:
    """A loss without an error: what an output without a target sees."""
    return jnp.dot(jnp.zeros_like(output), output - target)


def _networks(condition: Condition, factors: list[float], key: PRNGKeyArray) -> tuple[nn.MLP, nn.MLP]:
    """The network, and the teacher that its targets are from."""

    def drawn(key: PRNGKeyArray) -> nn.MLP:
        model = nn.MLP(_SIZES, "sigmoid", vertex_at="pre", use_bias=False, key=key)
        keys = jax.random.split(key, len(model.layers))
        weights = [
            factor * jax.random.uniform(k, layer.weight.shape, minval=-condition.bound, maxval=condition.bound)
            for k, layer, factor in zip(keys, model.layers, factors, strict=True)
        ]
        return eqx.tree_at(lambda m: [layer.weight for layer in m.layers], model, weights)

    first, second = jax.random.split(key)
    return drawn(first), drawn(second)


def _angles(rule: Learner, graph: Graph, model: PyTree, state: PyTree, x: Array, y: Array) -> dict[str, Array]:
    likeness = learned_feedback_angles(graph, model, state.feedback, x, output_activation=rule.output_activation)

    def turned(state: PyTree) -> Array:
        def one(x: Array, y: Array) -> Array:
            found = phaseless_update_angles(rule, graph, model, state, x[None], y[None])
            return jnp.stack([found[f"layers[{i}].weight"] for i in range(len(model.layers))])

        return jnp.mean(jax.vmap(one)(x, y), axis=0)

    found = {
        "weight": jnp.stack([likeness[node].weight for node in _NODES]),
        "transported": jnp.stack([likeness[node].transported for node in _NODES]),
    }
    if not isinstance(rule, Microcircuit):
        return found | {"update": turned(state)}
    return found | {"update": turned(rule.self_predicting(graph, model, state)), "standing": turned(state)}
