"""Linear attention, with and without decay, and the gated delta rule: sums over what was read."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix import full
from operator_checks import (
    SIZES,
    check_bfloat16,
    check_causal,
    check_padding,
    check_split,
    check_twins,
    inputs,
    same,
)

from vicinal.attention._parts import unit_lower_solve
from vicinal.attention.gated_delta import gated_delta_rule, naive_gated_delta_rule
from vicinal.attention.linear import linear_attention, naive_linear_attention
from vicinal.attention.ssd import decayed_linear_attention, naive_decayed_linear_attention

pytestmark = pytest.mark.usefixtures("x64")

mean, naive_mean = (functools.partial(f, normalize=True) for f in (linear_attention, naive_linear_attention))
OPERATORS = {
    "linear": (linear_attention, naive_linear_attention, ()),
    "mean": (mean, naive_mean, ()),
    "decayed": (decayed_linear_attention, naive_decayed_linear_attention, ("log_decay",)),
    "delta": (gated_delta_rule, naive_gated_delta_rule, ("log_decay", "rate")),
}
every_operator = pytest.mark.parametrize("name", OPERATORS)


def made(name, time):
    fast, naive, gates = OPERATORS[name]
    q, k, *rest = inputs(time, *gates)
    if name == "mean":  # weights of a mean are positive
        q, k = jnp.abs(q), jnp.abs(k)
    return fast, naive, [q, k, *rest]


def by_hand(name, q, k, v, g=None, b=None):
    """One head, one token, one matrix at a time."""
    outputs = np.zeros(v.shape)
    for row in range(q.shape[0]):
        for h in range(q.shape[2]):
            S, z = np.zeros((q.shape[3], v.shape[3])), np.zeros(q.shape[3])
            for t in range(q.shape[1]):
                query, key, value = (np.asarray(x[row, t, h]) for x in (q, k, v))
                if name == "delta":
                    rate = float(b[row, t, h])
                    S = np.exp(g[row, t, h]) * (np.eye(len(key)) - rate * np.outer(key, key)) @ S
                    S = S + rate * np.outer(key, value)
                else:
                    S = (np.exp(g[row, t, h]) if name == "decayed" else 1) * S + np.outer(key, value)
                z = z + key
                outputs[row, t, h] = query @ S / (query @ z if name == "mean" else 1)
    return outputs


@every_operator
def test_the_recurrence_by_hand(name):
    _, naive, arrays = made(name, 7)
    np.testing.assert_allclose(jax.jit(naive)(*arrays)[0], by_hand(name, *arrays), rtol=0, atol=1e-13)


@every_operator
@pytest.mark.parametrize(("time", "chunk_size"), SIZES)
def test_chunks_are_the_recurrence(name, time, chunk_size):
    fast, naive, arrays = made(name, time)
    check_twins(functools.partial(fast, chunk_size=chunk_size), naive, arrays)


@every_operator
def test_reading_in_pieces(name):
    fast, _, arrays = made(name, 40)
    check_split(lambda s, *a: fast(*a, chunk_size=16, initial_state=s), arrays, 2, 21)


@every_operator
def test_padding_has_no_influence(name):
    fast, _, arrays = made(name, 20)
    check_padding(lambda n, *a: fast(*a, chunk_size=8, lengths=n), arrays, (9, 17))


@every_operator
def test_causal(name):
    fast, _, arrays = made(name, 20)
    check_causal(functools.partial(fast, chunk_size=8), arrays, 11)


@every_operator
def test_sums_are_in_float32_under_bfloat16(name):
    fast, _, arrays = made(name, 100)
    assert check_bfloat16(fast, arrays).dtype == jnp.float32


@every_operator
def test_no_tokens(name):
    fast, _, arrays = made(name, 3)
    _, state = jax.jit(fast)(*arrays)
    outputs, after = jax.jit(fast)(*(np.asarray(x)[:, :0] for x in arrays), initial_state=state)
    assert outputs.shape[1] == 0
    same(after, state)


def test_strong_decay_stays_finite():
    q, k, v, _ = inputs(64, "log_decay")
    outputs, _ = jax.jit(decayed_linear_attention)(q, k, v, np.full(q.shape[:3], -200.0))
    q, k, v = map(np.asarray, (q, k, v))
    same(outputs, np.sum(q * k, axis=-1, keepdims=True) * v)


def test_a_full_step_without_decay_stores_the_value():
    _, k, v, g, b = inputs(30, "log_decay", "rate")
    same(jax.jit(gated_delta_rule)(k, k, v, np.zeros(g.shape), np.ones(b.shape))[0], v)


@pytest.mark.parametrize("size", [1, full(2), 7, full(64)])
def test_the_triangular_system_is_solved_with_its_derivatives(size):
    rng = np.random.default_rng(size)
    a, b, weight = (rng.normal(size=(2, 3, size, n)) for n in (size, 5, 5))
    a = a / size**0.5  # or the solution of 64 equations is as large as 1e9
    lower = np.tril(a, -1) + np.eye(size)
    same(jax.jit(unit_lower_solve)(a, b), np.linalg.solve(lower, b))  # what is not below the diagonal is not read

    def by_lapack(a, b):
        return jax.lax.linalg.triangular_solve(a, b, left_side=True, lower=True, unit_diagonal=True)

    def summed(solve, a, b):
        return jnp.sum(weight * solve(a, b) ** 2)

    gradient = jax.jit(jax.grad(summed, argnums=(1, 2)), static_argnums=0)
    for one, other in zip(gradient(unit_lower_solve, a, b), gradient(by_lapack, a, b), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12 * np.max(np.abs(other)))


def test_what_does_not_fit_is_refused():
    q, k, v, g = inputs(4, "log_decay")
    with pytest.raises(ValueError, match="expected q and k of shape"):
        linear_attention(q, k[:, 1:], v)
    with pytest.raises(ValueError, match="log_decay"):
        decayed_linear_attention(q, k, v, g[:, 1:])
    with pytest.raises(ValueError, match="initial_state"):
        linear_attention(q, k, v, initial_state=jnp.zeros((2, 2, 4, 5)))
    with pytest.raises(ValueError, match="chunk_size"):
        linear_attention(q, k, v, chunk_size=0)
    with pytest.raises(ValueError, match="lengths"):
        linear_attention(q, k, v, lengths=jnp.ones(3, int))
    with pytest.raises(TypeError, match="one floating dtype"):
        linear_attention(q, k, v.astype(jnp.float32))
