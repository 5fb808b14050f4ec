"""The data set's helpers, and the order of an epoch."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from vicinal.data import Dataset, epoch_order, load


def images(*shape, train=6, test=3):
    """A data set in which every number is different."""
    numbers = np.arange((train + test) * int(np.prod(shape)), dtype=np.float32).reshape(train + test, *shape)
    labels = np.arange(train + test, dtype=np.int32)
    return Dataset("set", numbers[:train], labels[:train], numbers[train:], labels[train:], train + test, "me")


def test_flattened_is_row_major():
    flat = images(2, 3).flattened()
    assert (flat.shape, flat.features) == ((6,), 6)
    np.testing.assert_array_equal(flat.x_train[1], [6, 7, 8, 9, 10, 11])
    np.testing.assert_array_equal(flat.y_train, range(6))
    assert flat.flattened().shape == (6,)


def test_channels_come_first():
    assert images(2, 3).channels_first().shape == (1, 2, 3)
    colour = images(2, 3, 4)
    moved = colour.channels_first()
    assert moved.x_test.shape == (3, 4, 2, 3)
    for channel in range(4):
        np.testing.assert_array_equal(moved.x_test[:, channel], colour.x_test[..., channel])
    with pytest.raises(ValueError, match="before flattened"):
        colour.flattened().channels_first()


@pytest.mark.parametrize("change", [Dataset.flattened, Dataset.channels_first, lambda data: data.subset(2, 1)])
def test_autoencoding_targets_follow_the_inputs(change):
    data = images(2, 3)
    for result in (change(data).as_autoencoding(), change(data.as_autoencoding())):
        assert result.classes is None
        np.testing.assert_array_equal(result.y_train, change(data).x_train)
        np.testing.assert_array_equal(result.y_test, change(data).x_test)


def test_subset_takes_the_first():
    part = images(2).subset(2, 3)
    np.testing.assert_array_equal(part.y_train, [0, 1])
    np.testing.assert_array_equal(part.y_test, [6, 7, 8])
    np.testing.assert_array_equal(part.x_train, [[0, 1], [2, 3]])


@pytest.mark.parametrize(("train", "test"), [(0, 1), (7, 1), (1, 0), (1, 4), (-1, 1)])
def test_subset_refuses_what_is_not_there(train, test):
    with pytest.raises(ValueError, match=r"expected t.* between 1 and [63], got"):
        images(2).subset(train, test)


def test_shuffled_keeps_pairs_together():
    data = images(2, train=50)
    mixed = data.shuffled(key=jax.random.key(0))
    again = data.shuffled(key=jax.random.key(0))
    np.testing.assert_array_equal(mixed.y_train, again.y_train)
    np.testing.assert_array_equal(mixed.x_train[:, 0], 2 * mixed.y_train)  # true of every pair in `images`
    np.testing.assert_array_equal(mixed.x_test[:, 1], 2 * mixed.y_test + 1)
    assert sorted(mixed.y_train.tolist()) == list(range(50)) != mixed.y_train.tolist()


def test_a_data_set_is_frozen_and_prints_briefly():
    data = images(2, 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"
    assert repr(data) == "Dataset('set': 6 training and 3 test examples of shape (2, 3), 9 classes)"
    assert repr(data.as_autoencoding()).endswith("of shape (2, 3))")
    assert data != images(2, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_train": np.zeros(5, np.int32)}, r"got \(6, 2\) and \(5,\)"),
        ({"x_test": np.zeros((3, 3), np.float32)}, r"x_train and x_test to agree.*got \(6, 2\) and \(3, 3\)"),
        ({"y_test": np.zeros((3, 2), np.float32)}, "y_train and y_test to agree"),
        ({"x_test": np.zeros((0, 2), np.float32), "y_test": np.zeros(0, np.int32)}, "n >= 1"),
        ({"x_test": np.zeros(3, np.float32)}, r"x_test of shape \[n, ...\]"),
    ],
)
def test_arrays_that_do_not_belong_together(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(images(2), **changes)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 10**6), size=st.sampled_from([1, 3, 63, 100]))
def test_an_epoch_visits_each_example_once(seed, epoch, size):
    key = jax.random.key(seed)
    order = epoch_order(key, epoch, size)
    assert sorted(order.tolist()) == list(range(size))
    np.testing.assert_array_equal(order, epoch_order(key, epoch, size))


def test_epochs_and_keys_differ_and_jit_agrees():
    key = jax.random.key(0)
    first, second = epoch_order(key, 0, 100), epoch_order(key, 1, 100)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, epoch_order(jax.random.key(1), 0, 100))
    traced = jax.jit(epoch_order, static_argnums=2)(key, np.int32(1), 100)
    np.testing.assert_array_equal(traced, second)


def test_an_empty_epoch_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        epoch_order(jax.random.key(0), 0, 0)


def test_arrays_go_to_the_device_as_they_are():
    digits = load("digits").flattened()
    x = jax.device_put(digits.x_train)
    assert (x.shape, x.dtype) == ((1437, 64), np.float32)
