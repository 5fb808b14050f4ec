"""Networks, rules and closed forms that tests of dynamic inversion share."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from once import once

import vicinal as vc
from vicinal.rules import DynamicInversion
from vicinal.rules.inversion import Dynamic

KEY = jax.random.key(0)
SQUARED = vc.losses.squared_error


def layers(weights, x):
    """A linear network."""
    for i, weight in enumerate(weights[:-1]):
        x = vc.vertex(weight @ x, f"h{i}")
    return weights[-1] @ x


@once
def linear(*sizes, seed=0, batch=3):
    """A linear network, and a batch for it: `(model, graph, x, y)`."""
    generator = np.random.default_rng(seed)
    weights = [
        jnp.asarray(generator.normal(size=(up, down)) * 0.6 / down**0.5) for down, up in itertools.pairwise(sizes)
    ]
    model = jax.tree_util.Partial(layers, weights)
    x, y = (jnp.asarray(generator.normal(size=(batch, n))) for n in (sizes[0], sizes[-1]))
    return model, vc.capture(model, x[0]), x, y


def rule_of(inversion=None, *, steps=100_000, tolerance=1e-13, activation="identity", **settings):
    """A rule with the squared error, its loops run to rest unless another inversion is given."""
    inversion = Dynamic(steps, tolerance, activation) if inversion is None else inversion
    return DynamicInversion(inversion=inversion, loss=SQUARED, **settings)


def credit(rule, task, state=None):
    model, graph, x, y = task
    state = rule.init(graph, model, key=KEY) if state is None else state
    return eqx.filter_jit(rule.credit)(graph, model, state, x, y)[0], state


def error_of(model, x, y):
    return np.asarray(y - jax.vmap(model)(x))


def at_rest(weight, back, leak, errors):
    """`B (W B - leak)^-1 e`, an example at a time."""
    inverse = np.linalg.inv(weight @ back - leak * np.eye(len(weight)))
    return np.stack([back @ (inverse @ error) for error in errors])
