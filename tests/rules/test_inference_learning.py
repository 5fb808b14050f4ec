"""Inference learning against theory and hand-written references, in float64."""

from math import comb

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from inference_learning_builders import network, run, squared, weights
from matrix import full
from precision import on_host

import vicinal as vc
from vicinal.inference import Problem, Result, Simultaneous

pytestmark = pytest.mark.usefixtures("x64")


# ------------------------------------------------------------------------------------------------ hand-written IL


def numpy_il(model, x, y, steps, gamma_b, gamma_t, activation, pre=False, decay=False, momentum=None):
    """The published recursion in NumPy, for both conventions; returns activities and weight gradients."""
    ws, bs = [np.asarray(layer.weight) for layer in model.layers], [np.asarray(layer.bias) for layer in model.layers]
    f, df = activation
    depth = len(ws)

    def predict(layer, below):
        if pre:
            return ws[layer] @ (f(below) if layer else below) + bs[layer]
        z = ws[layer] @ below + bs[layer]
        return f(z) if layer < depth - 1 else z

    def carry(layer, below, error):  # J^T error
        if pre:
            return df(below) * (ws[layer].T @ error)
        z = ws[layer] @ below + bs[layer]
        return ws[layer].T @ (df(z) * error if layer < depth - 1 else error)

    held, grads = [], [np.zeros_like(w) for w in ws]
    for x_i, y_i in zip(np.asarray(x), np.asarray(y), strict=True):
        a = [x_i]
        for layer in range(depth):
            a.append(predict(layer, a[-1]))
        a[-1] = y_i
        velocity = [np.zeros_like(v) for v in a]
        for t in range(steps):
            e = [None] + [a[k] - predict(k - 1, a[k - 1]) for k in range(1, depth + 1)]
            for k in range(1, depth):
                push = gamma_b * carry(k, a[k], e[k + 1]) - gamma_t * e[k]
                velocity[k] = push if momentum is None else momentum * velocity[k] + push
            for k in range(1, depth):
                a[k] = a[k] + velocity[k] / (1 + t if decay else 1)
        e = [None] + [a[k] - predict(k - 1, a[k - 1]) for k in range(1, depth + 1)]
        for layer in range(depth):
            below = f(a[layer]) if pre and layer else a[layer]
            error = e[layer + 1]
            if not pre and layer < depth - 1:
                error = df(ws[layer] @ a[layer] + bs[layer]) * error
            grads[layer] -= np.outer(error, below) / len(x)
        held.append(a[1:depth])
    return [np.stack([h[k] for h in held]) for k in range(depth - 1)], grads


TANH = (np.tanh, lambda z: 1 - np.tanh(z) ** 2)


@pytest.mark.parametrize("vertex_at", ["post", "pre"])
@pytest.mark.parametrize("options", [{}, {"decay": True}, {"momentum": 0.6}, {"pull": 0.75}])
def test_simultaneous_equals_the_recursion_written_by_hand(vertex_at, options):
    model, graph, x, y = network(vertex_at=vertex_at)
    credit, gradient = run(squared(steps=7, step_size=0.13, **options), model, graph, x, y)
    arguments = {k: v for k, v in options.items() if k != "pull"}
    held, expected = numpy_il(
        model, x, y, 7, 0.13, 0.13 * options.get("pull", 1.0), TANH, pre=vertex_at == "pre", **arguments
    )
    for name, values in zip(graph.vertices, held, strict=True):
        np.testing.assert_allclose(credit.values[name], values, rtol=1e-12, atol=1e-14)
    for found, grad in zip(weights(gradient), expected, strict=True):
        np.testing.assert_allclose(found, grad, rtol=1e-11, atol=1e-14)


def test_errors_point_from_the_prediction_to_the_target():
    model, graph, x, y = network()
    credit, _ = run(squared(steps=0), model, graph, x, y)
    np.testing.assert_allclose(credit.output_error, y - eqx.filter_jit(graph.feedforward)(model, x)[0], rtol=1e-12)


# ------------------------------------------------------------------------------------------------------- theorems


