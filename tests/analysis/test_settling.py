"""The activity Hessian against its closed form, and the step size bound against inference itself."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix import full
from once import once

import vicinal as vc
from vicinal.analysis import Conditioning, conditioning, equilibrium_residual
from vicinal.inference import Problem, Proximal, Simultaneous
from vicinal.inference.base import total

pytestmark = pytest.mark.usefixtures("x64")

LOSS = vc.losses.squared_error


@once
def network(sizes=(4, 6, 5, 3), activation="tanh", vertex_at="post", batch=3, scale=1.0):
    model = vc.nn.MLP(sizes, activation, vertex_at, key=jax.random.key(0))
    model = jax.tree.map(lambda leaf: scale * leaf.astype(jnp.float64) if eqx.is_array(leaf) else leaf, model)
    random = np.random.default_rng(1)
    x, y = (jnp.asarray(random.standard_normal((batch, size))) for size in (sizes[0], sizes[-1]))
    return vc.capture(model, x[0]), model, x, y


def problem_and_values(loss=LOSS, **settings):
    """A problem, and values that are neither feedforward nor at equilibrium."""
    rule = {name: settings.pop(name) for name in ("nudge", "precision", "proximal") if name in settings}
    graph, model, x, y = network(**settings)
    random, values = np.random.default_rng(7), eqx.filter_jit(graph.feedforward)(model, x)[1]
    values = {name: jnp.asarray(v + 0.3 * random.standard_normal(v.shape)) for name, v in values.items()}
    return vc.rules.InferenceLearning(loss=loss, **rule).problem(graph, model, x, y), values


def block_tridiagonal(model, gain=1.0):
    """The activity Hessian of a linear network: `I + W^T W` on the diagonal, `-W` off it."""
    weights = [np.asarray(layer.weight) for layer in model.layers[1:]]
    sizes = [w.shape[1] for w in weights]
    ends = np.concatenate([[0], np.cumsum(sizes)])
    matrix = np.eye(ends[-1])
    for i, w in enumerate(weights):
        here = slice(ends[i], ends[i + 1])
        matrix[here, here] += (gain if i == len(weights) - 1 else 1.0) * w.T @ w
        if i + 1 < len(weights):
            above = slice(ends[i + 1], ends[i + 2])
            matrix[above, here], matrix[here, above] = -w, -w.T
    return matrix


def check(found, matrix, rtol=1e-10):
    eigenvalues = np.linalg.eigvalsh(matrix)
    batch = found.smallest.shape
    np.testing.assert_allclose(found.smallest, np.full(batch, eigenvalues[0]), rtol=rtol)
    np.testing.assert_allclose(found.largest, np.full(batch, eigenvalues[-1]), rtol=rtol)
    np.testing.assert_allclose(found.condition, np.full(batch, eigenvalues[-1] / eigenvalues[0]), rtol=rtol)
    np.testing.assert_allclose(found.step_bound, np.full(batch, 2 / eigenvalues[-1]), rtol=rtol)


# ------------------------------------------------------------------------------------------------------ the Hessian


@pytest.mark.parametrize("dense_below", [512, 0], ids=["dense", "lanczos"])
@pytest.mark.parametrize("nudge", [1.0, 0.25])
def test_the_hessian_of_a_linear_network_is_block_tridiagonal(dense_below, nudge):
    problem, values = problem_and_values(activation="identity", scale=2.0, nudge=nudge)
    found = conditioning(problem, values, dense_below=dense_below)
    check(found, block_tridiagonal(problem.model, gain=nudge), 1e-8)


@pytest.mark.parametrize("vertex_at", ["post", full("pre")])
def test_dense_and_lanczos_agree_where_the_hessian_differs_between_examples(vertex_at):
    problem, values = problem_and_values(
        loss=vc.losses.softmax_cross_entropy, vertex_at=vertex_at, scale=3.0, precision={"hidden1": 0.5}
    )
    dense, lanczos = (conditioning(problem, values, dense_below=below) for below in (512, 0))
    assert np.std(dense.largest) > 0.1
    np.testing.assert_allclose(lanczos.largest, dense.largest, rtol=1e-8)
    np.testing.assert_allclose(lanczos.smallest, dense.smallest, rtol=1e-8, atol=1e-8)
    reference = eqx.filter_jit(jax.hessian(lambda values: jnp.sum(total(problem.energies(values)))))(values)
    for i in range(3):
        blocks = [[reference[a][b][i, :, i, :] for b in ("hidden1", "hidden2")] for a in ("hidden1", "hidden2")]
        eigenvalues = np.linalg.eigvalsh(np.block(blocks))
        np.testing.assert_allclose([dense.smallest[i], dense.largest[i]], eigenvalues[[0, -1]], rtol=1e-10)


def test_lanczos_on_a_network_of_some_size():
    problem, values = problem_and_values(sizes=(5, 60, 50, 40, 3), activation="identity", batch=1, scale=2.0)
    check(conditioning(problem, values, dense_below=10), block_tridiagonal(problem.model), 1e-7)


def test_lanczos_in_single_precision():
    jax.config.update("jax_enable_x64", False)
    model, x = vc.nn.MLP((5, 60, 50, 40, 3), "identity", key=jax.random.key(0)), jnp.ones((2, 5))
    graph = vc.capture(model, x[0])
    problem = vc.rules.InferenceLearning(loss=LOSS).problem(graph, model, x, jnp.ones((2, 3)))
    found = conditioning(problem, eqx.filter_jit(graph.feedforward)(model, x)[1], dense_below=10)
    assert found.largest.dtype == jnp.float32
    eigenvalues = np.linalg.eigvalsh(block_tridiagonal(model))
    np.testing.assert_allclose(found.largest, np.full(2, eigenvalues[-1]), rtol=1e-4)
    np.testing.assert_allclose(found.smallest, np.full(2, eigenvalues[0]), atol=1e-4 * eigenvalues[-1])


@pytest.mark.parametrize("dense_below", [512, 0])
def test_a_network_without_feedback_has_the_identity(dense_below):
    """All eigenvalues are equal, so that Lanczos iteration ends at once."""
    graph, model, x, y = network(activation="identity")
    silent = jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if eqx.is_array(leaf) else leaf, model)
    problem = Problem(graph, silent, x, y, LOSS)
    check(
        conditioning(problem, eqx.filter_jit(graph.feedforward)(silent, x)[1], dense_below=dense_below),
        np.eye(11),
    )


def test_the_gain_of_a_proximal_output_is_held():
    """The matrix is minus the Jacobian of the descent, with the gain held as in inference."""
    problem, values = problem_and_values(activation="identity", batch=1, proximal=Proximal(0.3), scale=2.0)
    gain = float(problem.gain(values, jnp.zeros(1, jnp.float64))[0])
    assert 0 < gain < 1
    for below in (512, 0):
        check(
            conditioning(problem, values, dense_below=below),
            block_tridiagonal(problem.model, gain),
            1e-8,
        )


def test_an_energy_that_is_not_convex():
    """F = 1/2 (1 - a^2)^2 + 1/2 a^2 at a = 0: the second derivative is 1 - 2."""
    model = jax.tree_util.Partial(
        lambda w, x: vc.vertex(w * x, "a") ** 2,
        jnp.zeros((1,)),
    )
    x, y = jnp.ones((1, 1)), jnp.ones((1, 1))
    graph = vc.capture(model, x[0])
    found = conditioning(Problem(graph, model, x, y, LOSS), eqx.filter_jit(graph.feedforward)(model, x)[1])
    np.testing.assert_allclose([found.smallest, found.largest], [[-1.0], [-1.0]], rtol=1e-12)
    assert np.isinf(found.condition[0])
    assert np.isinf(found.step_bound[0])


def test_conditioning_under_jit():
    problem, values = problem_and_values(activation="identity", scale=2.0)
    found = eqx.filter_jit(conditioning)(problem, values)
    assert isinstance(found, Conditioning)
    check(found, block_tridiagonal(problem.model))


# --------------------------------------------------------------------------------------------------------- settling


def test_the_step_bound_of_simultaneous_inference_is_sharp():
    problem, _ = problem_and_values(activation="identity", scale=2.0)
    start = eqx.filter_jit(problem.graph.feedforward)(problem.model, problem.x)[1]
    bound = conditioning(problem, start).step_bound
    below = eqx.filter_jit(Simultaneous(steps=400, step_size=0.99 * float(bound[0]), trace=True).settle)(problem, start)
    energy = np.asarray(total(below.trace))
    assert np.all(np.diff(energy, axis=0) <= 1e-12 * energy[0])
    above = eqx.filter_jit(Simultaneous(steps=600, step_size=1.01 * float(bound[0]), trace=True).settle)(problem, start)
    energy = np.asarray(total(above.trace))
    assert np.all(energy[-1] > energy[0])
    np.testing.assert_allclose(energy[-1] / energy[-2], 1.02**2, rtol=1e-5)  # |1 - 1.01 * 2|^2 along the top direction


def test_the_slowest_direction_settles_with_the_smallest_eigenvalue():
    problem, _ = problem_and_values(activation="identity", scale=2.0)
    start = eqx.filter_jit(problem.graph.feedforward)(problem.model, problem.x)[1]
    found = conditioning(problem, start)
    step_size = 0.5 * float(found.step_bound[0])
    residuals = [
        eqx.filter_jit(equilibrium_residual)(
            problem, eqx.filter_jit(Simultaneous(steps=steps, step_size=step_size).settle)(problem, start).values
        )
        for steps in (250, 251)
    ]
    np.testing.assert_allclose(residuals[1] / residuals[0], 1 - step_size * found.smallest, rtol=1e-3)


@pytest.mark.parametrize("proximal", [None, Proximal(0.3)])
def test_the_residual_is_the_largest_slope(proximal):
    problem, values = problem_and_values(proximal=proximal)
    loss = jax.vmap(LOSS)(eqx.filter_jit(problem.predict)(values)[0], problem.y)
    held = Problem(problem.graph, problem.model, problem.x, problem.y, LOSS, problem.gain(values, loss))
    slope = eqx.filter_jit(jax.grad(lambda values: jnp.sum(total(held.energies(values)))))(values)
    expected = np.max(np.abs(np.concatenate(list(slope.values()), axis=1)), axis=1)
    np.testing.assert_allclose(eqx.filter_jit(equilibrium_residual)(problem, values), expected, rtol=1e-12)


def test_the_residual_falls_below_the_tolerance_of_inference():
    problem, values = problem_and_values()
    settled = eqx.filter_jit(Simultaneous(steps=5000, step_size=0.2, tolerance=1e-6).settle)(problem, values)
    residual = eqx.filter_jit(equilibrium_residual)(problem, settled.values)
    assert np.all(residual <= 1e-6)
    assert np.all(residual > 1e-7)


def test_the_problem_is_the_one_that_the_rule_settles():
    graph, model, x, y = network()
    rule = vc.rules.InferenceLearning(
        Simultaneous(steps=30, step_size=0.2), loss=LOSS, nudge=0.5, precision={"hidden2": 2.0}, proximal=Proximal(1.0)
    )
    credit, _ = eqx.filter_jit(rule.credit)(graph, model, (), x, y)
    energies = eqx.filter_jit(rule.problem(graph, model, x, y).energies)(credit.values)
    for name, energy in credit.info.energies.items():
        np.testing.assert_allclose(energies[name], energy, rtol=1e-12)


def test_clear_errors():
    graph, model, x, y = network()
    with pytest.raises(ValueError, match=r"expected precisions for vertices among .* got one for 'hidden9'"):
        vc.rules.InferenceLearning(precision={"hidden9": 1.0}).problem(graph, model, x, y)
    plain = vc.nn.Linear(4, 3, key=jax.random.key(0))
    plain = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), plain)
    problem = Problem(vc.capture(plain, x[0]), plain, x, y, LOSS)
    for measure in (equilibrium_residual, conditioning):
        with pytest.raises(ValueError, match="expected a graph with vertices, got one without; mark"):
            measure(problem, {})


def test_conditioning_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Conditioning(jnp.ones(1), jnp.ones(1)).smallest = jnp.zeros(1)
