"""Sequential, error-based and adaptive inference against loops written by hand, theory, and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import double

import vicinal as vc
from vicinal.analysis import equilibrium_residual
from vicinal.inference import Adaptive, ErrorBased, Problem, Proximal, Result, Sequential, Simultaneous

KEY = jax.random.key(0)


def perceptron(sizes=(5, 7, 6, 6, 3), vertex_at="post", activation="tanh"):
    return double(vc.nn.MLP(sizes, activation=activation, vertex_at=vertex_at, key=KEY))


def batch(model, examples=4, shape=(5,), classes=3):
    x = jax.random.normal(jax.random.key(1), (examples, *shape), jnp.float64)
    graph = vc.capture(model, x[0])
    return graph, x, jnp.arange(examples) % classes


def problem_of(model, loss=vc.losses.softmax_cross_entropy, **settings):
    graph, x, y = batch(model)
    return Problem(graph, model, x, y, loss, **settings), graph.feedforward(model, x)[1]


def derivative(a):
    return 1 - jnp.tanh(a) ** 2


def layered_sweeps(model, x, y, steps, size, nudge, beta_form=False):
    """The published loop, for one example and potentials: top-down, each layer uses the updated one above."""
    weights = [(layer.weight, layer.bias) for layer in model.layers]
    f = [lambda a: a] + [jnp.tanh] * (len(weights) - 1)
    a = [x]
    for (w, b), g in zip(weights, f, strict=True):
        a.append(w @ g(a[-1]) + b)
    a = a[:-1]
    beta = nudge / (1 - nudge) if beta_form else None
    for t in range(steps):
        (w, b), g = weights[-1], f[-1]
        p = w @ g(a[-1]) + b
        target = jax.nn.one_hot(y, p.shape[0], dtype=p.dtype)
        soft = (beta * target + jax.nn.softmax(p)) / (1 + beta) if beta_form else None
        error = soft - jax.nn.softmax(p) if beta_form else nudge * (target - jax.nn.softmax(p))
        for layer in range(len(a) - 1, 0, -1):
            w, _ = weights[layer]
            prediction = weights[layer - 1][0] @ f[layer - 1](a[layer - 1]) + weights[layer - 1][1]
            carried = derivative(a[layer]) * (w.T @ error)
            a[layer] = a[layer] + size / (1 + t) * (carried - (a[layer] - prediction))
            error = a[layer] - prediction
    return a[1:]


@pytest.mark.parametrize("beta_form", [False, True], ids=["nudged", "soft target, beta 100"])
def test_sequential_inference_equals_a_loop_over_layers(x64, beta_form):
    model = perceptron(vertex_at="pre")
    problem, start = problem_of(model, nudge=100 / 101)
    settled = Sequential(steps=4, step_size=0.3).settle(problem, start)
    for i in range(4):
        expected = layered_sweeps(model, problem.x[i], problem.y[i], 4, 0.3, 100 / 101, beta_form)
        for name, value in zip(problem.graph.vertices, expected, strict=True):
            np.testing.assert_allclose(settled.values[name][i], value, rtol=1e-12, atol=1e-14)


def test_a_sweep_goes_through_branches_in_reverse_topological_order(x64):
    def function(w, x):
        a = vc.vertex(jnp.tanh(w["a"] @ x), "a")
        b = vc.vertex(jnp.tanh(w["b"] @ a), "b")
        c = vc.vertex(jnp.sin(w["c"] @ a) + b, "c")
        return w["out"] @ c + w["skip"] @ a

    keys = jax.random.split(KEY, 5)
    shapes = {"a": (4, 5), "b": (4, 4), "c": (4, 4), "out": (3, 4), "skip": (3, 4)}
    w = {name: jax.random.normal(k, s, jnp.float64) / 2 for k, (name, s) in zip(keys, shapes.items(), strict=True)}
    model = jax.tree_util.Partial(function, w)
    problem, start = problem_of(model, loss=vc.losses.squared_error)
    size = 0.2
    settled = Sequential(steps=2, step_size=size, decay=False).settle(problem, start)
    for i in range(4):
        x, target = problem.x[i], jax.nn.one_hot(problem.y[i], 3, dtype=jnp.float64)
        a, b, c = (start[name][i] for name in "abc")
        for _ in range(2):
            p_a, p_b = jnp.tanh(w["a"] @ x), jnp.tanh(w["b"] @ a)
            p_c, slope_b, slope_c = jnp.sin(w["c"] @ a) + b, 1 - p_b**2, jnp.cos(w["c"] @ a)
            e_out = target - (w["out"] @ c + w["skip"] @ a)
            c = c + size * (w["out"].T @ e_out - (c - p_c))
            e_c = c - p_c
            b = b + size * (e_c - (b - p_b))
            e_b = b - p_b
            carried = w["skip"].T @ e_out + w["b"].T @ (slope_b * e_b) + w["c"].T @ (slope_c * e_c)
            a = a + size * (carried - (a - p_a))
        for name, value in zip("abc", (a, b, c), strict=True):
            np.testing.assert_allclose(settled.values[name][i], value, rtol=1e-12, atol=1e-14)


def test_one_sweep_reaches_every_vertex(x64):
    """T-b1: simultaneously only the top moves in one step; sequentially vertex k gets gamma^k times the adjoint."""
    model = perceptron()
    problem, start = problem_of(model)
    gamma = 1e-3
    one = problem.errors(Simultaneous(steps=1, step_size=gamma).settle(problem, start).values)
    assert all(float(jnp.max(jnp.abs(one.vertices[name]))) < 1e-12 for name in ("hidden1", "hidden2"))
    assert float(jnp.max(jnp.abs(one.vertices["hidden3"]))) > 1e-6
    swept = Sequential(steps=1, step_size=gamma).settle(problem, start).values
    exact, _ = vc.rules.Backprop().credit(problem.graph, model, (), problem.x, problem.y)
    for k, name in enumerate(("hidden3", "hidden2", "hidden1"), 1):
        error = swept[name] - start[name]  # from the prediction that the sweep began with
        np.testing.assert_allclose(error / gamma**k, exact.errors[name], rtol=2e-2, atol=1e-6)


def test_small_sweeps_point_along_backpropagation(x64):
    """T-b3: each matrix of its own; to leading order its size is C(T+k-1, k) gamma^k."""
    model = perceptron()
    graph, x, y = batch(model)
    steps, gamma = 3, 1e-3
    rule = vc.rules.InferenceLearning(inference=Sequential(steps=steps, step_size=gamma, decay=False))
    ours = rule.value_and_grad(graph, model, (), x, y)[1]
    exact = vc.rules.Backprop().value_and_grad(graph, model, (), x, y)[1]
    for name, found in vc.analysis.angles(ours, exact).items():
        assert name == "concatenated" or float(found) < 0.5
    for k, layer, factor in ((1, 2, 3), (2, 1, 6), (3, 0, 10)):
        ratio = jnp.linalg.norm(ours.layers[layer].weight) / jnp.linalg.norm(exact.layers[layer].weight)
        assert float(ratio) == pytest.approx(factor * gamma**k, rel=2e-2)


STRATEGIES = {
    "sequential": Sequential(steps=4000, step_size=0.5, decay=False, tolerance=1e-11),
    "error-based": ErrorBased(steps=4000, step_size=0.3, tolerance=1e-11),
    "error-based, momentum": ErrorBased(steps=4000, step_size=0.2, momentum=0.5, tolerance=1e-11),
    "adaptive": Adaptive(steps=1000, tolerance=1e-11),
}


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
@pytest.mark.parametrize(
    "settings",
    [{}, {"nudge": 0.7, "precision": {"hidden2": 2.5}}, {"proximal": Proximal(2.0, eps=0.1)}],
    ids=["plain", "nudged, precise", "proximal"],
)
def test_every_strategy_has_the_same_equilibrium(x64, strategy, settings):
    model = perceptron()
    problem, start = problem_of(model, **settings)
    reference = Simultaneous(steps=20000, step_size=0.3, tolerance=1e-12).settle(problem, start)
    assert np.all(np.asarray(reference.result) == Result.CONVERGED)
    found = strategy.settle(problem, start)
    assert np.all(np.asarray(found.result) == Result.CONVERGED)
    for name in start:
        np.testing.assert_allclose(found.values[name], reference.values[name], atol=1e-8)
    assert float(jnp.max(equilibrium_residual(problem, found.values))) < 1e-9


@pytest.mark.parametrize("vertex_at", ["post", "pre"])
def test_adaptive_inference_takes_a_third_of_the_plain_steps_at_most(x64, vertex_at):
    """Ten layers, to a residual of 1e-3, against the best step size of plain descent."""
    model = double(vc.nn.MLP((64, *[64] * 9, 10), vertex_at=vertex_at, key=KEY))
    model = jax.tree.map(lambda leaf: 1.5 * leaf if leaf.ndim == 2 else leaf, model)
    x = jax.random.uniform(jax.random.key(1), (8, 64), jnp.float64)
    graph = vc.capture(model, x[0])
    problem = Problem(graph, model, x, jnp.arange(8), vc.losses.softmax_cross_entropy)
    start = graph.feedforward(model, x)[1]
    best = np.inf
    for step_size in (0.1, 0.2, 0.3, 0.4, 0.5):
        plain = Simultaneous(steps=2000, step_size=step_size, tolerance=1e-3).settle(problem, start)
        if np.all(np.asarray(plain.result) == Result.CONVERGED):
            best = min(best, float(jnp.max(plain.steps)))
    settled = Adaptive(steps=2000, tolerance=1e-3).settle(problem, start)
    assert np.all(np.asarray(settled.result) == Result.CONVERGED)
    assert float(jnp.max(equilibrium_residual(problem, settled.values))) < 1e-3
    assert np.isfinite(best)
    assert float(jnp.max(settled.steps)) <= best / 3


def test_adaptive_inference_recovers_from_a_first_step_that_is_far_too_long(x64):
    problem, start = problem_of(perceptron())
    settled = Adaptive(steps=500, step_size=1e4, tolerance=1e-8).settle(problem, start)
    assert np.all(np.asarray(settled.result) == Result.CONVERGED)


@pytest.mark.parametrize("strategy", [Sequential(trace=True), ErrorBased(trace=True), Adaptive(steps=6, trace=True)])
def test_traces_begin_at_the_start_and_end_at_the_end(x64, strategy):
    problem, start = problem_of(perceptron())
    settled = strategy.settle(problem, start)
    for name, energy in problem.energies(start).items():
        np.testing.assert_allclose(settled.trace[name][0], energy, atol=1e-12)
        np.testing.assert_allclose(settled.trace[name][-1], settled.energies[name], atol=1e-12)
        assert settled.trace[name].shape[0] <= strategy.steps + 1


@pytest.mark.parametrize("strategy", [Sequential(), ErrorBased(), Adaptive(steps=20)])
def test_inference_does_not_depend_on_the_batch(x64, strategy):
    problem, start = problem_of(perceptron())
    whole = strategy.settle(problem, start).values
    for i in range(4):
        one = Problem(problem.graph, problem.model, problem.x[i : i + 1], problem.y[i : i + 1], problem.loss)
        single = strategy.settle(one, {name: value[i : i + 1] for name, value in start.items()}).values
        for name in start:
            np.testing.assert_allclose(single[name][0], whole[name][i], atol=1e-10)


def test_a_correct_prediction_moves_nothing(x64):
    """T-a6, for every strategy."""
    model = perceptron()
    graph, x, _ = batch(model)
    output, start = graph.feedforward(model, x)
    problem = Problem(graph, model, x, output, vc.losses.squared_error)
    for strategy in (Sequential(), ErrorBased(), Adaptive(steps=5, tolerance=None)):
        for name, value in strategy.settle(problem, start).values.items():
            np.testing.assert_allclose(value, start[name], atol=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Sequential(steps=-1), "expected steps as an integer of at least 0, got -1"),
        (lambda: Sequential(step_size=-0.1), "expected the step size of at least 0"),
        (lambda: Sequential(pull=-1.0), "expected pull of at least 0"),
        (lambda: ErrorBased(momentum=1.0), r"expected momentum in \[0, 1\)"),
        (lambda: Adaptive(step_size=0.0), "expected the step size above 0"),
        (lambda: Adaptive(tolerance=0.0), "expected the tolerance above 0"),
    ],
)
def test_settings_out_of_range_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_adaptive_inference_does_not_take_a_point_of_infinite_energy():
    model, x, y = vc.nn.MLP((4, 5, 3), key=jax.random.key(0)), jnp.ones((6, 4)), jnp.arange(6) % 3
    rule = vc.rules.InferenceLearning(inference=Adaptive(steps=200, step_size=1e20), loss=vc.losses.squared_error)
    info = rule.value_and_grad(vc.capture(model, x[0]), model, (), x, y)[-1]
    assert set(info.result.tolist()) == {int(vc.inference.Result.CONVERGED)}
