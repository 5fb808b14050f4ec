"""Converters and noise against the equations of one read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vicinal.hardware import Periphery, quantised

KEY = jax.random.key(0)
EXACT = {"dac": None, "adc": None, "bound": None, "read_noise": None}


def levels(bits, bound):
    return bound * np.linspace(-1, 1, 2**bits - 1)


@pytest.mark.parametrize(("bits", "bound"), [(2, 1.0), (3, 12.0), (7, 1.0)])
def test_quantising_takes_the_nearest_level_and_saturates(x64, bits, bound):
    z = np.linspace(-1.5 * bound, 1.5 * bound, 1001)
    found = np.asarray(quantised(jnp.asarray(z), jnp.asarray(float(bits)), jnp.asarray(bound)))
    nearest = np.abs(z[:, None] - levels(bits, bound)).min(1)
    np.testing.assert_allclose(np.abs(z - found), nearest, atol=1e-12)
    assert np.all(np.abs(found) <= bound)
    assert found[0] == -bound
    assert found[-1] == bound
    again = quantised(jnp.asarray(found), jnp.asarray(float(bits)), jnp.asarray(bound))
    np.testing.assert_allclose(again, found, atol=1e-12)
    opposite = quantised(jnp.asarray(-z), jnp.asarray(float(bits)), jnp.asarray(bound))
    assert np.array_equal(opposite, -found)
    assert np.all(np.diff(found) >= 0)


def test_the_error_of_a_converter_halves_with_each_bit(x64):
    z = jax.random.uniform(KEY, (20_000,), jnp.float64, -1, 1)
    bits = jnp.arange(3.0, 11.0)
    rms = [float(jnp.sqrt(jnp.mean((quantised(z, b, jnp.asarray(1.0)) - z) ** 2))) for b in bits]
    slope = np.polyfit(bits, np.log2(rms), 1)[0]
    assert slope == pytest.approx(-1, abs=0.05)
    steps = 2 / (2.0 ** np.asarray(bits) - 2)
    np.testing.assert_allclose(rms, steps / np.sqrt(12), rtol=0.05)


@pytest.mark.parametrize(
    "noise", [{"read_noise": 0.06}, {"weight_noise": 0.02}, {"read_noise": 0.3, "weight_noise": 0.1}]
)
def test_noise_has_the_mean_and_the_deviation_of_its_law(x64, noise):
    periphery = Periphery(**EXACT | noise)
    weight, x = jax.random.normal(KEY, (5, 8), jnp.float64), jax.random.normal(jax.random.key(1), (8,), jnp.float64)
    scale, alpha = 3.0, jnp.max(jnp.abs(x))
    read = jax.jit(jax.vmap(lambda key: periphery.read(weight, x, scale=scale, key=key)))
    found = np.asarray(read(jax.random.split(jax.random.key(2), 10_000)))
    u = x / alpha
    variance = noise.get("read_noise", 0) ** 2 + noise.get("weight_noise", 0) ** 2 * float(u @ u)
    deviation = float(alpha) * scale * variance**0.5
    np.testing.assert_allclose(found.mean(0), weight @ x, atol=4 * deviation / 100)
    np.testing.assert_allclose(found.std(0), deviation, rtol=0.03)
    correlations = np.corrcoef(found.T)[np.triu_indices(5, 1)]
    assert np.abs(correlations).max() < 4 / 100


def test_noise_of_the_weights_is_that_of_an_array_whose_weights_are_drawn_anew(x64):
    weight, x = jax.random.normal(KEY, (4, 6), jnp.float64), jax.random.normal(jax.random.key(1), (6,), jnp.float64)
    drawn = np.asarray(weight) + 0.1 * 2.0 * np.random.default_rng(2).normal(size=(20_000, 4, 6))
    periphery = Periphery(**EXACT, weight_noise=0.1)
    keys = jax.random.split(jax.random.key(3), 20_000)
    found = jax.jit(jax.vmap(lambda key: periphery.read(weight, x, scale=2.0, key=key)))(keys)
    np.testing.assert_allclose(np.std(found, 0), np.std(drawn @ np.asarray(x), 0), rtol=0.03)


@pytest.mark.parametrize("name", ["default", "preset", "hardware-aware", "ideal"])
def test_a_read_scales_with_its_input(x64, name):
    periphery = Periphery.preset(name)
    weight, x = jax.random.normal(KEY, (5, 8), jnp.float64), jax.random.normal(jax.random.key(1), (8,), jnp.float64)
    one, three = (periphery.read(weight, c * x, scale=2.0, key=KEY) for c in (1.0, 3.0))
    np.testing.assert_allclose(three, 3 * one, rtol=1e-12)


def test_nothing_is_read_as_nothing_and_has_a_finite_derivative(x64):
    weight = jax.random.normal(KEY, (5, 8), jnp.float64)
    periphery = Periphery()
    assert np.array_equal(periphery.read(weight, jnp.zeros(8), key=KEY), np.zeros(5))
    slope = jax.grad(lambda weight: jnp.sum(periphery.read(weight, jnp.zeros(8), key=KEY)))(weight)
    assert np.all(np.isfinite(slope))


def test_a_read_by_hand(x64):
    """Three levels in, five levels of .5 out, without noise."""
    periphery = Periphery(dac=2, adc=np.log2(6), bound=1.0, read_noise=None)
    weight, x = jnp.array([[0.6, 0.3], [2.0, 2.0]]), jnp.array([4.0, -0.9])
    found = periphery.read(weight, x, scale=2.0, key=KEY)  # u = (1, 0); W u / s = (.3, 1) -> (.5, 1)
    np.testing.assert_allclose(found, [4.0, 8.0])


def test_a_saturated_read_is_repeated_with_half_the_input(x64):
    from vicinal.hardware.periphery import read_along

    weight, x = jnp.array([[3.0, 3.0, 3.0]]), jnp.array([1.0, 1.0, 1.0])
    plain = Periphery(dac=None, adc=None, bound=4.0, read_noise=None)
    managed = Periphery(dac=None, adc=None, bound=4.0, read_noise=None, bound_management=True)
    one = jnp.ones(())
    np.testing.assert_allclose(read_along(plain, weight, x, one, KEY, 1, managed=True), [4.0])
    np.testing.assert_allclose(read_along(managed, weight, x, one, KEY, 1, managed=True), [9.0])
    np.testing.assert_allclose(read_along(managed, weight[:, :1], x[:1], one, KEY, 1, managed=True), [3.0])


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"dac": 1}, "expected dac, in bits, of at least 2, got 1"),
        ({"adc": 0}, "expected adc, in bits, of at least 2, got 0"),
        ({"bound": 0.0}, "expected the bound of the outputs above 0, got 0"),
        ({"bound": None}, "expected a bound for output converters"),
        ({"read_noise": -1.0}, "expected read_noise of at least 0, got -1"),
    ],
)
def test_wrong_numbers_are_refused(numbers, words):
    with pytest.raises(ValueError, match=words):
        Periphery(**numbers)


def test_an_unknown_periphery_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="got 'idael'; did you mean 'ideal'"):
        Periphery.preset("idael")
