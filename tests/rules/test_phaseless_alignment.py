"""Phaseless alignment: what errors do, that rates do not wait for membranes, noise and state, and what it takes."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matrix import full
from phaseless_builders import KEY, SHORT, SQUARED, batch_of, conv_net, network
from precision import double

import vicinal as vc
from vicinal.analysis import phaseless_update_angles, voltage_traces
from vicinal.rules import Backprop, Microcircuit, PhaselessAlignment, TimeConstants

pytestmark = pytest.mark.slow


def with_transposes(state, model):
    """The state with the forward weights in place of learned feedback."""
    found = {name: model.layers[i].weight for i, name in enumerate(state.feedback, 1)}
    return dataclasses.replace(state, feedback=found)


def largest(tree):
    return max(float(np.max(np.abs(leaf))) for leaf in jax.tree.leaves(tree))


def difference(a, b):
    return largest(jax.tree.map(lambda one, other: np.asarray(one) - np.asarray(other), a, b))


# ---------------------------------------------------------------------------------------------- latent equilibrium


@pytest.mark.parametrize("membrane", [1.0, full(50.0)])
def test_rates_follow_a_jump_of_the_input_at_once_and_voltages_by_their_membrane(membrane, x64):
    model = double(network(3, 5, 4, 2))
    x, y = batch_of(model, 2)
    times = dataclasses.replace(SHORT, membrane=membrane)
    graph, rule = vc.capture(model, x[0]), PhaselessAlignment(times=times, sigma=0.0, loss=SQUARED)
    traces = eqx.filter_jit(voltage_traces)(rule, graph, model, eqx.filter_jit(rule.init)(graph, model, key=KEY), x, y)
    output, values = eqx.filter_jit(graph.feedforward)(model, x)
    for name in ("hidden1", "hidden2"):
        np.testing.assert_allclose(traces.prospective[name][:10], jnp.tile(values[name][:1], (10, 1)), rtol=1e-12)
        np.testing.assert_allclose(traces.prospective[name][10:], jnp.tile(values[name][1:], (10, 1)), rtol=1e-12)
        kept = (1 - 0.5 / membrane) ** np.arange(1, 11)[:, None]
        np.testing.assert_allclose(
            traces.voltages[name][:10], (1 - kept) * np.asarray(values[name][:1]), rtol=1e-9, atol=1e-12
        )
    np.testing.assert_allclose(traces.rates["output"][10], output[1], rtol=1e-12)
    np.testing.assert_allclose(traces.time, 0.5 * np.arange(1, 21))


# ------------------------------------------------------------------------------------------------- backpropagation


def test_with_the_transpose_as_feedback_weights_learn_as_in_backpropagation(x64):
    model = double(network(4, 6, 5, 3))
    x, y = batch_of(model, 7)
    graph, rule = vc.capture(model, x[0]), PhaselessAlignment(times=SHORT, sigma=0.0, loss=SQUARED)
    state = with_transposes(eqx.filter_jit(rule.init)(graph, model, key=KEY), model)
    exact = eqx.filter_jit(
        jax.grad(lambda arrays: jnp.mean(jax.vmap(SQUARED)(jax.vmap(eqx.combine(arrays, model))(x), y)))
    )(eqx.filter(model, eqx.is_inexact_array))
    ours, _ = eqx.filter_jit(rule.noiseless)(graph, model, state, x, y)
    assert difference(ours, exact) < 1e-13
    _, gradient, _, _ = eqx.filter_jit(rule.value_and_grad)(graph, model, state, x, y)
    passed = np.mean(1 - (1 - 0.5 / 10.0) ** np.arange(1, 11))  # by a low-pass that begins at zero
    assert difference(gradient, jax.tree.map(lambda leaf: passed * leaf, exact)) < 1e-13
    for name, degrees in eqx.filter_jit(phaseless_update_angles)(rule, graph, model, state, x, y).items():
        assert float(degrees) < 1e-5, name


def test_nudging_leaves_backpropagation_by_first_order(x64):
    model = double(network(4, 6, 5, 3))
    x, y = batch_of(model, 7)
    graph = vc.capture(model, x[0])
    _, exact, _, _ = eqx.filter_jit(Backprop(loss=SQUARED).value_and_grad)(graph, model, (), x, y)
    times = TimeConstants(dt=0.5, presentation=20.0, low_pass=20.5)
    gaps = []
    for nudge in (0.02, 0.01):
        rule = PhaselessAlignment(times=times, sigma=0.0, nudge=nudge, loss=SQUARED)
        state = with_transposes(eqx.filter_jit(rule.init)(graph, model, key=KEY), model)
        credit, _ = eqx.filter_jit(rule.credit)(graph, model, state, x, y)
        gaps.append(difference(eqx.filter_jit(vc.credit.local_gradient)(graph, model, credit, x), exact))
        # At rest every voltage is its prediction moved by its own error.
        output, predictions = eqx.filter_jit(graph.predict)(model, credit.values, x)
        for name, value in credit.values.items():
            np.testing.assert_allclose(value, predictions[name] + nudge * credit.errors[name], atol=1e-10)
        np.testing.assert_allclose(credit.output_error, (y - output) / (1 + nudge), atol=1e-10)
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.1)


# ---------------------------------------------------------------------------------------------- an independent loop


def test_it_is_what_a_plain_loop_computes(x64):
    """Two presentations of a running network, everything learning, beside loops over arrays."""
    model = double(network(3, 5, 4, 2))
    times = TimeConstants(dt=0.5, xi=1.5, high_pass=1.0, presentation=2.0, low_pass=8.0, membrane=4.0)
    rule = PhaselessAlignment(
        times=times,
        sigma=0.2,
        feedback_rate=0.7,
        decay=0.3,
        regularizer="slopes",
        nudge=0.2,
        batch_size=6,
        loss=SQUARED,
    )
    (x1, y1), (x2, y2) = batch_of(model, 6), batch_of(model, 6, key=2)
    graph = vc.capture(model, x1[0])
    first = eqx.filter_jit(rule.init)(graph, model, key=KEY)
    optimizer = optax.sgd(0.3)
    ours, memory, state = model, optimizer.init(eqx.filter(model, eqx.is_inexact_array)), first
    for x, y in ((x1, y1), (x2, y2)):
        ours, memory, state, _, _ = eqx.filter_jit(rule.step)(graph, optimizer, ours, memory, state, x, y)

    W, b = ([np.array(getattr(layer, kind)) for layer in model.layers] for kind in ("weight", "bias"))
    B = [np.array(first.feedback[name]) for name in ("hidden2", "output")]
    G = [[np.zeros_like(w) for w in W], [np.zeros_like(c) for c in b]]
    xi, u = [np.zeros((6, 5)), np.zeros((6, 4))], [np.zeros((6, 5)), np.zeros((6, 4))]
    error = [np.zeros((6, 5)), np.zeros((6, 4)), np.zeros((6, 2))]
    before, hat, key = [np.zeros((6, 4)), np.zeros((6, 2))], [np.zeros((6, 4)), np.zeros((6, 2))], first.key
    for x, y in ((np.array(x1), np.array(y1)), (np.array(x2), np.array(y2))):
        for _ in range(4):
            key, *draws = jax.random.split(key, 3)
            for i in (0, 1):
                normal = np.array(jax.random.normal(draws[i], xi[i].shape, jnp.float64))
                xi[i] = xi[i] + (math.sqrt(1.5 * 0.5) * 0.2 * normal - 0.5 * xi[i]) / 1.5
            z1 = x @ W[0].T + b[0] + xi[0] + 0.2 * error[0]
            z2 = np.tanh(z1) @ W[1].T + b[1] + xi[1] + 0.2 * error[1]
            z3 = np.tanh(z2) @ W[2].T + b[2] + 0.2 * error[2]
            slope = [1 - np.tanh(z1) ** 2, 1 - np.tanh(z2) ** 2, np.ones((6, 2))]
            e3 = y - z3
            e2 = slope[1] * (e3 @ B[1])
            e1 = slope[0] * (e2 @ B[0])
            error = [e1, e2, e3]
            now = [np.tanh(z2), z3]
            for i in (0, 1):
                hat[i] = hat[i] + now[i] - before[i] - 0.5 / 1.0 * hat[i]
                lost = 0.3 * B[i] * (slope[i + 1].T @ slope[i]) / 6
                B[i] = B[i] + 0.5 * 0.7 * (hat[i].T @ xi[i] / 6 - lost)
                u[i] = u[i] + 0.5 / 4.0 * ((z1, z2)[i] - u[i])
            before = now
            for i, below in enumerate((x, np.tanh(z1), np.tanh(z2))):
                G[0][i] += 0.5 / 8.0 * (-error[i].T @ below / 6 - G[0][i])
                G[1][i] += 0.5 / 8.0 * (-error[i].mean(0) - G[1][i])
                W[i] = W[i] - 0.3 * G[0][i] / 4
                b[i] = b[i] - 0.3 * G[1][i] / 4
    for i, layer in enumerate(ours.layers):
        np.testing.assert_allclose(layer.weight, W[i], atol=1e-12)
        np.testing.assert_allclose(layer.bias, b[i], atol=1e-12)
        np.testing.assert_allclose(state.products.layers[i].weight, G[0][i], atol=1e-12)
    for i, name in enumerate(("hidden2", "output")):
        np.testing.assert_allclose(state.feedback[name], B[i], atol=1e-12)
        np.testing.assert_allclose(state.running.filtered[name], hat[i], atol=1e-12)
    np.testing.assert_allclose(state.running.voltages["hidden2"], u[1], atol=1e-12)


# --------------------------------------------------------------------------------------------------- noise and state


def test_the_key_of_the_state_says_what_the_noise_is():
    model = network(3, 5, 2)
    x, y = batch_of(model, 4)
    graph, rule = vc.capture(model, x[0]), PhaselessAlignment(times=SHORT, loss=SQUARED)
    first = eqx.filter_jit(rule.init)(graph, model, key=KEY)
    run = eqx.filter_jit(lambda state, key: rule.value_and_grad(graph, model, state, x, y, key=key))
    loss, gradient, state, info = run(first, jax.random.key(1))
    _, again, same, _ = run(first, jax.random.key(2))  # the key of the update is not used
    assert difference(gradient, again) == 0
    assert difference(state.feedback, same.feedback) == 0
    assert not jnp.array_equal(jax.random.key_data(state.key), jax.random.key_data(first.key))
    other_loss, other, differs, other_info = run(dataclasses.replace(first, key=state.key), jax.random.key(1))
    assert difference(gradient, other) > 1e-4
    assert difference(state.feedback, differs.feedback) > 1e-6
    # What is reported is the model itself, whatever the noise.
    assert float(loss) == float(other_loss) == pytest.approx(float(jnp.mean(jax.vmap(SQUARED)(jax.vmap(model)(x), y))))
    np.testing.assert_array_equal(info.output, other_info.output)
    np.testing.assert_allclose(info.output, jax.vmap(model)(x), rtol=1e-5)


@pytest.mark.parametrize("rule", [PhaselessAlignment, full(Microcircuit)])
def test_the_optimiser_sees_every_step_of_a_presentation(rule):
    model, step_size = network(3, 4, 2), 1e-3
    x, y = batch_of(model, 4)
    graph, rule = vc.capture(model, x[0]), rule(times=SHORT, loss=SQUARED)
    counting = optax.chain(
        optax.scale_by_sign(), optax.scale_by_schedule(lambda count: jnp.where(count < 1, -step_size, 0.0))
    )
    memory = counting.init(eqx.filter(model, eqx.is_inexact_array))
    new, memory, _, _, _ = eqx.filter_jit(rule.step)(
        graph, counting, model, memory, eqx.filter_jit(rule.init)(graph, model, key=KEY), x, y
    )
    assert int(memory[1].count) == 1  # a schedule counts presentations
    # One that normalises its step moves in each step of the presentation, to whose end the schedule lasts.
    assert SHORT.steps == 10
    np.testing.assert_allclose(abs(new.layers[1].bias - model.layers[1].bias), 10 * step_size, rtol=1e-3)


def test_a_running_network_does_not_notice_the_end_of_a_presentation(x64):
    model = double(network(3, 5, 4, 2))
    x, y = batch_of(model, 4)
    graph = vc.capture(model, x[0])

    def rule_for(presentation):
        times = TimeConstants(dt=0.5, presentation=presentation, low_pass=30.0)
        return PhaselessAlignment(times=times, batch_size=4, nudge=0.1, loss=SQUARED)

    state = first = rule_for(5.0).init(graph, model, key=KEY)
    for _ in range(2):
        state = eqx.filter_jit(rule_for(5.0).value_and_grad)(graph, model, state, x, y)[2]
    whole = eqx.filter_jit(rule_for(10.0).value_and_grad)(graph, model, first, x, y)[2]
    for part in ("feedback", "products", "running"):
        assert difference(getattr(state, part), getattr(whole, part)) < 1e-13
    with pytest.raises(ValueError, match=r"batches of 4 for as many running networks, got one of 3"):
        rule_for(5.0).value_and_grad(graph, model, first, x[:3], y[:3])


# ------------------------------------------------------------------------------------- convolutions, and what fits


def deviation_from_backpropagation(rule, graph, model, tied):
    """The largest difference between the noiseless update with tied feedback and backpropagation's."""
    x, y = jax.random.normal(KEY, (5, 2, 8, 8), jnp.float64), jnp.ones((5, 3))

    @eqx.filter_jit
    def updates(model, tied):
        exact = Backprop(loss=SQUARED).value_and_grad(graph, model, (), x, y)[1]
        return rule.noiseless(graph, model, tied, x, y)[0], exact

    return difference(*updates(model, tied))


