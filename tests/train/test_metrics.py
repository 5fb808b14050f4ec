"""Metrics against NumPy over all examples at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matrix import full

import vicinal as vc
from vicinal.losses import (
    classification,
    masked_softmax_cross_entropy,
    masked_squared_error,
    regression,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    squared_error,
)
from vicinal.train import add, evaluate, evaluate_batches, metrics_of, summary, totals
from vicinal.train.evaluate import first_sums, means, measured
from vicinal.train.totals import Total, plus, total

RANDOM = np.random.default_rng(1)


def identity(x):
    return x


GRAPHS = {shape: vc.capture(identity, jnp.ones(shape)) for shape in ((3,), (2,), (1,), (), (4, 3))}


def found(loss, x, y, **settings):
    x = np.asarray(x, np.float32)
    return {
        name: float(value)
        for name, value in evaluate(GRAPHS[x.shape[1:]], identity, loss, x, y, **settings).items()
        if name != "loss"
    }


def own(output, target):
    return jnp.sum(jnp.square(output - target.astype(output.dtype)))


def test_half_of_the_labels_ignored():
    x, y = RANDOM.normal(size=(64, 4, 3)), RANDOM.integers(0, 3, (64, 4))
    y[:32] = -100  # examples without any label that counts
    y[:, 0] = -100
    right = (x.argmax(-1) == y).sum() / (y >= 0).sum()
    for batch_size in (64, 48):
        assert found(masked_softmax_cross_entropy, x, y, batch_size=batch_size) == {"accuracy": pytest.approx(right)}


def test_whole_numbers_to_come_near_to_have_no_accuracy():
    x, y = RANDOM.normal(size=(20, 1)), RANDOM.integers(0, 3, (20, 1))
    assert found(own, x, y) == {}
    assert found(own, x[:, 0], y[:, 0]) == {}
    assert found(own, x[:, 0], y[:, 0].astype(np.float32)) == {}  # nobody said what these are
    assert set(found(squared_error, x, y)) == {"rmse", "r2"}
    assert set(found(squared_error, x, (y > 1).astype(np.float32))) == {"rmse", "r2"}


def test_a_loss_says_that_its_targets_are_labels():
    x, y = RANDOM.normal(size=(20, 3)), RANDOM.integers(0, 3, 20)

    def twice(output, target):
        return 2 * softmax_cross_entropy(output, target)

    right = {"accuracy": pytest.approx((x.argmax(-1) == y).mean())}
    assert found(twice, x, y) == {}
    assert found(classification(twice), x, y) == right
    assert classification(twice) == classification(twice)  # the same one: nothing is compiled again
    for loss in (softmax_cross_entropy, sigmoid_cross_entropy, squared_error):
        for kind in (np.float32, np.int32):
            assert found(loss, x, np.eye(3, dtype=kind)[y]) == right  # one-hot
        assert found(loss, x, y) == right


@pytest.mark.parametrize("dtype", [np.float32, np.int32, bool])
def test_labels_of_one_unit(dtype):
    x, y = RANDOM.normal(size=(20, 1)), RANDOM.integers(0, 2, (20, 1))
    right = {"accuracy": pytest.approx(((x > 0) == y).mean())}
    assert found(sigmoid_cross_entropy, x, y.astype(dtype)) == right
    assert found(sigmoid_cross_entropy, x[:, 0], y[:, 0].astype(dtype)) == right
    assert found(classification(own), x, y.astype(dtype)) == right


def test_probabilities_are_no_labels():
    x, y = RANDOM.normal(size=(20, 3)), RANDOM.dirichlet(np.ones(3), 20).astype(np.float32)
    y[:10] = np.eye(3)[0]  # some rows look like labels
    assert found(softmax_cross_entropy, x, y) == {}
    assert found(sigmoid_cross_entropy, x[:, :1], y[:, :1]) == {}
    several = (y > 0.3).astype(np.float32)  # more than one label for some examples
    assert found(sigmoid_cross_entropy, x, several) == {}


@pytest.mark.parametrize("batch_size", [7, full(50), 1000])
def test_regression_equals_the_textbook(batch_size):
    y = RANDOM.normal(size=(50, 2)) * [1, 30] + [2000, -5]  # a mean of many standard deviations
    y = y.astype(np.float32)
    x = (y + RANDOM.normal(size=y.shape)).astype(np.float32)
    exact = y.astype(np.float64), x.astype(np.float64)
    error, spread = ((exact[0] - exact[1]) ** 2).sum(0), ((exact[0] - exact[0].mean(0)) ** 2).sum(0)
    expected = {"rmse": np.sqrt(error.sum() / 100), "r2": np.mean(1 - error / spread)}
    assert found(squared_error, x, y, batch_size=batch_size) == pytest.approx(expected, rel=1e-5)
    assert found(regression(own), x, y, batch_size=batch_size) == pytest.approx(expected, rel=1e-5)


def test_a_constant_target_has_no_variance_to_explain():
    y = np.stack([np.full(8, 0.1), RANDOM.normal(size=8)], axis=1).astype(np.float32)
    x = RANDOM.normal(size=(8, 2)).astype(np.float32)
    r2 = 1 - ((y - x) ** 2).sum(0)[1] / ((y - y.mean(0)) ** 2).sum(0)[1]
    assert found(squared_error, x, y)["r2"] == pytest.approx(r2, rel=1e-5)
    assert set(found(squared_error, x[:, :1], y[:, :1])) == {"rmse"}


def test_units_that_do_not_count():
    y = RANDOM.normal(size=(9, 4, 3)).astype(np.float32)
    x = (y + 0.3 * RANDOM.normal(size=y.shape)).astype(np.float32)
    y[:, 1:, 0], y[:5] = np.nan, np.nan
    error, kept = (y - x).astype(np.float64), [y[..., i][~np.isnan(y[..., i])] for i in range(3)]
    r2 = [1 - np.nansum(error[..., i] ** 2) / np.sum((kept[i] - kept[i].mean()) ** 2) for i in range(3)]
    expected = {"rmse": np.sqrt(np.nanmean(error**2)), "r2": np.mean(r2)}
    assert found(masked_squared_error, x, y, batch_size=4) == pytest.approx(expected, rel=1e-5)


def test_units_whose_first_targets_do_not_count():
    y = (1000 + 0.01 * RANDOM.normal(size=(200, 3))).astype(np.float32)
    x = (y + 0.004 * RANDOM.normal(size=y.shape)).astype(np.float32)
    y[:70, 0], y[:90, 1], y[90:, 1], y[0, 2] = np.nan, np.nan, 0.1, np.nan  # the second has no variance
    r2 = [
        1 - np.nansum((y[:, i] - x[:, i].astype(np.float64)) ** 2) / (np.nanvar(y[:, i].astype(np.float64)) * counts)
        for i, counts in ((0, 130), (2, 199))
    ]
    expected = pytest.approx(np.mean(r2), rel=1e-5)
    for batch_size in (1000, 64):
        assert found(masked_squared_error, x, y, batch_size=batch_size)["r2"] == expected
    parts = [(x[i : i + 20], y[i : i + 20]) for i in range(0, 200, 20)]
    assert evaluate_batches(GRAPHS[3,], identity, masked_squared_error, parts)["r2"] == expected
    metrics = metrics_of(masked_squared_error, jnp.ones(3), *parts[0])  # and in training
    seen = [measured(jnp.float32(0), vc.Info(jnp.asarray(x)), jnp.asarray(y), metrics) for x, y in parts]
    sums = functools.reduce(jax.jit(add), seen, first_sums(GRAPHS[3,], metrics, y))
    assert means(sums, metrics)["train_r2"] == expected
    constant = {"loss", "rmse"}
    parts = [(x[:, 1:2], y[:, 1:2]) for x, y in parts]
    assert set(evaluate_batches(GRAPHS[1,], identity, masked_squared_error, parts)) == constant


def test_an_input_to_be_reconstructed_is_no_regression():
    x = RANDOM.normal(size=(20, 3)).astype(np.float32)
    assert found(squared_error, x, x) == {}
    assert found(squared_error, x, x.copy()) == {}


def test_custom_metrics():
    x, y = RANDOM.normal(size=(20, 3)).astype(np.float32), RANDOM.integers(0, 3, 20)

    def first(output, target):
        return output[0]

    def first_of_class_1(output, target):  # undefined where it does not count
        return jnp.where(target == 1, output[0], jnp.nan), (target == 1).astype(float)

    metrics = {"first": first, "of 1": first_of_class_1}
    expected = {"first": x[:, 0].mean(), "of 1": x[y == 1, 0].mean()}
    got = found(softmax_cross_entropy, x, y, metrics=metrics, batch_size=6)
    assert {name: got[name] for name in metrics} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        ({"accuracy": own}, ValueError, "got 'accuracy', which is taken"),
        ({"each": lambda output, target: output}, ValueError, r"metric 'each' to give a scalar .* got shape \[3\]"),
        ({"three": lambda output, target: (output[0],) * 3}, ValueError, r"or \(value, weight\)"),
        ({"nothing": lambda output, target: None}, ValueError, "got no array"),
        ({"word": "accuracy"}, TypeError, r"functions of \(output, target\) by name"),
        ([own], TypeError, "by name"),
    ],
)
def test_metrics_that_are_none(metrics, error, message):
    with pytest.raises(error, match=message):
        found(softmax_cross_entropy, np.ones((2, 3)), np.ones(2, int), metrics=metrics)


def test_parts_of_a_set_join_to_the_whole():
    x, y = RANDOM.normal(size=(30, 3)).astype(np.float32), RANDOM.integers(0, 3, 30).astype(np.int32)
    graph, metrics = GRAPHS[3,], metrics_of(softmax_cross_entropy, jnp.ones(3), x, y)
    parts = [totals(graph, identity, softmax_cross_entropy, x[i:j], y[i:j], metrics) for i, j in ((0, 20), (20, 30))]
    whole = evaluate(graph, identity, softmax_cross_entropy, x, y)
    batches = [(x[:20], y[:20]), (x[20:], y[20:])]
    for joined in (
        summary(metrics, add(*parts)),
        evaluate_batches(graph, identity, softmax_cross_entropy, batches),
    ):
        assert joined == pytest.approx({name: float(value) for name, value in whole.items()}, rel=1e-6)
    with pytest.raises(ValueError, match="expected at least one batch, got none"):
        evaluate_batches(graph, identity, softmax_cross_entropy, [])


def test_sums_keep_every_count():
    million = total(jnp.ones(2**20, jnp.int32))

    def body(sums, _):
        return plus(plus(sums, million), total(jnp.ones(1, jnp.int32))), None

    sums, _ = jax.jit(lambda start: jax.lax.scan(body, start, length=1000))(total(jnp.zeros(1, jnp.int32)))
    assert float(sums.value) == 1000 * (2**20 + 1)  # beyond 2^24, where float32 loses ones
    assert float(total(jnp.array([2**24, 1, 2])).value) == 2**24 + 3
    assert float(Total(jnp.float32(jnp.inf), jnp.float32(jnp.nan)).value) == np.inf


def test_means_over_many_updates_are_exact():
    info = vc.Info(jnp.ones((2**14, 3)), result=jnp.full(2**14, 2).at[0].set(1))
    seen = measured(jnp.float32(0.245), info, info.output, {})
    loop = jax.jit(lambda sums: jax.lax.fori_loop(0, 400_000, lambda _, sums: add(sums, seen), sums))
    sums = loop(first_sums(GRAPHS[3,], {}, info.output))
    assert int(sums["steps"]) == 400_000
    expected = {"train_loss": float(np.float32(0.245)), "inference_failures": (2**14 - 1) / 2**14}
    assert means(sums, {}) == pytest.approx(expected, rel=1e-9)  # over 6.6e9 examples
    late = add(sums | {"steps": jnp.full_like(sums["steps"], 2**24)}, seen)
    assert int(late["steps"]) == 2**24 + 1


def test_an_infinite_loss_stays_infinite():
    x = np.ones((7, 2), np.float32)
    x[1] = 1e30  # its square is infinite
    for batch_size in (2, 7):
        got = evaluate(GRAPHS[2,], identity, squared_error, x, np.zeros_like(x), batch_size=batch_size)
        assert (got["loss"], got["rmse"]) == (np.inf, np.inf)
    one, infinite = total(jnp.ones(1)), total(jnp.full(1, jnp.inf))
    assert plus(plus(one, infinite), one) == (np.inf, 0)
    assert plus(plus(one, infinite), infinite) == (np.inf, 0)
    assert np.isnan(plus(infinite, total(jnp.full(1, -jnp.inf))).value)
    assert np.isnan(plus(total(jnp.full(1, jnp.nan)), one).value)


def test_records_show_the_metrics_of_training_and_test():
    x, y = RANDOM.normal(size=(24, 4)).astype(np.float32), RANDOM.normal(size=(24, 2)).astype(np.float32)
    model = vc.nn.MLP((4, 2), key=jax.random.key(0))
    rule = vc.rules.Backprop(loss=squared_error)
    still = optax.sgd(0.0)
    settings = {"batch_size": 6, "test": (x[:9], y[:9]), "progress": False, "metrics": {"first": lambda o, t: o[0]}}
    run = vc.train.fit(rule, model, still, (x, y), key=jax.random.key(1), epochs=1, **settings)
    done = vc.train.sweep(
        lambda rate: (rule, still), lambda key: model, (x, y), {"rate": [0.1, 0.2]}, epochs=1, group_size=2, **settings
    )
    output = np.asarray(jax.vmap(model)(x), np.float64)
    for record in (run.records[0], done.members[1].records[0]):
        for name, rows in (("train", slice(None)), ("test", slice(9))):
            error, spread = y[rows] - output[rows], y[rows] - y[rows].mean(0)
            assert record[f"{name}_rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)
            assert record[f"{name}_r2"] == pytest.approx(np.mean(1 - (error**2).sum(0) / (spread**2).sum(0)), rel=1e-5)
            assert record[f"{name}_first"] == pytest.approx(output[rows, 0].mean(), rel=1e-5)
