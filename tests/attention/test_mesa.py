"""Mesa attention: ridge regression at every token."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix import full
from operator_checks import check_bfloat16, check_causal, check_padding, check_split, check_twins, inputs

from vicinal.attention.mesa import mesa_attention, naive_mesa_attention

pytestmark = pytest.mark.usefixtures("x64")
GATES = "log_decay", "rate"
RIDGE = jnp.asarray(np.random.default_rng(3).uniform(0.3, 1, (2, 4)))
fast, naive = (functools.partial(f, ridge=RIDGE) for f in (mesa_attention, naive_mesa_attention))


def test_the_naive_form_is_weighted_ridge_regression():
    q, k, v, g, b = (np.asarray(x) for x in inputs(8, *GATES))
    outputs, _ = jax.jit(naive)(*inputs(8, *GATES))
    for row, t, h in np.ndindex(q.shape[:3]):
        weight = np.sqrt([b[row, s, h] * np.exp(g[row, s + 1 : t + 1, h].sum()) for s in range(t + 1)])[:, None]
        # The least squares of weighted tokens, and of the ridge as further tokens of value zero.
        left = np.concatenate([weight * k[row, : t + 1, h], np.diag(np.sqrt(np.asarray(RIDGE[h], float)))])
        right = np.concatenate([weight * v[row, : t + 1, h], np.zeros((4, 3))])
        solution = np.linalg.lstsq(left, right, rcond=None)[0]
        np.testing.assert_allclose(outputs[row, t, h], q[row, t, h] @ solution, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("time", "chunk_size"), [full(1, 5), (3, 16), (63, 16), full(100, 16)])
def test_chunks_are_the_recurrence(time, chunk_size):
    check_twins(functools.partial(fast, chunk_size=chunk_size), naive, inputs(time, *GATES), 1e-9)


def test_the_gradient_of_the_ridge():
    *arrays, ridge = [*inputs(20, *GATES), RIDGE]
    check_twins(mesa_attention, naive_mesa_attention, [*arrays, ridge], 1e-9)


def test_reading_in_pieces():
    check_split(lambda s, *a: fast(*a, initial_state=s, chunk_size=16), inputs(40, *GATES), 2, 21)


def test_padding_has_no_influence():
    check_padding(lambda n, *a: fast(*a, lengths=n, chunk_size=8), inputs(20, *GATES), (9, 17))


def test_causal():
    check_causal(functools.partial(fast, chunk_size=8), inputs(20, *GATES), 11)


def test_sums_are_in_float32_under_bfloat16():
    assert check_bfloat16(fast, inputs(50, *GATES)).keys.dtype == jnp.float32


def test_what_does_not_fit_is_refused():
    arrays = inputs(4, *GATES)
    with pytest.raises(ValueError, match="expected ridge above 0"):
        mesa_attention(*arrays, 0.0)
    with pytest.raises(ValueError, match="expected ridge as a number"):
        mesa_attention(*arrays, jnp.ones(3))
    with pytest.raises(ValueError, match="iterations"):
        mesa_attention(*arrays, 1.0, iterations=0)
