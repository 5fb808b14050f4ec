"""Inference learning against theory and hand-written references, in float64."""

import dataclasses
from math import comb

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vicinal as vc
from vicinal.inference import Problem, Result, Simultaneous

pytestmark = pytest.mark.usefixtures("x64")


def network(sizes=(4, 6, 5, 3), activation="tanh", vertex_at="post", batch=3, seed=0, scale=1.0):
    key = jax.random.key(seed)
    model = vc.nn.MLP(sizes, activation=activation, vertex_at=vertex_at, key=key)
    model = jax.tree.map(lambda leaf: scale * leaf.astype(jnp.float64) if eqx.is_array(leaf) else leaf, model)
    x = jax.random.normal(jax.random.key(seed + 1), (batch, sizes[0]), jnp.float64)
    y = jax.random.normal(jax.random.key(seed + 2), (batch, sizes[-1]), jnp.float64)
    return model, vc.capture(model, x[0]), x, y


def run(rule, model, graph, x, y, key=None):
    credit, _ = rule.credit(graph, model, (), x, y, key=key)
    return credit, vc.local_gradient(graph, model, credit, x)


def squared(**settings):
    rule = {name: settings.pop(name) for name in ("nudge", "start", "precision", "throw") if name in settings}
    return vc.rules.InferenceLearning(Simultaneous(**settings), loss=vc.losses.squared_error, **rule)


def weights(gradient):
    return [layer.weight for layer in gradient.layers]


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
    np.testing.assert_allclose(credit.output_error, y - jax.vmap(model)(x), rtol=1e-12)


# ------------------------------------------------------------------------------------------------------- theorems


@pytest.mark.parametrize("vertex_at", ["post", "pre"])
def test_a3_small_steps_give_the_direction_of_backpropagation(vertex_at):
    """As gamma -> 0 the update k layers below the output is C(T, k) gamma^k times backpropagation's."""
    steps, sizes = 6, (4, 6, 5, 4, 3)
    model, graph, x, y = network(sizes, vertex_at=vertex_at, batch=1)
    _, reference = run(vc.rules.Backprop(loss=vc.losses.squared_error), model, graph, x, y)
    misses = []
    for gamma in (1e-3, 1e-4):
        _, gradient = run(squared(steps=steps, step_size=gamma), model, graph, x, y)
        found = zip(weights(gradient), weights(reference), strict=True)
        for k, (ours, theirs) in enumerate(reversed(list(found))):
            ratio = float(jnp.linalg.norm(ours) / jnp.linalg.norm(theirs)) / (comb(steps, k) * gamma**k)
            assert float(vc.analysis.angle(ours, theirs)) < 180 / np.pi * 100 * gamma
            assert abs(ratio - 1) < 100 * gamma
            misses.append((gamma, k, abs(ratio - 1)))
    small, large = ([miss for g, k, miss in misses if g == gamma and k > 0] for gamma in (1e-4, 1e-3))
    for a, b in zip(small, large, strict=True):
        assert a < 0.2 * b  # the deviation is of first order in gamma


def test_a3_nudging_little_gives_the_direction_of_backpropagation_at_any_step_size():
    model, graph, x, y = network(batch=1)
    _, reference = run(vc.rules.Backprop(loss=vc.losses.squared_error), model, graph, x, y)
    _, gradient = run(squared(steps=400, step_size=0.2, nudge=1e-6), model, graph, x, y)
    for ours, theirs in zip(weights(gradient), weights(reference), strict=True):
        assert float(vc.analysis.angle(ours, theirs)) < 1e-3
        np.testing.assert_allclose(jnp.linalg.norm(ours), 1e-6 * jnp.linalg.norm(theirs), rtol=1e-4)


@pytest.mark.parametrize("sizes", [(4, 6, 3), (4, 6, 5, 3), (3, 5, 4, 6, 2)])
def test_a4_equilibrium_of_a_linear_network(sizes):
    """e_L = (I + sum W_{L:l} W_{L:l}^T)^{-1} (y - W_{L:1} x),  e_l = W_{L:l+1}^T e_L,  F* = 1/2 (y - p)^T e_L."""
    model, graph, x, y = network(sizes, activation="identity")
    model = jax.tree.map(lambda leaf: 1.5 * leaf if eqx.is_array(leaf) else leaf, model)
    model = eqx.tree_at(lambda m: [layer.bias for layer in m.layers], model, replace_fn=jnp.zeros_like)
    credit, _ = run(squared(steps=20000, step_size=0.1, tolerance=1e-14), model, graph, x, y)
    assert set(credit.info.result.tolist()) == {Result.CONVERGED}
    ws = [layer.weight for layer in model.layers]
    products = [jnp.eye(sizes[-1])]  # W_{L:l+1} for l = L, L-1, ..., 1
    for w in reversed(ws[1:]):
        products.append(products[-1] @ w)
    gram = sum(p @ p.T for p in products)
    output_error = jnp.linalg.solve(gram, (y - x @ (products[-1] @ ws[0]).T).T).T
    np.testing.assert_allclose(credit.output_error, output_error, atol=1e-12)
    for name, product in zip(reversed(graph.vertices), products[1:], strict=True):
        np.testing.assert_allclose(credit.errors[name], output_error @ product, atol=1e-12)
    energy = sum(credit.info.energies.values())
    residual = y - x @ (products[-1] @ ws[0]).T
    np.testing.assert_allclose(energy, 0.5 * jnp.sum(residual * output_error, axis=1), rtol=1e-11)


