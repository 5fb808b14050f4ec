"""Evaluation against plain NumPy over all examples at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vicinal as vc
from vicinal.losses import masked_softmax_cross_entropy, softmax_cross_entropy, squared_error
from vicinal.train import evaluate
from vicinal.train.evaluate import first_sums, means, measured
from vicinal.train.metrics import metrics_of
from vicinal.train.totals import add


def identity(x):
    return x


IDENTITY = vc.capture(identity, jnp.ones(3))
RANDOM = np.random.default_rng(0)


def cross_entropy(logits, labels):
    """In float64, from the definition."""
    logits = logits.astype(np.float64)
    return np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, labels[..., None], -1)[..., 0]


@pytest.mark.parametrize(("examples", "batch_size"), [(1, 1000), (7, 1000), (7, 7), (7, 3), (6, 3), (5, 1), (63, 8)])
@pytest.mark.parametrize("label", [np.int32, np.uint8, np.int64])
def test_equals_the_mean_over_all_examples(examples, batch_size, label):
    x = RANDOM.normal(size=(examples, 3)).astype(np.float32)
    y = RANDOM.integers(0, 3, examples).astype(label)
    found = evaluate(IDENTITY, identity, softmax_cross_entropy, x, y, batch_size)
    assert set(found) == {"loss", "accuracy"}
    np.testing.assert_allclose(found["loss"], cross_entropy(x, y.astype(int)).mean(), rtol=2e-6)
    np.testing.assert_allclose(found["accuracy"], (x.argmax(-1) == y).mean(), rtol=1e-6)


def test_labels_with_more_axes_count_each_place():
    graph = vc.capture(identity, jnp.ones((4, 3)))
    x = RANDOM.normal(size=(5, 4, 3)).astype(np.float32)
    y = RANDOM.integers(0, 3, (5, 4)).astype(np.int32)
    found = evaluate(graph, identity, softmax_cross_entropy, x, y, 2)
    np.testing.assert_allclose(found["loss"], cross_entropy(x, y).sum(-1).mean(), rtol=2e-6)  # summed over places
    np.testing.assert_allclose(found["accuracy"], (x.argmax(-1) == y).mean(), rtol=1e-6)


def test_labels_below_0_do_not_count():
    x = RANDOM.normal(size=(5, 4, 3)).astype(np.float32)
    y = RANDOM.integers(0, 3, (5, 4)).astype(np.int32)
    y[0, 1:], y[1] = -1, -1
    graph = vc.capture(identity, jnp.ones((4, 3)))
    right = (x.argmax(-1) == y)[y >= 0].mean()  # of all that count, wherever they are: never a mean of means
    for batch_size in (5, 2):
        found = evaluate(graph, identity, masked_softmax_cross_entropy, x, y, batch_size)
        np.testing.assert_allclose(found["accuracy"], right, rtol=1e-6)
    nothing = evaluate(graph, identity, masked_softmax_cross_entropy, x, np.full_like(y, -1))
    assert {name: float(value) for name, value in nothing.items()} == {"loss": 0}


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_targets_that_are_no_labels_have_no_accuracy(dtype):
    x = RANDOM.normal(size=(5, 3)).astype(np.float32)
    y = RANDOM.integers(0, 2, (5, 3)).astype(dtype)
    found = evaluate(IDENTITY, identity, squared_error, x, y, 2)
    assert set(found) == {"loss", "rmse", "r2"}
    np.testing.assert_allclose(found["loss"], 0.5 * ((x - y) ** 2).sum(-1).mean(), rtol=2e-6)


def test_inputs_and_targets_may_be_trees():
    def model(x):
        return {"sum": x["a"] + x["b"], "a": x["a"]}

    def loss(output, y):
        return squared_error(output["sum"], y["sum"]) + squared_error(output["a"], y["a"])

    graph = vc.capture(model, {"a": jnp.ones(3), "b": jnp.ones(3)})
    a, b, c = RANDOM.normal(size=(3, 7, 3)).astype(np.float32)
    found = evaluate(graph, model, loss, {"a": a, "b": b}, {"sum": c, "a": b}, 3)
    expected = 0.5 * (((a + b - c) ** 2).sum(-1) + ((a - b) ** 2).sum(-1)).mean()
    np.testing.assert_allclose(found["loss"], expected, rtol=2e-6)


def test_sums_in_single_precision_even_for_a_model_in_half():
    graph = vc.capture(identity, jnp.ones(2, jnp.bfloat16))
    x = jnp.tile(jnp.asarray([[0.0, 1.0]], jnp.bfloat16), (1001, 1))
    y = jnp.ones(1001, jnp.int32).at[0].set(0)
    found = evaluate(graph, identity, squared_error, x, y, 400)
    # 1 of 1001 is wrong, at the loss 1/2 (1^2 + 1^2); bfloat16 knows no such numbers.
    np.testing.assert_allclose(found["accuracy"], 1000 / 1001, rtol=1e-6)
    np.testing.assert_allclose(found["loss"], 1 / 1001, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_double_precision():
    x, y = RANDOM.normal(size=(63, 3)), RANDOM.integers(0, 3, 63)
    found = evaluate(vc.capture(identity, jnp.ones(3)), identity, softmax_cross_entropy, x, y, 8)
    assert found["loss"].dtype == jnp.float64
    np.testing.assert_allclose(found["loss"], cross_entropy(x, y).mean(), rtol=1e-14)


def test_the_model_may_change_without_another_compilation():
    traces = []

    def loss(output, y):
        traces.append(1)
        return squared_error(output, y)

    model = vc.nn.MLP((3, 2, 3), key=jax.random.key(0))
    graph, x = vc.capture(model, jnp.ones(3)), jnp.ones((4, 3))
    first = evaluate(graph, model, loss, x, x)
    count = len(traces)
    doubled = jax.tree.map(lambda a: 2 * a, model)
    second = evaluate(graph, doubled, loss, x, x)
    assert len(traces) == count
    for found, net in ((first, model), (second, doubled)):
        np.testing.assert_allclose(found["loss"], jnp.mean(0.5 * jnp.sum((jax.vmap(net)(x) - x) ** 2, -1)), rtol=1e-5)


@pytest.mark.parametrize("batch_size", [0, -3, 2.0, None])
def test_wrong_batch_sizes_are_refused(batch_size):
    error = ValueError if isinstance(batch_size, int) else TypeError
    with pytest.raises(error, match="expected batch_size as an integer of at least 1"):
        evaluate(IDENTITY, identity, squared_error, np.ones((2, 3), np.float32), np.ones((2, 3)), batch_size)


def test_wrong_examples_are_refused():
    x = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="as many targets as inputs, got 1 and 2 examples"):
        evaluate(IDENTITY, identity, squared_error, x, x[:1])
    with pytest.raises(ValueError, match="expected at least one example, got none"):
        evaluate(IDENTITY, identity, squared_error, x[:0], x[:0])


def test_means_are_per_update_and_leave_out_what_does_not_exist():
    info = vc.Info(jnp.eye(3)[:2], result=jnp.array([1, 3], jnp.int32))
    labels = jnp.array([0, 0])
    metrics = metrics_of(softmax_cross_entropy, jnp.ones(3), jnp.eye(3)[:2], labels)
    seen = measured(jnp.float32(2.5), info, labels, metrics)
    sums = add(add(first_sums(IDENTITY, metrics, labels), seen), seen)
    assert means(sums, metrics) == {"train_loss": 2.5, "train_accuracy": 0.5, "inference_failures": 0.5}
    # An update on one example counts half as much as one on two.
    one = measured(jnp.float32(1.0), vc.Info(jnp.eye(3)[:1], result=jnp.array([1])), labels[:1], metrics)
    expected = {"train_loss": 11 / 5, "train_accuracy": 3 / 5, "inference_failures": 2 / 5}
    assert means(add(sums, one), metrics) == pytest.approx(expected)
    assert means(measured(jnp.float32(1), vc.Info(jnp.eye(3)), jnp.eye(3), {}), {}) == {"train_loss": 1.0}
