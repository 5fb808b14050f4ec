"""The Yin-Yang data set: areas and symmetries of the symbol, balance of the classes."""

import math

import numpy as np
import pytest

import vicinal as vc
from vicinal.data import yin_yang, yin_yang_class


def grid(n=1000):
    ticks = (np.arange(n) + 0.5) / n
    return (axis.ravel() for axis in np.meshgrid(ticks, ticks))


def test_areas_are_those_of_circles():
    classes = yin_yang_class(*grid())
    share = {c: np.mean(classes == c) for c in (-1, 0, 1, 2)}
    # A disc of radius 1/2 in the unit square, two dots of radius 1/10; what is left is shared alike.
    dots, disc = 2 * math.pi * 0.1**2, math.pi * 0.5**2
    expected = {-1: 1 - disc, 0: (disc - dots) / 2, 1: (disc - dots) / 2, 2: dots}
    for c, area in expected.items():
        assert share[c] == pytest.approx(area, abs=2e-3), c


def test_turning_the_symbol_by_half_a_turn_exchanges_yin_and_yang():
    x, y = grid(501)
    off_centre = np.abs(y - 0.5) > 1e-9  # the middle line belongs to one of them
    here, there = yin_yang_class(x, y)[off_centre], yin_yang_class(1 - x, 1 - y)[off_centre]
    assert np.array_equal(there, np.array([1, 0, 2, -1])[here])


def test_known_points():
    points = np.array([[0.5, 0.95], [0.5, 0.05], [0.25, 0.5], [0.75, 0.5], [0.25, 0.35], [0.75, 0.65], [0.02, 0.02]])
    assert yin_yang_class(*points.T).tolist() == [0, 1, 2, 2, 0, 1, -1]


def test_examples_lie_in_their_class_and_classes_are_balanced():
    data = yin_yang(6000, 1500, seed=3)
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert x.dtype == np.float32
        assert y.dtype == np.int32
        assert np.all((x >= 0) & (x <= 1))
        np.testing.assert_allclose(x[:, 2:], 1 - x[:, :2], atol=1e-7)
        # Rounding to float32 moves a point by less than 1e-7: nearly none changes its class.
        assert np.mean(yin_yang_class(*x[:, :2].astype(float).T) == y) > 0.999
        counts = np.bincount(y, minlength=3)
        deviation = math.sqrt(len(y) * (1 / 3) * (2 / 3))
        assert np.all(np.abs(counts - len(y) / 3) < 5 * deviation)
    # In the dots points are uniform: the mean squared distance from the middle of a disc of radius R is R^2 / 2.
    x = data.x_train[data.y_train == 2].astype(float)
    middle = np.where(x[:, 0] > 0.5, 0.75, 0.25)
    square = (x[:, 0] - middle) ** 2 + (x[:, 1] - 0.5) ** 2
    assert np.mean(square) == pytest.approx(0.005, abs=5 * 0.01 / math.sqrt(12 * len(x)))


def test_the_seed_says_which_points():
    first, same, other = (yin_yang(50, 20, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.x_train, same.x_train)
    assert np.array_equal(first.y_test, same.y_test)
    assert not np.array_equal(first.x_train, other.x_train)
    assert isinstance(first, vc.data.Dataset)


@pytest.mark.parametrize("settings", [{"train": 0}, {"test": 1.5}, {"radius": -1.0}, {"dot": 0.3}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(TypeError if "test" in settings else ValueError, match="expected"):
        yin_yang(**settings)