@pytest.mark.parametrize("vertex_at", ["post", "pre"])
def test_a5_energy_never_rises_below_the_critical_step_size(vertex_at):
    """On a linear network the energy is quadratic: 2/lambda_max of its Hessian is the largest stable step."""
    model, graph, x, y = network((4, 6, 5, 3), activation="identity", batch=1, vertex_at=vertex_at, scale=2.0)
    problem = Problem(graph, model, x, y, vc.losses.squared_error)
    _, start = graph.feedforward(model, x)
    flat, rebuild = jax.flatten_util.ravel_pytree(start)
    hessian = jax.hessian(lambda a: sum(problem.energies(rebuild(a)).values())[0])(flat)
    critical = 2 / float(jnp.linalg.eigvalsh(hessian)[-1])
    below, _ = run(squared(steps=300, step_size=0.99 * critical, trace=True), model, graph, x, y)
    trace = sum(below.info.trace.values())[:, 0]
    assert jnp.all(jnp.diff(trace) <= 1e-12)
    assert below.info.result[0] == Result.STEP_LIMIT
    above, _ = run(squared(steps=300, step_size=1.05 * critical, trace=True), model, graph, x, y)
    assert above.info.result[0] == Result.DIVERGED
    assert sum(above.info.trace.values())[-1, 0] > sum(above.info.trace.values())[0, 0]


@pytest.mark.parametrize("loss", ["squared_error", "softmax_cross_entropy", "sigmoid_cross_entropy"])
def test_a6_a_correct_prediction_moves_nothing(loss):
    model, graph, x, _ = network()
    link = {
        "squared_error": lambda z: z,
        "softmax_cross_entropy": jax.nn.softmax,
        "sigmoid_cross_entropy": jax.nn.sigmoid,
    }
    output, values = graph.feedforward(model, x)
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
    slope = jax.grad(lambda values: jnp.sum(sum(problem.energies(values).values())))(credit.values)
    for leaf in jax.tree.leaves(slope):
        assert float(jnp.max(jnp.abs(leaf))) < 1e-11


def test_the_gradient_is_the_slope_of_the_energy_in_the_parameters():
    model, graph, x, y = network()
    rule = squared(steps=15, step_size=0.2, precision={"hidden1": 2.0, "hidden2": 0.5}, nudge=0.7)
    credit, gradient = run(rule, model, graph, x, y)

    def energy(model):
        problem = Problem(graph, model, x, y, rule.loss, rule.nudge, rule.precision)
        return jnp.mean(sum(problem.energies(credit.values).values()))

    expected = eqx.filter_grad(energy)(model)
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
    _, predictions = graph.predict(model, plain[0].values, x)
    weighted = squared(steps=9, precision={"hidden2": jnp.arange(5.0)})
    read = weighted.errors(graph, model, plain[0], x)
    np.testing.assert_allclose(
        read["hidden2"], jnp.arange(5.0)[None] * (plain[0].values["hidden2"] - predictions["hidden2"]), rtol=1e-13
    )
    np.testing.assert_allclose(read["hidden1"], plain[0].errors["hidden1"], rtol=1e-13)


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
        ({"nudge": 0.0}, r"nudge in \(0, 1\], got 0.0"),
        ({"momentum": 1.0}, r"momentum in \[0, 1\), got 1.0"),
        ({"step_size": -0.1}, "step size of at least 0, got -0.1"),
        ({"tolerance": 0.0}, "tolerance above 0, got 0.0"),
        ({"precision": -1.0}, "precision of at least 0, got -1.0"),
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