@pytest.mark.parametrize("vertex_at", ["post", full("pre")])
def test_small_steps_give_the_direction_of_backpropagation(vertex_at):
    """As gamma -> 0 the update k layers below the output is C(T, k) gamma^k times backpropagation's."""
    steps, sizes = 6, (4, 6, 5, 4, 3)
    model, graph, x, y = network(sizes, vertex_at=vertex_at, batch=1)
    _, reference = run(vc.rules.Backprop(loss=vc.losses.squared_error), model, graph, x, y)
    misses = []
    for gamma in (1e-3, 1e-4):
        _, gradient = run(squared(steps=steps, step_size=gamma), model, graph, x, y)
        found = zip(weights(gradient), weights(reference), strict=True)
        for k, (ours, theirs) in enumerate(reversed(list(found))):
            ratio = float(np.linalg.norm(ours) / np.linalg.norm(theirs)) / (comb(steps, k) * gamma**k)
            assert float(eqx.filter_jit(vc.analysis.angle)(ours, theirs)) < 180 / np.pi * 100 * gamma
            assert abs(ratio - 1) < 100 * gamma
            misses.append((gamma, k, abs(ratio - 1)))
    small, large = ([miss for g, k, miss in misses if g == gamma and k > 0] for gamma in (1e-4, 1e-3))
    for a, b in zip(small, large, strict=True):
        assert a < 0.2 * b  # the deviation is of first order in gamma


def test_nudging_little_gives_the_direction_of_backpropagation_at_any_step_size():
    model, graph, x, y = network(batch=1)
    _, reference = run(vc.rules.Backprop(loss=vc.losses.squared_error), model, graph, x, y)
    _, gradient = run(squared(steps=400, step_size=0.2, nudge=1e-6), model, graph, x, y)
    for ours, theirs in zip(weights(gradient), weights(reference), strict=True):
        assert float(eqx.filter_jit(vc.analysis.angle)(ours, theirs)) < 1e-3
        np.testing.assert_allclose(np.linalg.norm(ours), 1e-6 * np.linalg.norm(theirs), rtol=1e-4)


@pytest.mark.parametrize("sizes", [(4, 6, 3), (4, 6, 5, 3), (3, 5, 4, 6, 2)])
def test_the_equilibrium_of_a_linear_network(sizes):
    """e_L = (I + sum W_{L:l} W_{L:l}^T)^{-1} (y - W_{L:1} x),  e_l = W_{L:l+1}^T e_L,  F* = 1/2 (y - p)^T e_L."""
    model, graph, x, y = network(sizes, activation="identity")
    model = jax.tree.map(lambda leaf: 1.5 * leaf if eqx.is_array(leaf) else leaf, model)
    model = eqx.tree_at(lambda m: [layer.bias for layer in m.layers], model, replace_fn=jnp.zeros_like)
    credit, _ = run(squared(steps=20000, step_size=0.1, tolerance=1e-14), model, graph, x, y)
    assert set(credit.info.result.tolist()) == {Result.CONVERGED}
    x, y, *ws = on_host([x, y, *(layer.weight for layer in model.layers)])
    products = [np.eye(sizes[-1])]  # W_{L:l+1} for l = L, L-1, ..., 1
    for w in reversed(ws[1:]):
        products.append(products[-1] @ w)
    gram = sum(p @ p.T for p in products)
    output_error = np.linalg.solve(gram, (y - x @ (products[-1] @ ws[0]).T).T).T
    np.testing.assert_allclose(credit.output_error, output_error, atol=1e-12)
    for name, product in zip(reversed(graph.vertices), products[1:], strict=True):
        np.testing.assert_allclose(credit.errors[name], output_error @ product, atol=1e-12)
    energy = sum(on_host(credit.info.energies).values())
    residual = y - x @ (products[-1] @ ws[0]).T
    np.testing.assert_allclose(energy, 0.5 * np.sum(residual * output_error, axis=1), rtol=1e-11)


@pytest.mark.parametrize("vertex_at", ["post", full("pre")])
def test_the_energy_never_rises_below_the_critical_step_size(vertex_at):
    """On a linear network the energy is quadratic: 2/lambda_max of its Hessian is the largest stable step."""
    model, graph, x, y = network((4, 6, 5, 3), activation="identity", batch=1, vertex_at=vertex_at, scale=2.0)
    problem = Problem(graph, model, x, y, vc.losses.squared_error)
    _, start = eqx.filter_jit(graph.feedforward)(model, x)
    flat, rebuild = jax.flatten_util.ravel_pytree(start)
    hessian = eqx.filter_jit(jax.hessian(lambda a: sum(problem.energies(rebuild(a)).values())[0]))(flat)
    critical = 2 / float(np.linalg.eigvalsh(hessian)[-1])
    below, _ = run(squared(steps=300, step_size=0.99 * critical, trace=True), model, graph, x, y)
    trace = sum(on_host(below.info.trace).values())[:, 0]
    assert np.all(np.diff(trace) <= 1e-12)
    assert below.info.result[0] == Result.STEP_LIMIT
    above, _ = run(squared(steps=300, step_size=1.05 * critical, trace=True), model, graph, x, y)
    assert above.info.result[0] == Result.DIVERGED
    trace = sum(on_host(above.info.trace).values())[:, 0]
    assert trace[-1] > trace[0]


