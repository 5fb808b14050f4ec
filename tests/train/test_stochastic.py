"""Training of models with dropout: records, resuming, sweeps."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vicinal as vc
from vicinal.train import fit, sweep

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (40, 3))
Y = (X[:, 0] > 0).astype(int)
RULE, OPTIMIZER = vc.rules.InferenceLearning(), optax.adam(0.02)


class Dropped(eqx.Module):
    below: eqx.nn.Linear
    dropout: eqx.nn.Dropout
    above: eqx.nn.Linear

    def __init__(self, key):
        first, second = jax.random.split(key)
        self.below, self.above = eqx.nn.Linear(3, 8, key=first), eqx.nn.Linear(8, 2, key=second)
        self.dropout = eqx.nn.Dropout(0.5)

    def __call__(self, x, *, key=None):
        h = vc.vertex(jnp.tanh(self.below(x)), "h")
        return self.above(self.dropout(h, key=key))


MODEL = Dropped(KEY)
GRAPH = vc.capture(MODEL, X[0])


def run(**settings):
    settings = {"key": KEY, "batch_size": 10, "test": (X, Y), "graph": GRAPH, "progress": False} | settings
    return fit(RULE, MODEL, OPTIMIZER, (X, Y), **settings)


def test_the_test_accuracy_is_that_of_evaluation_mode():
    done = run(steps=8, evaluate_every=8)
    logits = jax.vmap(eqx.nn.inference_mode(done.model))(X)
    assert done.records[-1]["test_accuracy"] == pytest.approx(float(jnp.mean(jnp.argmax(logits, 1) == Y)))
    expected = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, Y))
    assert done.records[-1]["test_loss"] == pytest.approx(float(expected), rel=1e-5)


def test_a_resumed_run_has_the_same_bits(tmp_path):
    whole = run(steps=8, folder=tmp_path / "whole")
    run(steps=3, folder=tmp_path / "part")
    resumed = run(steps=8, folder=tmp_path / "part", resume=True)
    assert eqx.tree_equal(whole.model, resumed.model)


def test_a_member_of_a_sweep_is_a_run():
    done = sweep(
        lambda learning_rate: (RULE, optax.adam(learning_rate)),
        Dropped,
        (X, Y),
        {"learning_rate": [0.02, 0.05]},
        seeds=[3],
        steps=4,
        batch_size=10,
        test=(X, Y),
        group_size=2,
        progress=False,
    )
    model_key, train_key = vc.train.keys_of(3)
    alone = fit(RULE, Dropped(model_key), OPTIMIZER, (X, Y), key=train_key, steps=4, batch_size=10, progress=False)
    for a, b in zip(jax.tree.leaves(alone.model), jax.tree.leaves(done.members[0].model), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    logits = jax.vmap(eqx.nn.inference_mode(alone.model))(X)
    share = float(jnp.mean(jnp.argmax(logits, 1) == Y))
    assert done.members[0].records[-1]["test_accuracy"] == pytest.approx(share)


def test_what_breaks_a_run_is_found_with_the_same_masks():
    x = X.at[:, 0].set(jnp.where(jnp.arange(40) == 7, jnp.inf, X[:, 0]))
    done = fit(RULE, MODEL, OPTIMIZER, (x, Y), key=KEY, steps=4, batch_size=40, graph=GRAPH, progress=False)
    assert "infinite or undefined input" in done.stopped
