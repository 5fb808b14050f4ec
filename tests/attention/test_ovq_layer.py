"""OVQ-attention as a layer."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix import full
from ovq_inputs import softmax_attention, used_rows

from vicinal.attention.ovq import OVQAttention, grow_state, state_bytes, with_schedule

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)


def make(**settings):
    settings = {"features": 6, "heads": 2, "chunk_size": 4, "num_centroids": 10, "key": KEY} | settings
    return OVQAttention(settings.pop("features"), settings.pop("heads"), **settings)


def normal(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), float)


run = eqx.filter_jit(lambda layer, x, state=None, length=None: layer(x, state, length=length))


def convolved(x, weight):
    """One step and one tap at a time."""
    y = np.zeros_like(x)
    for t in range(len(x)):
        for s in range(min(t + 1, len(weight))):
            y[t] += weight[len(weight) - 1 - s] * x[t - s]
    return y


@pytest.mark.parametrize("short_convolution", [None, 1, 3])
def test_by_hand(x64, short_convolution):
    """Where every token is a centroid, the layer is softmax attention of normalised queries and keys."""
    layer = make(growth="min", num_centroids=20, head_features=5, short_convolution=short_convolution)
    layer = eqx.tree_at(lambda x: x.log_temperature, layer, jnp.asarray([0.3, -0.2]))
    x = normal(20, 6)
    layers = (layer.projections.query_layer, layer.projections.key_layer, layer.projections.value_layer)
    projected = np.concatenate([np.asarray(x) @ np.asarray(part.weight).T for part in layers], axis=1)
    if short_convolution is not None:
        projected = convolved(projected, np.asarray(layer.convolution.weight))
        projected = projected / (1 + np.exp(-projected))
    q, k, v = (part.reshape(1, 20, 2, 5) for part in np.split(projected, 3, axis=1))
    q, k = (part / (np.linalg.norm(part, axis=-1, keepdims=True) + 1e-5) for part in (q, k))
    beta = np.exp([0.3, -0.2]) * 5**0.5
    heads = [softmax_attention(*(part[:, :, h : h + 1] for part in (q, k, v)), beta[h]) for h in (0, 1)]
    expected = np.concatenate(heads, axis=2).reshape(20, 10) @ np.asarray(layer.projections.output_layer.weight).T
    np.testing.assert_allclose(run(layer, x)[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("settings", [{}, {"short_convolution": 3, "join": "random", "seed": 7}])
@pytest.mark.parametrize("pieces", [(1,) * 23, (1, 11, 11)])
def test_splitting_changes_nothing(x64, settings, pieces):
    layer = make(**settings)
    x = normal(23, 6)
    whole, end = run(layer, x)
    outputs, start, state = [], 0, layer.empty()
    assert jax.tree.map(lambda a: (a.shape, a.dtype), state) == jax.tree.map(lambda a: (a.shape, a.dtype), end)
    for n in pieces:
        piece, state = run(layer, x[start : start + n], state)
        outputs.append(piece)
        start += n
    np.testing.assert_allclose(np.concatenate(outputs), whole, rtol=0, atol=1e-12)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(end), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [full(0), 3, full(8), full(23)])
def test_padding_is_not_read(x64, length):
    layer = make(short_convolution=3)
    x = normal(23, 6)
    dirty = np.array(x)
    dirty[length:] = 1e6
    alone, end = run(layer, x[:length])
    padded, padded_end = run(layer, jnp.asarray(dirty), None, jnp.asarray(length))
    np.testing.assert_allclose(padded[:length], alone, rtol=0, atol=1e-12)
    assert np.all(np.asarray(padded[length:]) == 0)
    for a, b in zip(jax.tree.leaves(padded_end), jax.tree.leaves(end), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    after = normal(3, 6, seed=2)
    np.testing.assert_allclose(run(layer, after, padded_end)[0], run(layer, after, end)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("short_convolution", [None, 2])
def test_an_output_depends_on_all_earlier_inputs_and_on_no_later_one(x64, short_convolution):
    """Through the queries, keys and values, and back to the first chunk; the derivative by a later one is exactly 0."""
    layer = make(short_convolution=short_convolution)
    x = normal(17, 6)
    jacobian = jax.jit(jax.jacobian(lambda x: layer(x)[0]))(x)
    reach = np.abs(np.asarray(jacobian)).sum(axis=(1, 3))  # [time of the output, time of the input]
    later = np.triu(np.ones((17, 17), bool), 1)
    assert np.all(reach[later] == 0)
    assert np.all(reach[~later] > 0)


def test_every_parameter_has_a_gradient():
    layer = make(short_convolution=3)

    def loss(layer, x):
        outputs, _ = jax.vmap(layer)(x)
        return jnp.sum(outputs**2)

    x = np.array(normal(3, 23, 6))
    x[0, 5] = 0  # a step of zeros, whose norms are zero
    gradients = eqx.filter_jit(eqx.filter_grad(loss))(layer, x)
    leaves = jax.tree.leaves(gradients)
    assert len(leaves) == len(jax.tree.leaves(layer)) == 6
    for gradient in leaves:
        assert np.all(np.isfinite(gradient))
        assert np.any(np.asarray(gradient) != 0)


def test_another_number_of_centroids_at_test_time(x64):
    layer = make(chunk_size=10, features=8)
    x = normal(120, 8)
    errors = []
    for number in (6, 24):
        other = with_schedule(layer, num_centroids=number)
        assert jax.tree.leaves(other) == jax.tree.leaves(layer)
        _, state = run(other, x)
        assert state.attention.counts.shape == (1, 2, number)
        mu, _, counts = used_rows(state.attention)
        errors.append((120 - counts @ np.sum(mu**2, axis=1)) / 120)
    assert layer.schedule.num_centroids == 10
    assert np.all(np.diff(errors) < -0.01)  # the mean squared distance of the keys to their centroids
    _, state = run(layer, x[:50])
    grown = eqx.tree_at(lambda s: s.attention, state, grow_state(state.attention, 24))
    _, end = run(with_schedule(layer, num_centroids=24), x[50:], grown)
    assert np.sum(np.asarray(end.attention.counts[0, 0]) > 0) == 120 * 24 // 144
    with pytest.raises(ValueError, match="num_centroids as an integer of at least 2, got 1"):
        with_schedule(layer, num_centroids=1)


def test_the_state_is_of_one_size():
    layer = make(short_convolution=3)
    states = [run(layer, normal(time, 6))[1] for time in (3, 300)]
    assert state_bytes(states[0]) == state_bytes(states[1]) == state_bytes(layer.empty())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"features": 7}, "features that heads=2 divides, got 7; or give head_features"),
        ({"heads": 0}, "heads as an integer of at least 1, got 0"),
        ({"head_features": 0}, "head_features as an integer of at least 1, got 0"),
        ({"short_convolution": 0}, "short_convolution as an integer of at least 1, got 0"),
        ({"chunk_size": 1}, "chunk_size as an integer of at least 2, got 1"),
        ({"growth": "linear"}, "max_length with growth='linear', got None"),
        ({"join": "none"}, "join as one of"),
        ({"learning_rate": 0.1}, "memory='autodiff' with learning_rate=0.1"),
    ],
)
def test_clear_errors(settings, words):
    with pytest.raises(ValueError, match=words):
        make(**settings)