@pytest.mark.parametrize("loss", ["squared_error", "softmax_cross_entropy", "sigmoid_cross_entropy"])
def test_a_correct_prediction_moves_nothing_under_any_loss(loss):
    model, graph, x, _ = network()
    link = {
        "squared_error": lambda z: z,
        "softmax_cross_entropy": jax.nn.softmax,
        "sigmoid_cross_entropy": jax.nn.sigmoid,
    }
    output, values = eqx.filter_jit(graph.feedforward)(model, x)
    rule = vc.rules.InferenceLearning(Simultaneous(steps=10), loss=getattr(vc.losses, loss))
    credit, gradient = run(rule, model, graph, x, link[loss](output))
    for name in graph.vertices:
        np.testing.assert_allclose(credit.values[name], values[name], atol=1e-14)
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_allclose(leaf, 0.0, atol=1e-14)


def test_the_settled_activities_are_a_stationary_point_of_the_energy():
    model, graph, x, y = network()
    rule = squared(steps=5000, step_size=0.2, tolerance=1e-12)
    credit, _ = run(rule, model, graph, x, y)
    problem = Problem(graph, model, x, y, vc.losses.squared_error)
    slope = eqx.filter_jit(jax.grad(lambda values: jnp.sum(sum(problem.energies(values).values()))))(credit.values)
    for leaf in jax.tree.leaves(slope):
        assert float(jnp.max(jnp.abs(leaf))) < 1e-11


def test_the_gradient_is_the_slope_of_the_energy_in_the_parameters():
    model, graph, x, y = network()
    rule = squared(steps=15, step_size=0.2, precision={"hidden1": 2.0, "hidden2": 0.5}, nudge=0.7)
    credit, gradient = run(rule, model, graph, x, y)

    def energy(model):
        problem = Problem(graph, model, x, y, rule.loss, rule.nudge, rule.precision)
        return jnp.mean(sum(problem.energies(credit.values).values()))

    expected = eqx.filter_jit(eqx.filter_grad(energy))(model)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-14)


# ------------------------------------------------------------------------------------- precision, nudge and start


def test_precision_one_equals_none_and_precision_scales_the_energy():
    model, graph, x, y = network()
    plain = run(squared(steps=9), model, graph, x, y)
    for precision in (1.0, {"hidden1": 1.0, "hidden2": jnp.ones(5)}):
        other = run(squared(steps=9, precision=precision), model, graph, x, y)
        for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(a, b)
    _, predictions = eqx.filter_jit(graph.predict)(model, plain[0].values, x)
    weighted = squared(steps=9, precision={"hidden2": jnp.arange(5.0)})
    read = weighted.errors(graph, model, plain[0], x)
    np.testing.assert_allclose(
        read["hidden2"], jnp.arange(5.0)[None] * (plain[0].values["hidden2"] - predictions["hidden2"]), rtol=1e-13
    )
    np.testing.assert_allclose(read["hidden1"], plain[0].errors["hidden1"], rtol=1e-13)
    credit, _ = run(weighted, model, graph, x, y)
    _, predictions = eqx.filter_jit(graph.predict)(model, credit.values, x)
    for name, precision in (("hidden1", jnp.ones(6)), ("hidden2", jnp.arange(5.0))):
        squares = jnp.square(credit.values[name] - predictions[name])
        np.testing.assert_allclose(credit.info.energies[name], squares @ precision / 2, rtol=1e-12)


def test_precision_equals_another_unit_of_activity():
    """Scaling a vertex by s and its outgoing weights by 1/s is the same network with precision s^2 (linear net)."""
    model, graph, x, y = network((4, 6, 3), activation="identity")
    s = 3.0
    scaled = eqx.tree_at(
        lambda m: [m.layers[0].weight, m.layers[0].bias, m.layers[1].weight],
        model,
        [s * model.layers[0].weight, s * model.layers[0].bias, model.layers[1].weight / s],
    )
    tight = {"steps": 20000, "step_size": 0.05, "tolerance": 1e-13}
    ours, _ = run(squared(precision=s**2, **tight), model, graph, x, y)
    theirs, _ = run(squared(**tight), scaled, graph, x, y)
    np.testing.assert_allclose(s * ours.values["hidden1"], theirs.values["hidden1"], atol=1e-10)


