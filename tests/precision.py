"""Models in double precision, for identities, and on the host, for what is computed by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


def double(tree):
    """The tree with its floating arrays in float64."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(np.float64(leaf), jnp.float64) if eqx.is_inexact_array(leaf) else leaf, tree
    )


def on_host(tree):
    """The tree with its arrays as NumPy's, whose arithmetic needs no compilation."""
    return jax.tree.map(lambda leaf: np.asarray(leaf) if eqx.is_array(leaf) else leaf, tree)
