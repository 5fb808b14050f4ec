"""Weights of classes and examples, against means by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matrix import full

import vicinal as vc
from vicinal.losses import (
    balanced,
    classification,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    squared_error,
    weighted,
)

RANDOM = np.random.default_rng(7)
X = RANDOM.normal(size=(12, 4)).astype(np.float32)
Y = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
W = RANDOM.uniform(size=12).astype(np.float32)
MODEL = vc.nn.MLP((4, 3), key=jax.random.key(0))
GRAPH = vc.capture(MODEL, X[0])


def cross_entropies():
    output = np.asarray(jax.vmap(MODEL)(X), np.float64)
    return np.log(np.exp(output).sum(-1)) - output[np.arange(12), Y], output


def gradient(loss, x, y):
    return eqx.filter_jit(vc.rules.Backprop(loss=loss).value_and_grad)(GRAPH, MODEL, (), jnp.asarray(x), y)[:2]


def test_balanced_weights_make_classes_count_the_same():
    weights = balanced(Y)
    np.testing.assert_allclose(weights, [12 / (3 * 7), 12 / (3 * 3), 12 / (3 * 2)])
    assert np.mean(np.take(weights, Y)) == pytest.approx(1.0)
    losses, _ = cross_entropies()
    per_class = np.mean([losses[c == Y].mean() for c in range(3)])
    assert float(gradient(weighted(softmax_cross_entropy, weights), X, jnp.asarray(Y))[0]) == pytest.approx(per_class)


@pytest.mark.parametrize("kind", ["indices", "one-hot"])
def test_class_weights_equal_the_weights_of_examples(kind):
    classes = np.array([0.5, 2.0, 3.0], np.float32)
    y = jnp.asarray(Y) if kind == "indices" else jnp.asarray(np.eye(3, dtype=np.float32)[Y])
    one, slope = gradient(weighted(softmax_cross_entropy, classes), X, y)
    other, same = gradient(weighted(softmax_cross_entropy), X, (y, jnp.asarray(classes[Y])))
    losses, _ = cross_entropies()
    assert float(one) == pytest.approx(np.mean(classes[Y] * losses), rel=1e-5)
    assert float(other) == pytest.approx(float(one), rel=1e-6)
    for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_a_weight_of_two_is_an_example_twice():
    twice = np.where(np.arange(12) < 4, 2.0, 1.0).astype(np.float32)
    rows = np.repeat(np.arange(12), twice.astype(int))
    _, slope = gradient(weighted(softmax_cross_entropy), X, (jnp.asarray(Y), jnp.asarray(twice)))
    _, repeated = gradient(softmax_cross_entropy, X[rows], jnp.asarray(Y[rows]))
    for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(repeated), strict=True):
        np.testing.assert_allclose(
            12 * np.asarray(a), 16 * np.asarray(b), rtol=1e-5, atol=1e-6
        )  # sums, for the means divide by examples


def test_one_unit_has_two_classes():
    loss = weighted(sigmoid_cross_entropy, [1.0, 5.0])
    plain = float(np.log(2))
    for target in (jnp.array([1]), jnp.array([True]), jnp.array([1.0])):
        assert float(loss(jnp.zeros(1), target)) == pytest.approx(5 * plain)
    assert float(loss(jnp.zeros(()), jnp.array(0.0))) == pytest.approx(plain)


@pytest.mark.parametrize("pair", [full(False), True])
def test_training_with_weights(pair):
    loss = weighted(softmax_cross_entropy) if pair else weighted(softmax_cross_entropy, [1.0, 2.0, 4.0])
    y = (Y, W) if pair else Y
    rule, settings = vc.rules.Backprop(loss=loss), {"batch_size": 12, "progress": False, "graph": GRAPH}
    settings |= {"test": (X, y), "metrics": {"first": lambda output, label: (label == 0).astype(float)}}
    run = vc.train.fit(rule, MODEL, optax.sgd(0.0), (X, y), key=jax.random.key(0), steps=1, **settings)
    done = vc.train.sweep(
        lambda rate: (rule, optax.sgd(rate)),
        lambda key: MODEL,
        (X, y),
        {"rate": [0.0]},
        steps=1,
        group_size=1,
        **settings,
    )
    losses, output = cross_entropies()
    weights = W if pair else np.array([1.0, 2.0, 4.0])[Y]
    for record in (run.records[0], done.members[0].records[0]):
        for part in ("train", "test"):
            assert record[f"{part}_loss"] == pytest.approx(np.mean(weights * losses), rel=1e-5)
            assert record[f"{part}_accuracy"] == pytest.approx(np.mean(output.argmax(-1) == Y))  # not weighted
            assert record[f"{part}_first"] == pytest.approx(7 / 12)


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: weighted("loss"), TypeError, "expected a loss as a function"),
        (lambda: weighted(squared_error, [1.0, -1.0]), ValueError, "at least 0 for each class"),
        (lambda: weighted(squared_error, [1.0])(jnp.zeros(3), jnp.array(0)), ValueError, "expected 3 class weights"),
        (
            lambda: weighted(squared_error, [1.0, 2.0])(jnp.zeros((4, 2)), jnp.zeros(4, int)),
            ValueError,
            "one label for each example",
        ),
        (
            lambda: weighted(squared_error)(jnp.zeros(3), jnp.array(0)),
            ValueError,
            r"give data as \(x, \(y, weights\)\)",
        ),
        (lambda: balanced(np.array([0, 2])), ValueError, "got none of class 1"),
        (lambda: balanced(np.array([0.5])), ValueError, "class indices from 0 on"),
        (lambda: run((Y, -W)), ValueError, "weights of at least 0, got -.* for example 0 of the training set"),
        (lambda: run((Y + 1, W)), ValueError, "expected labels from 0 to 2 for 3 outputs, got 1 to 3"),
        (lambda: run(Y), ValueError, r"give data as \(x, \(y, weights\)\)"),
    ],
)
def test_wrong_weights_are_refused(act, error, message):
    with pytest.raises(error, match=message):
        act()


def run(y):
    rule = vc.rules.Backprop(loss=weighted(softmax_cross_entropy))
    settings = {"batch_size": 12, "progress": False, "graph": GRAPH}
    return vc.train.fit(rule, MODEL, optax.sgd(0.1), (X, y), key=jax.random.key(0), steps=1, **settings)


def test_equal_weights_are_the_same_loss():
    assert weighted(squared_error, [1, 2]) == weighted(squared_error, np.array([1.0, 2.0]))
    mine = classification(lambda output, target: jnp.sum(output))
    assert vc.losses.kind_of(weighted(mine)).labels
