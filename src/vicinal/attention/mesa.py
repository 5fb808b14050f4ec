"""Mesa attention: at every token a ridge regression of values on keys; and its layer."""

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vicinal._numbers import check, check_turns, wide
from vicinal.attention._parts import check_arrays, empty_memory, prepared, read, started, write
from vicinal.attention._projections import GatedHeads, MemoryState
from vicinal.attention.base import Mixer
from vicinal.attention.chunks import scan_chunks, scan_tokens


class MesaState(NamedTuple):
    """The sums of a ridge regression.

    Attributes:
        keys: `H`, the sum of the outer products of keys with themselves.
        values: `S`, the sum of the outer products of keys with values.
    """

    keys: Float[Array, "batch heads d d"]
    values: Float[Array, "batch heads d e"]


def mesa_attention(
    q: Float[Array, "batch time heads d"],
    k: Float[Array, "batch time heads d"],
    v: Float[Array, "batch time heads e"],
    log_decay: Float[Array, "batch time heads"],
    rate: Float[Array, "batch time heads"],
    ridge: float | Float[Array, "heads d"],
    *,
    iterations: int = 30,
    chunk_size: int = 64,
    initial_state: MesaState | None = None,
    lengths: Int[Array, " batch"] | None = None,
) -> tuple[Float[Array, "batch time heads e"], MesaState]:
    """Answers each query by the linear map that best fits the values read so far to their keys.

        H_t = a_t H_{t-1} + b_t k_t^T k_t,     S_t = a_t S_{t-1} + b_t k_t^T v_t,     a_t = e^{g_t}
        o_t = q_t (H_t + diag(ridge))^{-1} S_t

    a ridge regression with weight `b_s e^{g_{s+1} + ... + g_t}` for token `s`. In a chunk the systems of
    all queries are solved at once by conjugate gradients: one product of each `H_t` with a vector is a decayed linear
    attention. The gradient is that of the exact solution, by a second solve, not that of the iterations.

    Args:
        q: Queries.
        k: Keys, usually of norm 1.
        v: Values.
        log_decay: `g`, finite and at most 0.
        rate: `b`, at least 0.
        ridge: Above 0; one number, or one for each head and feature.
        iterations: Steps of conjugate gradients. With as many as features, the solution is exact up to rounding.
        chunk_size: Tokens of a chunk. It changes only speed and rounding.
        initial_state: The state after the earlier tokens; zeros by default.
        lengths: Tokens of each row without the padding on its right, which is not read and whose outputs are zero;
            all by default.

    Returns:
        The outputs, in the dtype of `v`, and the state to continue from, in float32, or float64 if the inputs are.

    Raises:
        ValueError: If shapes do not match each other or the state, or the ridge is not above 0.
        TypeError: If dtypes differ.

    Example:
        >>> ones, gate = jnp.ones((1, 3, 1, 1)), jnp.zeros((1, 3, 1))
        >>> outputs, _ = mesa_attention(ones, ones, 12 * ones, gate, gate + 1, 1.0)
        >>> outputs.ravel().tolist()
        [6.0, 8.0, 9.0]

    References:
        von Oswald et al., MesaNet: sequence modeling by locally optimal test-time training, arXiv 2506.05233.

    *Differs from the paper*: the number of iterations is fixed.
    """
    check_arrays(q, k, v, lengths, chunk_size, log_decay=log_decay, rate=rate)
    check_turns("iterations", iterations, 1)
    ridge = _ridge(ridge, q)

    def step(state, chunk):
        q, k, v, log_decay, rate = chunk
        total = jnp.cumsum(log_decay, axis=-1)
        weighted = rate[..., None] * k

        def product(x):
            return read(state.keys, x, k, weighted, total) + ridge[None] * x

        solution = jax.lax.custom_linear_solve(
            product, q, lambda product, q: conjugate_gradients(product, q, iterations), symmetric=True
        )
        outputs = read(state.values, solution, weighted, v, total)
        return MesaState(write(state.keys, k, weighted, total), write(state.values, weighted, v, total)), outputs

    return scan_chunks(step, started(initial_state, _empty(k, v)), chunk_size, lengths, q, k, v, log_decay, rate)


def naive_mesa_attention(q, k, v, log_decay, rate, ridge, *, initial_state=None, lengths=None):
    """`mesa_attention` token by token with an exact solver: a readable reference, with the same arguments."""
    check_arrays(q, k, v, lengths, log_decay=log_decay, rate=rate)
    ridge = jnp.broadcast_to(_ridge(ridge, q)[:, 0], q.shape[2:])

    def step(state, token):
        q, k, v, log_decay, rate = token
        decay, rate = jnp.exp(log_decay)[..., None, None], rate[..., None, None]
        keys = decay * state.keys + rate * k[..., :, None] * k[..., None, :]
        values = decay * state.values + rate * k[..., :, None] * v[..., None, :]
        solution = jnp.linalg.solve(keys + jax.vmap(jnp.diag)(ridge)[None], q[..., None])[..., 0]
        return MesaState(keys, values), jnp.einsum("bhd,bhde->bhe", solution, values)

    state = started(initial_state, _empty(k, v))
    outputs, state = scan_tokens(step, state, *prepared(lengths, q, k, v, log_decay, rate))
    return outputs.astype(v.dtype), state


