"""A run that stops says what stops it: the first number that is not finite, and the cause where numbers show it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matrix import full

import vicinal as vc
from vicinal.train import fit, sweep

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(24, 4)).astype(np.float32)
Y = np.arange(24) % 3
MODEL = vc.nn.MLP((4, 5, 3), key=jax.random.key(0))
GRAPH = vc.capture(MODEL, X[0])


def stopped(loss=vc.losses.softmax_cross_entropy, model=MODEL, data=(X, Y), graph=None, optimizer=None, rule=None):
    rule = vc.rules.Backprop(loss=loss) if rule is None else rule
    graph = GRAPH if model is MODEL else graph
    optimizer = optax.sgd(0.1) if optimizer is None else optimizer
    settings = {"steps": 30, "batch_size": 8, "progress": False, "graph": graph}
    run = fit(rule, model, optimizer, data, key=jax.random.key(0), **settings)
    assert run.stopped is not None
    return run.stopped


def no_advice_on_rates(sentence):
    return "learning rate" not in sentence and "step size" not in sentence


def test_a_loss_that_takes_a_logarithm_of_0():
    def loss(output, target):
        return -jnp.log(jnp.where(target == 2, 0.0, 1.0)) + jnp.sum(output**2)

    said = stopped(loss)
    assert "meets a non-finite loss at the output: the loss of example" in said
    assert "is infinite for outputs up to" in said
    assert no_advice_on_rates(said)


def test_a_custom_loss_that_reads_labels_out_of_range():
    said = stopped(lambda output, target: vc.losses.softmax_cross_entropy(output, target + 1))
    assert "is undefined (NaN) for outputs up to" in said
    assert "labels in range" in said
    assert no_advice_on_rates(said)


def test_a_loss_without_a_slope():
    said = stopped(lambda output, target: jnp.sqrt(jnp.sum((output * 0) ** 2)))
    assert "meets a non-finite error at the output: the loss is finite, and its slope is not" in said
    assert no_advice_on_rates(said)


def test_a_model_that_divides_by_0():
    model = jax.tree_util.Partial(lambda w, x: vc.vertex(w @ x / (x[0] - x[0]), "ratio"), jnp.ones((3, 4)))
    said = stopped(model=model)
    assert "meets a non-finite value at vertex 'ratio': the model makes it of inputs up to" in said
    assert no_advice_on_rates(said)


def test_a_model_without_a_derivative():
    model = jax.tree_util.Partial(lambda w, x: jnp.sqrt(vc.vertex(w @ x, "h") * 0) + w @ x, jnp.ones((3, 4)))
    said = stopped(model=model)
    assert "meets a non-finite error at vertex 'h'" in said
    assert "a root or a norm at 0" in said
    assert no_advice_on_rates(said)


def test_inputs_beyond_the_range():
    said = stopped(
        vc.losses.squared_error, data=(X * np.float32(1e38), Y), model=vc.nn.MLP((4, 3), key=jax.random.key(0))
    )
    assert "inputs are as large as" in said or "outputs are as large as" in said
    assert no_advice_on_rates(said)


def test_values_beyond_float16():
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float16) if hasattr(leaf, "dtype") else leaf, MODEL)
    x = X.astype(np.float16)
    targets = np.full((24, 3), 400, np.float16)  # 3/2 400^2 is beyond 65504
    said = stopped(vc.losses.squared_error, half, (x, targets), optimizer=optax.sgd(1e-3))
    assert "meets a non-finite loss at the output: it is beyond 65504, the range of float16" in said
    assert no_advice_on_rates(said)


def test_an_optimiser_whose_numbers_vanish_in_float16():
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float16) if hasattr(leaf, "dtype") else leaf, MODEL)
    x = np.concatenate([np.zeros((24, 1)), X[:, 1:]], axis=1).astype(np.float16)  # weights without a gradient: 0 / 0
    said = stopped(model=half, data=(x, Y), optimizer=optax.adam(1e-2))
    assert "the optimiser makes it of a finite gradient in float16" in said
    assert "eps=1e-4" in said
    assert no_advice_on_rates(said)


def test_undefined_targets_that_do_not_count_are_not_blamed():
    y = RANDOM.normal(size=(24, 3)).astype(np.float32)
    y[::2, 1] = np.nan
    said = stopped(vc.losses.masked_squared_error, data=(X, y), optimizer=optax.sgd(1e4))
    assert "lower the learning rate" in said
    assert "data" not in said


@pytest.mark.parametrize("size", [full(1), 2])
def test_a_member_of_a_sweep_says_what_a_run_says(size):
    rule = vc.rules.InferenceLearning(vc.inference.Simultaneous(steps=40, step_size=50.0), loss=vc.losses.squared_error)

    def make(rate):
        return rule, optax.sgd(rate)

    settings = {"steps": 5, "batch_size": 8, "progress": False, "graph": GRAPH}
    done = sweep(make, lambda key: MODEL, (X, Y), {"rate": [0.1, 0.2]}, group_size=size, **settings)
    alone = fit(rule, MODEL, optax.sgd(0.1), (X, Y), key=vc.train.keys_of(0)[1], **settings)
    assert "inference diverges; lower the step size of the activities" in alone.stopped
    assert [member.stopped for member in done.members] == [alone.stopped] * 2


def test_a_member_of_a_sweep_names_what_the_optimiser_breaks():
    def make(rate):
        return vc.rules.Backprop(), optax.chain(
            optax.scale(rate), optax.scale(100.0), optax.trace(0.9), optax.set_to_zero()
        )

    settings = {"steps": 5, "batch_size": 8, "progress": False, "graph": GRAPH}
    (member,) = sweep(make, lambda key: MODEL, (X, Y), {"rate": [1e38]}, group_size=1, **settings).members
    alone = fit(*make(1e38)[:1], MODEL, make(1e38)[1], (X, Y), key=vc.train.keys_of(0)[1], **settings)
    assert "makes optimizer_state[2].trace" in alone.stopped
    assert "of a finite gradient" in alone.stopped
    assert member.stopped == alone.stopped
