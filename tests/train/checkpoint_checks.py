"""Comparisons that tests of checkpoints share."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, settings

# A file per test is enough: every example overwrites it.
relaxed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def bits(leaf):
    """Type, shape and every bit of a leaf, by means that the module does not use."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return "key", str(leaf.dtype), leaf.shape, bits(jax.random.key_data(leaf))
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        kind = jax.Array if isinstance(leaf, jax.Array) else type(leaf)
        return kind, np.asarray(leaf).dtype, leaf.shape, np.asarray(leaf).tobytes()
    if isinstance(leaf, float | complex):
        return type(leaf), np.array([leaf.real, leaf.imag]).tobytes()
    return type(leaf), leaf


def assert_identical(got, expected):
    got_leaves, got_structure = jax.tree.flatten(got, is_leaf=lambda node: node is None)
    leaves, structure = jax.tree.flatten(expected, is_leaf=lambda node: node is None)
    assert got_structure == structure
    assert [bits(leaf) for leaf in got_leaves] == [bits(leaf) for leaf in leaves]