def conjugate_gradients(product, b: Float[Array, "*rest d"], iterations: int) -> Float[Array, "*rest d"]:
    """Solves a positive definite system for every vector, `product(x) = b`."""

    def dot(x, y):
        return jnp.sum(x * y, axis=-1, keepdims=True)

    def ratio(x, y):  # a solved vector stays unchanged
        return jnp.where(y > 0, x / jnp.where(y > 0, y, 1), 0)

    def step(_, carry):
        x, residual, direction, square = carry
        image = product(direction)
        size = ratio(square, dot(direction, image))
        x, residual = x + size * direction, residual - size * image
        new = dot(residual, residual)
        return x, residual, residual + ratio(new, square) * direction, new

    return jax.lax.fori_loop(0, iterations, step, (jnp.zeros_like(b), b, b, dot(b, b)))[0]


def _ridge(ridge, q) -> Float[Array, "heads 1 d"]:
    heads, features = q.shape[2:]
    if jnp.shape(ridge) not in ((), (heads, features)):
        raise ValueError(f"expected ridge as a number or of shape {[heads, features]}, got {list(jnp.shape(ridge))}")
    check("ridge", ridge, lambda x: x > 0, "above 0")
    return jnp.broadcast_to(jnp.asarray(ridge).astype(wide(q.dtype)), (heads, features))[:, None]


def _empty(k, v) -> MesaState:
    return MesaState(empty_memory(k, k), empty_memory(k, v))


class MesaLayer(Mixer):
    """Ridge regression of values on keys at every step, with a short convolution and gates.

        q, k, v = silu(convolution(W x)),   q = unit(q),   k = unit(k)
        g = -exp(log_speed) softplus(W_g x + bias),   b = sigmoid(W_b x)   for each head
        y = W_o [norm(head_1), norm(head_2), ...],   norm(o) = silu(W_z x) * gain * o / rms(o)

    where a head is `mesa_attention`, and the convolution goes over 4 steps of each channel.

    Args:
        features: Length of each vector, in and out.
        heads: Number of heads.
        head_features: The length of a head's queries, keys and values; `features / heads` by default.
        iterations: Of conjugate gradients; see `mesa_attention`.
        chunk_size: Steps of a chunk.
        key: For the initial weights.

    Attributes:
        heads: All parts except the memory: `projections`, `convolution`, `decay`, `rate_layer` and `norm`.
        ridge_parameter: `[heads, d]`; the ridge is `0.25 + softplus(ridge_parameter)`, initially 1.

    Raises:
        ValueError: If a size is below 1, or the heads do not divide the features.

    Example:
        >>> layer = MesaLayer(8, 2, key=jax.random.key(0))
        >>> y, state = layer(jnp.ones((5, 8)))
        >>> y.shape, state.convolution.shape
        ((5, 8), (3, 24))

    References:
        von Oswald et al., MesaNet: sequence modeling by locally optimal test-time training, arXiv 2506.05233.

    *Differs from the paper*: the gates and the normalisation are those of `GatedDeltaNet`, so that what differs is the
    memory alone.
    """

    heads: GatedHeads
    ridge_parameter: Float[Array, "heads d"]
    iterations: int = eqx.field(static=True)
    chunk_size: int = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        heads: int,
        *,
        head_features: int | None = None,
        iterations: int = 30,
        chunk_size: int = 64,
        key: PRNGKeyArray,
    ):
        check_turns("iterations", iterations, 1)
        self.heads = GatedHeads(features, heads, head_features, key=key)
        size = self.heads.projections.size
        self.ridge_parameter = jnp.full((heads, size), jnp.log(jnp.expm1(0.75)))
        self.iterations, self.chunk_size = iterations, chunk_size

    def __call__(
        self,
        x: Float[Array, "time features"],
        state: MemoryState | None = None,
        *,
        length: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "time features"], MemoryState]:
        settings = {"iterations": self.iterations, "chunk_size": self.chunk_size}
        ridge = 0.25 + jax.nn.softplus(self.ridge_parameter)
        return self.heads(functools.partial(mesa_attention, ridge=ridge, **settings), x, state, length)

    def empty(self) -> MemoryState:
        memory = MesaState(self.heads.empty_memory(), self.heads.empty_memory())
        return MemoryState(memory, self.heads.convolution.empty())
