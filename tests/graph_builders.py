"""Small models that tests of graphs share."""

import jax
import jax.numpy as jnp

import vicinal as vc

KEY = jax.random.key(0)


def two_layers(weights, x):
    hidden = vc.vertex(jnp.tanh(weights[0] @ x), "hidden")
    return weights[1] @ hidden


def bound(function, *shapes):
    keys = jax.random.split(KEY, len(shapes))
    parameters = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]
    return jax.tree_util.Partial(function, parameters)


def scanned(weights, x):
    def body(h, w):
        return vc.vertex(jnp.tanh(w @ h), "hidden"), None

    return jax.lax.scan(body, x, weights[0])[0]
