"""The largest stable learning rate against the theory of quadratic losses."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from once import once

import vicinal as vc
from vicinal.analysis import largest_stable_rate

LOSS = vc.losses.squared_error


@once
def linear(batch=6, x64=False):
    """One linear layer, its batch, and the largest stable rate of gradient descent: 2 / largest curvature."""
    dtype = jnp.float64 if x64 else jnp.float32
    model = jax.tree.map(lambda leaf: leaf.astype(dtype), vc.nn.Linear(4, 2, key=jax.random.key(0)))
    x = jax.random.normal(jax.random.key(1), (batch, 4), dtype)
    y = jax.random.normal(jax.random.key(2), (batch, 2), dtype)
    design = np.concatenate([np.asarray(x), np.ones((batch, 1))], axis=1)
    limit = 2 / np.linalg.eigvalsh(design.T @ design / batch)[-1]
    return (vc.capture(model, x[0]), model, x, y), float(limit)


def backprop(rate):
    return vc.rules.Backprop(loss=LOSS), optax.sgd(rate)


@pytest.mark.parametrize("batch", [1, 6, 30])
def test_gradient_descent_on_a_quadratic_is_stable_below_two_over_the_top_curvature(batch):
    case, limit = linear(batch)
    found = largest_stable_rate(backprop, *case, steps=3000, ratio=1.02)
    assert found.unstable / found.stable <= 1.02
    assert found.stable < 1.001 * limit  # after many steps, just above the limit is already seen
    assert found.unstable > 0.999 * limit


def test_momentum_is_stable_at_larger_rates_by_theory():
    """Heavy ball: 2 (1 + m) / largest curvature."""
    case, limit = linear()
    found = largest_stable_rate(lambda rate: (backprop(rate)[0], optax.sgd(rate, momentum=0.5)), *case, steps=3000)
    assert found.stable / 1.001 < 1.5 * limit < found.unstable * 1.001


def test_implicit_sgd_is_stable_at_any_rate(x64):
    def implicit(rate):
        return vc.rules.ImplicitSGD(rate, loss=LOSS, tolerance=1e-9), optax.sgd(rate)

    case, limit = linear(x64=True)
    found = largest_stable_rate(implicit, *case, steps=5, high=1e6)
    assert found == (1e6, math.inf)
    assert largest_stable_rate(backprop, *case, steps=3000).stable < 1.01 * limit


def test_compiled_once_for_all_rates():
    made = []

    def make(rate):
        made.append(rate)
        return backprop(rate)

    case, _ = linear()
    for _ in range(2):
        largest_stable_rate(make, *case, steps=20)
    assert len(made) == 1
    assert isinstance(made[0], jax.core.Tracer)


def test_nothing_stable_and_everything_stable():
    case, limit = linear()
    assert largest_stable_rate(backprop, *case, steps=300, low=2 * limit, high=4 * limit) == (0.0, 2 * limit)
    assert largest_stable_rate(backprop, *case, low=1e-3, high=0.5 * limit) == (0.5 * limit, math.inf)


def test_near_the_optimum_rounding_does_not_count_as_a_rise():
    """The loss falls by less than rounding, which may raise it."""
    (graph, model, x, y), limit = linear(30)
    design = np.concatenate([np.asarray(x), np.ones((30, 1))], axis=1)
    best = np.linalg.lstsq(design, np.asarray(y), rcond=None)[0].T
    for seed in range(10):
        start = jnp.asarray(best + 1e-4 * np.random.default_rng(seed).standard_normal(best.shape), jnp.float32)
        near = eqx.tree_at(lambda m: (m.weight, m.bias), model, (start[:, :-1], start[:, -1]))
        found = largest_stable_rate(backprop, graph, near, x, y, low=0.1 * limit, high=0.9 * limit)
        assert found == (0.9 * limit, math.inf)


def test_diverging_to_infinity_is_unstable():
    model = vc.nn.MLP((4, 8, 2), "relu", key=jax.random.key(0))
    (_, _, x, y), _ = linear()
    found = largest_stable_rate(backprop, vc.capture(model, x[0]), model, x, y)
    assert 0.01 < found.stable < found.unstable < 100


def test_rules_with_state_keys_and_adaptive_optimizers():
    class Noisy(vc.rules.Backprop):
        """Adds decaying noise to the output's error, and remembers what it drew."""

        def init(self, graph, model, *, key=None):
            return {"drawn": jax.random.normal(key), "count": 0}

        def credit(self, graph, model, state, x, y, *, key=None):
            credit, _ = super().credit(graph, model, (), x, y)
            return credit, {"drawn": jax.random.normal(key), "count": state["count"] + 1}

    case, _ = linear()
    found = largest_stable_rate(
        lambda rate: (Noisy(loss=LOSS), optax.adam(rate)), *case, steps=50, key=jax.random.key(0), ratio=2.0
    )
    assert 1e-3 < found.stable < found.unstable == pytest.approx(found.stable * 2, rel=0.3)


def test_clear_errors():
    case, _ = linear()
    with pytest.raises(ValueError, match=r"expected rates 0 < low < high, got low=1.0 and high=0.1"):
        largest_stable_rate(backprop, *case, low=1.0, high=0.1)
    with pytest.raises(ValueError, match=r"expected rates 0 < low < high, got low=0.0"):
        largest_stable_rate(backprop, *case, low=0.0)
    with pytest.raises(ValueError, match=r"expected ratio above 1, got 1.0"):
        largest_stable_rate(backprop, *case, ratio=1.0)
    with pytest.raises(ValueError, match="expected steps as an integer of at least 1, got 0"):
        largest_stable_rate(backprop, *case, steps=0)
