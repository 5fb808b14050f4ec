"""The branches of the answer to pulses: sums of steps, linear cells, and counts, each against the slow way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from vicinal.hardware import Device
from vicinal.hardware._delivery import _totals
from vicinal.hardware._noise import normal, uniform
from vicinal.hardware.cells import _grown, _grown_at_once

KEY = jax.random.key(0)


@pytest.mark.parametrize("shrink", [0.0, 1e-9, 1e-3, 0.3, 0.999])
def test_sums_of_steps_digit_by_digit_are_those_of_a_loop(x64, shrink):
    counts = np.arange(32)
    expected = [sum((1 - shrink) ** i for i in range(n)) for n in counts]
    for found in (_grown, _grown_at_once):
        sums = found(jnp.full(32, shrink), jnp.asarray(counts, jnp.float64))
        np.testing.assert_allclose(sums, expected, rtol=1e-12 if found is _grown else 1e-6)


def test_sums_digit_by_digit_keep_their_digits_in_single_precision():
    shrink = jnp.asarray([1e-7, 1e-4, 0.02, 0.5], jnp.float32)[:, None]
    found = _grown(jnp.broadcast_to(shrink, (4, 32)), jnp.broadcast_to(jnp.arange(32.0), (4, 32)))
    exact = np.asarray(shrink, np.float64)
    expected = np.stack([np.sum((1 - exact) ** np.arange(n), axis=1) for n in range(32)], 1)
    np.testing.assert_allclose(found, expected, rtol=3e-6)


@pytest.mark.parametrize("soft", [0.0, 0.7])
@pytest.mark.parametrize("counts", [(0, 0, 0), (0, 3, -31), (40, 1, -300)])
def test_every_branch_takes_the_pulses_one_after_another(x64, soft, counts):
    cells = Device(step=0.003, soft=soft, spread=0.3, bound_spread=0.2).draw((3,), key=KEY)
    w = jnp.asarray([0.2, -0.4, 0.1])
    counts = jnp.asarray(counts, jnp.float64)
    all_ = jnp.arange(jnp.max(jnp.abs(counts)))

    @jax.jit
    def both(w):
        def one(w, i):
            return cells.pulsed(w, jnp.where(jnp.abs(counts) > i, jnp.sign(counts), 0)), None

        return (
            cells.pulsed(w, counts),
            cells.pulsed(w, jnp.clip(counts, -31, 31), most=31),
            jax.lax.scan(one, w, all_)[0],
        )

    found, few, expected = both(w)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    if len(all_) <= 31:
        np.testing.assert_allclose(few, expected, rtol=1e-12)


def test_weights_may_have_a_unit(x64):
    cells = Device(step=0.01, soft=0.5, cycle=0.3).draw((50,), key=KEY)
    w, counts = jax.random.uniform(KEY, (50,), jnp.float64, -0.5, 0.5), jnp.arange(-25.0, 25.0)
    scaled = cells.pulsed(3.0 * w, counts, KEY, scale=jnp.asarray(3.0))
    np.testing.assert_allclose(scaled, 3.0 * cells.pulsed(w, counts, KEY), rtol=1e-12)
    still = cells.pulsed(w, jnp.zeros(50), KEY, scale=jnp.asarray(3.0))
    assert np.array_equal(still, w)


def test_members_side_by_side_take_each_its_own_branch(x64):
    def one(soft, count):
        cells = Device(step=0.01, soft=soft).draw((4,), key=KEY)
        return cells.pulsed(jnp.full(4, 0.1), jnp.full(4, count))

    softs, counts = jnp.asarray([0.0, 0.5, 0.5, 0.0]), jnp.asarray([3.0, -2.0, 100.0, 0.0])
    found = jax.jit(jax.vmap(one))(softs, counts)
    for row, soft, count in zip(found, softs, counts, strict=True):
        np.testing.assert_allclose(row, one(soft, count), rtol=1e-12)


@pytest.mark.parametrize("high", [3, 2**23])
def test_pulses_are_counted_exactly(high):
    """In rows that single precision holds, and in others."""
    pulses = np.random.default_rng(0).integers(-high, high + 1, (5, 3, 3)).astype(np.float32)
    pulses[0] = 1  # an odd sum
    last, cells = jax.jit(_totals)(jnp.asarray(pulses))
    assert int(last) == int(np.abs(pulses).astype(np.int64).sum())
    assert int(cells) == np.count_nonzero(pulses)


def test_normal_draws_in_single_precision_are_normal_to_the_tails():
    """Four million draws: distribution function, cumulants, and the share beyond 1 to 4 deviations."""
    found = np.concatenate([np.asarray(normal(jax.random.key(i), (1000, 1000), jnp.float32)) for i in range(4)])
    found = np.sort(found.astype(np.float64).ravel())
    ranks = np.arange(1, len(found) + 1) / len(found)
    assert np.abs(ranks - scipy.special.ndtr(found)).max() < 1e-3
    moments = [np.mean(found**k) for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(moments, [0, 1, 0, 3], atol=0.02)
    for bound, tolerance in ((1, 0.005), (2, 0.01), (3, 0.03), (3.5, 0.1), (4, 0.2)):
        share = np.mean(np.abs(found) > bound) / (2 * scipy.special.ndtr(-bound))
        assert share == pytest.approx(1, abs=tolerance)


def test_places_are_counted_along_all_axes():
    flat = uniform(KEY, (24,), jnp.float32)
    assert np.array_equal(uniform(KEY, (2, 3, 4), jnp.float32), flat.reshape(2, 3, 4))
    assert np.array_equal(uniform(KEY, (), jnp.float32), flat[0])
