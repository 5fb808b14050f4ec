"""Phaseless alignment learning: what noise teaches, what errors do, and that rates do not wait for membranes."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vicinal as vc
from vicinal.analysis import angle, learned_feedback_angles, phaseless_update_angles, voltage_traces
from vicinal.rules import Backprop, PhaselessAlignment, TimeConstants

KEY = jax.random.key(0)
SQUARED = vc.losses.squared_error
SHORT = TimeConstants(dt=0.5, xi=1.0, high_pass=1.0, presentation=5.0, low_pass=10.0)


def double(tree):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf, tree)


def network(*sizes, activation="tanh", gain=1.0, key=KEY, **settings):
    model = vc.nn.MLP(sizes, activation, vertex_at="pre", key=key, **settings)
    return jax.tree.map(lambda leaf: gain * leaf if eqx.is_inexact_array(leaf) else leaf, model)


def batch_of(model, batch, key=1):
    keys = jax.random.split(jax.random.key(key))
    dtype = model.layers[0].weight.dtype
    x = jax.random.normal(keys[0], (batch, model.layers[0].weight.shape[1]), dtype)
    return x, jax.random.normal(keys[1], (batch, model.layers[-1].weight.shape[0]), dtype)


def with_transposes(state, model):
    """The state with the forward weights in place of learned feedback."""
    found = {name: model.layers[i].weight for i, name in enumerate(state.feedback, 1)}
    return dataclasses.replace(state, feedback=found)


def largest(tree):
    return max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(tree))


def difference(a, b):
    return largest(jax.tree.map(jnp.subtract, a, b))


# ------------------------------------------------------------------------------------------------------- T-l1: noise


@pytest.mark.parametrize(
    ("dt", "xi", "filtered"), [(0.1, 1.0, 1.0), (0.5, 1.0, 1.0), (0.25, 2.0, 0.5), (1.0, 1.0, 1.0)]
)
def test_the_gain_is_the_covariance_of_noise_and_its_high_pass(dt, xi, filtered):
    times = TimeConstants(dt=dt, xi=xi, high_pass=filtered, presentation=10.0)
    a, h, kick = 1 - dt / xi, 1 - dt / filtered, math.sqrt(dt / xi)
    move, drive = np.array([[a, 0.0], [a - 1, h]]), np.array([[kick], [kick]])

    def covariance(start, steps):
        seen = [np.array(start)]
        for _ in range(steps):
            seen.append(move @ seen[-1] @ move.T + drive @ drive.T)
        return np.array(seen[1:])

    settled = covariance(np.zeros((2, 2)), 400)[-1]
    assert times.variance == pytest.approx(settled[0, 0], rel=1e-12)
    assert times.gain(fresh=False) == pytest.approx(settled[0, 1], rel=1e-12)
    fresh = covariance([[settled[0, 0], 0.0], [0.0, 0.0]], times.steps)
    assert times.gain(fresh=True) == pytest.approx(np.mean(fresh[:, 0, 1]), rel=1e-12)


def copies_of_learned(rule, model, x, y, copies):
    """What one presentation teaches each of many networks that differ in their noise; `[copies, above, below]`."""
    graph = vc.capture(model, x[0])
    first = rule.init(graph, model, key=KEY)

    @jax.jit
    @jax.vmap
    def learned(key):
        begun = dataclasses.replace(first, key=key)
        return rule.value_and_grad(graph, model, begun, x, y)[2].feedback["output"] - first.feedback["output"]

    return np.asarray(learned(jax.random.split(jax.random.key(5), copies)), dtype=float)


def test_noise_teaches_the_transpose_and_a_finer_step_changes_that_by_first_order():
    """T-l1, and the limit `c = 1/4` that is reached in proportion to dt."""
    model = network(3, 4, 3, activation="identity")
    x, y = batch_of(model, 1)
    weight, excess = np.asarray(model.layers[1].weight, dtype=float), []
    for dt in (0.5, 0.25, 0.125):
        times = TimeConstants(dt=dt, presentation=20.0)
        rule = PhaselessAlignment(times=times, sigma=0.05, feedback_rate=1.0, decay=0.0, loss=SQUARED)
        found = copies_of_learned(rule, model, x, y, 4000) / (20.0 * 0.05**2)
        mean, error = found.mean(0), found.std(0) / math.sqrt(len(found))
        assert np.all(np.abs(mean - times.gain(fresh=True) * weight) < 4.5 * error)
        scale = np.sum(found * weight, axis=(1, 2)) / np.sum(weight**2)
        fresh = times.gain(fresh=True) / times.gain(fresh=False)
        excess.append(scale.mean() / fresh - 0.25)
        assert scale.std() / math.sqrt(len(found)) < 0.005
    # c - 1/4 = dt/4 (1 + 3/4 dt + ...) for times of 1 ms: it falls by a little more than half.
    assert 0.35 < excess[1] / excess[0] < 0.5
    assert 0.35 < excess[2] / excess[1] < 0.56


# -------------------------------------------------------------------------------- T-l2, T-l6: decay and fixed points


def test_without_noise_feedback_decays_exponentially(x64):
    model = double(network(3, 5, 4, 2))
    x, y = batch_of(model, 2)
    graph, rule = vc.capture(model, x[0]), PhaselessAlignment(times=SHORT, sigma=0.0, decay=0.03, loss=SQUARED)
    first = rule.init(graph, model, key=KEY)
    _, _, state, _ = rule.value_and_grad(graph, model, first, x, y)
    for name, feedback in state.feedback.items():
        np.testing.assert_allclose(feedback, first.feedback[name] * (1 - 0.5 * 10.0 * 0.03) ** 10, rtol=1e-12)


@pytest.mark.parametrize(
    ("regularizer", "fires"), [("plain", "identity"), ("slopes", "identity"), ("plain", "sigmoid")]
)
def test_the_fixed_point(regularizer, fires):
    """T-l6: feedback settles at what noise carries; with slopes in its decay, at the transpose."""
    model = network(4, 8, 6, 3, activation="sigmoid", gain=5.0)
    x, y = batch_of(model, 500)
    times = TimeConstants(dt=0.5, xi=1.0, high_pass=1.0, presentation=10.0)
    alpha = 1.5 * times.gain(fresh=True) * 0.1**2  # so that B settles at 2/3 of what is carried
    rate = {"plain": 0.02, "slopes": 0.3}[regularizer] / alpha  # slopes make the decay that much slower
    rule = PhaselessAlignment(
        times=times,
        sigma=0.1,
        feedback_rate=rate,
        decay=alpha,
        regularizer=regularizer,
        feedback_scale=0.0,
        output_activation=fires,
        loss=SQUARED,
    )
    graph = vc.capture(model, x[0])

    @jax.jit
    def settle(state):
        def show(state, _):
            state = rule.value_and_grad(graph, model, state, x, y)[2]
            return state, state.feedback

        state, _ = jax.lax.scan(show, state, length=40)
        return jax.tree.map(lambda seen: seen.mean(0), jax.lax.scan(show, state, length=40)[1])

    found = settle(rule.init(graph, model, key=KEY))
    output, values = graph.feedforward(model, x)
    rates = {name: np.asarray(jax.nn.sigmoid(value)) for name, value in (values | {"output": output}).items()}
    slopes = {name: rate * (1 - rate) for name, rate in rates.items()}
    if fires == "identity":
        slopes["output"] = np.ones((500, 3), np.float32)
    likeness = learned_feedback_angles(graph, model, found, x, output_activation=fires)
    for i, (below, node) in enumerate([("hidden1", "hidden2"), ("hidden2", "output")], 1):
        weight = np.asarray(model.layers[i].weight)
        carried = weight * (slopes[node].T @ slopes[below]) / 500
        expected = (carried if regularizer == "plain" else weight) / 1.5
        feedback = np.asarray(found[node])
        assert np.linalg.norm(feedback - expected) < 0.08 * np.linalg.norm(expected), node
        clear = np.abs(expected) > 0.1 * np.abs(expected).max()
        assert np.all(np.sign(feedback)[clear] == np.sign(weight)[clear])
        np.testing.assert_allclose(likeness[node].weight, angle(feedback, weight), atol=1e-2)
        np.testing.assert_allclose(likeness[node].transported, angle(feedback, carried), atol=1e-2)
    near, far = ("transported", "weight") if regularizer == "plain" else ("weight", "transported")
    assert all(float(getattr(found, near)) < 5 for found in likeness.values())
    assert float(getattr(likeness["hidden2"], far)) > 10


# ----------------------------------------------------------------------------------------- T-l3: latent equilibrium


@pytest.mark.parametrize("membrane", [1.0, 50.0])
def test_rates_follow_a_jump_of_the_input_at_once_and_voltages_by_their_membrane(membrane, x64):
    model = double(network(3, 5, 4, 2))
    x, y = batch_of(model, 2)
    times = dataclasses.replace(SHORT, membrane=membrane)
    graph, rule = vc.capture(model, x[0]), PhaselessAlignment(times=times, sigma=0.0, loss=SQUARED)
    traces = voltage_traces(rule, graph, model, rule.init(graph, model, key=KEY), x, y)
    output, values = graph.feedforward(model, x)
    for name in ("hidden1", "hidden2"):
        np.testing.assert_allclose(traces.prospective[name][:10], jnp.tile(values[name][:1], (10, 1)), rtol=1e-12)
        np.testing.assert_allclose(traces.prospective[name][10:], jnp.tile(values[name][1:], (10, 1)), rtol=1e-12)
        kept = (1 - 0.5 / membrane) ** np.arange(1, 11)[:, None]
        np.testing.assert_allclose(
            traces.voltages[name][:10], (1 - kept) * np.asarray(values[name][:1]), rtol=1e-9, atol=1e-12
        )
    np.testing.assert_allclose(traces.rates["output"][10], output[1], rtol=1e-12)
    np.testing.assert_allclose(traces.time, 0.5 * np.arange(1, 21))


# ----------------------------------------------------------------------------------------- T-l4: backpropagation


def test_with_the_transpose_as_feedback_weights_learn_as_in_backpropagation(x64):
    model = double(network(4, 6, 5, 3))
    x, y = batch_of(model, 7)
    graph, rule = vc.capture(model, x[0]), PhaselessAlignment(times=SHORT, sigma=0.0, loss=SQUARED)
    state = with_transposes(rule.init(graph, model, key=KEY), model)
    exact = jax.grad(lambda arrays: jnp.mean(jax.vmap(SQUARED)(jax.vmap(eqx.combine(arrays, model))(x), y)))(
        eqx.filter(model, eqx.is_inexact_array)
    )
    ours, _ = rule.noiseless(graph, model, state, x, y)
    assert difference(ours, exact) < 1e-13
    _, gradient, _, _ = rule.value_and_grad(graph, model, state, x, y)
    passed = np.mean(1 - (1 - 0.5 / 10.0) ** np.arange(1, 11))  # by a low-pass that begins at zero
    assert difference(gradient, jax.tree.map(lambda leaf: passed * leaf, exact)) < 1e-13
    for name, degrees in phaseless_update_angles(rule, graph, model, state, x, y).items():
        assert float(degrees) < 1e-5, name


def test_nudging_leaves_backpropagation_by_first_order(x64):
    model = double(network(4, 6, 5, 3))
    x, y = batch_of(model, 7)
    graph = vc.capture(model, x[0])
    _, exact, _, _ = Backprop(loss=SQUARED).value_and_grad(graph, model, (), x, y)
    times = TimeConstants(dt=0.5, presentation=20.0, low_pass=20.5)
    gaps = []
    for nudge in (0.02, 0.01):
        rule = PhaselessAlignment(times=times, sigma=0.0, nudge=nudge, loss=SQUARED)
        state = with_transposes(rule.init(graph, model, key=KEY), model)
        credit, _ = rule.credit(graph, model, state, x, y)
        gaps.append(difference(vc.credit.local_gradient(graph, model, credit, x), exact))
        # At rest every voltage is its prediction moved by its own error.
        output, predictions = graph.predict(model, credit.values, x)
        for name, value in credit.values.items():
            np.testing.assert_allclose(value, predictions[name] + nudge * credit.errors[name], atol=1e-10)
        np.testing.assert_allclose(credit.output_error, (y - output) / (1 + nudge), atol=1e-10)
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.1)


# ------------------------------------------------------------------------------------------- T-l5: the high-pass


def test_the_high_pass_keeps_a_slow_input_from_disturbing_what_is_learned():
    model = network(3, 6, 4, activation="identity")
    x, y = batch_of(model, 400)
    graph, times = vc.capture(model, x[0]), TimeConstants(dt=0.5, presentation=20.0)
    rule = PhaselessAlignment(times=times, sigma=0.05, loss=SQUARED)
    state = rule.init(graph, model, key=KEY)
    traces = jax.jit(lambda: voltage_traces(rule, graph, model, state, x, y))()
    noise, weight = np.asarray(traces.noise["hidden1"]), np.asarray(model.layers[1].weight)

    def error(rates, gain):
        return np.linalg.norm(np.asarray(rates).T @ noise / len(noise) / (gain * 0.05**2) - weight)

    with_filter = error(traces.filtered["output"], times.gain(fresh=False))
    without = error(traces.rates["output"], times.variance)  # the same expectation: the noise is that of one time
    assert with_filter < 0.3 * np.linalg.norm(weight)
    assert without > 4 * with_filter


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
    first = rule.init(graph, model, key=KEY)
    optimizer = optax.sgd(0.3)
    ours, memory, state = model, optimizer.init(eqx.filter(model, eqx.is_inexact_array)), first
    for x, y in ((x1, y1), (x2, y2)):
        ours, memory, state, _, _ = rule.step(graph, optimizer, ours, memory, state, x, y)

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
    first = rule.init(graph, model, key=KEY)
    run = eqx.filter_jit(lambda state, key: rule.value_and_grad(graph, model, state, x, y, key=key))
    loss, gradient, state, info = run(first, jax.random.key(1))
    _, again, same, _ = run(first, jax.random.key(2))  # the key of the update is not used
    assert difference(gradient, again) == 0
    assert difference(state.feedback, same.feedback) == 0
    other_loss, other, differs, other_info = run(state, jax.random.key(1))
    assert difference(gradient, other) > 1e-4
    assert difference(state.feedback, differs.feedback) > 1e-6
    # What is reported is the model itself, whatever the noise.
    assert float(loss) == float(other_loss) == pytest.approx(float(jnp.mean(jax.vmap(SQUARED)(jax.vmap(model)(x), y))))
    np.testing.assert_array_equal(info.output, other_info.output)
    np.testing.assert_allclose(info.output, jax.vmap(model)(x), rtol=1e-5)


def test_a_running_network_does_not_notice_the_end_of_a_presentation(x64):
    model = double(network(3, 5, 4, 2))
    x, y = batch_of(model, 4)
    graph = vc.capture(model, x[0])

    def rule_for(presentation):
        times = TimeConstants(dt=0.5, presentation=presentation, low_pass=30.0)
        return PhaselessAlignment(times=times, batch_size=4, nudge=0.1, loss=SQUARED)

    state = first = rule_for(5.0).init(graph, model, key=KEY)
    for _ in range(2):
        state = rule_for(5.0).value_and_grad(graph, model, state, x, y)[2]
    whole = rule_for(10.0).value_and_grad(graph, model, first, x, y)[2]
    for part in ("feedback", "products", "running"):
        assert difference(getattr(state, part), getattr(whole, part)) < 1e-13
    with pytest.raises(ValueError, match=r"batches of 4 for as many running networks, got one of 3"):
        rule_for(5.0).value_and_grad(graph, model, first, x[:3], y[:3])


# ------------------------------------------------------------------------------------- convolutions, and what fits


def conv_net(pool=None, sizes=(7, 3)):
    return vc.nn.ConvNet((2, 8, 8), [(3, 3, 1)], sizes, "tanh", vertex_at="pre", pool=pool, key=KEY)


@pytest.mark.parametrize("pool", [None, vc.nn.AvgPool2d(2)], ids=["plain", "pooled"])
def test_dense_layers_over_convolutions_learn_feedback(pool, x64):
    model = double(conv_net(pool))
    x = jax.random.normal(KEY, (5, 2, 8, 8), jnp.float64)
    y = jnp.ones((5, 3))
    graph = vc.capture(model, x[0])
    rule = PhaselessAlignment(times=SHORT, sigma=0.0, decay=0.0, loss=SQUARED)
    state = rule.init(graph, model, key=KEY)
    assert {n: f.shape for n, f in state.feedback.items()} == {
        "hidden1": (7, model.layers[0].weight.shape[1]),
        "output": (3, 7),
    }
    exact = Backprop(loss=SQUARED).value_and_grad(graph, model, (), x, y)[1]
    tied = dataclasses.replace(state, feedback={"hidden1": model.layers[0].weight, "output": model.layers[1].weight})
    assert difference(rule.noiseless(graph, model, tied, x, y)[0], exact) < 1e-13
    # The convolution may have fixed random feedback: then the model with it is what errors go through.
    two = double(vc.nn.ConvNet((2, 8, 8), [(3, 3, 1), (2, 3, 1)], (3,), "tanh", vertex_at="pre", pool=None, key=KEY))
    route = vc.feedback.random()
    fed = vc.feedback.attach(two, lambda name, w, key: route(name, w, key) if "conv" in name else None, key=KEY)
    graph = vc.capture(fed, x[0])
    state = rule.init(graph, fed, key=KEY)
    assert set(state.feedback) == {"output"}
    tied = dataclasses.replace(state, feedback={"output": fed.layers[0].weight})
    assert (
        difference(
            rule.noiseless(graph, fed, tied, x, y)[0], Backprop(loss=SQUARED).value_and_grad(graph, fed, (), x, y)[1]
        )
        < 1e-13
    )


def test_feedback_to_pooled_rates_learns_from_the_noise_that_arrives():
    model = conv_net(vc.nn.AvgPool2d(2), sizes=(3,))
    x, y = jax.random.normal(KEY, (64, 2, 8, 8)), jnp.zeros((64, 3))
    graph = vc.capture(model, x[0])
    rule = PhaselessAlignment(
        times=TimeConstants(dt=0.5, presentation=10.0), decay=0.0, feedback_scale=0.0, loss=SQUARED
    )
    state = rule.init(graph, model, key=KEY)
    _, _, state, _ = eqx.filter_jit(rule.value_and_grad)(graph, model, state, x, y)
    assert float(angle(state.feedback["output"], model.layers[0].weight)) < 60  # by chance 90 +- 6


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
    ],
    ids=["rates", "recurrent", "residual", "fed", "transposed weight"],
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
        ({"membrane": 0.01}, "dt of at most membrane"),
    ],
)
def test_times_have_an_order(times, words):
    with pytest.raises(ValueError, match=words):
        TimeConstants(**times)


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
