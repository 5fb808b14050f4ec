"""Every rule on the architectures that the conformance suite leaves out: each learns one batch."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matrix import diagonal

import vicinal as vc
from vicinal.inference import Adaptive, ErrorBased, Sequential
from vicinal.rules import ZIL, ActivationRelaxation, FixedPrediction, IncrementalPC, InferenceLearning

KEY = jax.random.key(0)
SQUARED = vc.losses.squared_error

RULES = {
    "simultaneous": InferenceLearning(loss=SQUARED),
    "sequential": InferenceLearning(inference=Sequential(step_size=0.5), loss=SQUARED),
    "error-based": InferenceLearning(inference=ErrorBased(), loss=SQUARED),
    "adaptive": InferenceLearning(inference=Adaptive(steps=12), loss=SQUARED),
    "fixed prediction": FixedPrediction(loss=SQUARED),
    "Z-IL": ZIL(loss=SQUARED),
    "activation relaxation": ActivationRelaxation(steps=2, step_size=1.0, loss=SQUARED),
    "incremental": IncrementalPC(steps=4, loss=SQUARED),
}


def plain_function(theta, x):
    root = vc.vertex(jnp.sqrt(vc.vertex(theta[0] * x, "product")), "root")
    tangent, sine = vc.vertex(jnp.tan(root), "tangent"), vc.vertex(jnp.sin(vc.vertex(x**2, "square")), "sine")
    return tangent + theta[1] * sine


MODELS = {
    "autoencoder": lambda: (vc.nn.Autoencoder((6, 5, 3, 5, 6), activation="tanh", key=KEY), (6,)),
    "recurrent, each step": lambda: (vc.nn.RNN(3, 6, 2, every_step=True, key=KEY), (4, 3)),
    "residual": lambda: (vc.nn.ResidualMLP((5, 8, 3), depth=8, key=KEY), (5,)),
    "transformer": lambda: (vc.nn.Transformer(3, 8, 3, heads=2, length=4, key=KEY), (4, 3)),
    "plain function": lambda: (jax.tree_util.Partial(plain_function, jnp.array([0.5, 1.5])), ()),
}


@pytest.mark.parametrize(("name", "rule"), diagonal(MODELS, RULES))
def test_every_rule_learns_on_every_architecture(name, rule):
    rule = RULES[rule]
    model, shape = MODELS[name]()
    x = jnp.abs(jax.random.normal(jax.random.key(1), (4, *shape)))
    graph = vc.capture(model, x[0])
    output, _ = eqx.filter_jit(graph.feedforward)(model, x)
    teacher = jax.tree_util.Partial(plain_function, jnp.array([0.7, 1.0]))
    noise = 0.5 * jax.random.normal(jax.random.key(2), output.shape)
    y = eqx.filter_jit(graph.feedforward)(teacher, x)[0] if name == "plain function" else output + noise
    arrays, static = eqx.partition(model, eqx.is_array)
    optimizer = optax.adam(3e-3)

    def body(carry, _):
        arrays, state = carry
        model, state, _, loss, _ = rule.step(graph, optimizer, eqx.combine(arrays, static), state, (), x, y)
        return (eqx.filter(model, eqx.is_array), state), loss

    start = (arrays, optimizer.init(eqx.filter(model, eqx.is_inexact_array)))
    (ended, _), losses = jax.jit(lambda carry: jax.lax.scan(body, carry, length=60))(start)
    assert losses[-1] < 0.9 * losses[0]
    changed = [bool(jnp.any(a != b)) for a, b in zip(jax.tree.leaves(ended), jax.tree.leaves(arrays), strict=True)]
    assert np.mean(changed) > 0.9  # every part of the model learns
