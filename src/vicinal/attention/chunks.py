"""Runs an operator over sequences chunk by chunk: cut the tokens, scan with a state, join the outputs.

`scan_chunks` does all of it for a memory that a token changes at once. Where tokens stay exact until their chunk is
full, as in `vq_attention` and `ovq_attention`, the tokens of an unfinished chunk wait in the state for the next call:

    layout = one_sequence(batch, time, chunk_size, read, lengths)    which slot each token takes
    chunks = cut(layout, x, pending)                                 [chunks, batch, heads, chunk, ...]
    outputs, state = scan_layout(step, state, layout, chunks)        [batch, time, heads, ...]
    pending = unfinished(layout, chunks)                             [batch, heads, chunk, ...]
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vicinal._numbers import wide


class ChunkLayout(NamedTuple):
    """The slot of each token, in whole chunks.

    Pending tokens, those of the last call's unfinished chunk, come before the new ones. Each document of a row starts
    a chunk.

    Attributes:
        time: New tokens of a row, with padding.
        size: Slots of a chunk.
        chunks: Number of chunks.
        source: The token in each slot, counted over pending and new ones; None if slot `i` holds token `i`.
        valid: Whether a slot holds a token; None if only the slots after the last token are empty.
        position: The slot of each new token; None if token `i` has slot `i`.
        filled: Tokens in each chunk.
        done: Earlier chunks of the same sequence or document.
        counted: Those of them that belong to this call.
        end: The slot after the last token.
        tokens: Tokens read of the sequence, or of its last document.
        document: The document of each chunk; None without documents.
        documents: The most documents.
        last: The last document; None without documents.
    """

    time: int
    size: int
    chunks: int
    source: Int[Array, "batch slots"] | None
    valid: Bool[Array, "batch slots"] | None
    position: Int[Array, "batch time"] | None
    filled: Int[Any, "chunks batch"]
    done: Int[Any, "chunks batch"]
    counted: Int[Any, "chunks batch"]
    end: Int[Any, " batch"]
    tokens: Int[Any, " batch"]
    document: Int[Array, "chunks batch"] | None = None
    documents: int = 1
    last: Int[Array, " batch"] | None = None

    @property
    def full(self) -> Bool[Any, "chunks batch"]:
        """Whether each chunk has a token in every slot."""
        return self.filled == self.size


def one_sequence(
    batch: int,
    time: int,
    chunk_size: int,
    read: Int[Array, " batch"] | None = None,
    lengths: Int[Array, " batch"] | None = None,
) -> ChunkLayout:
    """Lays out one sequence per row.

    Args:
        batch: Number of rows.
        time: New tokens of a row, with padding.
        chunk_size: Slots of a chunk.
        read: Tokens of earlier calls; their last `read % chunk_size` are pending. None if there are none.
        lengths: New tokens of a row, without padding; all by default.

    Returns:
        The layout, of NumPy arrays if neither `read` nor `lengths` is given.
    """
    xp: Any = np if read is None and lengths is None else jnp
    pending = xp.zeros(batch, "int32") if read is None else read % chunk_size
    number = xp.full(batch, time, "int32") if lengths is None else lengths.astype(jnp.int32)
    chunks = -(-(time if read is None else time + chunk_size - 1) // chunk_size)
    slot, starts = xp.arange(chunks * chunk_size, dtype="int32")[None], xp.arange(chunks, dtype="int32")[:, None]
    end = pending + number
    counted = starts + xp.zeros_like(number)[None]
    source = position = None
    if read is not None:  # pending tokens come in chunk_size places, of which the first `pending` are in use
        source = jnp.where(slot < pending[:, None], slot, slot + (chunk_size - pending)[:, None])
        position = jnp.arange(time, dtype=jnp.int32)[None] + pending[:, None]
    return ChunkLayout(
        time=time,
        size=chunk_size,
        chunks=chunks,
        source=source,
        valid=None if xp is np else slot < end[:, None],
        position=position,
        filled=xp.clip(end[None] - starts * chunk_size, 0, chunk_size),
        done=counted if read is None else counted + (read // chunk_size)[None],
        counted=counted,
        end=end,
        tokens=number if read is None else read + number,
    )


def cut(
    layout: ChunkLayout,
    x: Float[Array, "batch time heads *rest"],
    pending: Float[Array, "batch chunk heads *rest"] | None = None,
) -> Float[Array, "chunks batch heads chunk *rest"]:
    """Cuts tokens into chunks. Empty slots are zero, whatever the padding holds.

    Args:
        layout: The slot of each token.
        x: The new tokens.
        pending: The pending tokens, then zeros; needed if the layout continues a sequence.

    Returns:
        The chunks.
    """
    batch, time, heads, *rest = x.shape
    ones = (1,) * (x.ndim - 2)
    if layout.source is None:
        x = jnp.pad(x, [(0, 0), (0, layout.chunks * layout.size - time), *[(0, 0)] * len(ones)])
    else:
        x = x if pending is None else jnp.concatenate([pending, x], axis=1)
        x = jnp.take_along_axis(x, layout.source.reshape(*layout.source.shape, *ones), axis=1, mode="clip")
    x = _zeros_in_empty_slots(layout, x)
    return jnp.moveaxis(x.reshape(batch, layout.chunks, layout.size, heads, *rest), (1, 3), (0, 2))


def joined(
    layout: ChunkLayout, chunks: Float[Array, "chunks batch heads chunk *rest"]
) -> Float[Array, "batch time heads *rest"]:
    """Joins the outputs of chunks to those of the new tokens, in their order; zero for padding."""
    number, batch, heads, size, *rest = chunks.shape
    x = jnp.moveaxis(chunks, (0, 2), (1, 3)).reshape(batch, number * size, heads, *rest)
    x = _zeros_in_empty_slots(layout, x)
    if layout.position is None:
        return x[:, : layout.time]
    ones = (1,) * (x.ndim - 2)
    x = jnp.pad(x, [(0, 0), (0, 1), *[(0, 0)] * len(ones)])  # the slot of the padding of a row with documents
    position = layout.position.reshape(*layout.position.shape, *ones)
    return jnp.take_along_axis(x, position, axis=1, mode="fill", fill_value=jnp.nan)


def unfinished(
    layout: ChunkLayout, chunks: Float[Array, "chunks batch heads chunk d"]
) -> Float[Array, "batch heads chunk d"]:
    """The tokens of the chunk that is not full, then zeros: what the next call gets as `pending`."""
    end = jnp.asarray(layout.end)
    index = jnp.minimum(end // layout.size, layout.chunks - 1)
    chunk = jax.vmap(lambda row, i: row[i], in_axes=(1, 0))(chunks, index)
    pending = (jnp.arange(layout.size, dtype=jnp.int32)[None] < (end % layout.size)[:, None])[:, None, :, None]
    return jnp.where(pending, chunk, jnp.zeros_like(chunk))


def scan_layout(step: Callable, state: Any, layout: ChunkLayout, *chunks: Array) -> tuple[Array, Any]:
    """Scans over chunks, `step(state, chunks) -> (state, outputs)`, and joins the outputs.

    The backward pass keeps the state before each chunk and computes the rest of the chunk again.
    """
    state, outputs = jax.lax.scan(jax.checkpoint(step), state, chunks)
    return joined(layout, outputs), state


def scan_chunks(
    step: Callable, state: Any, chunk_size: int, lengths: Int[Array, " batch"] | None, *arrays: Array
) -> tuple[Array, Any]:
    """Runs a recurrence whose chunks may have any size: cuts, scans, joins.

    Padding is zero in all arrays, so a recurrence must be unchanged by keys, values and log decays of zero.

    Args:
        step: `(state, chunks) -> (state, outputs)`, where each array of a chunk is `[batch, heads, chunk, ...]`.
        state: The state before the first chunk.
        chunk_size: The most tokens of a chunk.
        lengths: Tokens of a row, without padding; all if None.
        *arrays: `[batch, time, heads, ...]`, read in float32, or in float64 if the first one is.

    Returns:
        The outputs, in the dtype of the first array, and the state after the last chunk.
    """
    (batch, time), dtype = arrays[0].shape[:2], arrays[0].dtype
    layout = one_sequence(batch, time, max(1, min(chunk_size, time)), lengths=lengths)
    outputs, state = scan_layout(step, state, layout, *(cut(layout, x.astype(wide(dtype))) for x in arrays))
    return outputs.astype(dtype), state


def scan_tokens(step: Callable, state: Any, *arrays: Array) -> tuple[Array, Any]:
    """Scans over tokens, `step(state, tokens) -> (state, outputs)`, each `[batch, heads, ...]`."""
    state, outputs = jax.lax.scan(step, state, tuple(jnp.moveaxis(x, 1, 0) for x in arrays))
    return jnp.moveaxis(outputs, 0, 1), state


def _zeros_in_empty_slots(
    layout: ChunkLayout, x: Float[Array, "batch slots *rest"]
) -> Float[Array, "batch slots *rest"]:
    if layout.valid is None:
        return x
    return jnp.where(layout.valid.reshape(*layout.valid.shape, *(1,) * (x.ndim - 2)), x, jnp.zeros_like(x))
