"""The order in which an epoch visits the examples."""

import jax
from jaxtyping import Array, Int, Key

from vicinal._numbers import check_count


def epoch_order(key: Key[Array, ""], epoch: int | Int[Array, ""], size: int) -> Int[Array, " size"]:
    """The order of one epoch: a permutation of `0 ... size - 1`.

    It depends only on the key and the number of the epoch, so a run resumed in epoch 7 visits the examples in
    the same order as an uninterrupted run.

    Args:
        key: The JAX random key of the whole run.
        epoch: Which epoch, counted from 0. It may be traced.
        size: How many examples there are, at least 1. It sets the shape, so it must be a Python integer.

    Returns:
        Indices, `[size]`, int32 (int64 when JAX runs in 64 bits).

    Raises:
        ValueError: `size` is below 1.

    Example:
        >>> import jax
        >>> order = epoch_order(jax.random.key(0), 3, 5)
        >>> sorted(order.tolist())
        [0, 1, 2, 3, 4]
    """
    check_count("size", size)
    return jax.random.permutation(jax.random.fold_in(key, epoch), size)
