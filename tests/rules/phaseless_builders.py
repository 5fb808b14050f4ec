"""Networks, batches and times that tests of phaseless alignment share."""

import equinox as eqx
import jax

import vicinal as vc
from vicinal.rules import TimeConstants

KEY = jax.random.key(0)
SQUARED = vc.losses.squared_error
SHORT = TimeConstants(dt=0.5, xi=1.0, high_pass=1.0, presentation=5.0, low_pass=10.0)


def network(*sizes, activation="tanh", gain=1.0, key=KEY, **settings):
    model = vc.nn.MLP(sizes, activation, vertex_at="pre", key=key, **settings)
    return jax.tree.map(lambda leaf: gain * leaf if eqx.is_inexact_array(leaf) else leaf, model)


def batch_of(model, batch, key=1):
    keys = jax.random.split(jax.random.key(key))
    dtype = model.layers[0].weight.dtype
    x = jax.random.normal(keys[0], (batch, model.layers[0].weight.shape[1]), dtype)
    return x, jax.random.normal(keys[1], (batch, model.layers[-1].weight.shape[0]), dtype)


def conv_net(pool=None, sizes=(7, 3)):
    return vc.nn.ConvNet((2, 8, 8), [(3, 3, 1)], sizes, "tanh", vertex_at="pre", pool=pool, key=KEY)