def test_unknown_precision_and_start_are_refused():
    model, graph, x, y = network()
    with pytest.raises(ValueError, match="got one for 'hidden9'"):
        run(squared(precision={"hidden9": 1.0}), model, graph, x, y)
    with pytest.raises(ValueError, match="'feedforward' or 'random', got 'zeros'"):
        squared(start="zeros")
    with pytest.raises(ValueError, match="expected a key"):
        run(squared(start="random"), model, graph, x, y)
    with pytest.raises(ValueError, match="steps as an integer"):
        Simultaneous(steps=-1)
    for settings, words in (
        ({"nudge": 0.0}, r"nudge in \(0, 1\], got 0$"),
        ({"momentum": 1.0}, r"momentum in \[0, 1\), got 1$"),
        ({"step_size": -0.1}, "step size of at least 0, got -0.1"),
        ({"tolerance": 0.0}, "tolerance above 0, got 0$"),
        ({"precision": -1.0}, "precision of at least 0, got -1$"),
    ):
        with pytest.raises(ValueError, match=words):
            squared(**settings)
    with pytest.raises(TypeError, match="expected a loss as a function"):
        vc.rules.Backprop(loss="squared_error")
    with pytest.raises(TypeError, match="strategy, got int"):
        vc.rules.InferenceLearning(inference=20)


def test_a_model_without_parameters_is_refused():
    x, y = jnp.ones((2, 3)), jnp.zeros((2, 3))
    model = jax.tree_util.Partial(jnp.sin)
    with pytest.raises(ValueError, match="expected a model with parameters"):
        vc.rules.Backprop(loss=vc.losses.squared_error).value_and_grad(vc.capture(model, x[0]), model, (), x, y)


def softmax(z):
    return np.exp(z) / np.sum(np.exp(z), axis=1, keepdims=True)


def test_nudging_equals_the_soft_target_of_the_paper():
    """a_L = n y + (1 - n) softmax(z), recomputed every step; its cross-entropy gradient is n (softmax - y)."""
    model, graph, x, _ = network()
    y, n, gamma, steps = jnp.array([0, 2, 1]), 0.35, 0.1, 6
    onehot = np.eye(3)[np.asarray(y)]
    rule = vc.rules.InferenceLearning(Simultaneous(steps=steps, step_size=gamma), nudge=n)
    credit, _ = run(rule, model, graph, x, y)
    model, x = on_host((model, x))
    (w1, b1), (w2, b2), (w3, b3) = [(layer.weight, layer.bias[None]) for layer in model.layers]
    p1 = np.tanh(x @ w1.T + b1)
    a1, a2 = p1, np.tanh(p1 @ w2.T + b2)
    for _ in range(steps):
        z = a2 @ w3.T + b3
        target = n * onehot + (1 - n) * softmax(z)
        p2 = np.tanh(a1 @ w2.T + b2)
        e1, e2, e3 = a1 - p1, a2 - p2, target - softmax(z)
        a1, a2 = a1 + gamma * ((e2 * (1 - p2**2)) @ w2 - e1), a2 + gamma * (e3 @ w3 - e2)
    np.testing.assert_allclose(credit.values["hidden1"], a1, rtol=1e-12)
    np.testing.assert_allclose(credit.values["hidden2"], a2, rtol=1e-12)
    expected = n * (onehot - softmax(a2 @ w3.T + b3))
    np.testing.assert_allclose(credit.output_error, expected, rtol=1e-11, atol=1e-14)


def test_random_start_depends_on_the_key_and_finds_the_same_equilibrium_of_a_linear_network():
    model, graph, x, y = network(activation="identity")
    tight = {"steps": 20000, "step_size": 0.1, "tolerance": 1e-13}
    short = [run(squared(steps=1, start="random"), model, graph, x, y, key=jax.random.key(k))[0] for k in (0, 0, 1)]
    np.testing.assert_array_equal(short[0].values["hidden1"], short[1].values["hidden1"])
    assert not np.allclose(short[0].values["hidden1"], short[2].values["hidden1"])
    random, _ = run(squared(start="random", **tight), model, graph, x, y, key=jax.random.key(0))
    feedforward, _ = run(squared(**tight), model, graph, x, y)
    for name in graph.vertices:
        np.testing.assert_allclose(random.values[name], feedforward.values[name], atol=1e-11)
