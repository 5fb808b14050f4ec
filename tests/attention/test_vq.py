"""VQ-attention: softmax attention in which the keys of finished chunks are their nearest codes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix import full
from operator_checks import check_bfloat16, check_causal, check_padding, check_split, check_twins, inputs

from vicinal.attention.vq import empty_codes, naive_vq_attention, vq_attention

pytestmark = pytest.mark.usefixtures("x64")
BETA = np.asarray([2.0, 5.0])
CODES = np.random.default_rng(4).normal(size=(2, 6, 4)) / 2
SETTINGS = {"beta": BETA, "chunk_size": 5}


def fast(*arrays, **settings):
    return vq_attention(*arrays, codebook=jnp.asarray(CODES), **SETTINGS | settings)


def naive(*arrays, **settings):
    return naive_vq_attention(*arrays, codebook=jnp.asarray(CODES), **SETTINGS | settings)


def code(key, h):
    return np.argmin([np.sum((key - c) ** 2) for c in CODES[h]])


def test_the_naive_form_is_attention_to_codes():
    q, k, v = (np.asarray(x) for x in inputs(13))
    outputs, state = jax.jit(naive)(*inputs(13))
    for row, t, h in np.ndindex(q.shape[:3]):
        done = t // 5 * 5
        keys = [CODES[h, code(k[row, s, h], h)] if s < done else k[row, s, h] for s in range(t + 1)]
        weights = np.exp([BETA[h] * q[row, t, h] @ key for key in keys])
        wanted = sum(w * v[row, s, h] for s, w in enumerate(weights / weights.sum()))
        np.testing.assert_allclose(outputs[row, t, h], wanted, rtol=0, atol=1e-13)
    for row, h in np.ndindex(2, 2):
        counts = np.bincount([code(k[row, s, h], h) for s in range(10)], minlength=6)
        assert state.counts[row, h].tolist() == counts.tolist()


@pytest.mark.parametrize(("time", "chunk_size"), [full(1, 5), (3, 16), (63, 5), full(100, 16)])
def test_chunks_are_the_recurrence(time, chunk_size):
    both = (
        lambda q, k, v, codes, beta, f=f: f(q, k, v, codebook=codes, beta=beta, chunk_size=chunk_size)
        for f in (vq_attention, naive_vq_attention)
    )
    check_twins(*both, [*inputs(time), jnp.asarray(CODES), jnp.asarray(BETA)])


def test_the_codebook_learns_under_any_loss():
    q, k, v = inputs(13)
    settings = {"beta": BETA, "chunk_size": 5, "lengths": jnp.asarray([13, 8])}
    loss = lambda codes: 7 * jnp.sum(vq_attention(q, k, v, codebook=codes, **settings)[0] ** 2)  # noqa: E731
    wanted = np.zeros(CODES.shape)
    for row, n in enumerate((13, 8)):
        for t, h in np.ndindex(n, 2):
            z = code(np.asarray(k[row, t, h]), h)
            wanted[h, z] += (CODES[h, z] - k[row, t, h]) / 21
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(jnp.asarray(CODES)), wanted, rtol=0, atol=1e-14)


def test_the_gradient_goes_straight_through_to_finished_chunks():
    """With one token of each code it is that of attention to the codes, as if the key were the code."""
    q, k, v = (x[:1, :, :1] for x in inputs(7))
    codes = np.stack([np.eye(4), -np.eye(4)]).reshape(1, 8, 4)
    k = jnp.concatenate([codes[:, :5, None] * 0.9, k[:, 5:]], axis=1)

    def dense(keys):
        weights = jax.nn.softmax(2.0 * q[0, 6, 0] @ keys.T)
        return jnp.sum(weights @ v[0, :, 0])

    def ours(k):
        return jnp.sum(vq_attention(q, k, v, codebook=jnp.asarray(codes), beta=2.0, chunk_size=5)[0][0, 6, 0])

    keys = jnp.concatenate([codes[0, :5], k[0, 5:, 0]])
    np.testing.assert_allclose(jax.jit(jax.grad(ours))(k)[0, :, 0], jax.jit(jax.grad(dense))(keys), rtol=0, atol=1e-14)


def test_reading_in_pieces():
    check_split(lambda s, *a: fast(*a, initial_state=s), inputs(40), 4, 22)


def test_pieces_with_padding():
    """Rows that continue from different places of their chunks."""
    arrays, lengths, more = inputs(24), (4, 13), 11
    _, state = jax.jit(lambda n, *a: fast(*a, lengths=n))(jnp.asarray(lengths), *(x[:, :13] for x in arrays))
    rest = [np.stack([row[n : n + more] for row, n in zip(np.asarray(x), lengths, strict=True)]) for x in arrays]
    outputs, _ = jax.jit(lambda s, *a: fast(*a, initial_state=s))(state, *rest)
    whole, _ = jax.jit(fast)(*arrays)
    for b, n in enumerate(lengths):
        np.testing.assert_allclose(outputs[b], whole[b, n : n + more], rtol=0, atol=1e-13)


def test_padding_has_no_influence():
    check_padding(lambda n, *a: fast(*a, lengths=n), inputs(20), (9, 17))


def test_causal():
    check_causal(fast, inputs(20), 11)


def test_sums_are_in_float32_under_bfloat16():
    assert check_bfloat16(fast, inputs(50)).values.dtype == jnp.float32


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="codebook of shape"):
        vq_attention(*inputs(4), codebook=jnp.ones((2, 6, 3)), beta=1.0)
    state = empty_codes(2, 2, 6, 4, 3, chunk_size=5, dtype=float)
    with pytest.raises(ValueError, match="initial_state"):
        fast(*inputs(4), initial_state=state, chunk_size=6)
