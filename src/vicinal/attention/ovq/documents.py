"""Rows that hold several documents, one after the other."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from vicinal.attention.chunks import ChunkLayout


def packed(
    documents: Int[Array, "batch time"], chunk_size: int, max_documents: int, lengths: Int[Array, " batch"] | None
) -> ChunkLayout:
    """Lays out rows that hold several documents, one after the other.

    Args:
        documents: Which document a token belongs to; never falls along a row.
        chunk_size: Slots of a chunk.
        max_documents: The most documents of a row.
        lengths: Tokens of a row, without padding. All by default.

    Returns:
        The layout. Documents beyond the most have no place.
    """
    time = documents.shape[1]
    chunks = (time + max_documents * (chunk_size - 1)) // chunk_size  # each document may leave all but one slot empty
    number = jnp.full(len(documents), time, jnp.int32) if lengths is None else lengths.astype(jnp.int32)

    def row(ids, number):
        token = jnp.arange(time, dtype=jnp.int32)
        real = token < number
        changed = jnp.concatenate([jnp.zeros(1, bool), ids[1:] != ids[:-1]])
        own = jnp.where(real, jnp.cumsum(changed, dtype=jnp.int32), max_documents)
        sizes = jnp.zeros(max_documents, jnp.int32).at[own].add(1, mode="drop")
        blocks = -(-sizes // chunk_size)
        first = jnp.cumsum(blocks, dtype=jnp.int32) - blocks  # the chunk where each document starts
        start = jnp.cumsum(sizes, dtype=jnp.int32) - sizes
        position = first.at[own].get(mode="fill", fill_value=0) * chunk_size
        position += token - start.at[own].get(mode="fill", fill_value=0)
        position = jnp.where(real & (own < max_documents), position, chunks * chunk_size)
        source = jnp.full(chunks * chunk_size, time, jnp.int32).at[position].set(token, mode="drop")
        valid = source < time
        chunk = jnp.arange(chunks, dtype=jnp.int32)
        document = jnp.clip(jnp.searchsorted(first + blocks, chunk, side="right"), 0, max_documents - 1)
        document = document.astype(jnp.int32)
        filled = jnp.sum(valid.reshape(chunks, chunk_size), axis=1, dtype=jnp.int32)
        last = jnp.clip(own[jnp.maximum(number - 1, 0)], 0, max_documents - 1)
        tokens = sizes[last]
        end = first[last] * chunk_size + tokens
        # A real token without a place is given one far off, where `joined` finds NaN.
        position = jnp.where(real & (own >= max_documents), jnp.iinfo(jnp.int32).max, position)
        done = jnp.maximum(chunk - first[document], 0)
        return source, valid, position, filled, done, document, last, end, tokens

    source, valid, position, filled, done, document, last, end, tokens = jax.vmap(row)(documents, number)
    where = {"source": source, "valid": valid, "position": position}
    chunk = {"filled": filled.T, "done": done.T, "counted": done.T, "document": document.T}
    return ChunkLayout(
        time, chunk_size, chunks, **where, **chunk, end=end, tokens=tokens, documents=max_documents, last=last
    )
