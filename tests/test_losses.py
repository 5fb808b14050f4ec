"""Losses against formulas, and their errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vicinal import losses
from vicinal.energy import Divisive, VertexEnergy

LINKS = {
    losses.squared_error: lambda z: z,
    losses.softmax_cross_entropy: jax.nn.softmax,
    losses.sigmoid_cross_entropy: jax.nn.sigmoid,
}


@pytest.mark.parametrize("loss", LINKS)
def test_the_error_is_target_minus_prediction(loss, x64):
    output = jax.random.normal(jax.random.key(0), (6, 4), jnp.float64)
    target = jax.nn.softmax(jax.random.normal(jax.random.key(1), (6, 4), jnp.float64))
    values, error = losses.loss_and_error(loss, output, target)
    np.testing.assert_allclose(error, target - LINKS[loss](output), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(values, [loss(o, t) for o, t in zip(output, target, strict=True)], rtol=1e-12)


@pytest.mark.parametrize("loss", LINKS)
def test_class_indices_stand_for_one_hot_vectors(loss):
    output = jax.random.normal(jax.random.key(0), (3, 4))
    index = jnp.array([3, 0, 2])
    onehot = jnp.eye(4)[index]
    np.testing.assert_allclose(loss(output, index), loss(output, onehot), rtol=1e-6)
    np.testing.assert_allclose(loss(output, index.astype(jnp.uint8)), loss(output, onehot), rtol=1e-6)


def test_cross_entropies_by_hand(x64):
    z, p = np.array([0.3, -1.2, 2.0]), np.array([0.2, 0.5, 0.3])
    softmax = np.exp(z) / np.exp(z).sum()
    sigmoid = 1 / (1 + np.exp(-z))
    assert losses.softmax_cross_entropy(jnp.array(z), jnp.array(p)) == pytest.approx(-(p * np.log(softmax)).sum())
    expected = -(p * np.log(sigmoid) + (1 - p) * np.log(1 - sigmoid)).sum()
    assert losses.sigmoid_cross_entropy(jnp.array(z), jnp.array(p)) == pytest.approx(expected)
    assert losses.squared_error(jnp.array(z), jnp.array(p)) == pytest.approx(0.5 * ((z - p) ** 2).sum())


def test_what_is_masked_does_not_count(x64):
    """Steps of a negative label and targets that are not a number; class 0 counts as any other."""
    z = np.random.default_rng(0).normal(size=(4, 3))
    logarithms = np.log(np.exp(z) / np.exp(z).sum(axis=1, keepdims=True))
    each = losses.token_cross_entropy(jnp.asarray(z), jnp.array([0, -1, 2, 0]))
    expected = [-logarithms[0, 0], 0, -logarithms[2, 2], -logarithms[3, 0]]
    np.testing.assert_allclose(each, expected, rtol=1e-12)
    target = np.array([[0.5, np.nan, 1.0], [np.nan] * 3, [0.0, 1.0, 2.0], [np.nan, 0.0, -1.0]])
    counted = ~np.isnan(target)
    squares = (target[counted] - z[counted]) ** 2
    value, slope = jax.value_and_grad(losses.masked_squared_error)(jnp.asarray(z), jnp.asarray(target))
    assert value == pytest.approx(np.sum(squares) / 2)
    np.testing.assert_allclose(slope, np.where(counted, z - target, 0), rtol=1e-12)


@pytest.mark.parametrize("loss", [losses.softmax_cross_entropy, losses.sigmoid_cross_entropy])
def test_large_logits_stay_finite(loss):
    value, slope = jax.value_and_grad(loss)(jnp.array([1e4, -1e4, 0.0]), jnp.array([0.0, 1.0, 0.0]))
    assert jnp.isfinite(value)
    assert jnp.all(jnp.isfinite(slope))


def test_clear_errors():
    with pytest.raises(ValueError, match=r"output's shape \[3\], or class indices of shape \[\], got float32\[2\]"):
        losses.squared_error(jnp.ones(3), jnp.ones(2))
    with pytest.raises(ValueError, match=r"batch sizes \[2, 3\]"):
        losses.loss_and_error(losses.squared_error, jnp.ones((3, 1)), jnp.ones((2, 1)))
    with pytest.raises(ValueError, match="loss of one example as a scalar"):
        losses.loss_and_error(lambda o, t: o - t, jnp.ones((3, 2)), jnp.ones((3, 2)))


def test_gaussian_energy(x64):
    a, p = (jax.random.normal(jax.random.key(k), (3, 2, 5), jnp.float64) for k in (0, 1))
    precision = jnp.arange(1.0, 6.0)
    expected = 0.5 * np.sum(np.asarray(precision) * (np.asarray(a) - np.asarray(p)) ** 2, axis=(1, 2))
    weighted, plain = VertexEnergy(precision), VertexEnergy({"other": 3.0})
    np.testing.assert_allclose(weighted.energy("h", a, p), expected, rtol=1e-13)
    np.testing.assert_allclose(weighted.error("h", a, p), precision[None, None] * (a - p), rtol=1e-13)
    np.testing.assert_allclose(weighted.pull("h", a, p), precision[None, None] * (a - p), rtol=1e-13)
    half = 0.5 * np.sum((np.asarray(a) - np.asarray(p)) ** 2, axis=(1, 2))
    np.testing.assert_allclose(plain.energy("h", a, p), half, rtol=1e-13)


def test_divisive_errors_descend_their_energy(x64):
    """Error and pull are the slopes of a quarter of the squared difference of logarithms."""
    value, prediction = (jax.random.uniform(jax.random.key(k), (3, 5), jnp.float64) for k in (0, 1))
    encoding, k = VertexEnergy(2.0, Divisive(offset=0.01)), 0.01
    energy = 2 * 0.25 * jnp.sum(jnp.square(jnp.log(value + k) - jnp.log(prediction + k)), axis=1)
    np.testing.assert_allclose(encoding.energy("h", value, prediction), energy, rtol=1e-12)

    def whole(value, prediction):
        return jnp.sum(0.5 * jnp.square(jnp.log(value + k) - jnp.log(prediction + k)))

    pull, error = jax.grad(whole, argnums=(0, 1))(value, prediction)
    np.testing.assert_allclose(encoding.pull("h", value, prediction), pull, rtol=1e-10)
    np.testing.assert_allclose(encoding.error("h", value, prediction), -error, rtol=1e-10)
    softer = VertexEnergy(2.0, Divisive(offset=0.01, pull_offset=0.1))
    np.testing.assert_allclose(softer.pull("h", value, prediction), pull * (value + k) / (value + 0.1), rtol=1e-10)


def test_rates_below_zero_count_as_zero_in_a_ratio():
    encoding = Divisive()
    below, zero = jnp.array([[-0.5]]), jnp.array([[0.0]])
    np.testing.assert_array_equal(encoding.energy(below, below + 1), encoding.energy(zero, below + 1))
    np.testing.assert_array_equal(encoding.error(zero, zero), 0)
    for name in ("offset", "pull_offset"):
        with pytest.raises(ValueError, match=r"expected the offset .*above 0, got 0$"):
            Divisive(**{name: 0.0})


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_losses_of_sigmoid_outputs(x64, shift):
    output, target = jnp.array([0.3, -1.2, 2.0]), jnp.array([1.0, 0.0, 0.25])
    rate = 1 / (1 + np.exp(-np.asarray(output)))
    squared = 0.5 * np.sum((np.asarray(target) - rate) ** 2)
    np.testing.assert_allclose(losses.sigmoid_squared_error(output, target), squared, rtol=1e-12)
    loss = losses.sigmoid_divisive_error(shift, offset=0.01)
    ratio = np.log(np.asarray(target) + shift + 0.01) - np.log(rate + shift + 0.01)
    np.testing.assert_allclose(loss(output, target), 0.25 * np.sum(ratio**2), rtol=1e-12)
    assert losses.sigmoid_divisive_error(shift, offset=0.01) is loss


def test_class_indices_that_name_no_class_are_not_a_loss_of_zero():
    for loss in LINKS:
        assert jnp.isnan(loss(jnp.ones(3), jnp.array(3)))
        assert jnp.isnan(loss(jnp.ones(3), jnp.array(-1)))
        with pytest.raises(ValueError, match=r"target of shape \[1\] for one output unit"):
            loss(jnp.ones(1), jnp.array(1))


def test_integers_in_the_output_carry_no_error():
    def loss(output, target):
        return losses.softmax_cross_entropy(output["logits"], target)

    output = {"logits": jnp.ones((2, 3)), "best": jnp.zeros(2, jnp.int32)}
    _, error = losses.loss_and_error(loss, output, jnp.array([0, 1]))
    assert error["best"].dtype == jax.dtypes.float0
