"""Sequential, error-based and adaptive inference against loops written by hand, theory, and each other."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix import diagonal, full
from once import once
from precision import double, on_host

import vicinal as vc
from vicinal.analysis import equilibrium_residual
from vicinal.inference import Adaptive, ErrorBased, Problem, Proximal, Result, Sequential, Simultaneous

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)


@once
def perceptron(sizes=(5, 7, 6, 6, 3), vertex_at="post", activation="tanh"):
    return double(vc.nn.MLP(sizes, activation=activation, vertex_at=vertex_at, key=KEY))


GRAPHS = {}  # one for each model, so that what is compiled for it is shared


def batch(model, examples=4, shape=(5,), classes=3):
    x = jax.random.normal(jax.random.key(1), (examples, *shape), jnp.float64)
    if id(model) not in GRAPHS:
        GRAPHS[id(model)] = model, vc.capture(model, x[0])  # with the model, whose id is not given again
    return GRAPHS[id(model)][1], x, jnp.arange(examples) % classes


def problem_of(model, loss=vc.losses.softmax_cross_entropy, **settings):
    graph, x, y = batch(model)
    return Problem(graph, model, x, y, loss, **settings), eqx.filter_jit(graph.feedforward)(model, x)[1]


def softmax(p):
    return np.exp(p) / np.sum(np.exp(p))


def derivative(a):
    return 1 - np.tanh(a) ** 2


def layered_sweeps(model, x, y, steps, size, nudge, beta_form=False):
    """The published loop, for one example and potentials: top-down, each layer uses the updated one above."""
    weights = [(layer.weight, layer.bias) for layer in model.layers]
    f = [lambda a: a] + [np.tanh] * (len(weights) - 1)
    a = [x]
    for (w, b), g in zip(weights, f, strict=True):
        a.append(w @ g(a[-1]) + b)
    a = a[:-1]
    beta = nudge / (1 - nudge) if beta_form else None
    for t in range(steps):
        (w, b), g = weights[-1], f[-1]
        p = w @ g(a[-1]) + b
        target = np.eye(len(p))[y]
        soft = (beta * target + softmax(p)) / (1 + beta) if beta_form else None
        error = soft - softmax(p) if beta_form else nudge * (target - softmax(p))
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
    settled = eqx.filter_jit(Sequential(steps=4, step_size=0.3).settle)(problem, start)
    for i in range(4):
        expected = layered_sweeps(
            on_host(model), np.asarray(problem.x)[i], int(problem.y[i]), 4, 0.3, 100 / 101, beta_form
        )
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
    settled = eqx.filter_jit(Sequential(steps=2, step_size=size, decay=False).settle)(problem, start)
    w, start, inputs = on_host((w, start, problem.x))
    for i in range(4):
        x, target = inputs[i], np.eye(3)[int(problem.y[i])]
        a, b, c = (start[name][i] for name in "abc")
        for _ in range(2):
            p_a, p_b = np.tanh(w["a"] @ x), np.tanh(w["b"] @ a)
            p_c, slope_b, slope_c = np.sin(w["c"] @ a) + b, 1 - p_b**2, np.cos(w["c"] @ a)
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
    """Simultaneously only the top moves in one step; sequentially vertex k gets gamma^k times the adjoint."""
    model = perceptron()
    problem, start = problem_of(model)
    gamma = 1e-3
    one = problem.errors(eqx.filter_jit(Simultaneous(steps=1, step_size=gamma).settle)(problem, start).values)
    assert all(float(jnp.max(jnp.abs(one.by_vertex[name]))) < 1e-12 for name in ("hidden1", "hidden2"))
    assert float(jnp.max(jnp.abs(one.by_vertex["hidden3"]))) > 1e-6
    swept = eqx.filter_jit(Sequential(steps=1, step_size=gamma).settle)(problem, start).values
    exact, _ = eqx.filter_jit(vc.rules.Backprop().credit)(problem.graph, model, (), problem.x, problem.y)
    for k, name in enumerate(("hidden3", "hidden2", "hidden1"), 1):
        error = swept[name] - start[name]  # from the prediction that the sweep began with
        np.testing.assert_allclose(error / gamma**k, exact.errors[name], rtol=2e-2, atol=1e-6)


def test_small_sweeps_point_along_backpropagation(x64):
    """Holds for each matrix by itself; to leading order its size is C(T+k-1, k) gamma^k."""
    model = perceptron()
    graph, x, y = batch(model)
    steps, gamma = 3, 1e-3
    rule = vc.rules.InferenceLearning(inference=Sequential(steps=steps, step_size=gamma, decay=False))
    ours = eqx.filter_jit(rule.value_and_grad)(graph, model, (), x, y)[1]
    exact = eqx.filter_jit(vc.rules.Backprop().value_and_grad)(graph, model, (), x, y)[1]
    for name, found in eqx.filter_jit(vc.analysis.angles)(ours, exact).items():
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


SETTINGS = {
    "plain": {},
    "nudged, precise": {"nudge": 0.7, "precision": {"hidden2": 2.5}},
    "proximal": {"proximal": Proximal(2.0, eps=0.1)},
}


@pytest.mark.parametrize(("strategy", "settings"), diagonal(STRATEGIES, SETTINGS))
def test_every_strategy_has_the_same_equilibrium(x64, strategy, settings):
    model, strategy = perceptron(), STRATEGIES[strategy]
    problem, start = problem_of(model, **SETTINGS[settings])
    reference = eqx.filter_jit(Simultaneous(steps=20000, step_size=0.3, tolerance=1e-12).settle)(problem, start)
    assert np.all(np.asarray(reference.result) == Result.CONVERGED)
    found = eqx.filter_jit(strategy.settle)(problem, start)
    assert np.all(np.asarray(found.result) == Result.CONVERGED)
    for name in start:
        np.testing.assert_allclose(found.values[name], reference.values[name], atol=1e-8)
    assert float(jnp.max(eqx.filter_jit(equilibrium_residual)(problem, found.values))) < 1e-9


@pytest.mark.parametrize("vertex_at", ["post", full("pre")])
def test_adaptive_inference_takes_a_third_of_the_plain_steps_at_most(x64, vertex_at):
    """Ten layers, to a residual of 1e-3, against the best step size of plain descent."""
    model = double(vc.nn.MLP((64, *[64] * 9, 10), vertex_at=vertex_at, key=KEY))
    model = jax.tree.map(lambda leaf: 1.5 * leaf if leaf.ndim == 2 else leaf, model)
    x = jax.random.uniform(jax.random.key(1), (8, 64), jnp.float64)
    graph = vc.capture(model, x[0])
    problem = Problem(graph, model, x, jnp.arange(8), vc.losses.softmax_cross_entropy)
    start = eqx.filter_jit(graph.feedforward)(model, x)[1]
    best = np.inf
    for step_size in (0.1, 0.2, 0.3, 0.4, 0.5):
        plain = eqx.filter_jit(Simultaneous(steps=2000, step_size=step_size, tolerance=1e-3).settle)(problem, start)
        if np.all(np.asarray(plain.result) == Result.CONVERGED):
            best = min(best, float(jnp.max(plain.steps)))
    settled = eqx.filter_jit(Adaptive(steps=2000, tolerance=1e-3).settle)(problem, start)
    assert np.all(np.asarray(settled.result) == Result.CONVERGED)
    assert float(jnp.max(eqx.filter_jit(equilibrium_residual)(problem, settled.values))) < 1e-3
    assert np.isfinite(best)
    assert float(jnp.max(settled.steps)) <= best / 3


def test_adaptive_inference_recovers_from_a_first_step_that_is_far_too_long(x64):
    problem, start = problem_of(perceptron())
    settled = eqx.filter_jit(Adaptive(steps=500, step_size=1e4, tolerance=1e-8).settle)(problem, start)
    assert np.all(np.asarray(settled.result) == Result.CONVERGED)


@pytest.mark.parametrize("strategy", [Sequential(trace=True), ErrorBased(trace=True), Adaptive(steps=6, trace=True)])
def test_traces_begin_at_the_start_and_end_at_the_end(x64, strategy):
    problem, start = problem_of(perceptron())
    settled = eqx.filter_jit(strategy.settle)(problem, start)
    for name, energy in eqx.filter_jit(problem.energies)(start).items():
        np.testing.assert_allclose(settled.trace[name][0], energy, atol=1e-12)
        np.testing.assert_allclose(settled.trace[name][-1], settled.energies[name], atol=1e-12)
        assert settled.trace[name].shape[0] <= strategy.steps + 1


@pytest.mark.parametrize("strategy", [Sequential(), ErrorBased(), Adaptive(steps=20)])
def test_inference_does_not_depend_on_the_batch(x64, strategy):
    problem, start = problem_of(perceptron())
    whole = eqx.filter_jit(strategy.settle)(problem, start).values
    x, y, start = on_host((problem.x, problem.y, start))
    for i in range(4):
        one = Problem(problem.graph, problem.model, jnp.asarray(x[i : i + 1]), jnp.asarray(y[i : i + 1]), problem.loss)
        given = {name: jnp.asarray(value[i : i + 1]) for name, value in start.items()}
        single = eqx.filter_jit(strategy.settle)(one, given).values
        for name in start:
            np.testing.assert_allclose(single[name][0], whole[name][i], atol=1e-10)


def quadratic(spread=1.0, **settings):
    """A linear network of one hidden vertex: its energy and slope in NumPy, for each example.

    The last unit's synapse to the output is `spread` times as strong as the first's.
    """
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6, 5)), 1.5 * rng.normal(size=(3, 6)) * np.geomspace(1, spread, 6)
    x, y = rng.normal(size=(4, 5)), 3 * rng.normal(size=(4, 3))
    weights = {"a": jnp.asarray(a), "b": jnp.asarray(b)}
    model = jax.tree_util.Partial(lambda w, x: w["b"] @ vc.vertex(w["a"] @ x, "h"), weights)
    graph = vc.capture(model, jnp.asarray(x[0]))
    problem = Problem(graph, model, jnp.asarray(x), jnp.asarray(y), vc.losses.squared_error, **settings)
    predicted = x @ a.T

    def energy(h):
        return (np.sum((h - predicted) ** 2, axis=1) + np.sum((y - h @ b.T) ** 2, axis=1)) / 2

    def parts(h):
        return (y - h @ b.T) @ b, h - predicted

    return problem, predicted, energy, parts


def test_the_own_error_pulls_by_its_factor_in_a_sweep(x64):
    problem, h, _, parts = quadratic()
    h = h + 0.3
    strategy = Sequential(steps=3, step_size=0.05, pull=2.5, decay=False)
    found = eqx.filter_jit(strategy.settle)(problem, {"h": jnp.asarray(h)}).values["h"]
    for _ in range(3):
        carried, own = parts(h)
        h = h + 0.05 * (carried - 2.5 * own)
    np.testing.assert_allclose(found, h, rtol=1e-12)


def test_error_based_inference_starts_where_it_is_told_to(x64):
    problem, predicted, _, parts = quadratic()
    e = np.random.default_rng(1).normal(size=predicted.shape)
    found = eqx.filter_jit(ErrorBased(steps=3, step_size=0.05).settle)(
        problem, {"h": jnp.asarray(predicted + e)}
    ).values["h"]
    for _ in range(3):
        carried, own = parts(predicted + e)
        e = e + 0.05 * (carried - own)
    np.testing.assert_allclose(found, predicted + e, rtol=1e-12)


@pytest.mark.parametrize("strategy", [Simultaneous, Sequential])
def test_rates_that_start_at_zero_rise_to_where_they_rest(x64, strategy):
    """The conditions of Karush, Kuhn and Tucker for the least energy of rates of at least 0."""
    problem, predicted, _, parts = quadratic()
    settings = {"decay": False} if strategy is Sequential else {}
    settle = strategy(steps=5000, step_size=0.03, positive=True, tolerance=1e-9, **settings)
    settled = eqx.filter_jit(settle.settle)(problem, {"h": jnp.zeros(predicted.shape)})
    assert set(settled.result.tolist()) == {int(Result.CONVERGED)}
    h = np.asarray(settled.values["h"])
    carried, own = parts(h)
    slope = carried - own
    assert np.all(h >= 0)
    assert 0 < np.sum(h > 0) < h.size  # some are held at 0, and some are not
    np.testing.assert_allclose(slope[h > 0], 0, atol=1e-8)
    assert np.all(slope[h == 0] <= 1e-8)


def test_the_next_adaptive_step_is_the_second_of_barzilai_and_borwein(x64):
    problem, h, _, parts = quadratic()
    strategy = Adaptive(step_size=0.01)
    begun = eqx.filter_jit(strategy.begin)(problem, {"h": jnp.asarray(h)})
    after, slope = eqx.filter_jit(strategy.step)(problem, begun, jnp.int32(0))
    first = np.subtract(*parts(h))
    np.testing.assert_allclose(slope["h"], first, rtol=1e-12)
    moved = 0.01 * first
    np.testing.assert_allclose(after.values["h"], h + moved, rtol=1e-12)
    turned = first - np.subtract(*parts(h + moved))  # by how much the gradient has changed
    expected = np.sum(moved * turned, axis=1) / np.sum(turned**2, axis=1)
    assert np.all((expected > 0.01 / 20) & (expected < 0.01 * 20))  # longer or shorter steps are cut
    np.testing.assert_allclose(after.step_size, expected, rtol=1e-10)


def test_a_point_is_compared_with_the_last_ten(x64):
    problem, h, energy, _ = quadratic(spread=30.0)  # so that it takes many steps
    strategy = Adaptive(step_size=2.0**-14)

    def step(point, size=None):
        """A step of a given size, and the energy of where it leads."""
        if size is not None:
            point = eqx.tree_at(lambda point: point.step_size, point, jnp.asarray(size))
        tried = energy(np.asarray(point.values["h"] + point.step_size[:, None] * point.slope["h"]))
        return eqx.filter_jit(strategy.step)(problem, point, jnp.int32(0))[0], tried

    def to_between(point, low, high):
        """Sizes of steps that lead to energies between two numbers: the energy is a parabola along the slope."""
        where, slope = np.asarray(point.values["h"]), np.asarray(point.slope["h"])
        squared = np.sum(slope**2, axis=1)
        bend = energy(where + slope) - energy(where) + squared
        return (squared + np.sqrt(squared**2 + 4 * bend * ((low + high) / 2 - energy(where)))) / (2 * bend)

    start, point = energy(h), eqx.filter_jit(strategy.begin)(problem, {"h": jnp.asarray(h)})
    for _ in range(3):
        point, _ = step(point)
    now = energy(np.asarray(point.values["h"]))
    risen, tried = step(point, to_between(point, now, start))
    assert np.all((now < tried) & (tried < start))
    assert np.all(risen.values["h"] != point.values["h"])  # above the last, but not above all of the last ten
    for _ in range(12):
        point, _ = step(point)
    highest = np.max(np.asarray(point.energy + point.loss), axis=1)
    refused, tried = step(point, to_between(point, highest, start))
    assert np.all((highest < tried) & (tried < start))
    np.testing.assert_array_equal(refused.values["h"], point.values["h"])  # it was that high long ago
    np.testing.assert_allclose(refused.step_size, to_between(point, highest, start) / 4, rtol=1e-12)


def test_energies_of_two_points_may_weigh_the_loss_alike(x64):
    """A proximal output weighs the loss by what enters it, so that two points compare by one of their weights alone."""
    rate, eps = 0.3, 0.1
    problem, h, energy, _ = quadratic(proximal=Proximal(rate, eps=eps))
    after = np.random.default_rng(1).normal(size=h.shape)
    weights = [rate * (np.sum(point**2, axis=1) + eps) for point in (h, after)]
    loss = energy(h)  # at the feedforward values there is no other energy
    given = {"h": jnp.asarray(h)}
    alone, alike = (
        eqx.filter_jit(problem.energies)(given),
        eqx.filter_jit(problem.energies)(given, gain_at={"h": jnp.asarray(after)}),
    )
    for found, weight in zip((alone, alike), weights, strict=True):
        np.testing.assert_allclose(found["output"], weight / (1 + weight) * loss, rtol=1e-12)


def test_a_correct_prediction_moves_nothing(x64):
    """Under every strategy."""
    model = perceptron()
    graph, x, _ = batch(model)
    output, start = eqx.filter_jit(graph.feedforward)(model, x)
    problem = Problem(graph, model, x, output, vc.losses.squared_error)
    for strategy in (Sequential(), ErrorBased(), Adaptive(steps=5, tolerance=None)):
        for name, value in eqx.filter_jit(strategy.settle)(problem, start).values.items():
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
    info = eqx.filter_jit(rule.value_and_grad)(vc.capture(model, x[0]), model, (), x, y)[-1]
    assert set(info.result.tolist()) == {int(vc.inference.Result.CONVERGED)}
