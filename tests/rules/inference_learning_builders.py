"""Networks and runs that tests of inference learning share."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from once import once

import vicinal as vc
from vicinal.inference import Simultaneous


@once
def network(sizes=(4, 6, 5, 3), activation="tanh", vertex_at="post", batch=3, seed=0, scale=1.0):
    key = jax.random.key(seed)
    model = vc.nn.MLP(sizes, activation=activation, vertex_at=vertex_at, key=key)
    model = jax.tree.map(lambda leaf: jnp.asarray(scale * np.float64(leaf)) if eqx.is_array(leaf) else leaf, model)
    x = jax.random.normal(jax.random.key(seed + 1), (batch, sizes[0]), jnp.float64)
    y = jax.random.normal(jax.random.key(seed + 2), (batch, sizes[-1]), jnp.float64)
    return model, vc.capture(model, x[0]), x, y


@eqx.filter_jit
def run(rule, model, graph, x, y, key=None):
    credit, _ = rule.credit(graph, model, (), x, y, key=key)
    return credit, vc.local_gradient(graph, model, credit, x)


def squared(**settings):
    rule = {name: settings.pop(name) for name in ("nudge", "start", "precision", "throw") if name in settings}
    return vc.rules.InferenceLearning(Simultaneous(**settings), loss=vc.losses.squared_error, **rule)


def weights(gradient):
    return [layer.weight for layer in gradient.layers]