def test_nudging_equals_the_soft_target_of_the_paper():
    """a_L = n y + (1 - n) softmax(z), recomputed every step; its cross-entropy gradient is n (softmax - y)."""
    model, graph, x, _ = network()
    y, n, gamma, steps = jnp.array([0, 2, 1]), 0.35, 0.1, 6
    onehot = jax.nn.one_hot(y, 3, dtype=jnp.float64)
    rule = vc.rules.InferenceLearning(Simultaneous(steps=steps, step_size=gamma), nudge=n)
    credit, _ = run(rule, model, graph, x, y)
    (w1, b1), (w2, b2), (w3, b3) = [(layer.weight, layer.bias[None]) for layer in model.layers]
    p1 = jnp.tanh(x @ w1.T + b1)
    a1, a2 = p1, jnp.tanh(p1 @ w2.T + b2)
    for _ in range(steps):
        z = a2 @ w3.T + b3
        target = n * onehot + (1 - n) * jax.nn.softmax(z)
        p2 = jnp.tanh(a1 @ w2.T + b2)
        e1, e2, e3 = a1 - p1, a2 - p2, target - jax.nn.softmax(z)
        a1, a2 = a1 + gamma * ((e2 * (1 - p2**2)) @ w2 - e1), a2 + gamma * (e3 @ w3 - e2)
    np.testing.assert_allclose(credit.values["hidden1"], a1, rtol=1e-12)
    np.testing.assert_allclose(credit.values["hidden2"], a2, rtol=1e-12)
    expected = n * (onehot - jax.nn.softmax(a2 @ w3.T + b3))
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


# -------------------------------------------------------------------------------------------- batches and results


def test_inference_does_not_depend_on_the_batch():
    model, graph, x, y = network(batch=5)
    for options in ({"steps": 9}, {"steps": 500, "tolerance": 1e-4}):
        whole, _ = run(squared(step_size=0.2, **options), model, graph, x, y)
        for i in range(5):
            one, _ = run(squared(step_size=0.2, **options), model, graph, x[i : i + 1], y[i : i + 1])
            assert int(one.info.steps[0]) == int(whole.info.steps[i])
            for name in graph.vertices:
                np.testing.assert_allclose(one.values[name][0], whole.values[name][i], rtol=1e-12, atol=1e-14)


def test_a_tolerance_stops_early_and_at_the_right_place():
    model, graph, x, y = network()
    problem = Problem(graph, model, x, y, vc.losses.squared_error)
    credit, _ = run(squared(steps=10000, step_size=0.2, tolerance=1e-3), model, graph, x, y)
    feedback, own, _ = problem.descent(credit.values)
    slope = jnp.stack([jnp.max(jnp.abs(feedback[n] - own[n]), axis=1) for n in graph.vertices])
    assert jnp.all(jnp.max(slope, axis=0) <= 1e-3)
    assert jnp.all((credit.info.steps > 3) & (credit.info.steps < 200))
    assert set(credit.info.result.tolist()) == {Result.CONVERGED}
    # One step less and the tolerance is not met yet.
    for i, steps in enumerate(credit.info.steps.tolist()):
        earlier, _ = run(squared(steps=steps - 1, step_size=0.2), model, graph, x, y)
        feedback, own, _ = problem.descent(earlier.values)
        assert max(float(jnp.max(jnp.abs(feedback[n] - own[n])[i])) for n in graph.vertices) > 1e-3


def test_the_step_limit_is_reported():
    model, graph, x, y = network()
    credit, _ = run(squared(steps=3, tolerance=1e-9), model, graph, x, y)
    assert credit.info.result.tolist() == [Result.STEP_LIMIT] * 3
    assert credit.info.steps.tolist() == [3] * 3


@pytest.mark.parametrize("tolerance", [None, 1e-6])
def test_divergence_and_non_finite_values_are_noticed_per_example(tolerance):
    model, graph, x, y = network(scale=3.0)
    x = x.at[1].set(jnp.nan)
    credit, _ = run(squared(steps=40, step_size=1.0, tolerance=tolerance), model, graph, x, y)
    assert credit.info.result.tolist() == [Result.DIVERGED, Result.NON_FINITE, Result.DIVERGED]
    calm, _ = run(squared(steps=40, step_size=0.02, tolerance=tolerance), model, graph, x, y)
    assert int(calm.info.result[1]) == Result.NON_FINITE
    assert all(int(code) in (Result.STEP_LIMIT, Result.CONVERGED) for code in calm.info.result[jnp.array([0, 2])])


def test_a_slope_that_is_not_a_number_is_not_convergence():
    def network(p, x):
        h = vc.vertex(jax.nn.relu(p["a"] @ x), "h")
        return p["o"] @ h / (1 + jnp.sqrt(jnp.sum(h * h)))  # the slope at zero is not a number

    model = jax.tree_util.Partial(network, {"a": -jnp.ones((4, 5)), "o": jnp.ones((2, 4))})
    x = jnp.ones((3, 5))
    for tolerance in (None, 1e-3):
        credit, _ = run(squared(steps=5, tolerance=tolerance), model, vc.capture(model, x[0]), x, jnp.ones((3, 2)))
        assert credit.info.result.tolist() == [Result.NON_FINITE] * 3