OVER_CONVOLUTIONS = PhaselessAlignment(times=SHORT, sigma=0.0, decay=0.0, loss=SQUARED)


@pytest.mark.parametrize("pool", [full(None), vc.nn.AvgPool2d(2)], ids=["plain", "pooled"])
def test_dense_layers_over_convolutions_learn_feedback(pool, x64):
    rule, model = OVER_CONVOLUTIONS, double(conv_net(pool))
    graph = vc.capture(model, jnp.ones((2, 8, 8)))
    state = eqx.filter_jit(rule.init)(graph, model, key=KEY)
    assert {n: f.shape for n, f in state.feedback.items()} == {
        "hidden1": (7, model.layers[0].weight.shape[1]),
        "output": (3, 7),
    }
    tied = dataclasses.replace(state, feedback={"hidden1": model.layers[0].weight, "output": model.layers[1].weight})
    assert deviation_from_backpropagation(rule, graph, model, tied) < 1e-13


def test_convolutions_may_have_fixed_random_feedback(x64):
    """Then errors go through the model with that feedback."""
    two = double(vc.nn.ConvNet((2, 8, 8), [(3, 3, 1), (2, 3, 1)], (3,), "tanh", vertex_at="pre", pool=None, key=KEY))
    route = vc.feedback.random()
    fed = vc.feedback.attach(two, lambda name, w, key: route(name, w, key) if "conv" in name else None, key=KEY)
    graph = vc.capture(fed, jnp.ones((2, 8, 8)))
    state = OVER_CONVOLUTIONS.init(graph, fed, key=KEY)
    assert set(state.feedback) == {"output"}
    tied = dataclasses.replace(state, feedback={"output": fed.layers[0].weight})
    assert deviation_from_backpropagation(OVER_CONVOLUTIONS, graph, fed, tied) < 1e-13


