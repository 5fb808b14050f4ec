"""Networks, rules and comparisons that tests of direct feedback share."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from once import once
from precision import double

import vicinal as vc
from vicinal.rules import DirectFeedback

KEY = jax.random.key(0)
SQUARED = vc.losses.squared_error


def residual(w, x):
    h = vc.vertex(jnp.tanh(w[0] @ x), "h1")
    for i in (1, 2):
        h = vc.vertex(h + jnp.tanh(w[i] @ h), f"h{i + 1}")
    return {"class": w[3] @ h, "value": (w[4] @ h)[0]}


def _weights(*shapes):
    return [jax.random.normal(k, s) / s[-1] ** 0.5 for k, s in zip(jax.random.split(KEY, 9), shapes, strict=False)]


MODELS = {
    "mlp": lambda: (vc.nn.MLP((5, 6, 4, 3), key=KEY), (5,)),
    "mlp, potentials": lambda: (vc.nn.MLP((5, 6, 4, 3), vertex_at="pre", key=KEY), (5,)),
    "convolutional": lambda: (
        vc.nn.ConvNet((2, 9, 9), [(3, 3, 1), (4, 3, 2)], (6, 3), activation="tanh", key=KEY),
        (2, 9, 9),
    ),
    "convolutional, potentials": lambda: (
        vc.nn.ConvNet((2, 8, 8), [(4, 3, 1)], (6, 3), pool=vc.nn.AvgPool2d(2), vertex_at="pre", key=KEY),
        (2, 8, 8),
    ),
    "recurrent, many to one": lambda: (vc.nn.RNN(3, 5, 3, vertex_at="pre", key=KEY), (4, 3)),
    "recurrent, each step": lambda: (vc.nn.RNN(3, 5, 3, every_step=True, key=KEY), (4, 3)),
    "two outputs": lambda: (jax.tree_util.Partial(residual, _weights((6, 5), (6, 6), (6, 6), (3, 6), (1, 6))), (5,)),
    "residual": lambda: (vc.nn.ResidualMLP((5, 8, 3), depth=6, vertex_at="pre", key=KEY), (5,)),
    "transformer": lambda: (vc.nn.Transformer(3, 8, 3, heads=2, length=4, key=KEY), (4, 3)),
}


def loss_of_all(output, target):
    return sum(SQUARED(o, t) for o, t in zip(jax.tree.leaves(output), jax.tree.leaves(target), strict=True))


@once
def task(name, batch=3):
    model, shape = MODELS[name]()
    return task_of(double(model), shape, batch)


def task_of(model, shape, batch=3):
    x = jax.random.normal(jax.random.key(1), (batch, *shape), jnp.float64)
    graph = vc.capture(model, x[0])
    output, _ = eqx.filter_jit(graph.feedforward)(model, x)
    return model, graph, x, jax.tree.map(lambda o: o + jax.random.normal(jax.random.key(2), o.shape, o.dtype), output)


def rule_of(*arguments, **settings):
    return DirectFeedback(*arguments, loss=loss_of_all, **settings)


def gradient(rule, graph, model, x, y, state=None):
    state = rule.init(graph, model, key=jax.random.key(3)) if state is None else state
    return eqx.filter_jit(rule.value_and_grad)(graph, model, state, x, y)[1]


def of_jax(model, x, y):
    """The gradient of the mean loss by jax.grad alone, the model as an ordinary function."""
    arrays, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(arrays):
        return jnp.mean(jax.vmap(loss_of_all)(jax.vmap(eqx.combine(arrays, static))(x), y))

    return jax.jit(jax.grad(loss))(arrays)


def assert_equal(found, expected, tolerance=1e-10):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def furthest(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.max(np.abs(np.asarray(one) - np.asarray(other)))) for one, other in pairs)


def convolutional():
    return task("convolutional")
