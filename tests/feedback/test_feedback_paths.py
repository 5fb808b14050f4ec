"""Paths of feedback: fixed, sign-symmetric, and those that learn as the weights do."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from once import once
from precision import double

import vicinal as vc
from vicinal.feedback import attach, given, kolen_pollack, optimizers, random, sign_symmetric, tied
from vicinal.feedback.paths import deviation
from vicinal.rules import Backprop

KEY = jax.random.key(0)
SQUARED = vc.losses.squared_error


def trained(model, optimizer, x, y, steps, loss=SQUARED, between=lambda model: None):
    """The model after so many updates of backpropagation along its own paths."""
    rule, graph = Backprop(loss=loss), vc.capture(model, x[0])
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    step = eqx.filter_jit(lambda model, state: rule.step(graph, optimizer, model, state, (), x, y)[:2])
    for _ in range(steps):
        model, state = step(model, state)
        between(model)
    return model


@once
def small(sizes=(4, 6, 5, 3), activation="tanh"):
    return double(vc.nn.MLP(sizes, activation=activation, key=KEY))


def batch(sizes=(4, 3), examples=8):
    rng = np.random.default_rng(1)
    return tuple(jnp.asarray(rng.normal(size=(examples, size))) for size in sizes)


def gradient(model, x, y, rule=None):
    rule = rule or Backprop(loss=SQUARED)
    return eqx.filter_jit(rule.value_and_grad)(vc.capture(model, x[0]), model, (), x, y)[1]


def test_tied_feedback_is_backpropagation(x64):
    """The control of both families: feedback by the transposed weights, which must give `jax.grad`."""
    model, (x, y) = small(), batch()
    fed = vc.feedback.detach(gradient(attach(model, tied()), x, y))
    exact = jax.jit(jax.grad(lambda m: jnp.mean(jax.vmap(lambda x, y: SQUARED(m(x), y))(x, y))))(model)
    for a, b in zip(jax.tree.leaves(fed), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


def test_the_top_layer_learns_as_in_backpropagation(x64):
    model, (x, y) = small(), batch()
    fed = gradient(attach(model, random(), key=KEY), x, y)
    exact = gradient(model, x, y)
    np.testing.assert_allclose(fed.layers[-1].layer.weight, exact.layers[-1].weight, rtol=1e-12)
    assert float(vc.analysis.angle(fed.layers[0].layer.weight, exact.layers[0].weight)) > 10


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_random_feedback_has_the_deviation_of_first_weights(distribution):
    model = vc.nn.MLP((50, 400, 400), key=KEY)
    fed = attach(model, random(scale=2.0, distribution=distribution), key=jax.random.key(1))
    for layer in fed.layers:
        feedback, weight = np.asarray(layer.path.feedback), np.asarray(layer.layer.weight)
        assert np.std(feedback) == pytest.approx(2 * np.std(weight), rel=0.03)
    below, above = (np.asarray(layer.path.feedback) for layer in fed.layers)
    assert np.max(np.abs(below[:50] - above[:50, :50])) > 0.1


def test_the_same_key_draws_the_same_feedback_whatever_else_the_model_has():
    model = vc.nn.MLP((4, 5, 3), key=KEY)
    one = attach(model, random(), key=jax.random.key(1))
    wider = attach((model, vc.nn.Linear(2, 2, key=KEY)), lambda name, w, key: random()(name, w, key), key=KEY)
    assert wider[1].path.feedback.shape == (2, 2)
    again = attach(model, random(), key=jax.random.key(1))
    np.testing.assert_array_equal(one.layers[1].path.feedback, again.layers[1].path.feedback)


@pytest.mark.parametrize(
    "route", [random(), kolen_pollack(), sign_symmetric("fixed-random"), vc.feedback.aligned(vc.feedback.Alignment())]
)
def test_a_missing_key_is_refused(route):
    with pytest.raises(ValueError, match=r"expected a key to draw the feedback of layers\[0\].weight with, got none"):
        attach(vc.nn.MLP((4, 5, 3), key=KEY), route)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: random(scale=-1.0), "expected the scale of the feedback of at least 0, got -1"),
        (lambda: random(distribution="cauchy"), "expected distribution as 'uniform' or 'normal', got 'cauchy'"),
        (
            lambda: sign_symmetric("none"),
            "expected magnitude as 'uniform', 'batch-random' or 'fixed-random', got 'none'",
        ),
        (lambda: sign_symmetric(scale=0.0), "expected the scale of the feedback above 0, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# ------------------------------------------------------------------------------------------------ sign symmetry


@pytest.mark.parametrize("magnitude", ["uniform", "batch-random", "fixed-random"])
def test_the_signs_are_those_of_the_weights_at_every_step(x64, magnitude):
    """Along training; magnitudes that are drawn once stay."""
    fed = attach(small(), sign_symmetric(magnitude), key=KEY)
    weight_of = eqx.filter_jit(lambda layer: layer.path.weight(layer.layer.weight))
    first, drawn = fed.layers[1].path, []

    def look(model):
        layer = model.layers[1]
        feedback = np.asarray(weight_of(layer))
        np.testing.assert_array_equal(np.sign(feedback), np.sign(layer.layer.weight))
        drawn.append(np.abs(feedback))

    x, y = batch()
    after = trained(fed, optimizers(optax.adamw(0.05)), x, y, 4, between=look)
    assert not np.array_equal(after.layers[1].layer.weight, fed.layers[1].layer.weight)
    same = [np.array_equal(a, b) for a, b in itertools.pairwise(drawn)]
    assert same == [magnitude != "batch-random"] * 3
    if magnitude == "fixed-random":
        np.testing.assert_array_equal(after.layers[1].path.magnitude, first.magnitude)


def test_batch_random_feedback_is_the_uniform_one_on_average(x64):
    """Over draws of the magnitudes `M`, the mean feedback is `E|M|` times the uniform one."""
    weight = jax.random.normal(KEY, (3, 4), jnp.float64)

    def feedback(key):
        return sign_symmetric("batch-random")("w", weight, key).weight(weight)

    draws = jax.jit(jax.vmap(feedback))(jax.random.split(KEY, 20_000))
    uniform = sign_symmetric()("w", weight, None).weight(weight)
    np.testing.assert_allclose(np.mean(np.asarray(draws), axis=0), uniform * np.sqrt(2 / np.pi), rtol=0.03)


@pytest.mark.parametrize(("draw", "degrees"), [("normal", np.arccos(np.sqrt(2 / np.pi))), ("uniform", np.pi / 6)])
def test_the_angle_of_a_weight_to_its_signs(x64, draw, degrees):
    sizes = (400, 500)
    rng = np.random.default_rng(0)
    weight = jnp.asarray(rng.normal(size=sizes) if draw == "normal" else rng.uniform(-1, 1, sizes))
    feedback = sign_symmetric()("w", weight, None).weight(weight)
    assert float(vc.analysis.angle(weight, feedback)) == pytest.approx(np.rad2deg(degrees), abs=0.2)
    assert np.std(np.asarray(feedback)) == pytest.approx(deviation(weight), rel=1e-2)


# ------------------------------------------------------------------------------------------------ Kolen and Pollack


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_weights_and_kolen_pollack_feedback_converge_by_the_decay_alone(x64, name):
    """`W - B` contracts by exactly `1 - rate * decay` in each step."""
    rate, decay, steps = 0.05, 0.1, 40
    sgd = optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate))
    optimizer = optimizers(sgd if name == "sgd" else optax.adamw(rate, weight_decay=decay))
    fed, (x, y) = attach(small(), kolen_pollack(), key=jax.random.key(5)), batch()
    after = trained(fed, optimizer, x, y, steps)
    for old, new in zip(fed.layers, after.layers, strict=True):
        before, found = (np.subtract(m.layer.weight, m.path.feedback) for m in (old, new))
        np.testing.assert_allclose(found, before * (1 - rate * decay) ** steps, rtol=1e-9, atol=1e-14)


def test_weight_decay_leaves_fixed_feedback_alone(x64):
    fed, (x, y) = attach(small(), random(), key=KEY), batch()
    after = trained(fed, optimizers(optax.adamw(0.05, weight_decay=0.5)), x, y, 3)
    np.testing.assert_array_equal(after.layers[1].path.feedback, fed.layers[1].path.feedback)


# --------------------------------------------------------------------------------------- theory of feedback alignment


def test_a_linear_network_conserves_q(x64):
    """`Q = B W2 + (B W2)^T - W1 W1^T` drifts in proportion to the learning rate."""
    model = small((5, 4, 3), activation="identity")
    model = eqx.tree_at(lambda m: [layer.bias for layer in m.layers], model, replace_fn=jnp.zeros_like)
    x, y = batch((5, 3))

    def q(fed):
        below, above = fed.layers
        return vc.analysis.feedback_invariant(below.layer.weight, above.layer.weight, above.path.feedback)

    weights_alone = optax.masked(optax.set_to_zero(), lambda tree: jax.tree.map(lambda leaf: leaf.ndim == 1, tree))
    drifts = []
    for rate, steps in ((1e-2, 100), (1e-3, 1000)):
        fed = attach(model, random(), key=KEY)
        after = trained(fed, optax.chain(optax.sgd(rate), weights_alone), x, y, steps)
        assert np.max(np.abs(np.subtract(after.layers[1].layer.weight, fed.layers[1].layer.weight))) > 0.05
        drifts.append(np.max(np.abs(np.subtract(q(after), q(fed)))))
    assert drifts[0] / drifts[1] == pytest.approx(10, rel=0.1)


def test_from_zero_the_weights_turn_to_the_feedback(x64):
    """Two steps from zero, `<W2, B>` is a sum of squares."""
    x, y = batch((5, 3))
    for seed in range(5):
        model = jax.tree.map(jnp.zeros_like, small((5, 6, 3), activation="identity"))
        feedback = jnp.asarray(np.random.default_rng(seed).normal(size=(3, 6)))
        after = trained(attach(model, given({"layers[1].weight": feedback})), optax.sgd(0.1), x, y, 2)
        assert float(vc.analysis.angle(after.layers[1].layer.weight, feedback)) < 80


class _Wide(eqx.Module):
    """`beta^T psi(W x) / sqrt(p)`, all standard normal at first."""

    below: vc.nn.Linear
    above: vc.nn.Linear

    def __init__(self, p, key):
        keys = jax.random.split(key, 3)
        self.below = vc.nn.Linear(30, p, use_bias=False, key=keys[0])
        self.above = vc.nn.Linear(p, 1, use_bias=False, key=keys[0])
        self.below = eqx.tree_at(lambda m: m.weight, self.below, jax.random.normal(keys[1], (p, 30)))
        self.above = eqx.tree_at(lambda m: m.weight, self.above, jax.random.normal(keys[2], (1, p)))

    def __call__(self, x):
        rate = vc.vertex(jax.nn.relu(self.below(x)), "hidden")
        return self.above(rate) / jnp.sqrt(jnp.asarray(rate.size, x.dtype))


def test_alignment_of_wide_networks_needs_regularisation():
    """20 random examples, rate .1 for the sum of losses, decay .3 of the upper weights in the first steps."""
    n, p, rate, decay = 20, 1000, 0.1, 0.3
    x = jax.random.normal(jax.random.key(1), (n, 30))
    x, y = x / jnp.linalg.norm(x, axis=1, keepdims=True), jax.random.normal(jax.random.key(2), (n, 1))
    model = _Wide(p, KEY)
    feedback = jax.random.normal(jax.random.key(3), (1, p))
    found = {}
    for regularised in (0, 100, 300):
        upper = optax.chain(
            optax.add_decayed_weights(decay / n, lambda tree: jax.tree.map(lambda leaf: leaf.shape == (1, p), tree)),
        )
        fed = attach(model, given({"above.weight": feedback}))
        fed = trained(fed, optimizers(optax.chain(upper, optax.sgd(rate * n))), x, y, regularised)
        fed = trained(fed, optimizers(optax.sgd(rate * n)), x, y, 600)
        loss = jnp.sum(jnp.square(jax.vmap(fed)(x) - y))
        assert float(loss) < 1e-2
        found[regularised] = np.cos(np.deg2rad(float(vc.analysis.angle(fed.above.layer.weight, feedback))))
    # Measured independently of this library, at the same width: .06, .47 and .74.
    np.testing.assert_allclose(list(found.values()), [0.06, 0.47, 0.74], atol=0.1)


def test_likeness_and_error_angles(x64):
    model, (x, y) = small(), batch()
    fed = attach(model, given({"layers[1].weight": -2 * model.layers[1].weight}))
    found = vc.analysis.feedback_likeness(fed)
    assert list(found) == ["layers[1].weight"]
    likeness = found["layers[1].weight"]
    values = [float(likeness.angle), float(likeness.norm_ratio), float(likeness.sign_agreement)]
    np.testing.assert_allclose(values, [180, 2, 0], rtol=1e-9)
    rule = Backprop(loss=SQUARED)
    credit = eqx.filter_jit(rule.credit)
    ours, theirs = (credit(vc.capture(m, x[0]), m, (), x, y)[0].errors for m in (fed, model))
    angles = vc.analysis.error_angles(ours, theirs)
    np.testing.assert_allclose([float(angles["hidden1"]), float(angles["hidden2"])], [180, 0], atol=1e-6)
    with pytest.raises(ValueError, match="expected a model with feedback, got one without"):
        vc.analysis.feedback_likeness(model)