def tied(w, x):
    rates = jnp.tanh(vc.vertex(w @ x, "h1"))
    return w @ jnp.tanh(vc.vertex(w @ rates, "h2"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: (vc.nn.MLP((3, 4, 4, 2), key=KEY), (3,)), r"'hidden1' as weight @ rates"),
        (
            lambda: (vc.nn.RNN(3, 4, 2, vertex_at="pre", key=KEY), (2, 3)),
            r"'hidden\[1\]' that reads hidden\[0\] and the input",
        ),
        (lambda: (vc.nn.ResidualMLP((3, 4, 2), depth=3, vertex_at="pre", key=KEY), (3,)), "expected"),
        (
            lambda: (
                vc.feedback.attach(vc.nn.MLP((3, 4, 2), vertex_at="pre", key=KEY), vc.feedback.random(), key=KEY),
                (3,),
            ),
            "without feedback attached",
        ),
        (
            lambda: (
                jax.tree_util.Partial(
                    lambda w, x: jnp.tanh(vc.vertex(w[0] @ x, "h")) @ w[1], [jnp.ones((3, 3)), jnp.ones((3, 3))]
                ),
                (3,),
            ),
            r"'output' as weight @ rates",
        ),
        (lambda: (jax.tree_util.Partial(tied, jnp.ones((3, 3))), (3,)), "a weight of its own for each layer"),
    ],
    ids=["rates", "recurrent", "residual", "fed", "transposed weight", "tied"],
)
def test_other_graphs_are_refused(make, words):
    model, shape = make()
    with pytest.raises(ValueError, match=words):
        PhaselessAlignment().init(vc.capture(model, jnp.ones(shape)), model, key=KEY)


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ({"dt": 2.0}, "dt of at most xi"),
        ({"xi": 20.0}, "within a factor of ten"),
        ({"xi": 10.0, "high_pass": 10.0}, "below presentation"),
        ({"presentation": 1000.0}, "presentation below low_pass"),
        ({"dt": 0.3, "presentation": 10.0}, "whole number of steps"),
        ({"low_pass": -1.0}, "number of ms above 0"),
        ({"low_pass": math.inf}, "number of ms above 0"),
        ({"membrane": True}, "number of ms above 0"),
        ({"membrane": 0.01}, "dt of at most membrane"),
    ],
)
def test_times_have_an_order(times, words):
    with pytest.raises(ValueError, match=words):
        TimeConstants(**times)


