"""Lengths of paths and their straightness, against NumPy and geometry."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vicinal as vc
from vicinal.analysis import displacement, measure_path, path_length, path_of, straightness

KEY = jax.random.key(0)


def measured(gradients):
    """The path of plain descent along given gradients, `[time, ...]`, in one compiled loop."""
    optimizer = optax.chain(optax.sgd(1.0), measure_path())

    def step(state, gradient):
        update, state = optimizer.update(gradient, state)
        return state, update

    return jax.lax.scan(step, optimizer.init(jax.tree.map(lambda g: g[0], gradients)), gradients)


def check(path, sizes, rtol):
    assert int(path.steps) == len(sizes)
    np.testing.assert_allclose(path.length, np.sum(sizes), rtol=rtol)
    np.testing.assert_allclose(path.mean, np.mean(sizes), rtol=rtol)
    np.testing.assert_allclose(path.variance, np.var(sizes), rtol=10 * rtol)


def test_the_measured_path_is_what_numpy_says():
    gradients = {"w": jax.random.normal(KEY, (50, 3, 2)), "bias": jax.random.normal(KEY, (50, 3)), "none": None}
    state, updates = jax.jit(measured)(gradients)
    rows = np.concatenate([np.asarray(gradients[name]).reshape(50, -1) for name in ("w", "bias")], axis=1)
    check(path_of(state), np.linalg.norm(rows, axis=1), 1e-5)
    jax.tree.map(lambda u, g: np.testing.assert_array_equal(u, -g), updates, gradients)  # passed on unchanged


def test_the_measured_path_in_double_precision(x64):
    gradients = 1e6 + jax.random.normal(KEY, (200, 3), jnp.float64)  # a spread much smaller than the mean
    path = path_of(jax.jit(measured)(gradients)[0])
    assert path.mean.dtype == path.variance.dtype == jnp.float64
    check(path, np.linalg.norm(gradients, axis=1), 1e-10)


def test_the_measured_path_of_half_precision_is_single():
    path = path_of(measured(jnp.ones((300, 400), jnp.bfloat16))[0])
    assert path.mean.dtype == jnp.float32
    check(path, np.full(300, 20.0), 1e-6)


def test_paths_of_mapped_runs():
    gradients = jax.random.normal(KEY, (4, 20, 3))
    paths = path_of(jax.vmap(measured)(gradients)[0])
    for i in range(4):
        check(jax.tree.map(lambda leaf, i=i: leaf[i], paths), np.linalg.norm(gradients[i], axis=1), 1e-5)
    np.testing.assert_allclose(paths.length, np.sum(np.linalg.norm(gradients, axis=2), axis=1), rtol=1e-5)


def test_before_the_first_update():
    path = measure_path().init(jnp.zeros(2))
    assert int(path.steps) == float(path.length) == float(path.mean) == 0
    assert np.isnan(path.variance)


def test_a_path_is_found_in_any_state():
    parameters = {"w": jnp.ones((2, 2))}
    optimizer = optax.masked(optax.MultiSteps(optax.chain(optax.adam(1e-3), measure_path()), 2), {"w": True})
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(parameters)
        for _ in range(4):
            _, state = optimizer.update(parameters, state, parameters)
    path = path_of({"nested": state})
    assert int(path.steps) == 2  # of the steps that were taken
    assert float(path.mean) == pytest.approx(2e-3, rel=1e-4)


@pytest.mark.parametrize(("count", "transformations"), [(0, []), (2, [measure_path(), measure_path()])])
def test_exactly_one_path_is_expected(count, transformations):
    state = optax.chain(optax.sgd(0.1), *transformations).init(jnp.zeros(2))
    with pytest.raises(ValueError, match=f"expected one measured path in the optimiser's state, got {count}; chain"):
        path_of(state)


def test_the_path_of_training_is_that_through_its_models(x64):
    model = vc.nn.MLP((3, 4, 2), key=KEY)
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if eqx.is_array(leaf) else leaf, model)
    x, y = jax.random.normal(KEY, (6, 3), jnp.float64), jnp.arange(6) % 2
    graph, rule = vc.capture(model, x[0]), vc.rules.Backprop()
    optimizer = optax.chain(optax.adam(1e-2), measure_path())
    state = optimizer.init(eqx.filter(model, eqx.is_array))
    models, step = [model], eqx.filter_jit(rule.step)
    for _ in range(5):
        model, state, *_ = step(graph, optimizer, model, state, (), x, y)
        models.append(model)
    np.testing.assert_allclose(path_of(state).length, path_length(models), rtol=1e-10)
    ratio = displacement(models[0], models[-1]) / path_of(state).length
    np.testing.assert_allclose(ratio, straightness(models), rtol=1e-10)
    assert 0.5 < float(ratio) < 1
    outputs = [jax.vmap(m)(x) for m in models]  # the path in function space
    expected = sum(np.linalg.norm(b - a) for a, b in itertools.pairwise(outputs))
    np.testing.assert_allclose(path_length(outputs), expected, rtol=1e-12)


# ------------------------------------------------------------------------------------------------------- geometry


def test_a_half_circle_is_two_over_pi_straight(x64):
    corners = 1000
    angles = np.linspace(0, np.pi, corners + 1)
    points = [{"a": jnp.array([np.cos(t)]), "b": jnp.array([[np.sin(t)]])} for t in angles]
    assert float(path_length(points)) == pytest.approx(2 * corners * np.sin(np.pi / 2 / corners), rel=1e-12)
    assert float(straightness(points)) == pytest.approx(2 / np.pi, rel=1e-6)


def test_lines_and_loops():
    line = jnp.linspace(0.0, 1.0, 8)[:, None] * jnp.array([[3.0, 4.0]])
    assert float(path_length(line)) == pytest.approx(5)
    assert float(straightness(line)) == pytest.approx(1)
    assert float(straightness([*line, *line[::-1]])) == 0
    assert float(path_length(point for point in line)) == pytest.approx(5)


def test_descent_of_an_isotropic_quadratic_is_straight_and_of_another_is_not():
    def descend(curvature):
        points = [jnp.array([1.0, 1.0])]
        for _ in range(50):
            points.append(points[-1] - 0.5 * curvature * points[-1])
        return float(straightness(points))

    assert descend(jnp.array([1.0, 1.0])) == pytest.approx(1, abs=1e-6)
    assert descend(jnp.array([1.0, 0.05])) < 0.8


def test_a_point_that_does_not_move():
    still = [jnp.ones(3)] * 3
    assert float(path_length(still)) == 0
    assert np.isnan(straightness(still))
    assert float(path_length(still[:1])) == 0
    assert np.isnan(straightness(still[:1]))


def test_clear_errors():
    with pytest.raises(ValueError, match="expected at least one point, got none; record"):
        path_length([])
    with pytest.raises(ValueError, match=r"same structure and shapes, got {'': \(2,\)} and {'': \(3,\)}; compare"):
        straightness([jnp.ones(2), jnp.ones(3)])
    with pytest.raises(ValueError, match="expected two points of the same structure"):
        displacement({"a": jnp.ones(2)}, {"b": jnp.ones(2)})
