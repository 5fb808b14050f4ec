"""The state after a sequence: as large after a million tokens as after one."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from vicinal._numbers import wide
from vicinal.attention.ovq.dictionary import Sums


class OVQState(eqx.Module):
    """The dictionary of each head, and the tokens of the chunk that is not finished.

    Attributes:
        keys: The sum of the keys of each centroid; its mean is `keys / counts`.
        values: The sum of the values of each centroid.
        counts: The number of tokens of each centroid; zero where the row is not in use.
        pending_keys: The keys since the last finished chunk, the first `tokens % chunk` rows; then zeros.
        pending_values: The values since the last finished chunk.
        tokens: Tokens read, for each sequence of the batch.
    """

    keys: Float[Array, "batch heads n d"]
    values: Float[Array, "batch heads n e"]
    counts: Float[Array, "batch heads n"]
    pending_keys: Float[Array, "batch heads chunk d"]
    pending_values: Float[Array, "batch heads chunk e"]
    tokens: Int[Array, " batch"]

    @property
    def sums(self) -> Sums:
        return Sums(self.keys, self.values, self.counts)


def empty_state(
    batch: int,
    heads: int,
    features: int,
    value_features: int | None = None,
    *,
    chunk_size: int = 128,
    num_centroids: int = 512,
    dtype: jnp.dtype | type = jnp.float32,
) -> OVQState:
    """The state before the first token.

    Args:
        batch: Number of sequences.
        heads: Number of heads.
        features: Length of a key.
        value_features: Length of a value; that of a key by default.
        chunk_size: Tokens of a chunk.
        num_centroids: Rows of the dictionary.
        dtype: Of the keys and values to come. The sums and counts are at least float32.

    Returns:
        The state.

    Example:
        >>> state = empty_state(2, 3, 8, chunk_size=16, num_centroids=32)
        >>> state.keys.shape, state.pending_keys.shape, state_bytes(state)
        ((2, 3, 32, 8), (2, 3, 16, 8), 19208)
    """
    value_features = features if value_features is None else value_features
    exact = wide(dtype)
    return OVQState(
        keys=jnp.zeros((batch, heads, num_centroids, features), exact),
        values=jnp.zeros((batch, heads, num_centroids, value_features), exact),
        counts=jnp.zeros((batch, heads, num_centroids), exact),
        pending_keys=jnp.zeros((batch, heads, chunk_size, features), dtype),
        pending_values=jnp.zeros((batch, heads, chunk_size, value_features), dtype),
        tokens=jnp.zeros(batch, jnp.int32),
    )


def grow_state(state: OVQState, num_centroids: int) -> OVQState:
    """Makes room for more centroids. Existing rows stay; the new rows fill as the schedule says.

    Args:
        state: The state.
        num_centroids: Rows of the larger dictionary; give the same number to `ovq_attention` from then on.

    Returns:
        The larger state.

    Raises:
        ValueError: If the state has more rows: which ones to give up is not defined.

    Example:
        >>> grow_state(empty_state(1, 1, 4, num_centroids=8), 12).counts.shape
        (1, 1, 12)
    """
    rows = state.counts.shape[-1]
    if num_centroids < rows:
        raise ValueError(
            f"expected num_centroids of at least {rows}, the rows of the state, got {num_centroids}; "
            "a state cannot shrink, read the sequence again with fewer"
        )

    def grown(x):
        return jnp.pad(x, [(0, num_centroids - rows) if axis == 2 else (0, 0) for axis in range(x.ndim)])

    return eqx.tree_at(lambda s: tuple(s.sums), state, tuple(grown(x) for x in state.sums))


def state_bytes(state: PyTree) -> int:
    """The memory of a state.

    Args:
        state: Any state.

    Returns:
        The bytes of all its arrays.
    """
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
