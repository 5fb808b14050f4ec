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


@eqx.filter_jit
def still(model, x):
    """The outputs in evaluation mode."""
    return jax.vmap(eqx.nn.inference_mode(model))(x)


def test_the_test_accuracy_is_that_of_evaluation_mode():
    done = run(steps=8, evaluate_every=8)
    logits = np.asarray(still(done.model, X))
    assert done.records[-1]["test_accuracy"] == pytest.approx(np.mean(np.argmax(logits, 1) == np.asarray(Y)))
    expected = np.mean(np.log(np.sum(np.exp(logits), 1)) - logits[np.arange(40), np.asarray(Y)])
    assert done.records[-1]["test_loss"] == pytest.approx(float(expected), rel=1e-5)


def test_a_resumed_run_has_the_same_bits(tmp_path):
    whole = run(steps=8, folder=tmp_path / "whole")
    run(steps=3, folder=tmp_path / "part")
    resumed = run(steps=8, folder=tmp_path / "part", resume=True)
    assert eqx.tree_equal(whole.model, resumed.model)


def swept(build):
    """Two rates side by side, of which the first is that of `OPTIMIZER`."""
    return sweep(
        lambda learning_rate: (RULE, optax.adam(learning_rate)),
        build,
        (X, Y),
        {"learning_rate": [0.02, 0.05]},
        seeds=[3],
        steps=4,
        batch_size=10,
        test=(X, Y),
        group_size=2,
        progress=False,
    )


