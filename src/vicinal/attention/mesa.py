"""Mesa attention: the ridge regression of values on keys, at every token, and the layer made of it."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vicinal._numbers import check, check_count
from vicinal.attention._parts import (
    check_arrays,
    check_state,
    exact,
    prepared,
    read,
    scan_chunks,
    scan_tokens,
    write,
)
from vicinal.attention._projections import GatedHeads, batched, kept
from vicinal.attention.base import Mixer
from vicinal.attention.ssd import start


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
    """Answers each query by the linear map from keys to values that fits best what was read.

        H_t = a_t H_{t-1} + b_t k_t^T k_t,     S_t = a_t S_{t-1} + b_t k_t^T v_t,     a_t = e^{g_t}
        o_t = q_t (H_t + diag(ridge))^{-1} S_t

    which is ridge regression with the weight `b_s e^{g_{s+1} + ... + g_t}` for token `s`. In a chunk the systems of
    all queries are solved at once by conjugate gradients: one product of each `H_t` with a vector is a decayed linear
    attention. The derivative is that of the solution, by a second solve, and not that of the iterations.

    Args:
        q: Queries.
        k: Keys, usually of norm 1.
        v: Values.
        log_decay: `g`, finite and at most 0.
        rate: `b`, at least 0.
        ridge: Above 0, for all or for each head and feature.
        iterations: Of conjugate gradients. As many as there are features are exact but for rounding.
        chunk_size: Tokens of a chunk. It changes speed and rounding, and nothing else.
        initial_state: The state after what was read before; zeros by default.
        lengths: How many tokens of each row count. The others are padding on the right: they are not read, and their
            outputs are zero. All by default.

    Returns:
        The outputs, in the dtype of `v`, and the state to go on from, in float32, or float64 if the inputs are.

    Raises:
        ValueError: If shapes do not fit each other or the state, or the ridge is not above 0.
        TypeError: If dtypes do not fit each other.

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
    check_count("iterations", iterations, 1)
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

    state, inputs = _start(q, v, initial_state), prepared(lengths, q, k, v, log_decay, rate)
    outputs, state = scan_chunks(step, state, chunk_size, *inputs)
    return outputs.astype(v.dtype), state


def naive_mesa_attention(q, k, v, log_decay, rate, ridge, *, initial_state=None, lengths=None):
    """`mesa_attention` token by token with an exact solver; arguments and results are the same."""
    check_arrays(q, k, v, lengths, log_decay=log_decay, rate=rate)
    ridge = jnp.broadcast_to(_ridge(ridge, q)[:, 0], q.shape[2:])

    def step(state, token):
        q, k, v, log_decay, rate = token
        decay, rate = jnp.exp(log_decay)[..., None, None], rate[..., None, None]
        keys = decay * state.keys + rate * k[..., :, None] * k[..., None, :]
        values = decay * state.values + rate * k[..., :, None] * v[..., None, :]
        solution = jnp.linalg.solve(keys + jax.vmap(jnp.diag)(ridge)[None], q[..., None])[..., 0]
        return MesaState(keys, values), jnp.einsum("bhd,bhde->bhe", solution, values)

    state, inputs = _start(q, v, initial_state), prepared(lengths, q, k, v, log_decay, rate)
    outputs, state = scan_tokens(step, state, *inputs)
    return outputs.astype(v.dtype), state


def conjugate_gradients(product, b: Float[Array, "*rest d"], iterations: int) -> Float[Array, "*rest d"]:
    """Solves a positive definite system for every vector, `product(x) = b`."""

    def dot(x, y):
        return jnp.sum(x * y, axis=-1, keepdims=True)

    def ratio(x, y):  # a vector that is solved stays as it is
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
    return jnp.broadcast_to(jnp.asarray(ridge).astype(exact(q.dtype)), (heads, features))[:, None]


def _start(q, v, initial_state) -> MesaState:
    empty = MesaState(start(q, q, None), start(q, v, None))
    if initial_state is None:
        return empty
    check_state(initial_state, empty)
    return initial_state


class MesaLayerState(NamedTuple):
    """What a layer has read.

    Attributes:
        memory: The `MesaState`, for a batch of one.
        convolution: The last 3 queries, keys and values before the convolution.
    """

    memory: MesaState
    convolution: Float[Array, "3 channels"]


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
        heads: All but the memory: `projections`, `convolution`, `decay`, `rate_layer` and `norm`.
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
        check_count("iterations", iterations, 1)
        self.heads = GatedHeads(features, heads, head_features, key=key)
        size = self.heads.projections.size
        self.ridge_parameter = jnp.full((heads, size), jnp.log(jnp.expm1(0.75)))
        self.iterations, self.chunk_size = iterations, chunk_size

    def __call__(
        self,
        x: Float[Array, "time features"],
        state: MesaLayerState | None = None,
        *,
        length: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "time features"], MesaLayerState]:
        x = kept(x, length)
        memory, last = (None, self.heads.convolution.empty()) if state is None else state
        inputs, last = self.heads.inputs(x, last, length)
        q, k, v, log_decay, rate = inputs
        ridge = 0.25 + jax.nn.softplus(self.ridge_parameter)
        settings = {"chunk_size": self.chunk_size, "initial_state": memory, "lengths": batched(length)}
        outputs, memory = mesa_attention(q, k, v, log_decay, rate, ridge, iterations=self.iterations, **settings)
        return self.heads.output(outputs, x), MesaLayerState(memory, last)

    def empty(self) -> MesaLayerState:
        memory = MesaState(self.heads.empty_memory(), self.heads.empty_memory())
        return MesaLayerState(memory, self.heads.convolution.empty())
