"""Losses against formulas, and their errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vicinal import losses
from vicinal.energy import gaussian, weighted_error

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
    np.testing.assert_allclose(gaussian(a, p, precision), expected, rtol=1e-13)
    np.testing.assert_allclose(weighted_error(a, p, precision), -jax.grad(lambda p: gaussian(a, p, precision).sum())(p))
    np.testing.assert_allclose(gaussian(a, p), 0.5 * np.sum((np.asarray(a) - np.asarray(p)) ** 2, axis=(1, 2)))


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