def test_times_may_be_numbers_of_numpy():
    assert TimeConstants(dt=np.float32(0.1)).steps == 100
    assert TimeConstants(dt=np.float32(0.5), membrane=np.int64(20)) == TimeConstants(dt=0.5, membrane=20.0)


@pytest.mark.parametrize(
    "settings",
    [
        {"sigma": -1.0},
        {"nudge": 1.0},
        {"regularizer": "none"},
        {"batch_size": 0},
        {"decay": -0.1},
        {"feedback_rate": -1.0},
        {"output_activation": "sine"},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match="expected"):
        PhaselessAlignment(**settings)


@pytest.mark.parametrize("rule", [PhaselessAlignment, Microcircuit])
def test_feedback_that_decay_makes_grow_is_refused(rule):
    rule(times=SHORT, feedback_rate=10.0, decay=0.375)  # dt is .5
    with pytest.raises(ValueError, match=r"dt \* feedback_rate \* decay below 2.*got 2.1875"):
        rule(times=SHORT, feedback_rate=10.0, decay=0.4375)
    with pytest.raises(ValueError, match="below 2"):
        rule(times=SHORT, feedback_rate=1e3, sigma=0.5)  # a decay of the rule's own


def test_a_key_and_times_are_needed():
    model = network(3, 4, 2)
    with pytest.raises(ValueError, match="expected a key"):
        PhaselessAlignment().init(vc.capture(model, jnp.ones(3)), model)
    with pytest.raises(TypeError, match="expected times"):
        PhaselessAlignment(times=0.1)


def test_it_trains_with_the_library():
    data = vc.data.yin_yang(600, 200)
    model = network(4, 16, 3)
    rule = PhaselessAlignment(times=SHORT)
    run = vc.train.fit(rule, model, optax.adam(0.005), data, steps=60, batch_size=30, key=KEY, progress=False)
    assert run.records[-1]["test_accuracy"] > 0.5
