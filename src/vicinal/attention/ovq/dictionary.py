"""The equations of OVQ-attention: how a head's dictionary is read and how it learns."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

BIASES = ("count", "none", "gmr")
EMPTY = -1e30  # the logit of empty rows; with -inf, fully masked rows would have NaN gradients


@dataclasses.dataclass(frozen=True)
class Rule:
    """The choices of `ovq_attention` that do not change shapes; see there."""

    join: str = "all"
    bias: str = "count"
    learning_rate: float | None = None
    normalize_centroids: bool = False


class Sums(NamedTuple):
    """What a dictionary holds: `mu_n = keys_n / counts_n` and `nu_n = values_n / counts_n`.

    Sums and not means, because adding a token to a sum can be undone exactly enough (see `lean`).
    """

    keys: Float[Array, "*batch n d"]
    values: Float[Array, "*batch n e"]
    counts: Float[Array, "*batch n"]

    def add(
        self,
        z: Int[Array, "*batch chunk"],
        keys: Float[Array, "*batch chunk d"],
        values: Float[Array, "*batch chunk e"],
    ) -> "Sums":
        """Adds each token to row `z` of the sums; a row beyond the last adds nothing."""
        return self._moved(z, keys, values, 1)

    def subtract(
        self,
        z: Int[Array, "*batch chunk"],
        keys: Float[Array, "*batch chunk d"],
        values: Float[Array, "*batch chunk e"],
    ) -> "Sums":
        """Undoes `add`."""
        return self._moved(z, keys, values, -1)

    def _moved(self, z, keys, values, sign):
        ones = jnp.full(z.shape, sign, keys.dtype)
        return Sums(
            scatter(self.keys, z, sign * keys), scatter(self.values, z, sign * values), scatter(self.counts, z, ones)
        )


def scatter(
    rows: Float[Array, "*batch n d"], z: Int[Array, "*batch chunk"], added: Float[Array, "*batch chunk d"]
) -> Float[Array, "*batch n d"]:
    """Adds each token to its row, in the dtype of the rows; a row beyond the last adds nothing.

    By `scatter_one_by_one` on a CPU, elsewhere by `scatter_as_product`.
    """
    for_cpu, for_others = scatter_one_by_one, scatter_as_product
    for _ in range(z.ndim - 1):
        for_cpu, for_others = jax.vmap(for_cpu), jax.vmap(for_others)
    return jax.lax.platform_dependent(rows, z, added, cpu=for_cpu, default=for_others)


def scatter_one_by_one(
    rows: Float[Array, "n *d"], z: Int[Array, " chunk"], added: Float[Array, "chunk *d"]
) -> Float[Array, "n *d"]:
    """`scatter` as a CPU does it best."""
    return rows.at[z].add(added.astype(rows.dtype), mode="drop")


def scatter_as_product(
    rows: Float[Array, "n *d"], z: Int[Array, " chunk"], added: Float[Array, "chunk *d"]
) -> Float[Array, "n *d"]:
    """`scatter` as a product with the one-hot rows, `P^T x`: deterministic, and at the speed of a matrix product.

    Nothing is rounded but the sums: the factors keep their dtype, in which 0 and 1 are exact, and the highest precision
    keeps a GPU from rounding those of float32.
    """
    hot = jax.nn.one_hot(z, len(rows), dtype=added.dtype)
    exact = {"precision": jax.lax.Precision.HIGHEST, "preferred_element_type": rows.dtype}
    return rows + jnp.tensordot(hot, added, axes=((0,), (0,)), **exact)


def gather(rows: Float[Array, "*batch n d"], z: Int[Array, "*batch chunk"]) -> Float[Array, "*batch chunk d"]:
    """The row of each token; zero for a row beyond the last."""
    if z.ndim == 1:
        return rows.at[z].get(mode="fill", fill_value=0)
    return jax.vmap(gather)(rows, z)


def centroids(rule: Rule, sums: Sums) -> tuple[Float[Array, "*batch n d"], Float[Array, "*batch n e"]]:
    """The means `mu_n` and `nu_n`; with `normalize_centroids`, `mu_n` at norm 1. Zero where a row is not in use."""
    inverse = (1 / jnp.maximum(sums.counts, 1))[..., None]
    scale = inverse
    if rule.normalize_centroids:
        square = jnp.sum(sums.keys**2, axis=-1, keepdims=True)
        scale = jax.lax.rsqrt(jnp.maximum(square, jnp.finfo(square.dtype).tiny ** 0.5))
    return sums.keys * scale, sums.values * inverse


def read(
    rule: Rule,
    queries: Float[Array, "*batch m d"],
    keys: Float[Array, "*batch chunk d"],
    values: Float[Array, "*batch chunk e"],
    visible: Float[Array, "*batch m chunk"],
    beta: Float[Array, "*batch"],
    sums: Sums,
) -> Float[Array, "*batch m e"]:
    """Reads the dictionary and the tokens of the chunk that are not in it yet.

        o = (sum_n e^{a_n} nu_n + sum_j e^{b_j} v_j) / (sum_n e^{a_n} + sum_j e^{b_j})
        a_n = beta q . mu_n + log count_n                                for the rows in use
        b_j = beta q . k_j                                               for the visible tokens: components of count 1

    Args:
        rule: Its `bias` says what is added to `a_n`: the log count, nothing, or `"gmr"`, which also adds
            `-beta/2 (|mu_n|^2 - 1)` and makes this a Gaussian mixture regression whatever the norm of the centroids.
        queries: Already multiplied by `beta`.
        keys: Of the chunk.
        values: Of the chunk.
        visible: Whether a query sees a token of the chunk, at least one for each query.
        beta: The temperature.
        sums: The dictionary.

    Returns:
        The outputs, in the dtype of the values.
    """
    exact = sums.keys.dtype
    mu, nu = centroids(rule, sums)
    offset = _offset(rule, beta, mu, sums.counts)
    a = _einsum("...md,...nd->...mn", queries, mu, exact) + offset[..., None, :]
    b = jnp.where(visible, _einsum("...md,...jd->...mj", queries, keys, exact), EMPTY)
    top = jax.lax.stop_gradient(jnp.maximum(jnp.max(a, axis=-1), jnp.max(b, axis=-1)))[..., None]
    a, b = jnp.exp(a - top), jnp.exp(b - top)
    total = jnp.sum(a, axis=-1) + jnp.sum(b, axis=-1)
    out = _einsum("...mn,...ne->...me", a, nu, exact, values.dtype)
    out += _einsum("...mj,...je->...me", b, values, exact, values.dtype)
    return (out / total[..., None]).astype(values.dtype)


def _offset(rule, beta, mu, counts):
    used = counts > 0
    offset = jnp.zeros_like(counts) if rule.bias == "none" else jnp.log(jnp.where(used, counts, 1))
    if rule.bias == "gmr":
        offset -= beta[..., None] / 2 * (jnp.sum(mu**2, axis=-1) - 1)
    return jnp.where(used, offset, EMPTY)


def _einsum(subscripts, x, y, exact, dtype=None):
    """In the dtype of the inputs with the sums in `exact`, as a GPU's matrix units do it."""
    dtype = x.dtype if dtype is None else dtype
    return jnp.einsum(subscripts, x.astype(dtype), y.astype(dtype), preferred_element_type=exact)


def learn(
    rule: Rule,
    sums: Sums,
    z: Int[Array, "*batch chunk"],
    keys: Float[Array, "*batch chunk d"],
    values: Float[Array, "*batch chunk e"],
) -> Sums:
    """Adds a finished chunk to the dictionary.

        mu_n += sum_{j: z_j = n} (k_j - mu_n) / count_n,      the same for nu_n,      count_n += #{j: z_j = n}

    with the new count: the running mean, so the sums just grow. With a constant `learning_rate` in place of
    `1 / count_n`, a new centroid starts as the mean of its tokens, and the sums hold `count_n mu_n`.
    """
    added = sums.add(z, keys, values)
    if rule.learning_rate is None:
        return added
    step = jnp.where(sums.counts > 0, rule.learning_rate, 1 / jnp.maximum(added.counts, 1))[..., None]
    old, count = jnp.maximum(sums.counts, 1)[..., None], added.counts[..., None]
    number = count - sums.counts[..., None]

    def moved(before, after):
        mean = before / old
        return count * (mean + step * (after - before - number * mean))

    return Sums(moved(sums.keys, added.keys), moved(sums.values, added.values), added.counts)
