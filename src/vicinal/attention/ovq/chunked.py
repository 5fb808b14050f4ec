"""The scan over chunks: read, assign, learn."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from vicinal.attention.ovq.assignment import assign
from vicinal.attention.ovq.dictionary import Rule, Sums, centroids, learn, read


class Chunks(NamedTuple):
    """Sequences cut into chunks. The queries are already multiplied by `beta`."""

    queries: Float[Array, "chunks batch heads chunk d"]
    keys: Float[Array, "chunks batch heads chunk d"]
    values: Float[Array, "chunks batch heads chunk e"]


class Plan(NamedTuple):
    """What to do with each chunk. It has no gradient.

    Attributes:
        full: Whether the chunk is finished, so that the dictionary learns from it.
        new: Centroids to create.
        priority: Of tokens to become centroids, if not by similarity.
        document: Which of the dictionaries the chunk belongs to; None if there is one.
    """

    full: Bool[Array, "chunks batch"]
    new: Int[Array, "chunks batch"]
    priority: Float[Array, "chunks batch heads chunk"] | None
    document: Int[Array, "chunks batch"] | None


def scan_dictionary(
    rule: Rule, chunks: Chunks, beta: Float[Array, " heads"], sums: Sums, plan: Plan
) -> tuple[Float[Array, "chunks batch heads chunk e"], Sums, Int[Array, "chunks batch heads chunk"]]:
    """Reads each chunk with the dictionary of the chunks before it, then adds it to the dictionary.

    Args:
        rule: The choices.
        chunks: The sequences.
        beta: The temperature of each head.
        sums: The dictionaries, `[batch, heads, n, ...]`; with documents, `[batch, documents, heads, n, ...]`.
        plan: What to do with each chunk.

    Returns:
        The outputs, the dictionaries after the last chunk, and the row each token went to (beyond the last row for
        the tokens of a chunk that is not finished).
    """

    def step(sums, inputs):
        chunk, step_plan = inputs
        own = of_document(sums, step_plan.document)
        outputs = read_chunk(rule, chunk, beta, own)
        z = assign_chunk(rule, chunk.keys, own, step_plan)
        own = learn(rule, own, z, chunk.keys, chunk.values)
        return with_document(sums, step_plan.document, own), (outputs, z)

    sums, (outputs, z) = jax.lax.scan(step, sums, (chunks, plan))
    return outputs, sums, z


def read_chunk(rule: Rule, chunk: Chunks, beta: Float[Array, " heads"], sums: Sums) -> Float[Array, "..."]:
    """Each token reads the dictionary, the tokens of its chunk before it, and itself."""
    size = chunk.keys.shape[-2]
    visible = jnp.broadcast_to(jnp.tri(size, dtype=bool), (*chunk.keys.shape[:-1], size))
    return read(rule, *chunk, visible, jnp.broadcast_to(beta, sums.counts.shape[:-1]), sums)


def assign_chunk(rule: Rule, keys: Float[Array, "batch heads chunk d"], sums: Sums, plan: Plan) -> Int[Array, "..."]:
    """The row of each token, or beyond the last row if the chunk is not finished."""
    keys, sums = jax.lax.stop_gradient((keys, sums))

    def head(keys, mu, used, new, priority):
        return assign(keys, mu, used, new, rule.join, priority)

    over_heads = jax.vmap(head, in_axes=(0, 0, 0, None, 0))
    z = jax.vmap(over_heads)(keys, centroids(rule, sums)[0], sums.counts > 0, plan.new, plan.priority)
    return jnp.where(plan.full[:, None, None], z, sums.counts.shape[-1])


def of_document(trees: PyTree, document: Int[Array, " batch"] | None) -> PyTree:
    """Each row's dictionary of one document, `[batch, documents, ...]` to `[batch, ...]`."""
    if document is None:
        return trees
    return jax.tree.map(lambda x: jax.vmap(lambda row, i: row[i])(x, document), trees)


def with_document(trees: PyTree, document: Int[Array, " batch"] | None, new: PyTree) -> PyTree:
    """Puts back what `of_document` took."""
    if document is None:
        return new
    return jax.tree.map(lambda x, y: jax.vmap(lambda row, i, own: row.at[i].set(own))(x, document, y), trees, new)
