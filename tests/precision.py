"""Models in double precision, for identities."""

import equinox as eqx
import jax
import jax.numpy as jnp


def double(tree):
    """The tree with its floating arrays in float64."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf, tree)
