"""Examples that cannot be learned are refused before the first step, with a sentence that names the set."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vicinal as vc
from vicinal import losses
from vicinal.train import evaluate, fit, sweep

RANDOM = np.random.default_rng(2)
X = RANDOM.normal(size=(12, 4)).astype(np.float32)
Y = np.arange(12) % 3
MODEL = vc.nn.MLP((4, 3), key=jax.random.key(0))
GRAPH = vc.capture(MODEL, X[0])
SETTINGS = {"steps": 2, "batch_size": 6, "progress": False, "graph": GRAPH}


def run(data, test=None, loss=losses.softmax_cross_entropy, model=MODEL, **settings):
    return fit(
        vc.rules.Backprop(loss=loss), model, optax.sgd(0.1), data, key=jax.random.key(0), test=test,
        **SETTINGS | settings,
    )  # fmt: skip


def swept(data, test=None, loss=losses.softmax_cross_entropy, **settings):
    def make(rate):
        return vc.rules.Backprop(loss=loss), optax.sgd(rate)

    return sweep(make, lambda key: MODEL, data, {"rate": [0.1]}, test=test, group_size=1, **SETTINGS | settings)


def batches(x, y):
    return [(x[:6], y[:6]), (x[6:], y[6:])]


@pytest.mark.parametrize("train", [run, swept], ids=["fit", "sweep"])
@pytest.mark.parametrize("place", ["training", "test"])
def test_labels_without_an_output(train, place):
    sentence = f"expected labels from 0 to 2 for 3 outputs, got 1 to 3 (in the {place} set); count classes from 0"
    data, test = ((X, Y + 1), None) if place == "training" else ((X, Y), (X, Y + 1))
    for loss in (losses.softmax_cross_entropy, losses.squared_error, losses.masked_softmax_cross_entropy):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            train(data, test, loss)


def test_labels_below_0():
    y = np.where(Y == 1, -100, Y)
    with pytest.raises(ValueError, match=r"got -100 to 2 \(in the test set\); only vicinal"):
        run((X, Y), (X, y))
    assert run((X, y), (X, y), losses.masked_softmax_cross_entropy).stopped is None
    mine = losses.classification(losses.token_cross_entropy, ignores=True)
    assert run((X, y), (X, y), mine).stopped is None


def test_sparse_labels():
    with pytest.raises(
        ValueError, match=r"got 0 to 1000000 .* number the classes from 0 on, or give the model 1000001"
    ):
        run((X, np.where(Y == 2, 1_000_000, Y)))


def test_labels_in_batches_are_checked_as_they_are_read():
    with pytest.raises(ValueError, match=r"got 1 to 3 \(in the first batch\)"):
        run(batches(X, Y + 1))
    y = Y.copy()
    y[9] = 5
    with pytest.raises(ValueError, match=r"got 0 to 5 \(in batch 1 of the training data, counted from 0\)"):
        run(batches(X, y))


def test_evaluation_refuses_them_too():
    with pytest.raises(ValueError, match="got 1 to 3"):
        evaluate(GRAPH, MODEL, losses.softmax_cross_entropy, X, Y + 1)


@pytest.mark.parametrize("train", [run, swept], ids=["fit", "sweep"])
@pytest.mark.parametrize("wrong", [np.nan, -np.inf])
def test_numbers_that_are_not_finite_name_their_example(train, wrong):
    x, y = X.copy(), np.eye(3, dtype=np.float32)[Y]
    x[7, 2] = wrong
    for data, test, name in (((x, Y), None, "training"), ((X, Y), (jnp.asarray(x), Y), "test")):
        with pytest.raises(
            ValueError, match=f"finite inputs, got an infinite or undefined one in example 7 of the {name}"
        ):
            train(data, test)
    y[5, 0] = wrong
    with pytest.raises(
        ValueError, match="finite targets, got an infinite or undefined one in example 5 of the test set"
    ):
        train((X, Y), (X, y))


def test_what_the_model_or_the_loss_leaves_out_may_be_undefined():
    x, y = X.copy(), X[:, :3].copy()
    x[3, 1], y[4, 2] = np.nan, np.nan
    model = jax.tree_util.Partial(lambda w, x: w @ jnp.nan_to_num(x), jnp.ones((3, 4)))
    graph = vc.capture(model, X[0])
    assert run((x, y), (x, y), losses.masked_squared_error, model, graph=graph).stopped is None
    y[4, 2] = np.inf
    with pytest.raises(ValueError, match="example 4 of the training set"):
        run((x, y), None, losses.masked_squared_error, model, graph=graph)


def test_large_numbers_are_finite():
    x = np.full((12, 4), 3e38, np.float32)  # their sum is beyond float32
    for data in ((x, Y), (jnp.asarray(x), Y)):
        assert "outputs are as large as" in run(data, None).stopped  # the check of the data lets them through


def test_probabilities_out_of_range():
    with pytest.raises(ValueError, match=r"expected targets from 0 to 1, .* got 1 to 2 \(in the training set\)"):
        run((X, 1 + np.eye(3, dtype=np.float32)[Y]), None, losses.sigmoid_cross_entropy)
    hinge = losses.classification(lambda output, y: jnp.sum(jax.nn.relu(1 - y * output)))
    assert run((X, 2 * np.eye(3, dtype=np.float32)[Y] - 1), None, hinge).stopped is None
