"""What every sequence layer answers to. A further layer is one line of `LAYERS`."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from once import once
from operator_checks import same, weighted

from vicinal.attention.base import Mixer
from vicinal.attention.gated_delta import GatedDeltaNet
from vicinal.attention.linear import LinearAttention
from vicinal.attention.mesa import MesaLayer
from vicinal.attention.ovq import OVQAttention
from vicinal.attention.sliding_window import SlidingWindowAttention
from vicinal.attention.softmax import SoftmaxAttention
from vicinal.attention.ssd import Mamba2
from vicinal.attention.vq import VQAttention

FEATURES, HEADS, TIME = 8, 2, 20
LAYERS = {
    "softmax": functools.partial(SoftmaxAttention, max_length=30),
    "rotary softmax": functools.partial(SoftmaxAttention, max_length=30, rotary=True),
    "sliding window": functools.partial(SlidingWindowAttention, window=5),
    "linear": functools.partial(LinearAttention, chunk_size=8),
    "mamba2": functools.partial(Mamba2, state_features=4, chunk_size=8),
    "gated delta": functools.partial(GatedDeltaNet, chunk_size=8),
    "mesa": functools.partial(MesaLayer, chunk_size=8),
    "ovq": functools.partial(OVQAttention, num_centroids=8, chunk_size=6),
    "ovq with convolution": functools.partial(OVQAttention, num_centroids=8, chunk_size=6, short_convolution=3),
    "vq": functools.partial(VQAttention, num_codes=6, chunk_size=8),
}
every_layer = pytest.mark.parametrize("name", LAYERS)
pytestmark = pytest.mark.usefixtures("x64")


@once
def made(name, dtype=float):
    """A layer with random parameters, and a sequence."""
    rng = np.random.default_rng(0)
    layer = eqx.filter_eval_shape(lambda: LAYERS[name](FEATURES, HEADS, key=jax.random.key(0)))
    is_shape = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)  # noqa: E731
    layer = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(-0.6, 0.6, leaf.shape), dtype) if is_shape(leaf) else leaf, layer
    )
    return layer, jnp.asarray(rng.normal(size=(TIME, FEATURES)), dtype)


def call(layer, x, state=None, length=None):
    return _call(layer, x, state, None if length is None else np.asarray(length))


@eqx.filter_jit
def _call(layer, x, state, length):
    return layer(x, state, length=length)


@eqx.filter_jit
def both(layer, x, length):
    """Outputs and state, and the gradient by the parameters and by the inputs."""

    def loss(arrays):
        results = arrays[0](arrays[1], length=length)
        return weighted(results), results

    (_, results), gradients = eqx.filter_value_and_grad(loss, has_aux=True)((layer, x))
    return results, gradients


@every_layer
def test_it_is_a_mixer(name):
    layer, x = made(name)
    assert isinstance(layer, Mixer)
    y, _ = call(layer, x)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert np.all(np.any(np.asarray(y) != 0, axis=1))


# The tests read pieces of the same lengths, so that each layer is compiled for few: 1 and 9 with a state, 11 without.


@every_layer
def test_reading_in_pieces_from_the_empty_state(name):
    layer, x = made(name)
    y, end = call(layer, x)
    state, outputs = layer.empty(), []
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(end), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
    for piece in (x[:1], x[1:2], x[2:11], x[11:]):
        output, state = call(layer, piece, state)
        outputs.append(output)
    same((np.concatenate(outputs), state), (y, end))


@every_layer
def test_padding_has_no_influence(name):
    layer, x = made(name)
    spoiled = np.array(x)
    spoiled[11:] = np.nan
    (y, state), (_, slope) = both(layer, jnp.asarray(spoiled), np.asarray(11))
    y, slope = np.asarray(y), np.asarray(slope)
    same((y[:11], state), call(layer, x[:11]))
    assert not np.any(y[11:])
    assert np.all(np.isfinite(slope))
    assert not np.any(slope[11:])


@every_layer
def test_going_on_after_padding(name):
    layer, x = made(name)
    (_, state), _ = both(layer, x, np.asarray(11))
    whole, end = call(layer, x)
    same(call(layer, x[11:], state), (whole[11:], end))


@every_layer
def test_causal(name):
    layer, x = made(name)
    changed = np.array(x)
    changed[11:] *= -0.5
    before, after = (np.asarray(call(layer, each)[0]) for each in (x, jnp.asarray(changed)))
    assert np.array_equal(before[:11], after[:11])
    assert np.any(before[11] != after[11])


@every_layer
def test_every_parameter_has_a_finite_gradient(name):
    _, (slopes, _) = both(*made(name), np.asarray(TIME))
    for path, slope in jax.tree_util.tree_leaves_with_path(slopes):
        assert np.all(np.isfinite(slope)), path
        assert np.any(np.asarray(slope) != 0), path


@every_layer
def test_a_sequence_of_zeros_has_finite_gradients(name):
    layer, x = made(name)
    _, (slopes, _) = both(layer, jnp.zeros_like(x), np.asarray(TIME))
    assert all(np.all(np.isfinite(slope)) for slope in jax.tree.leaves(slopes))


@every_layer
def test_a_batch_is_each_sequence_on_its_own(name):
    layer, x = made(name)
    batch, lengths = np.stack([x, -x]), np.asarray([TIME, 11])
    y, _ = eqx.filter_jit(eqx.filter_vmap(lambda x, n: layer(x, length=n)))(batch, lengths)
    same(y[0], call(layer, x)[0])
    same(y[1, :11], call(layer, -x[:11])[0])


@every_layer
def test_bfloat16(name):
    layer, x = made(name, jnp.bfloat16)
    wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, float)) if eqx.is_array(a) else a, (layer, x))
    y, end = call(layer, x)
    exact = np.asarray(call(*wide)[0])
    assert y.dtype == jnp.bfloat16
    assert np.sqrt(np.mean((np.asarray(y, float) - exact) ** 2)) < 0.05 * np.sqrt(np.mean(exact**2))
    assert [a.dtype for a in jax.tree.leaves(end)] == [a.dtype for a in jax.tree.leaves(layer.empty())]


@every_layer
def test_sizes_are_checked(name):
    with pytest.raises(ValueError, match="heads"):
        LAYERS[name](7, 2, key=jax.random.key(0))
    with pytest.raises(ValueError, match="expected heads"):
        LAYERS[name](8, 0, key=jax.random.key(0))