def test_rounding_is_not_divergence():
    """In single precision the energy of a fitted network may seem to rise by rounding; that is no divergence."""
    model = vc.nn.MLP((4, 16, 16, 3), activation="relu", key=jax.random.key(0))
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_array(leaf) else leaf, model)
    x = 3 * jax.random.normal(jax.random.key(1), (512, 4), jnp.float32)
    graph = vc.capture(model, x[0])
    output, _ = graph.feedforward(model, x)
    for noise in (0.0, 1e-7, 1e-5, 1e-3):
        y = output + noise * jax.random.normal(jax.random.key(2), output.shape, jnp.float32)
        credit, _ = run(squared(steps=20, step_size=0.1), model, graph, x, y)
        assert not jnp.any(credit.info.result == Result.DIVERGED)
    sharp = vc.rules.InferenceLearning(inference=Simultaneous(steps=20, step_size=0.1))
    sure, _ = run(sharp, model, graph, x, jax.nn.softmax(output))
    assert not jnp.any(sure.info.result == Result.DIVERGED)


def test_overflow_is_non_finite():
    model, graph, x, y = network(activation="identity", scale=10.0)
    credit, _ = run(squared(steps=2000, step_size=10.0), model, graph, x, y)
    assert credit.info.result.tolist() == [Result.NON_FINITE] * 3


def test_throw_raises_the_sentence():
    model, graph, x, y = network(scale=3.0)
    with pytest.raises(RuntimeError, match="diverged: the energy ended above where it started"):
        run(squared(steps=40, step_size=1.0, throw=True), model, graph, x, y)
    run(squared(steps=40, step_size=0.01, throw=True), model, graph, x, y)


@pytest.mark.parametrize("tolerance", [None, 1e-3])
def test_trace_and_energies(tolerance):
    model, graph, x, y = network()
    steps = 60
    credit, _ = run(squared(steps=steps, step_size=0.2, tolerance=tolerance, trace=True), model, graph, x, y)
    trace = credit.info.trace
    assert set(trace) == {*graph.vertices, "output"}
    problem = Problem(graph, model, x, y, vc.losses.squared_error)
    for t in (0, 1, 5, steps):
        short, _ = run(squared(steps=t, step_size=0.2, tolerance=tolerance), model, graph, x, y)
        for name, energy in problem.energies(short.values).items():
            np.testing.assert_allclose(trace[name][t], energy, rtol=1e-10, atol=1e-14)
            np.testing.assert_allclose(short.info.energies[name], energy, rtol=1e-10, atol=1e-14)
    output_loss = 0.5 * jnp.sum((y - jax.vmap(model)(x)) ** 2, axis=1)
    np.testing.assert_allclose(trace["output"][0], output_loss, rtol=1e-12)
    np.testing.assert_allclose(credit.loss, output_loss, rtol=1e-12)


def test_a_network_without_hidden_vertices_learns_as_backpropagation():
    model = vc.nn.Linear(4, 3, key=jax.random.key(0))
    x, y = jnp.ones((2, 4), jnp.float32), jnp.zeros((2, 3), jnp.float32)
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), model)
    graph = vc.capture(model, x[0])
    il, bp = squared(steps=5, tolerance=1e-3), vc.rules.Backprop(loss=vc.losses.squared_error)
    ours, theirs = (rule.value_and_grad(graph, model, (), x, y)[1] for rule in (il, bp))
    np.testing.assert_allclose(ours.weight, theirs.weight, rtol=1e-6)


def test_momentum_reaches_the_same_equilibrium_sooner():
    model, graph, x, y = network(activation="identity", scale=2.0)
    results = {
        m: run(squared(steps=20000, step_size=0.05, tolerance=1e-10, momentum=m), model, graph, x, y)[0]
        for m in (None, 0.8)
    }
    for name in graph.vertices:
        np.testing.assert_allclose(results[None].values[name], results[0.8].values[name], atol=1e-8)
    assert jnp.all(2 * results[0.8].info.steps < results[None].info.steps)


def test_every_result_has_a_sentence():
    sentences = [code.sentence for code in Result]
    assert len(set(sentences)) == 4
    assert all(sentence.split(":")[0] for sentence in sentences)


def test_credit_is_a_plain_tree():
    model, graph, x, y = network()
    credit, _ = run(squared(steps=1), model, graph, x, y)
    doubled = dataclasses.replace(credit, errors=jax.tree.map(lambda e: 2 * e, credit.errors))
    ours = vc.local_gradient(graph, model, doubled, x).layers[0].weight
    np.testing.assert_allclose(ours, 2 * vc.local_gradient(graph, model, credit, x).layers[0].weight, rtol=1e-12)
