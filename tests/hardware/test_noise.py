"""The generator of noise: the laws of its draws, and independence of keys and places."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vicinal.hardware._noise import normal, uniform

COUNT = 200_000
DRAWS = {"uniform": (uniform, scipy.stats.uniform), "normal": (normal, scipy.stats.norm)}


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("seed", [0, 1, 2**31])
def test_draws_follow_their_law(x64, name, bits, seed):
    draw, law = DRAWS[name]
    found = np.asarray(draw(jax.random.key(seed), (COUNT,), f"float{bits}"))
    assert found.dtype == f"float{bits}"
    assert scipy.stats.kstest(found, law.cdf).pvalue > 1e-3
    for lag in (1, 2, 64, 784):
        assert abs(np.corrcoef(found[lag:], found[:-lag])[0, 1]) < 4.5 / COUNT**0.5


def test_uniform_draws_stay_below_one_and_normal_ones_are_finite():
    keys = jax.random.split(jax.random.key(3), 10)
    flat = np.concatenate([uniform(key, (COUNT,), jnp.float32) for key in keys])
    assert 0 <= flat.min() < flat.max() < 1
    high = np.concatenate([normal(key, (COUNT,), jnp.float32) for key in keys])
    assert 4 < np.abs(high).max() < 5.4  # of 2e6 draws


@pytest.mark.parametrize("name", DRAWS)
def test_other_keys_give_other_draws(name):
    """Neighbouring keys, as `fold_in` and `split` make them, and as small seeds have."""
    draw = DRAWS[name][0]
    keys = [jax.random.key(0), jax.random.key(1), *(jax.random.fold_in(jax.random.key(0), i) for i in range(3))]
    rows = np.stack([np.asarray(draw(key, (COUNT,), jnp.float32)) for key in keys])
    assert np.abs(np.corrcoef(rows)[np.triu_indices(len(rows), 1)]).max() < 4.5 / COUNT**0.5


def test_a_draw_depends_on_key_and_place_alone():
    keys = jax.random.split(jax.random.key(0), 3)
    mapped = jax.jit(jax.vmap(lambda key: normal(key, (4, 5), jnp.float32)))(keys)
    for row, key in zip(mapped, keys, strict=True):
        np.testing.assert_allclose(row, normal(key, (20,), jnp.float32).reshape(4, 5), rtol=1e-6)
