"""Optimisers with unusual states: infinities at the start, line searches, accumulated gradients; all resume."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matrix import full, some

import vicinal as vc
from vicinal.train import fit, sweep

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(48, 4)).astype(np.float32)
Y = RANDOM.integers(0, 3, 48).astype(np.int32)
MODEL = vc.nn.MLP((4, 6, 3), key=jax.random.key(0))
GRAPH = vc.capture(MODEL, X[0])
BACKPROP = vc.rules.Backprop()
LEARNING = vc.rules.InferenceLearning(vc.inference.Simultaneous(steps=3, step_size=0.2))


def train(rule, optimizer, **settings):
    defaults = {"key": jax.random.key(5), "batch_size": 48, "graph": GRAPH, "progress": False}
    return fit(rule, MODEL, optimizer, (X, Y), **defaults | settings)


def bits(tree):
    return [
        np.asarray(leaf).tobytes()
        for leaf in jax.tree.leaves(tree)
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    ]


def plateau(rate=0.1):
    return optax.chain(optax.sgd(rate), optax.contrib.reduce_on_plateau(factor=0.5, patience=1, rtol=0.2))


@jax.jit
def mean_loss(model):
    logits = jax.vmap(model)(X)
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(48), Y])


def test_a_state_that_begins_with_infinities_trains():
    """reduce_on_plateau begins with a best value of infinity, and halves the rate when the loss stays the same."""
    run = train(LEARNING, plateau(), steps=12)
    assert run.stopped is None
    assert int(run.state.step) == 12
    scale = float(run.state.optimizer_state[1].scale)
    assert scale < 1
    assert np.log2(scale) == round(np.log2(scale))


def test_a_line_search_lowers_the_loss_at_every_step():
    """The batch is all the data, so that L-BFGS with a line search descends at each step, by its own condition."""
    run = train(BACKPROP, optax.lbfgs(), steps=12, evaluate_every=1)
    losses = [record["train_loss"] for record in run.records] + [float(mean_loss(run.model))]
    assert run.stopped is None
    assert all(after < before for before, after in itertools.pairwise(losses))
    plain = train(BACKPROP, optax.sgd(0.1), steps=12)
    assert losses[-1] < mean_loss(plain.model)


def test_a_line_search_equals_optax_by_hand():
    optimizer = optax.lbfgs()
    run = train(BACKPROP, optimizer, steps=2)

    def loss(model):
        logits = jax.vmap(model)(X)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.asarray(Y)[:, None], axis=1))

    @jax.jit
    def update(model, state):
        value, grad = jax.value_and_grad(loss)(model)
        updates, state = optimizer.update(grad, state, model, value=value, grad=grad, value_fn=loss)
        return optax.apply_updates(model, updates), state

    model, state = MODEL, optimizer.init(MODEL)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(2):
            model, state = update(model, state)
    for got, expected in zip(jax.tree.leaves(run.model), jax.tree.leaves(model), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


def test_a_rule_without_phases_says_what_a_line_search_would_need():
    rule = vc.rules.IncrementalPC(steps=2)
    with pytest.raises(TypeError, match=r"got one that also needs 'grad' and 'value_fn', which this rule does not"):
        train(rule, optax.lbfgs(), steps=2)


@pytest.mark.parametrize("part", ["weights", "first"])
def test_a_number_that_should_be_finite_is_still_noticed(part):
    if part == "first":  # an undefined rate at the start is no best value to come
        broken = optax.inject_hyperparams(optax.sgd)(learning_rate=float("nan"))
        with pytest.raises(ValueError, match=r"expected finite numbers to start from, .*learning_rate"):
            train(BACKPROP, broken, steps=2)
        return
    run = train(BACKPROP, optax.chain(plateau(1e3), optax.scale(1e38)), steps=8)
    assert run.stopped is not None
    assert run.stopped.startswith("stopped at step")
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(run.model))


OPTIMIZERS = {
    "clipped": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2)),
    "accumulated": optax.MultiSteps(optax.adam(1e-2), 4),
    "plateau": plateau(),
    "line search": optax.lbfgs(memory_size=2),
}


@pytest.mark.parametrize("name", some(OPTIMIZERS, "accumulated", "line search"))
def test_resumes_bit_for_bit(tmp_path, monkeypatch, interrupt, cut, name):
    optimizer = OPTIMIZERS[name]
    settings = {"steps": 11, "evaluate_every": 3, "batch_size": 8}
    whole = train(LEARNING, optimizer, **settings)
    cut(2)
    interrupt(6)
    with pytest.raises(KeyboardInterrupt):
        train(LEARNING, optimizer, folder=tmp_path, **settings)
    monkeypatch.undo()
    resumed = train(LEARNING, optimizer, folder=tmp_path, resume=True, **settings)
    assert bits(resumed.state) == bits(whole.state)


def test_four_accumulated_batches_are_one_large_batch():
    """The mean of four gradients is the gradient of the four batches together, while the weights wait."""
    few = train(BACKPROP, optax.MultiSteps(optax.sgd(0.1), 4), steps=4, batch_size=12)
    one = train(BACKPROP, optax.sgd(0.1), steps=1, batch_size=48)
    for got, expected in zip(jax.tree.leaves(few.model), jax.tree.leaves(one.model), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_a_clipped_step_is_as_long_as_the_norm_allows():
    run = train(BACKPROP, optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(1.0)), steps=1)
    change = jax.tree.map(jnp.subtract, run.model, MODEL)
    assert np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(change))) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("kind", [full("accumulated"), "plateau", full("line search")])
def test_a_sweep_equals_single_runs(kind):
    def make(learning_rate):
        made = {
            "accumulated": lambda: optax.MultiSteps(optax.adam(learning_rate), 2),
            "plateau": lambda: plateau(learning_rate),
            "line search": lambda: optax.chain(optax.scale(learning_rate), optax.lbfgs(memory_size=2)),
        }
        return BACKPROP, made[kind]()

    done = sweep(
        make,
        lambda key: MODEL,
        (X, Y),
        {"learning_rate": [0.05, 0.1]},
        steps=5,
        batch_size=16,
        group_size=2,
        graph=GRAPH,
        progress=False,
        devices=jax.devices()[:1],
    )
    for member in done.members:
        assert member.stopped is None
        key = vc.train.keys_of(member.seed)[1]
        alone = train(*make(**member.numbers), steps=5, batch_size=16, key=key)
        for got, expected in zip(jax.tree.leaves(member.model), jax.tree.leaves(alone.model), strict=True):
            np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-4)
