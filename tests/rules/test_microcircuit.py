"""The cortical microcircuit: silent while it predicts itself, backpropagation's limit, and a plain loop beside it."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matrix import full
from precision import double

import vicinal as vc
from vicinal.analysis import angle, phaseless_update_angles, voltage_traces
from vicinal.rules import Conductances, Microcircuit, TimeConstants

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
SQUARED = vc.losses.squared_error
LAYERS = lambda model: model.layers  # noqa: E731
TIMES = TimeConstants(dt=0.5, xi=1.0, high_pass=1.0, presentation=5.0, low_pass=10.0)


def network(*sizes, gain=2.0):
    model = vc.nn.MLP(sizes, "sigmoid", vertex_at="pre", key=KEY)
    return jax.tree.map(lambda leaf: gain * leaf if eqx.is_inexact_array(leaf) else leaf, model)


def task(model, batch):
    x = jax.random.uniform(jax.random.key(1), (batch, model.layers[0].weight.shape[1]), jnp.float64)
    graph = vc.capture(model, x[0])
    return graph, x, eqx.filter_jit(graph.feedforward)(model, x)[0]


def largest(tree):
    return max(float(np.max(np.abs(leaf))) for leaf in jax.tree.leaves(tree))


def difference(a, b):
    return largest(jax.tree.map(lambda one, other: np.asarray(one) - np.asarray(other), a, b))


def with_transposes(state, model):
    down = {name: model.layers[i].weight for i, name in enumerate(state.feedback, 1)}
    return dataclasses.replace(state, feedback=down, lateral=jax.tree.map(jnp.negative, down))


def test_shares_are_those_of_conductances():
    found = Conductances(leak=1.0, basal=2.0, apical=5.0, dendritic=3.0, interneuron=4.0, target=7.0)
    assert found.apical_share == 5 / 8
    assert found.interneuron_share == 0.5
    assert found.target_share == 0.7
    assert found.error_share == pytest.approx(5 / 16)
    # The attenuations that forward weights hold: interneurons of attenuated weights W predict attenuated somata.
    basal, dendritic = 2 / 8, 3 / 4
    assert basal * 0.3 == pytest.approx(dendritic * (2 * (1 + 3) / (3 * 8)) * 0.3)


def test_the_self_predicting_state_is_silent_without_nudging(x64):
    model = double(network(3, 6, 5, 2))
    graph, x, output = task(model, 4)
    rule = Microcircuit(times=TIMES, sigma=0.0, feedback_rate=0.0)
    state = eqx.filter_jit(rule.init)(graph, model, key=KEY)
    traces = eqx.filter_jit(voltage_traces)(
        rule, graph, model, state, jnp.repeat(x[:1], 6, 0), jnp.repeat(output[:1], 6, 0)
    )
    for name in ("hidden1", "hidden2"):
        assert np.max(np.abs(traces.apical[name][3:])) < 1e-12  # a step for what begins at rest to get there
        np.testing.assert_allclose(
            traces.prospective[name][4:], jnp.tile(eqx.filter_jit(graph.feedforward)(model, x[:1])[1][name], (56, 1))
        )
    # All its plasticities leave it where it is; a target that differs does not.
    present = eqx.filter_jit(lambda target: rule.value_and_grad(graph, model, state, x, target))
    moved = present(output)
    assert largest(moved[1]) < 1e-13
    assert difference(moved[2].lateral, state.lateral) < 1e-13
    assert difference(moved[2].interneurons, state.interneurons) < 1e-13
    assert largest(present(output + 1)[1]) > 1e-3


def test_interneurons_can_be_set_to_predict(x64):
    model = double(network(3, 6, 5, 2))
    graph, x, output = task(model, 4)
    rule = Microcircuit(times=TIMES, start="random", output_activation="sigmoid")
    state = eqx.filter_jit(rule.init)(graph, model, key=KEY)
    assert largest(eqx.filter_jit(rule.noiseless)(graph, model, state, x, output)[0]) > 1e-3
    set_right = eqx.filter_jit(rule.self_predicting)(graph, model, state)
    assert largest(eqx.filter_jit(rule.noiseless)(graph, model, set_right, x, output)[0]) < 1e-13
    assert difference(set_right.feedback, state.feedback) == 0


def test_interneurons_learn_to_predict_themselves_silent(x64):
    model = double(network(3, 6, 5, 2))
    graph, x, output = task(model, 50)
    times = dataclasses.replace(TIMES, presentation=100.0, low_pass=200.0)
    rule = Microcircuit(
        times=times, sigma=0.0, feedback_rate=0.0, interneuron_rate=2.0, apical_rate=0.5, start="random", batch_size=50
    )
    run = eqx.filter_jit(lambda rule, state: rule.value_and_grad(graph, model, state, x, output)[2])
    begun = eqx.filter_jit(rule.init)(graph, model, key=KEY)
    still = run(dataclasses.replace(rule, interneuron_rate=jnp.float64(0), apical_rate=jnp.float64(0)), begun)
    state = begun
    for _ in range(10):
        state = run(rule, state)
    for name in ("hidden1", "hidden2"):
        assert largest(state.running.apical[name]) < 0.2 * largest(still.running.apical[name])


@pytest.mark.parametrize("fires", ["identity", full("sigmoid")])
def test_small_errors_come_down_as_in_backpropagation(fires, x64):
    """The gradient of each layer is backpropagation's times its share, up to what is of second order in the shares.

    Where the output is logistic, it is that of an error of `phi'` times the loss's, up to what is of first order: the
    curvature of `phi` at the output.
    """
    model = double(network(3, 6, 5, 4))
    graph, x, output = task(model, 7)
    y = output + jax.random.normal(KEY, output.shape, jnp.float64)
    rate = 1 / (1 + jnp.exp(-output))
    error = (rate * (1 - rate) if fires == "sigmoid" else 1.0) * (output - y)
    exact = eqx.filter_jit(
        jax.grad(lambda layers: jnp.sum(error * jax.vmap(eqx.tree_at(LAYERS, model, layers))(x)) / 7)
    )(model.layers)
    gaps = []
    for small in (0.04, 0.02):
        shares = Conductances(apical=0.13 * small, interneuron=0.13 * small, target=0.13 * small)
        rule = Microcircuit(times=TIMES, conductances=shares, sigma=0.0, output_activation=fires)
        state = with_transposes(eqx.filter_jit(rule.init)(graph, model, key=KEY), model)
        ours, _ = eqx.filter_jit(rule.noiseless)(graph, model, state, x, y)
        gap = []
        for k, (mine, theirs) in enumerate(zip(reversed(ours.layers), reversed(exact), strict=True)):
            scale = shares.target_share * shares.error_share**k
            gap.append(float(jnp.linalg.norm(mine.weight / scale - theirs.weight) / jnp.linalg.norm(theirs.weight)))
        gaps.append(max(gap))
        degrees = eqx.filter_jit(phaseless_update_angles)(rule, graph, model, state, x, y)
        assert fires != "identity" or float(degrees["layers[0].weight"]) < 0.2
    bound, falls = (1e-3, 4) if fires == "identity" else (0.02, 2)
    assert gaps[1] < bound
    assert gaps[0] / gaps[1] == pytest.approx(falls, rel=0.2)


def test_weights_from_interneurons_do_not_learn_from_the_noise_of_their_own_dendrite(x64):
    model = double(network(3, 6, 2))
    graph, x, output = task(model, 4)
    rule = Microcircuit(times=TIMES, sigma=0.5, feedback_rate=0.0, apical_rate=1.0, feedback_scale=0.0)
    begun = eqx.filter_jit(rule.init)(graph, model, key=KEY)
    moved = eqx.filter_jit(rule.value_and_grad)(graph, model, begun, x, output)[2]
    assert largest(moved.lateral) == 0  # nothing comes down, so there is nothing to cancel


def test_each_presentation_begins_with_noise_of_its_stationary_variance():
    model = network(3, 6, 2)
    x = jnp.ones((4000, 3))
    graph, rule = vc.capture(model, x[0]), Microcircuit(times=TIMES, sigma=0.2)
    begun = eqx.filter_jit(rule.fresh)(graph, model, eqx.filter_jit(rule.init)(graph, model, key=KEY), x, 4000).running
    noise = np.asarray(begun.noise["hidden1"])
    assert np.var(noise) == pytest.approx(0.2**2 / 1.5, rel=4.5 * math.sqrt(2 / noise.size))  # 1 / (2 - dt/xi)
    np.testing.assert_allclose(begun.values["hidden1"], eqx.filter_jit(graph.feedforward)(model, x)[1]["hidden1"])


@pytest.mark.parametrize("fires", ["identity", full("sigmoid")])
def test_noise_in_apical_dendrites_teaches_feedback(fires):
    model = network(4, 8, 6, gain=4.0)
    x = jax.random.uniform(jax.random.key(1), (400, 4))
    graph = vc.capture(model, x[0])
    output, values = eqx.filter_jit(graph.feedforward)(model, x)
    times = TimeConstants(dt=0.5, presentation=10.0)
    # With no apical plasticity and no way back the feedback sees only its own noise.
    rule = Microcircuit(times=times, sigma=0.1, apical_rate=0.0, interneuron_rate=0.0, feedback_scale=0.0)
    rule = dataclasses.replace(rule, output_activation=fires)
    alpha = times.gain(fresh=True) * 0.1**2 * rule.conductances.apical_share
    rule = dataclasses.replace(rule, feedback_rate=0.02 / alpha)
    cut = dataclasses.replace(rule.conductances, target=1e-6)
    rule = dataclasses.replace(rule, conductances=dataclasses.replace(cut, apical=0.06))
    state = eqx.filter_jit(rule.init)(graph, model, key=KEY)

    @jax.jit
    def settle(state):
        def show(state, _):
            state = rule.value_and_grad(graph, model, state, x, output)[2]
            # B^PI kept at -B^PP, so that what comes down is noise that interneurons do not cancel, and no rate.
            state = dataclasses.replace(state, lateral=jax.tree.map(jnp.negative, state.feedback))
            return state, state.feedback["output"]

        state, _ = jax.lax.scan(show, state, length=30)
        return jax.lax.scan(show, state, length=40)[1].mean(0)

    found = np.asarray(settle(state))
    rate = np.asarray(jax.nn.sigmoid(values["hidden1"]))
    out = np.asarray(jax.nn.sigmoid(output))
    above = out * (1 - out) if fires == "sigmoid" else np.ones_like(out)
    expected = np.asarray(model.layers[1].weight) * (above.T @ (rate * (1 - rate))) / 400
    assert float(eqx.filter_jit(angle)(found, expected)) < 6
    assert np.sum(found * expected) / np.sum(expected**2) == pytest.approx(1, abs=0.06)


def test_it_is_what_a_plain_loop_computes(x64):
    model = double(network(3, 5, 2))
    shares = Conductances(leak=0.05, dendritic=0.12, interneuron=0.08, target=0.04)
    times = TimeConstants(dt=0.5, xi=1.5, high_pass=1.0, presentation=3.0, low_pass=8.0)
    rule = Microcircuit(
        times=times,
        conductances=shares,
        sigma=0.2,
        feedback_rate=0.7,
        interneuron_rate=0.4,
        apical_rate=0.3,
        decay=0.2,
        start="random",
        batch_size=6,
    )
    graph, x, output = task(model, 6)
    y = output + 1
    first = eqx.filter_jit(rule.init)(graph, model, key=KEY)
    optimizer = optax.sgd(0.3)
    memory = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    ours, _, state, _, _ = eqx.filter_jit(rule.step)(graph, optimizer, model, memory, first, x, y)

    def phi(u):
        return 1 / (1 + np.exp(-u))

    api, inter, target = 0.06 / 0.21, 0.08 / 0.25, 0.04 / 0.19
    (W1, b1), (W2, b2) = ((np.array(layer.weight), np.array(layer.bias)) for layer in model.layers)
    B, P = np.array(first.feedback["output"]), np.array(first.lateral["output"])
    WI, bI = (np.array(part) for part in first.interneurons["output"])
    xi, r2, rI, hat, key, G = (
        np.zeros((6, 5)),
        np.zeros((6, 2)),
        np.zeros((6, 2)),
        np.zeros((6, 2)),
        first.key,
        [0.0] * 4,
    )
    X, Y, held = np.array(x), np.array(y), np.zeros((6, 5))
    for _ in range(6):
        key, drawn = jax.random.split(key, 2)
        normal = np.array(jax.random.normal(drawn, (6, 5), jnp.float64))
        xi = xi + (math.sqrt(1.5 * 0.5) * 0.2 * normal - 0.5 * xi) / 1.5
        v = r2 @ B + rI @ P
        p1 = X @ W1.T + b1
        u1 = p1 + api * (v + xi)
        held = held + 0.5 * (0.05 + 0.1 + 0.06) * (u1 - held)
        p2 = phi(u1) @ W2.T + b2
        u2 = p2 + target * (Y - p2)
        q = phi(u1) @ WI.T + bI
        uI = (1 - inter) * q + inter * u2
        hat = hat + u2 - r2 - 0.5 * hat
        e1, e2 = phi(u1) - phi(p1), u2 - p2
        P = P - 0.5 * 0.3 * rI.T @ v / 6
        B = B + 0.5 * 0.7 * (hat.T @ xi / 6 - 0.2 * B)
        WI = WI + 0.5 * 0.4 * (uI - q).T @ phi(u1) / 6
        bI = bI + 0.5 * 0.4 * (uI - q).mean(0)
        r2, rI = u2, uI
        products = (-e1.T @ X / 6, -e2.T @ phi(u1) / 6, -e1.mean(0), -e2.mean(0))
        G = [g + 0.5 / 8 * (product - g) for g, product in zip(G, products, strict=True)]
        W1, W2, b1, b2 = (w - 0.3 * g / 6 for w, g in zip((W1, W2, b1, b2), G, strict=True))
    np.testing.assert_allclose(state.feedback["output"], B, atol=1e-12)
    np.testing.assert_allclose(state.running.voltages["hidden1"], held, atol=1e-12)
    np.testing.assert_allclose(state.lateral["output"], P, atol=1e-12)
    np.testing.assert_allclose(state.interneurons["output"][0], WI, atol=1e-12)
    np.testing.assert_allclose(ours.layers[0].weight, W1, atol=1e-12)
    np.testing.assert_allclose(ours.layers[1].bias, b2, atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {"sigma": -1.0},
        {"start": "silent"},
        {"batch_size": 0},
        {"apical_rate": -0.1},
        {"decay": -1.0},
        {"output_activation": "sine"},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match="expected"):
        Microcircuit(**settings)


def test_conductances_and_graphs_are_checked():
    with pytest.raises(ValueError, match="conductance apical"):
        Conductances(apical=0.0)
    for wrong in (math.inf, math.nan, True, "1", np.float32(-1)):
        with pytest.raises(ValueError, match="conductance apical as a number above 0"):
            Conductances(apical=wrong)
    assert Conductances(apical=np.float32(0.25)) == Conductances(apical=0.25)
    assert Conductances(leak=1, basal=2, apical=5).membrane == 1 / 8
    with pytest.raises(ValueError, match=r"time constant of the somata, 0.0625 ms by their conductances, got 0.1"):
        Microcircuit(conductances=Conductances(leak=4, basal=8, apical=4))
    with pytest.raises(TypeError, match="expected conductances"):
        Microcircuit(conductances=0.1)
    model = vc.nn.ConvNet((1, 6, 6), [(2, 3, 1)], (3, 2), vertex_at="pre", key=KEY)
    with pytest.raises(ValueError, match="only dense layers"):
        Microcircuit().init(vc.capture(model, jnp.ones((1, 6, 6))), model, key=KEY)


def test_it_learns_a_teacher():
    """Forward weights, interneurons and feedback all learn at once."""
    teacher, model = (
        network(4, 10, 3, gain=6.0),
        vc.nn.MLP((4, 10, 3), "sigmoid", vertex_at="pre", key=jax.random.key(3)),
    )
    x = jax.random.uniform(jax.random.key(1), (200, 4))
    y = jax.vmap(teacher)(x)
    graph, optimizer = vc.capture(model, x[0]), optax.sgd(0.1)
    rule = Microcircuit(times=TIMES, sigma=0.02)
    start = eqx.filter_jit(rule.init)(graph, model, key=KEY)
    memory = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    arrays, static = eqx.partition(model, eqx.is_array)

    def update(carry, _):
        arrays, memory, state = carry
        new, memory, state, loss, _ = rule.step(graph, optimizer, eqx.combine(arrays, static), memory, state, x, y)
        return (eqx.filter(new, eqx.is_array), memory, state), loss

    _, losses = jax.jit(lambda: jax.lax.scan(update, (arrays, memory, start), length=400))()
    assert float(losses[-1]) < 0.1 * float(losses[0])
    assert np.all(np.isfinite(losses))
