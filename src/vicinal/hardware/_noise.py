"""Keys for the noise of a read, from the contents of the arrays that take part in it; and draws that cost little."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, UInt32


def digest(array: Array) -> UInt32[Array, ""]:
    """Hashes all bits of an array; cheaper than the noise that is drawn from it.

    Each 32 bits are multiplied by an odd number of their own and summed, so that a change of one number always changes
    the hash. The upper bits are mixed into the lower ones first, or changes of signs would meet.
    """
    wide = jax.lax.stop_gradient(array)
    wide = wide.astype(jnp.float32) if jnp.finfo(wide.dtype).bits < 32 else wide
    bits = jax.lax.bitcast_convert_type(wide, jnp.uint32).reshape(-1)  # two for each number in float64
    odd = (jnp.arange(bits.size, dtype=jnp.uint32) * jnp.uint32(_ODD)) | jnp.uint32(1)
    return jnp.sum((bits ^ (bits >> 15)) * odd, dtype=jnp.uint32)


def noise_key(seed: UInt32[Array, "..."], weight: Array, x: Array, direction: int) -> PRNGKeyArray:
    """Returns the key of a read: another one for each weight, input and direction, and the same for the same."""
    key = jax.random.fold_in(jax.random.wrap_key_data(seed), digest(weight) + jnp.uint32(direction))
    return jax.random.fold_in(key, digest(x))


def uniform(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Array:
    """Draws as `jax.random.uniform`, in [0, 1), by a hash of key and place: four times as fast on a CPU."""
    if jnp.finfo(dtype).bits > 32:
        high, low = (_bits(each, shape).astype(dtype) for each in jax.random.split(key))
        return high * jnp.asarray(2.0**-32, dtype) + jnp.floor(low / 2048) * jnp.asarray(2.0**-53, dtype)
    return ((_bits(key, shape) >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)).astype(dtype)


def normal(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Array:
    """Draws as `jax.random.normal`, on a CPU ten times as fast in single precision.

    There the number of bits set in a hash, which is binomial, and two uniform numbers of half its step, which fill the
    gaps, are summed; a cubic makes the fourth cumulant that of a normal variable (Cornish and Fisher). The distribution
    function is within .0006 of the normal one, the tails within 7 % up to 3.5 standard deviations, 10 % to 4; none is
    beyond 7. In double precision it is exact to the last digits.
    """
    if jnp.finfo(dtype).bits > 32:
        middle = uniform(key, shape, dtype) + jnp.asarray(2.0**-54, dtype)
        one = jnp.ones((), dtype)
        return jnp.sqrt(2 * one) * jax.lax.erf_inv(2 * middle - one)
    bits = _bits(key, shape)
    spread = bits * jnp.uint32(_ODD)  # in whose upper bytes the number of bits of the hash is not seen
    fill = (spread >> 24) + ((spread >> 16) & jnp.uint32(255))
    whole = (jax.lax.population_count(bits) << 8) + fill  # in units of 1/256
    z = (whole.astype(jnp.int32).astype(jnp.float32) - jnp.float32(256 * 16 + 255)) * jnp.float32(_UNIT)
    return (z * (jnp.float32(1 + 3 * _CUBIC) - jnp.float32(_CUBIC) * jnp.square(z))).astype(dtype)


_ODD = 0x9E3779B9
_VARIANCE = 32 / 4 + 2 / 12 * (1 - 2.0**-16)  # of 32 bits and of two uniform numbers in 256 places
_UNIT = _VARIANCE**-0.5 / 256
_CUBIC = (-32 / 8 - 2 / 120) / _VARIANCE**2 / 24  # the fourth cumulant over 4!


def _bits(key: PRNGKeyArray, shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """Hashes the place of each number with the two halves of a key, each time by the last steps of MurmurHash3."""
    first, second = jax.random.key_data(key)[0], jax.random.key_data(key)[-1]
    place = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):  # by axes: counting along all of them and reshaping divides at each place
        stride = jnp.uint32(math.prod(shape[axis + 1 :]) % 2**32)
        place += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * stride
    return _mixed(_mixed(place * jnp.uint32(_ODD) + first) ^ second)


def _mixed(bits: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)
