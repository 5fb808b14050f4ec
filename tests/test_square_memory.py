"""What grows with the square of a size is refused in a sentence where memory certainly does not hold it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vicinal as vc
from vicinal import _memory
from vicinal.analysis import conditioning
from vicinal.attention import softmax_attention
from vicinal.rules.inversion import _eigenvalues

LONG = 10**6


def test_scores_of_softmax_attention():
    tokens = jnp.ones((1, LONG, 2, 1))
    with pytest.raises(MemoryError, match=r"at least 8 TB for 2000000000000 scores of attention, got .* free; take sh"):
        softmax_attention(tokens, tokens, tokens, beta=1.0)


def test_scores_of_a_layer():
    layer = vc.nn.SelfAttention(2, 2, key=jax.random.key(0))
    with pytest.raises(MemoryError, match=r"at least 8 TB for 2000000000000 scores of attention"):
        layer(jnp.ones((LONG, 2)))


def test_shapes_of_attention_are_known_for_any_length():
    """Nothing is held, so nothing is refused."""
    layer = vc.nn.SelfAttention(2, 2, key=jax.random.key(0))
    assert jax.eval_shape(layer, jax.ShapeDtypeStruct((LONG, 2), "float32")).shape == (LONG, 2)
    tokens = jax.ShapeDtypeStruct((1, LONG, 2, 1), "float32")
    outputs, _ = jax.eval_shape(lambda q: softmax_attention(q, q, q, beta=1.0), tokens)
    assert outputs.shape == tokens.shape


def test_dense_hessians(monkeypatch):
    monkeypatch.setattr(_memory, "SMALL", 0)
    monkeypatch.setattr(_memory, "free_host_bytes", lambda *, swap: 2 * 30**2 * 4 - 1)
    model, x = vc.nn.MLP((4, 10, 20, 3), key=jax.random.key(0)), jnp.ones((2, 4))
    graph = vc.capture(model, x[0])
    problem = vc.rules.InferenceLearning().problem(graph, model, x, jnp.zeros(2, int))
    with pytest.raises(MemoryError, match=r"for 2 Hessians of shape \[30, 30\], got .* a smaller dense_below"):
        conditioning(problem, graph.feedforward(model, x)[1])


def test_matrices_of_loops():
    weight = np.broadcast_to(np.float32(0), (LONG, LONG))  # one number, seen many times
    with pytest.raises(MemoryError, match=r"at least 32 TB for the matrix of a loop, \[2000000, 2000000\]"):
        _eigenvalues.loop_matrix(weight, weight, 0.1)
    with pytest.raises(MemoryError, match="at least 8 TB for the product of a loop of 1000000 and 1000000 units"):
        _eigenvalues.eigenvalues(weight, weight, 0.1)
