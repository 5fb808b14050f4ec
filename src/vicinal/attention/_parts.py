"""What several sequence operators share: checks, padding, states to start from, and sums that decay."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vicinal._numbers import check, check_count, wide
from vicinal.nn import padding

EPSILON = 1e-5  # keeps a vector of zeros finite


def check_arrays(q, k, v, lengths=None, chunk_size: int = 1, **gates: Array) -> None:
    """Raises a ValueError or TypeError if arrays do not fit each other."""
    check_count("chunk_size", chunk_size, 1)
    if q.ndim != 4 or k.shape != q.shape or v.ndim != 4 or v.shape[:3] != q.shape[:3]:
        raise ValueError(
            "expected q and k of shape [batch, time, heads, d] and v of shape [batch, time, heads, e], "
            f"got {list(q.shape)}, {list(k.shape)} and {list(v.shape)}"
        )
    if not (q.dtype == k.dtype == v.dtype and jnp.issubdtype(q.dtype, jnp.floating)):
        raise TypeError(f"expected q, k and v of one floating dtype, got {q.dtype}, {k.dtype} and {v.dtype}; cast them")
    for name, gate in gates.items():
        if gate.shape != q.shape[:3]:
            raise ValueError(f"expected {name} of shape {list(q.shape[:3])}, got {list(gate.shape)}")
    if lengths is not None:
        check_integers("lengths", lengths, q.shape[:1])


def check_integers(name: str, numbers: Any, shape: tuple[int, ...]) -> None:
    """Raises a ValueError or TypeError unless these are whole numbers of a shape."""
    if jnp.shape(numbers) != shape:
        raise ValueError(f"expected {name} of shape {list(shape)}, got {list(jnp.shape(numbers))}")
    if not jnp.issubdtype(jnp.result_type(numbers), jnp.integer):
        raise TypeError(f"expected integers as {name}, got {jnp.result_type(numbers)}")


def check_state(state: Any, expected: Any) -> None:
    """Raises a ValueError unless a state has the shapes of the one expected."""
    got, wanted = ([list(x.shape) for x in jax.tree.leaves(tree)] for tree in (state, expected))
    if got != wanted:
        raise ValueError(f"expected an initial_state of shapes {wanted}, got {got}; use the sizes it was made with")


def started(initial_state: Any, empty: Any) -> Any:
    """The state to start from: the one given, of the same shapes as the empty one, or the empty one."""
    if initial_state is None:
        return empty
    check_state(initial_state, empty)
    return initial_state


def empty_memory(k, v) -> Float[Array, "batch heads d e"]:
    """A memory of zeros that maps keys to values, both `[batch, time, heads, ...]`."""
    batch, _, heads, features = k.shape
    return jnp.zeros((batch, heads, features, v.shape[3]), wide(v.dtype))


def temperatures(beta, heads: int, dtype) -> Float[Array, " heads"]:
    """`beta` as one number for each head."""
    if jnp.shape(beta) not in ((), (heads,)):
        raise ValueError(f"expected beta as a number or of shape [{heads}], got shape {list(jnp.shape(beta))}")
    check("beta", beta)
    return jnp.broadcast_to(jnp.asarray(beta).astype(dtype), (heads,))


def token_counts(lengths: Int[Array, " batch"] | None, batch: int, time: int) -> Int[Array, " batch"]:
    """The number of tokens of each row, without padding."""
    return jnp.full(batch, time, jnp.int32) if lengths is None else jnp.asarray(lengths).astype(jnp.int32)


def not_padding(lengths: Int[Array, " batch"] | None, batch: int, time: int) -> Bool[Array, "batch time"]:
    """Whether each token is no padding."""
    return jnp.arange(time, dtype=jnp.int32)[None] < token_counts(lengths, batch, time)[:, None]


def without_padding(x: Float[Array, "batch time *rest"], lengths: Int[Array, " batch"] | None) -> Any:
    """The array with zeros in place of padding."""
    return x if lengths is None else jax.vmap(padding.without_padding)(x, jnp.asarray(lengths))


def prepared(lengths: Int[Array, " batch"] | None, *arrays: Array) -> list[Array]:
    """The arrays in the dtype of sums, with zeros for padding. A key, value or log decay of zero changes no sum."""
    return [without_padding(x.astype(wide(arrays[0].dtype)), lengths) for x in arrays]


def decays(total: Float[Array, "*rest time"]) -> Float[Array, "*rest time time"]:
    """`D_ij = e^{G_i - G_j}` for `j <= i`, else 0: what is left at `i` of a token `j`, from the summed log decays."""
    seen = jnp.tril(jnp.ones((total.shape[-1],) * 2, bool))
    difference = total[..., :, None] - total[..., None, :]
    return jnp.exp(jnp.where(jnp.broadcast_to(seen, difference.shape), difference, -jnp.inf))


def read(state, q, k, v, total) -> Float[Array, "batch heads time e"]:
    """`e^G (q S) + ((q k^T) * D) v`: what the queries of a chunk read of the state before it, and of the chunk."""
    scores = jnp.einsum("...id,...jd->...ij", q, k) * decays(total)
    return jnp.exp(total)[..., None] * (q @ state) + scores @ v


def write(state, k, v, total) -> Float[Array, "batch heads d e"]:
    """`e^{G_L} S + (e^{G_L - G} k)^T v`: the state after a chunk."""
    last = total[..., -1:]
    kept = jnp.exp(last - total)[..., None] * k
    return jnp.exp(last)[..., None] * state + jnp.swapaxes(kept, -1, -2) @ v


def unit_lower_solve(below: Float[Array, "*rest n n"], wanted: Float[Array, "*rest n e"]) -> Float[Array, "*rest n e"]:
    """`u` of `(I + A) u = b`, where only what lies below the diagonal of `A` is read.

    The inverse `T` grows from blocks of size `s` to blocks of size `2 s`, by `T - T A_s T` with the blocks of `A` that
    lie below those of `T`. It takes products of matrices alone: batched LAPACK calls wait for each other's threads
    without end in a training loop on a CPU (seen with jaxlib 0.10.2).
    """
    size = below.shape[-1]
    below = jnp.tril(below, -1)
    fixed, at = jax.lax.stop_gradient(below), np.arange(size)
    inverse = jnp.broadcast_to(jnp.eye(size, dtype=below.dtype), below.shape)
    for block in (2**i for i in range((size - 1).bit_length())):
        row, column = at[:, None] // block, at[None] // block
        pair = (row == column + 1) & (row % 2 == 1)
        inverse = inverse - inverse @ jnp.where(pair, fixed, jnp.zeros_like(fixed)) @ inverse
    return jax.lax.custom_linear_solve(
        lambda u: u + below @ u,
        wanted,
        solve=lambda _, b: inverse @ b,
        transpose_solve=lambda _, b: jnp.swapaxes(inverse, -1, -2) @ b,
    )


def unit(x: Float[Array, "*rest d"]) -> Float[Array, "*rest d"]:
    """`x / (|x| + 1e-5)`, with a gradient of zeros at a vector of zeros."""
    square = jnp.sum(x**2, axis=-1, keepdims=True)
    zero = square == 0
    return x / (jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, square))) + EPSILON)


def rotated(x: Float[Array, "time heads d"], first: Int[Array, ""], base: float = 10_000.0) -> Any:
    """Rotary positions: feature `i` and `i + d/2` of step `t` turn by the angle `t base^{-2i/d}`."""
    half, dtype = x.shape[-1] // 2, wide(x.dtype)
    speed = base ** (-jnp.arange(half, dtype=dtype) / half)
    position = (first + jnp.arange(len(x), dtype=jnp.int32)).astype(dtype)
    angle = position[:, None, None] * speed[None, None]
    left, right = x[..., :half].astype(dtype), x[..., half:].astype(dtype)
    turned = [left * jnp.cos(angle) - right * jnp.sin(angle), left * jnp.sin(angle) + right * jnp.cos(angle)]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
