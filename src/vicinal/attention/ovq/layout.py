"""Where each token lies once sequences are cut into chunks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


class Layout(NamedTuple):
    """Tokens in slots of whole chunks, `chunks * chunk` slots in all.

    Before the new tokens come those that were pending. A sequence of documents starts a chunk with each of them.

    Attributes:
        source: The token of each slot, counted over the pending and the new ones; None if slot `i` has token `i`.
        valid: Whether a slot has a token; None if all do but those after the last token.
        position: The slot of each new token; None if token `i` has slot `i`.
        chunks: Number of chunks.
        filled: Tokens in each chunk.
        done: Chunks of the same sequence or document before each chunk.
        counted: Those of them that are not from an earlier call.
        document: The document of each chunk; None if there are no documents.
        documents: The most documents.
        last: The last document; None if there are no documents.
        end: The slot after the last token.
        tokens: Number of tokens of the sequence, or of the last document.
    """

    source: Int[Array, "batch slots"] | None
    valid: Bool[Array, "batch slots"] | None
    position: Int[Array, "batch time"] | None
    chunks: int
    filled: Int[Any, "chunks batch"]
    done: Int[Any, "chunks batch"]
    counted: Int[Any, "chunks batch"]
    document: Int[Array, "chunks batch"] | None
    documents: int
    last: Int[Array, " batch"] | None
    end: Int[Any, " batch"]
    tokens: Int[Any, " batch"]


def one_sequence(
    batch: int, time: int, chunk_size: int, read: Int[Array, " batch"] | None, lengths: Int[Array, " batch"] | None
) -> Layout:
    """The layout of one sequence per row, which may go on from tokens already read.

    Args:
        batch: Number of rows.
        time: New tokens of a row, with padding.
        chunk_size: Slots of a chunk.
        read: Tokens read before; their last `read % chunk_size` are pending. None if there were none.
        lengths: New tokens of a row, without padding. All by default.

    Returns:
        The layout. Where it can be, it is known before tracing.
    """
    xp: Any = np if read is None and lengths is None else jnp
    pending = xp.zeros(batch, "int32") if read is None else read % chunk_size
    number = xp.full(batch, time, "int32") if lengths is None else lengths.astype(jnp.int32)
    chunks = -(-(time if read is None else time + chunk_size - 1) // chunk_size)
    slot, starts = xp.arange(chunks * chunk_size, dtype="int32")[None], xp.arange(chunks, dtype="int32")[:, None]
    end = pending + number
    counted = starts + xp.zeros_like(number)[None]
    source = position = None
    if read is not None:  # the pending tokens take chunk_size places, of which the first `pending` count
        source = jnp.where(slot < pending[:, None], slot, slot + (chunk_size - pending)[:, None])
        position = jnp.arange(time, dtype=jnp.int32)[None] + pending[:, None]
    return Layout(
        source=source,
        valid=None if xp is np else slot < end[:, None],
        position=position,
        chunks=chunks,
        filled=xp.clip(end[None] - starts * chunk_size, 0, chunk_size),
        done=counted if read is None else counted + (read // chunk_size)[None],
        counted=counted,
        document=None,
        documents=1,
        last=None,
        end=end,
        tokens=number if read is None else read + number,
    )


def packed(
    documents: Int[Array, "batch time"], chunk_size: int, max_documents: int, lengths: Int[Array, " batch"] | None
) -> Layout:
    """The layout of rows that hold several documents one after the other.

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
    return Layout(
        source, valid, position, chunks, filled.T, done.T, done.T, document.T, max_documents, last, end, tokens
    )


def cut(
    layout: Layout, x: Float[Array, "batch time heads d"], pending: Float[Array, "batch heads chunk d"], chunk_size: int
) -> Float[Array, "chunks batch heads chunk d"]:
    """Cuts tokens into chunks; a slot without a token is zero, so that nothing there can matter."""
    batch, time, heads, features = x.shape
    slots = layout.chunks * chunk_size
    if layout.source is None:
        x = jnp.pad(x, [(0, 0), (0, slots - time), (0, 0), (0, 0)])
    else:
        if layout.document is None:
            x = jnp.concatenate([jnp.swapaxes(pending, 1, 2), x], axis=1)
        x = jnp.take_along_axis(x, layout.source[:, :, None, None], axis=1, mode="clip")
    if layout.valid is not None:
        x = jnp.where(layout.valid[:, :, None, None], x, jnp.zeros_like(x))
    return jnp.transpose(x.reshape(batch, layout.chunks, chunk_size, heads, features), (1, 0, 3, 2, 4))


def joined(
    layout: Layout, chunks: Float[Array, "chunks batch heads chunk e"], time: int
) -> Float[Array, "batch time heads e"]:
    """The outputs of the new tokens, in their order; zero for padding."""
    number, batch, heads, size, features = chunks.shape
    x = jnp.transpose(chunks, (1, 0, 3, 2, 4)).reshape(batch, number * size, heads, features)
    if layout.valid is not None:
        x = jnp.where(layout.valid[:, :, None, None], x, jnp.zeros_like(x))
    if layout.position is None:
        return x[:, :time]
    padded = jnp.pad(x, [(0, 0), (0, 1), (0, 0), (0, 0)])  # where the padding of a row with documents lies
    return jnp.take_along_axis(padded, layout.position[:, :, None, None], axis=1, mode="fill", fill_value=jnp.nan)


def rest(layout: Layout, chunks: Float[Array, "chunks batch heads chunk d"]) -> Float[Array, "batch heads chunk d"]:
    """The tokens of the chunk that is not finished, then zeros."""
    number, size = chunks.shape[0], chunks.shape[3]
    end = jnp.asarray(layout.end)
    chunk = jax.vmap(lambda row, i: row[i], in_axes=(1, 0))(chunks, jnp.minimum(end // size, number - 1))
    pending = (jnp.arange(size, dtype=jnp.int32)[None] < (end % size)[:, None])[:, None, :, None]
    return jnp.where(pending, chunk, jnp.zeros_like(chunk))
