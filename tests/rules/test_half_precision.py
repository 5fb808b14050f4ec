"""Models in half precision train under every rule, and a mean over a batch does not overflow."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matrix import diagonal

import vicinal as vc
from vicinal.credit import batch_mean
from vicinal.events import Graded
from vicinal.rules._chains import mean_outer

RANDOM = np.random.default_rng(5)
X, Y = RANDOM.normal(size=(8, 6)), np.arange(8) % 3
KEY = jax.random.key(1)
SQUARED = vc.losses.squared_error
WIDE = vc.nn.MLP((6, 5, 3), vertex_at="pre", key=jax.random.key(0))
HALVES = [jnp.float16, jnp.bfloat16]


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)


GRAPHS = {dtype: vc.capture(cast(WIDE, dtype), jnp.asarray(X[0], dtype)) for dtype in (jnp.float32, *HALVES)}
SETTLING = vc.inference.Simultaneous(steps=4, step_size=0.1)
RULES = {
    "Backprop": vc.rules.Backprop(loss=SQUARED),
    "InferenceLearning": vc.rules.InferenceLearning(SETTLING, loss=SQUARED),
    "IncrementalPC": vc.rules.IncrementalPC(steps=3, loss=SQUARED),
    "ImplicitSGD": vc.rules.ImplicitSGD(0.1, loss=SQUARED, steps=20),
    "ZIL": vc.rules.ZIL(loss=SQUARED),
    "FixedPrediction": vc.rules.FixedPrediction(loss=SQUARED),
    "ActivationRelaxation": vc.rules.ActivationRelaxation(loss=SQUARED),
    "RelaxedPC": vc.rules.RelaxedPC(connections="learned", loss=SQUARED),
    "DynamicInversion": vc.rules.DynamicInversion(loss=SQUARED),
    "DirectFeedback": vc.rules.DirectFeedback(loss=SQUARED),
    # Of every change: a rounding that moves one across a threshold would move its whole event.
    "EventInferenceLearning": vc.rules.EventInferenceLearning(
        steps=4, activity=Graded(0.0), error=Graded(0.0), loss=SQUARED
    ),
    "EventBackprop": vc.rules.EventBackprop(Graded(0.0), Graded(0.0), SQUARED),
}
ROUNDINGS = {"DynamicInversion": 30}  # of an integration of many small steps, whose roundings add
DRAWS = {"DirectFeedback"}  # feedback of another precision is drawn otherwise: another gradient


def gradient_of(rule, dtype, x, y):
    model, x = cast(WIDE, dtype), jnp.asarray(x, dtype)
    state = rule.init(GRAPHS[dtype], model, key=KEY)
    value = eqx.filter_jit(rule.value_and_grad)
    return value(GRAPHS[dtype], model, state, x, jnp.asarray(y), key=KEY)[1]


def flat(tree):
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize(("name", "kind"), diagonal(RULES, ["float16", "bfloat16"]))
def test_every_rule_trains(name, kind):
    dtype = jnp.dtype(kind).type
    rule, graph, model = RULES[name], GRAPHS[dtype], cast(WIDE, dtype)
    if name not in DRAWS:
        exact, got = (flat(gradient_of(rule, kind, X, Y)) for kind in (jnp.float32, dtype))
        eps = float(jnp.finfo(dtype).eps)
        assert np.linalg.norm(got - exact) < ROUNDINGS.get(name, 10) * eps * np.linalg.norm(exact)
    optimizer, state = optax.sgd(0.05), rule.init(graph, model, key=KEY)
    memory, step = optimizer.init(graph.trainable(model)), eqx.filter_jit(rule.step)
    losses = []
    for _ in range(4):
        model, memory, state, loss, _ = step(
            graph, optimizer, model, memory, state, jnp.asarray(X, dtype), jnp.asarray(Y), key=KEY
        )
        losses.append(float(loss))
    assert np.isfinite(flat(eqx.filter(model, eqx.is_inexact_array))).all()
    assert losses[-1] < losses[0]
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(graph.trainable(model)))


@pytest.mark.parametrize("name", ["Backprop", "IncrementalPC"])
def test_a_large_batch(name):
    rows = RANDOM.permutation(70_000) % 8  # examples repeat, so that the mean is that of the eight
    rule = RULES[name]
    exact = flat(gradient_of(rule, jnp.float32, X[rows], Y[rows]))
    got = flat(gradient_of(rule, jnp.float16, X[rows], Y[rows]))
    assert np.linalg.norm(exact) > 0.1
    assert np.linalg.norm(got - exact) < 10 * 2**-10 * np.linalg.norm(exact)
    odd = flat(gradient_of(RULES["Backprop"], jnp.float16, X[rows[:259]], Y[rows[:259]]))  # a piece that is not full
    full = flat(gradient_of(RULES["Backprop"], jnp.float32, X[rows[:259]], Y[rows[:259]]))
    assert np.linalg.norm(odd - full) < 10 * 2**-10 * np.linalg.norm(full)


def test_an_example_counts_once_where_the_last_piece_is_not_full():
    """259 examples of which the first alone has an input, so that the gradient is its product."""
    model = eqx.tree_at(lambda m: m.weight, vc.nn.Linear(2, 1, use_bias=False, key=KEY), jnp.zeros((1, 2), jnp.float16))
    x, y = jnp.zeros((259, 2), jnp.float16).at[0].set(1), jnp.ones((259, 1), jnp.float16)
    gradient = eqx.filter_jit(vc.rules.Backprop(loss=SQUARED).value_and_grad)(vc.capture(model, x[0]), model, (), x, y)[
        1
    ]
    np.testing.assert_allclose(gradient.weight, np.full((1, 2), -1 / 259), rtol=2e-3)


def test_a_mean_knows_every_number_of_examples():
    total = {"a": jnp.asarray([700.0, -70.0], jnp.float16)}
    np.testing.assert_allclose(batch_mean(total, 70_000)["a"], [-0.01, 0.001], rtol=1e-3)
    ones = jnp.ones((70_000, 2), jnp.float16)
    np.testing.assert_array_equal(mean_outer(ones, ones), np.ones((2, 2)))


def test_presynaptic_norms_beyond_half_precision():
    model = vc.nn.Linear(300, 1, use_bias=False, key=KEY)
    model = eqx.tree_at(lambda m: m.weight, model, jnp.zeros((1, 300), jnp.float16))
    x, y = jnp.full((1, 300), 100.0, jnp.float16), jnp.ones((1, 1), jnp.float16)
    graph, rule, optimizer = vc.capture(model, x[0]), vc.rules.Backprop(loss=SQUARED), vc.optim.nlms(1.0)
    new, *_ = eqx.filter_jit(rule.step)(graph, optimizer, model, optimizer.init(graph.trainable(model)), (), x, y)
    # The normalised step meets the target at once: 300 weights of 1 / (300 * 100); their norm is 3e6, beyond 65504.
    np.testing.assert_allclose(new.weight, np.full((1, 300), 1 / 30_000), rtol=2e-3)


@pytest.mark.parametrize("strategy", [SETTLING, vc.inference.Sequential(steps=2), vc.inference.ErrorBased(steps=2)])
def test_energies_beyond_half_precision(strategy):
    units = 3000
    network = jax.tree_util.Partial(
        lambda w, x: vc.vertex(w @ x, "wide")[:1] * jnp.float16(0), jnp.ones((units, 1), jnp.float16)
    )
    x, y = jnp.ones((2, 1), jnp.float16), jnp.zeros((2, 1), jnp.float16)
    graph = vc.capture(network, x[0])
    rule = vc.rules.InferenceLearning(strategy, loss=SQUARED, precision=100.0)
    problem = vc.inference.Problem(graph, network, x, y, SQUARED, jnp.float32(1.0), jnp.float32(100.0))
    energy = eqx.filter_jit(problem.energies)({"wide": jnp.full((2, units), 2.0, jnp.float16)})["wide"]
    np.testing.assert_allclose(energy, [100 / 2 * units * (2 - 1) ** 2] * 2)  # 150 000: beyond 65504
    *_, info = eqx.filter_jit(rule.value_and_grad)(graph, network, (), x, y)
    assert set(np.asarray(info.result)) <= {vc.inference.Result.STEP_LIMIT, vc.inference.Result.CONVERGED}
