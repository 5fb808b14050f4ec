"""Softmax attention to all earlier tokens, and to a window."""

import functools

import jax
import jax.numpy as jnp
import matrix
import numpy as np
import pytest
from operator_checks import check_bfloat16, check_causal, check_padding, check_split, check_twins, inputs, same

from vicinal.attention.sliding_window import empty_window, naive_sliding_window_attention, sliding_window_attention
from vicinal.attention.softmax import naive_softmax_attention, softmax_attention

pytestmark = pytest.mark.usefixtures("x64")

BETA = jnp.asarray([2.0, 5.0], jnp.float32)
full, naive_full = (
    functools.partial(f, beta=BETA, max_length=120) for f in (softmax_attention, naive_softmax_attention)
)
SETTINGS = {"beta": BETA, "window": 7}
near, naive_near = (
    functools.partial(f, **SETTINGS) for f in (sliding_window_attention, naive_sliding_window_attention)
)
OPERATORS = {"full": (full, naive_full), "near": (near, naive_near)}
every_operator = pytest.mark.parametrize("name", OPERATORS)


def by_hand(q, k, v, window):
    outputs = np.zeros(v.shape)
    for row, t, h in np.ndindex(q.shape[:3]):
        seen = range(max(0, t - window + 1), t + 1)
        weights = np.exp([float(BETA[h]) * np.dot(q[row, t, h], k[row, s, h]) for s in seen])
        outputs[row, t, h] = sum(w * v[row, s, h] for w, s in zip(weights / weights.sum(), seen, strict=True))
    return outputs


@every_operator
def test_the_naive_form_by_hand(name):
    arrays = [np.asarray(x) for x in inputs(9)]
    naive = jax.jit(OPERATORS[name][1])(*map(jnp.asarray, arrays))[0]
    np.testing.assert_allclose(naive, by_hand(*arrays, 7 if name == "near" else 9), rtol=0, atol=1e-13)


@every_operator
@pytest.mark.parametrize("time", [matrix.full(1), 3, 63])
def test_the_fast_form_is_the_naive_one(name, time):
    check_twins(*OPERATORS[name], inputs(time))


@pytest.mark.parametrize(("time", "chunk_size"), [(63, 5), matrix.full(63, 16), matrix.full(100, 7)])
def test_a_window_at_any_length(time, chunk_size):
    arrays = inputs(time)
    got, _ = jax.jit(functools.partial(near, chunk_size=chunk_size))(*arrays)
    np.testing.assert_allclose(got, by_hand(*map(np.asarray, arrays), 7), rtol=0, atol=1e-13)


def test_a_window_over_everything_is_full_attention():
    arrays = inputs(20)
    over_all = jax.jit(functools.partial(sliding_window_attention, beta=BETA, window=20))
    same(over_all(*arrays)[0], jax.jit(full)(*arrays)[0])


def test_float32_by_the_library_is_the_naive_form():
    q, k, _ = (x.astype(jnp.float32) for x in inputs(33))
    arrays = q, k, k
    same(jax.jit(full)(*arrays)[0], jax.jit(naive_full)(*arrays)[0], 1e-5)


@every_operator
def test_reading_in_pieces(name):
    fast = OPERATORS[name][0]
    check_split(lambda s, *a: fast(*a, initial_state=s), inputs(40), 4, 22)


@pytest.mark.parametrize("name", OPERATORS)
def test_pieces_with_padding(name):
    """Rows that continue from different places."""
    fast, arrays, lengths, more = OPERATORS[name][0], inputs(20), (4, 11), 9
    _, state = jax.jit(lambda n, *a: fast(*a, lengths=n))(jnp.asarray(lengths), *(x[:, :11] for x in arrays))
    rest = [np.stack([row[n : n + more] for row, n in zip(np.asarray(x), lengths, strict=True)]) for x in arrays]
    outputs, _ = jax.jit(lambda s, *a: fast(*a, initial_state=s))(state, *rest)
    whole, _ = jax.jit(fast)(*arrays)
    for b, n in enumerate(lengths):
        same(outputs[b], whole[b, n : n + more])


@every_operator
def test_padding_has_no_influence(name):
    fast = OPERATORS[name][0]
    check_padding(lambda n, *a: fast(*a, lengths=n), inputs(20), (9, 17))


@every_operator
def test_causal(name):
    check_causal(OPERATORS[name][0], inputs(20), 11)


@every_operator
def test_bfloat16(name):
    q, k, _ = inputs(50)
    check_bfloat16(OPERATORS[name][0], [q, k, k])


def test_what_lies_before_the_window_has_no_influence():
    q, k, v = inputs(20)
    slope = jax.jit(jax.grad(lambda v: near(q, k, v)[0][0, 15, 0, 0]))(v)[0, :, 0, 0]
    assert np.flatnonzero(slope).tolist() == list(range(9, 16))


def test_tokens_beyond_the_capacity():
    arrays = inputs(4)
    with pytest.raises(ValueError, match="max_length=3"):
        softmax_attention(*arrays, beta=1.0, max_length=3)
    _, state = jax.jit(functools.partial(softmax_attention, beta=1.0, max_length=5))(*arrays)
    with pytest.raises(ValueError, match="max_length=5"):
        softmax_attention(*arrays, beta=1.0, initial_state=state)
    outputs, _ = jax.jit(lambda s, *a: softmax_attention(*a, beta=1.0, initial_state=s))(state, *arrays)
    assert np.all(np.isfinite(outputs[:, :1]))
    assert np.all(np.isnan(outputs[:, 1:]))


def test_what_does_not_fit_is_refused():
    arrays = inputs(4)
    with pytest.raises(ValueError, match="beta"):
        softmax_attention(*arrays, beta=jnp.ones(3))
    with pytest.raises(ValueError, match="window"):
        sliding_window_attention(*arrays, beta=1.0, window=0)
    state = empty_window(2, 2, 4, 3, window=7, dtype=float)
    with pytest.raises(ValueError, match="initial_state"):
        sliding_window_attention(*arrays, beta=1.0, window=8, initial_state=state)