def test_a_member_of_a_sweep_is_a_run():
    done = swept(Dropped)
    model_key, train_key = vc.train.keys_of(3)
    alone = fit(RULE, Dropped(model_key), OPTIMIZER, (X, Y), key=train_key, steps=4, batch_size=10, progress=False)
    for a, b in zip(jax.tree.leaves(alone.model), jax.tree.leaves(done.members[0].model), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    share = np.mean(np.argmax(still(alone.model, X), 1) == np.asarray(Y))
    assert done.members[0].records[-1]["test_accuracy"] == pytest.approx(share)


def test_what_breaks_a_run_is_found_with_the_same_masks():
    x = X.at[:, 0].set(jnp.where(jnp.arange(40) == 7, jnp.inf, X[:, 0]))
    done = fit(RULE, MODEL, OPTIMIZER, (x, Y), key=KEY, steps=4, batch_size=40, graph=GRAPH, progress=False)
    assert "infinite or undefined input" in done.stopped


# ------------------------------------------------------------- batch norm and dropout, of Equinox and of our own


class Network(eqx.Module):
    """As a user of Equinox writes it: it takes its state and returns it."""

    below: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    above: eqx.nn.Linear

    def __init__(self, key):
        first, second = jax.random.split(key)
        self.below, self.above = eqx.nn.Linear(3, 8, key=first), eqx.nn.Linear(8, 2, key=second)
        self.norm = eqx.nn.BatchNorm(8, axis_name="batch", mode="batch", momentum=0.9)
        self.dropout = eqx.nn.Dropout(0.2)

    def __call__(self, x, state, *, key=None):
        h, state = self.norm(self.below(x), state)
        return self.above(self.dropout(jnp.tanh(h), key=key)), state


def build(key):
    network, state = eqx.nn.make_with_state(Network)(key)
    return vc.with_state(vc.mark(network, lambda network: network.below), state)


NETWORK = build(KEY)
NORMED = vc.capture(NETWORK, X[0], batch_size=10)


def test_running_averages_of_equinox_follow_the_batches():
    """One batch is the whole set, so that its statistics can be computed by hand at every step."""
    graph = vc.capture(NETWORK, X[0], batch_size=40)
    seen = []
    rule = vc.rules.Backprop()
    optimizer, model = optax.adam(0.05), NETWORK
    memory, step = optimizer.init(graph.trainable(model)), eqx.filter_jit(rule.step)
    for i in range(3):
        seen.append(np.asarray(X) @ np.asarray(model.module.below.weight).T + np.asarray(model.module.below.bias))
        model, memory, *_ = step(graph, optimizer, model, memory, (), X, Y, key=jax.random.key(i))
    mean = sum(0.1 * 0.9 ** (2 - i) * a.mean(0) for i, a in enumerate(seen))
    variance = sum(0.1 * 0.9 ** (2 - i) * a.var(0) for i, a in enumerate(seen))
    counter, (found_mean, found_variance) = jax.tree.leaves(model.state)[0], jax.tree.leaves(model.state)[1:]
    # Equinox begins with a variance of 1 where it begins with a mean of 0.
    first = np.asarray(jax.tree.leaves(NETWORK.state)[2])
    assert int(counter) == 3
    np.testing.assert_allclose(found_mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found_variance, variance + 0.9**3 * first, rtol=1e-4)


def test_records_and_predictions_use_running_averages(tmp_path):
    settings = {"key": KEY, "batch_size": 10, "test": (X, Y), "progress": False}
    done = fit(RULE, NETWORK, OPTIMIZER, (X, Y), steps=12, evaluate_every=12, **settings)
    still = eqx.nn.inference_mode(done.model.module)
    logits = np.asarray(jax.vmap(lambda x: still(x, done.model.state)[0])(X))
    share = float(np.mean(np.argmax(logits, 1) == Y))
    assert done.records[-1]["test_accuracy"] == pytest.approx(share)
    np.testing.assert_allclose(done.predict(X), logits, rtol=1e-5, atol=1e-6)
    unmoved = jax.vmap(lambda x: still(x, NETWORK.state)[0])(X)
    assert not np.allclose(unmoved, logits, atol=0.01)


def test_a_run_with_state_resumes_with_the_same_bits(tmp_path):
    settings = {"graph": NORMED, "key": KEY, "batch_size": 10, "progress": False}
    whole = fit(RULE, NETWORK, OPTIMIZER, (X, Y), steps=8, folder=tmp_path / "whole", **settings)
    fit(RULE, NETWORK, OPTIMIZER, (X, Y), steps=3, folder=tmp_path / "part", **settings)
    resumed = fit(RULE, NETWORK, OPTIMIZER, (X, Y), steps=8, folder=tmp_path / "part", resume=True, **settings)
    assert eqx.tree_equal(whole.model, resumed.model)
    assert int(jax.tree.leaves(whole.model.state)[0]) == 8


def test_a_sweep_trains_models_with_state():
    done = swept(build)
    model_key, train_key = vc.train.keys_of(3)
    alone = fit(
        RULE,
        build(model_key),
        OPTIMIZER,
        (X, Y),
        key=train_key,
        steps=4,
        batch_size=10,
        test=(X, Y),
        progress=False,
    )
    arrays = [jax.tree.leaves(eqx.filter(model, eqx.is_array)) for model in (alone.model, done.members[0].model)]
    for a, b in zip(*arrays, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert done.members[0].records[-1]["test_loss"] == pytest.approx(alone.records[-1]["test_loss"], rel=1e-4)


def test_what_fit_is_told_is_fixed_stays():
    done = run(steps=4, graph=None, fixed=lambda model: model.below)
    assert eqx.tree_equal(done.model.below, MODEL.below)
    assert not eqx.tree_equal(done.model.above, MODEL.above)
    with pytest.raises(ValueError, match="expected `fixed` or a graph, got both"):
        run(steps=4, fixed=lambda model: model.below)


def test_a_model_that_cannot_be_evaluated_is_refused_before_it_trains():
    def model(scale, x):
        return scale @ x / jax.lax.pmean(jnp.abs(x[0]), "batch")

    with pytest.raises(ValueError, match="no statistics of the batch when it is evaluated"):
        fit(
            vc.rules.Backprop(),
            jax.tree_util.Partial(model, jnp.ones((2, 3))),
            OPTIMIZER,
            (X, Y),
            key=KEY,
            steps=2,
            batch_size=10,
            progress=False,
        )
