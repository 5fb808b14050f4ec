"""Which centroid each token of a finished chunk goes to."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

JOINS = ("all", "old", "random", "greedy")


def assign(
    keys: Float[Array, "chunk d"],
    centroids: Float[Array, "n d"],
    used: Bool[Array, " n"],
    new: Int[Array, ""],
    join: str = "all",
    priority: Float[Array, " chunk"] | None = None,
) -> Int[Array, " chunk"]:
    """The centroid of each token of a chunk: some tokens make new ones, and the others join what is most similar.

        similarity_j = max over used m of  k_j . mu_m              (in a first chunk: k_j . k_0, and -inf for k_0)
        the `new` tokens of lowest similarity  ->  n, n + 1, ...   in this order
        any other token j                      ->  argmax over m of  k_j . mu_m

    with `n` centroids in use. So the new centroids are spread out: they are where the dictionary is worst. Ties go to
    the lowest index. There is no gradient.

    Args:
        keys: The chunk's keys.
        centroids: The dictionary; the first `n` rows are in use.
        used: Which rows are in use.
        new: How many centroids to make, at most as many as there are tokens.
        join: What the other tokens choose from. `"all"`: the old centroids and those just made. `"old"`: the old ones;
            in a first chunk, the first. `"random"`: as `"all"`, but with the tokens of lowest `priority` as the new
            centroids. `"greedy"`: as `"all"`, but each new centroid counts as the dictionary's for the choice of the
            next (k-means++ without chance; one step after the other, so slow).
        priority: One number per token, for `"random"`.

    Returns:
        The row of each token.

    Example:
        >>> keys = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
        >>> empty, unused = jnp.zeros((2, 2)), jnp.zeros(2, bool)
        >>> assign(keys, empty, unused, jnp.array(2)).tolist()
        [0, 1, 0, 1]
        >>> assign(keys, empty, unused, jnp.array(2), join="old").tolist()
        [0, 1, 0, 0]

    References:
        Alonso, Figliolia and Millidge, Online vector quantized attention, arXiv 2602.03922.

    *Differs from the paper*: a third-party implementation has the rule `"old"`. With it a repeated key that was not
    chosen cannot join the centroid that its twin has just made, and centroids get impure; `"all"` mends this.
    """
    keys, centroids = jax.lax.stop_gradient((keys, centroids))
    accumulator = centroids.dtype
    similarity = jnp.where(used[None], _products(keys, centroids, accumulator), -jnp.inf)
    old, best = _largest(similarity, jnp.arange(len(used), dtype=jnp.int32))
    among = _products(keys, keys, accumulator)
    spread = jnp.where(jnp.any(used), best, among[:, 0].at[0].set(-jnp.inf))
    priority = spread if priority is None else priority
    order = _greedy_ranks(spread, among, new) if join == "greedy" else _ranks(priority)
    made = order < new
    own = jnp.sum(used, dtype=jnp.int32) + order
    if join == "old":
        return jnp.where(made, own, old)
    fresh, closest = _largest(jnp.where(made[None], among, -jnp.inf), own)
    return jnp.where(made, own, jnp.where(best >= closest, old, fresh))


def _largest(x: Float[Array, "m n"], index: Int[Array, " n"]) -> tuple[Int[Array, " m"], Float[Array, " m"]]:
    """The largest number of each row and its index, the lowest of several; on a CPU twice as fast as `argmax`."""
    largest = jnp.max(x, axis=1)
    candidates = jnp.where(x == largest[:, None], index[None], jnp.iinfo(jnp.int32).max)
    return jnp.min(candidates, axis=1), largest


def _products(a: Float[Array, "m d"], b: Float[Array, "n d"], dtype: jnp.dtype) -> Float[Array, "m n"]:
    return jnp.einsum("md,nd->mn", a, b.astype(a.dtype), preferred_element_type=dtype)


def _ranks(x: Float[Array, " n"]) -> Int[Array, " n"]:
    """The place of each number in increasing order, equal ones by index; quicker than a sort for a chunk's few."""
    i = jnp.arange(len(x))
    before = (x[None] < x[:, None]) | ((x[None] == x[:, None]) & (i[None] < i[:, None]))
    return jnp.sum(before, axis=1, dtype=jnp.int32)


def _greedy_ranks(best: Float[Array, " n"], among: Float[Array, "n n"], new: Int[Array, ""]) -> Int[Array, " n"]:
    """The order in which tokens become centroids if each counts at once; those that do not become one come last."""

    def choose(i, carry):
        best, rank = carry
        chosen = jnp.argmin(jnp.where(rank < len(best), jnp.inf, best))
        rank = rank.at[chosen].set(jnp.where(i < new, i, rank[chosen]).astype(jnp.int32))
        return jnp.maximum(best, among[:, chosen]), rank

    return jax.lax.fori_loop(0, len(best), choose, (best, jnp.full(best.shape, len(best), jnp.int32)))[1]
