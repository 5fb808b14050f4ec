"""The shares of gradient and curvature in an update, by expansion in small steps."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from once import once

import vicinal as vc
from vicinal.analysis import second_order_sensitivity, update
from vicinal.inference import Simultaneous

pytestmark = pytest.mark.usefixtures("x64")

LOSS = vc.losses.squared_error
NAMES = ["layers[0].weight", "layers[1].weight", "layers[2].weight", "concatenated"]


@once
def network(sizes=(4, 6, 5, 3), activation="tanh", batch=4):
    model = vc.nn.MLP(sizes, activation, key=jax.random.key(0))
    model = jax.tree.map(lambda leaf: 2 * leaf.astype(jnp.float64) if eqx.is_array(leaf) else leaf, model)
    random = np.random.default_rng(1)
    x, y = (jnp.asarray(random.standard_normal((batch, size))) for size in (sizes[0], sizes[-1]))
    return vc.capture(model, x[0]), model, x, y


@once
def gradient_and_hessian():
    """Gradient and Hessian as a vector and a matrix, computed otherwise; and the function back to a tree."""
    _, model, x, y = network()
    parameters, rest = eqx.partition(model, eqx.is_inexact_array)
    flat, rebuild = jax.flatten_util.ravel_pytree(parameters)

    def loss(flat):
        return jnp.mean(jax.vmap(LOSS)(jax.vmap(eqx.combine(rebuild(flat), rest))(x), y))

    gradient, hessian = jax.jit(lambda flat: (jax.grad(loss)(flat), jax.hessian(loss)(flat)))(flat)
    return gradient, hessian, rebuild


def sensitivity(step):
    return eqx.filter_jit(second_order_sensitivity)(step, *network(), loss=LOSS)


def update_of(rule):
    return eqx.filter_jit(update)(rule, optax.sgd(1.0), *network())


def test_an_update_along_the_gradient_is_all_gradient():
    gradient, _, rebuild = gradient_and_hessian()
    for alpha in (-1e-3, 1.0, 1e20):
        found = sensitivity(rebuild(-alpha * gradient))
        assert set(found) == set(NAMES)
        for shares in found.values():
            np.testing.assert_allclose([shares.gradient, shares.curvature, shares.rest], [1, 0, 0], atol=1e-14)


def test_shares_by_least_squares():
    """NumPy projections onto gradient and Hessian product, for the whole update and for each matrix."""
    gradient, hessian, rebuild = gradient_and_hessian()
    step = jax.random.normal(jax.random.key(3), gradient.shape, jnp.float64) - gradient
    found = sensitivity(rebuild(step))
    vectors = [step, gradient, hessian @ gradient]
    for i, name in enumerate(NAMES):
        parts = [np.asarray(v if i == 3 else rebuild(v).layers[i].weight.reshape(-1)) for v in vectors]
        shares = [1.0]
        for columns in (parts[1:2], parts[1:3]):
            basis = np.stack(columns, axis=1)
            left = parts[0] - basis @ np.linalg.lstsq(basis, parts[0], rcond=None)[0]
            shares.append(float(left @ left / (parts[0] @ parts[0])))
        expected = [shares[0] - shares[1], shares[1] - shares[2], shares[2]]
        np.testing.assert_allclose(
            [found[name].gradient, found[name].curvature, found[name].rest], expected, atol=1e-10
        )
        assert float(found[name].curvature) > 1e-4


def test_the_second_step_of_the_expansion_is_explained_exactly():
    gradient, hessian, rebuild = gradient_and_hessian()
    found = sensitivity(rebuild(-0.1 * gradient + 0.01 * hessian @ gradient))
    for shares in found.values():
        np.testing.assert_allclose(shares.rest, 0.0, atol=1e-20)
        assert 1e-5 < float(shares.curvature) < 0.5


def test_implicit_sgd_holds_curvature_at_second_and_the_rest_at_fourth_order():
    """theta+ - theta = -alpha g + alpha^2 H g - ...: halving alpha divides the curvature by 4, the rest by 16."""
    rates = (4e-3, 2e-3, 1e-3)
    found = [sensitivity(update_of(vc.rules.ImplicitSGD(rate, loss=LOSS, tolerance=1e-15))) for rate in rates]
    for name in NAMES:
        left = np.array([1 - float(shares[name].gradient) for shares in found])
        rest = np.array([float(shares[name].rest) for shares in found])
        np.testing.assert_allclose(left[:-1] / left[1:], 4.0, rtol=0.1)
        np.testing.assert_allclose(rest[:-1] / rest[1:], 16.0, rtol=0.1)
        assert np.all(rest < 1e-2 * left)


def test_inference_learning_learns_along_the_gradient_as_its_step_size_falls():
    sizes = (1e-3, 1e-2, 0.1, 0.3)
    found = []
    for size in sizes:
        rule = vc.rules.InferenceLearning(Simultaneous(steps=8, step_size=size), loss=LOSS)
        found.append(sensitivity(update_of(rule)))
    for name in NAMES[:-1]:
        left = np.array([1 - float(shares[name].gradient) for shares in found])
        assert np.all(np.diff(left) > 0)
        assert left[0] < 1e-3
        np.testing.assert_allclose(left[1] / left[0], 100.0, rtol=0.3)  # an angle of first order in the step size
    # The matrices scale on their own, so that the whole update is not along the whole gradient even then.
    assert float(found[0]["concatenated"].gradient) < 0.9


def test_a_quadratic_with_one_curvature_has_no_second_direction():
    """The Hessian product is parallel to the gradient: its rounding error must not count as a direction."""
    model = jax.tree_util.Partial(lambda w, x: w @ x, jnp.array([[1.0, 2.0], [0.3, -1.0]]))
    x, y = jnp.eye(2) * 3.7, jnp.array([[0.1, 0.7], [1.0, -0.2]])
    step = jax.tree.map(lambda w: jnp.array([[1.0, 0.0], [0.5, 0.2]]), model)
    (shares, *_) = second_order_sensitivity(step, vc.capture(model, x[0]), model, x, y, loss=LOSS).values()
    assert float(shares.curvature) == 0.0
    np.testing.assert_allclose(shares.gradient + shares.rest, 1.0, rtol=1e-14)


def test_where_there_is_no_gradient_or_no_update():
    graph, model, x, y = network()
    gradient, _, rebuild = gradient_and_hessian()
    # Without weights the output is exactly 0: with that as the target there is no slope, not even by rounding.
    empty = jax.tree.map(lambda leaf: 0 * leaf if eqx.is_array(leaf) else leaf, model)
    found = second_order_sensitivity(rebuild(gradient), graph, empty, x, 0 * y, loss=LOSS)["concatenated"]
    assert float(found.rest) == pytest.approx(1.0, rel=1e-12)
    assert np.isnan(sensitivity(rebuild(0 * gradient))["concatenated"].gradient)


def test_in_single_precision():
    jax.config.update("jax_enable_x64", False)
    model, x, y = vc.nn.MLP((4, 6, 3), key=jax.random.key(0)), jnp.ones((2, 4)), jnp.array([0, 2])
    graph, rule = vc.capture(model, x[0]), vc.rules.Backprop()
    step = eqx.filter_jit(update)(rule, optax.sgd(0.1), graph, model, x, y)
    found = second_order_sensitivity(step, graph, model, x, y, loss=rule.loss)
    for shares in found.values():
        assert shares.rest.dtype == jnp.float32
        assert float(shares.gradient) == pytest.approx(1, abs=1e-5)


def test_clear_errors():
    graph, model, x, y = network()
    gradient, _, rebuild = gradient_and_hessian()
    wrong = eqx.tree_at(lambda m: m.layers[0].bias, rebuild(gradient), jnp.ones(2))
    with pytest.raises(
        ValueError, match=r"with shape \[6\] at 'layers\[0\].bias', got shape \[2\]; use analysis.update"
    ):
        second_order_sensitivity(wrong, graph, model, x, y, loss=LOSS)
