"""Feedback that learns: where each penalty comes to rest, and what it may read."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matrix import full, some
from once import once
from precision import double

import vicinal as vc
from vicinal.feedback import (
    Alignment,
    Noise,
    activation_alignment,
    aligned,
    alternating,
    attach,
    information_alignment,
    optimizers,
    symmetric_alignment,
    weight_mirror,
)
from vicinal.rules import Backprop

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)


def layer_of(sizes=(4, 5)):
    return double(vc.nn.Linear(*sizes, key=KEY))


def coloured(features, examples=400):
    """Inputs whose units correlate, and their second moments."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(examples, features)) @ rng.normal(size=(features, features))
    return x, x.T @ x / examples


def white(features):
    """Inputs whose second moments are the identity."""
    return features**0.5 * np.eye(features)


def at_rest(alignment, layer, x):
    """Where a penalty is least: it is quadratic in the feedback, and its slopes at 0 and at unit vectors say where."""

    @jax.jit
    def slopes(points):
        def mean(feedback):
            return jnp.mean(jax.vmap(lambda x: alignment.penalty(layer, feedback, x))(x))

        return jax.vmap(jax.grad(mean))(points)

    size = layer.weight.size
    slope, *others = np.asarray(slopes(np.eye(size + 1, size, -1).reshape(-1, *layer.weight.shape))).reshape(-1, size)
    return -np.linalg.solve(np.asarray(others) - slope, slope).reshape(layer.weight.shape)


def penalty_of(route):
    """The penalty in a route."""
    return route("weight", jnp.zeros((2, 2)), KEY).alignment


def test_the_fixed_points_of_the_penalties(x64):
    """For inputs of any covariance `C`."""
    layer = layer_of()
    w, (x, c) = np.asarray(layer.weight), coloured(4)
    a, b, g = 0.3, 0.7, 0.2
    mirror = at_rest(penalty_of(weight_mirror(decay=a, amplify=b)), layer, x)
    np.testing.assert_allclose(mirror, b / (2 * a) * w @ c, rtol=1e-9)
    information = at_rest(penalty_of(information_alignment(amplify=a, null=b, decay=g)), layer, x)
    expected = a * np.linalg.solve(2 * b * w @ c @ w.T + 2 * g * np.eye(5), w @ c)
    np.testing.assert_allclose(information, expected, rtol=1e-9)
    symmetric = at_rest(penalty_of(symmetric_alignment(decay=a, own=b)), layer, x)
    np.testing.assert_allclose(symmetric, b / (2 * a) * w, rtol=1e-9)
    activation = at_rest(penalty_of(activation_alignment(sparse=a, amplify=b)), layer, x)
    np.testing.assert_allclose(activation, b / (2 * a) * w, rtol=1e-9)


def test_information_alignment_leads_to_the_pseudo_inverse(x64):
    layer, x = layer_of((5, 3)), white(5)
    distances = []
    for decay in (1e-4, 1e-5, 1e-6):
        found = at_rest(penalty_of(information_alignment(amplify=2.0, null=1.0, decay=decay)), layer, x)
        distances.append(np.max(np.abs(found.T - np.linalg.pinv(layer.weight))))
    assert distances[0] / distances[1] == pytest.approx(10, rel=0.05)
    assert distances[1] / distances[2] == pytest.approx(10, rel=0.01)


def test_the_defaults_rest_at_the_weight_or_its_damped_inverse(x64):
    layer = layer_of()
    w, x = np.asarray(layer.weight), white(4)
    for route in (symmetric_alignment(), activation_alignment()):
        np.testing.assert_allclose(at_rest(penalty_of(route), layer, x), w, rtol=1e-9)
    np.testing.assert_allclose(at_rest(penalty_of(weight_mirror()), layer, x), w / 2, rtol=1e-9)
    damped = np.linalg.solve(w.T @ w + np.eye(4), w.T)
    np.testing.assert_allclose(at_rest(penalty_of(information_alignment()), layer, x).T, damped, rtol=1e-9)


CONVOLUTIONS = {
    "strided": ({"stride": 2}, (2, 7, 7)),
    "padded": ({"padding": 1}, (2, 5, 5)),
    "grouped": ({"groups": 2}, (2, 6, 6)),
}


@pytest.mark.parametrize("name", some(CONVOLUTIONS, "grouped"))
def test_a_convolution_is_the_matrix_that_it_stands_for(x64, name):
    """Penalties of a kernel are those of the dense matrix, made here by unit vectors."""
    settings, shape = CONVOLUTIONS[name]
    layer = double(vc.nn.Conv2d(2, 4, 3, key=KEY, **settings))
    rng = np.random.default_rng(1)
    feedback, x = rng.normal(size=layer.weight.shape), rng.normal(size=shape)
    units = np.eye(x.size).reshape(-1, *shape)

    @jax.jit
    def matrix(weight):
        bare = eqx.tree_at(lambda m: (m.weight, m.bias), layer, (weight, jnp.zeros_like(layer.bias)))
        return jax.vmap(bare)(units).reshape(x.size, -1).T

    alignments = (
        Alignment(sparse=1.0),
        Alignment(amplify=1.0),
        Alignment(null=1.0),
        Alignment(decay=1.0, own=0.5),
    )
    found = jax.jit(lambda feedback, x: [each.penalty(layer, feedback, x) for each in alignments])(feedback, x)
    w, b, flat = np.asarray(matrix(layer.weight)), np.asarray(matrix(feedback)), x.reshape(-1)
    expected = (
        np.sum((b @ flat) ** 2),
        -(b @ flat) @ (w @ flat),
        np.sum((b.T @ (w @ flat)) ** 2),
        np.sum(feedback**2) - 0.5 * np.sum(feedback * np.asarray(layer.weight)),
    )
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@once
def task(sizes):
    """A model and a batch, made while double precision is on."""
    x = np.random.default_rng(1).normal(size=(8, sizes[0]))
    return double(vc.nn.MLP(sizes, key=KEY)), jnp.asarray(x), jnp.asarray(np.arange(8) % sizes[-1])


value_and_grad = eqx.filter_jit(Backprop().value_and_grad)
take_step = eqx.filter_jit(Backprop().step)


def fed_task(route):
    model, x, y = task((4, 6, 5, 3))
    fed = attach(model, route, key=jax.random.key(7))
    return fed, vc.capture(fed, x[0]), x, y


def test_the_gradient_of_the_feedback_is_that_of_its_penalty(x64):
    fed, graph, x, y = fed_task(information_alignment())
    gradient = value_and_grad(graph, fed, (), x, y)[1]
    _, values = eqx.filter_jit(graph.feedforward)(fed, x)
    for i, below in enumerate((x, values["hidden1"], values["hidden2"])):
        layer, alignment = fed.layers[i].layer, fed.layers[i].path.alignment

        def mean(feedback, layer=layer, alignment=alignment, below=below):
            return jnp.mean(jax.vmap(lambda x: alignment.penalty(layer, feedback, x))(below))

        expected = jax.jit(jax.grad(mean))(fed.layers[i].path.feedback)
        np.testing.assert_allclose(gradient.layers[i].path.feedback, expected, rtol=1e-10)


def test_a_penalty_moves_nothing_but_its_feedback(x64):
    """Forward weights and inputs have the gradient that they have with the same feedback fixed."""
    fed, graph, x, y = fed_task(information_alignment(amplify=5.0, null=3.0, decay=2.0))
    feedback = {f"layers[{i}].weight": layer.path.feedback for i, layer in enumerate(fed.layers)}
    fixed = attach(vc.feedback.detach(fed), vc.feedback.given(feedback))
    ours = value_and_grad(graph, fed, (), x, y)[1]
    theirs = value_and_grad(vc.capture(fixed, x[0]), fixed, (), x, y)[1]
    for a, b in zip(ours.layers, theirs.layers, strict=True):
        np.testing.assert_allclose(a.layer.weight, b.layer.weight, rtol=1e-12)
        np.testing.assert_allclose(a.layer.bias, b.layer.bias, rtol=1e-12)


def test_symmetric_alignment_contracts(x64):
    """The distance to the weight shrinks by `1 - 2 decay rate` in each step, with `own` twice the decay."""
    fed, graph, x, y = fed_task(symmetric_alignment(decay=0.5, own=1.0))
    rate, steps = 0.1, 7
    optimizer = optimizers(optax.set_to_zero(), optax.sgd(rate))
    model, state = fed, optimizer.init(eqx.filter(fed, eqx.is_inexact_array))
    for _ in range(steps):
        model, state, *_ = take_step(graph, optimizer, model, state, (), x, y)
    for old, new in zip(fed.layers, model.layers, strict=True):
        np.testing.assert_array_equal(new.layer.weight, old.layer.weight)
        distance = new.path.feedback - new.layer.weight
        before = old.path.feedback - old.layer.weight
        np.testing.assert_allclose(distance, before * (1 - 2 * 0.5 * rate) ** steps, rtol=1e-9)


@pytest.mark.parametrize("examples", [full(30), 300, full(3000)])
def test_the_law_of_the_estimate_by_noise(x64, examples):
    """With `n` samples and `k` inputs, `tan(angle)` is about `sqrt((k + 1)/n)`."""
    features = 30
    layer = double(vc.nn.Linear(features, 40, key=KEY))
    fed = attach(layer, aligned(Alignment(amplify=1.0, noise=Noise()), scale=0.0), key=KEY)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(examples, features)))
    y = jnp.zeros((examples, 40), jnp.float64)
    rule = Backprop(loss=vc.losses.squared_error)
    gradient = eqx.filter_jit(rule.value_and_grad)(vc.capture(fed, x[0]), fed, (), x, y)[1]
    angle = float(vc.analysis.angle(-gradient.path.feedback, layer.weight))
    assert np.tan(np.deg2rad(angle)) == pytest.approx(np.sqrt((features + 1) / examples), rel=0.15)


def test_noise_differs_between_examples_and_updates_and_repeats_for_the_same_ones(x64):
    layer = layer_of((3, 2))
    noise, seed = Noise(0.5, "uniform"), jax.random.key_data(KEY)
    x = np.random.default_rng(0).normal(size=(2000, 3))
    draw = jax.jit(lambda weight: jax.vmap(lambda x: noise.draw(seed, x, [weight]))(x))
    draws = np.asarray(draw(layer.weight))
    assert len(np.unique(draws)) == draws.size
    assert np.std(draws) == pytest.approx(0.5, rel=0.05)
    assert np.max(np.abs(draws)) <= 0.5 * 3**0.5
    np.testing.assert_array_equal(draws, draw(layer.weight))
    assert len(np.intersect1d(draws, draw(layer.weight + 1e-6))) == 0


def test_inputs_of_zeros_and_ones_have_draws_of_their_own():
    patterns = (np.arange(256)[:, None] >> np.arange(8)[None] & 1).astype(np.float32)
    draws = jax.jit(jax.vmap(lambda x: Noise().draw(jax.random.key_data(KEY), x, [jnp.ones((2, 8))])))(patterns)
    assert len(np.unique(draws)) == draws.size


def test_a_mirror_of_weights_that_stay_averages_over_draws():
    """Feedback that moves is drawn for anew: the angle is that of many samples, not of the same few again and again."""
    layer = vc.nn.Linear(30, 20, key=KEY)
    fed = attach(layer, weight_mirror(decay=0.5, amplify=1.0), key=jax.random.key(1))
    x, y = jax.random.normal(jax.random.key(2), (60, 30)), jnp.zeros((60, 20))
    graph, rule = vc.capture(fed, x[0]), Backprop(loss=vc.losses.squared_error)
    optimizer = optimizers(optax.set_to_zero(), optax.sgd(0.02))
    state = optimizer.init(eqx.filter(fed, eqx.is_inexact_array))
    step = eqx.filter_jit(lambda m, s: rule.step(graph, optimizer, m, s, (), x, y)[:2])
    for _ in range(400):
        fed, state = step(fed, state)
    # One draw of 60 examples would leave some 36 degrees.
    assert float(vc.analysis.angle(fed.path.feedback, fed.layer.weight)) < 15


def test_a_key_of_another_kind_will_do():
    fed = attach(vc.nn.Linear(3, 2, key=KEY), weight_mirror(), key=jax.random.key(0, impl="rbg"))
    assert fed.path.seed.shape == jax.random.key_data(KEY).shape
    assert bool(jnp.all(fed(jnp.ones(3)) == fed.layer(jnp.ones(3))))


def test_a_mirror_of_white_noise_finds_the_weights_where_that_of_activity_does_not():
    angles = {}
    for name, noise in (("noise", Noise()), ("activity", None)):
        model = vc.nn.MLP((12, 16, 4), key=KEY)
        fed = attach(model, weight_mirror(decay=0.5, amplify=1.0, noise=noise), key=jax.random.key(7))
        x, y = jax.random.uniform(jax.random.key(1), (64, 12)), jnp.arange(64) % 4
        graph, optimizer = vc.capture(fed, x[0]), optimizers(optax.sgd(1e-3), optax.sgd(0.05))
        state = optimizer.init(eqx.filter(fed, eqx.is_inexact_array))
        step = eqx.filter_jit(lambda m, s, g=graph, o=optimizer, x=x, y=y: Backprop().step(g, o, m, s, (), x, y)[:2])
        for _ in range(200):
            fed, state = step(fed, state)
        angles[name] = float(vc.analysis.angle(fed.layers[0].path.feedback, fed.layers[0].layer.weight))
    assert angles["noise"] < 10
    assert angles["activity"] > 25


def test_forward_weights_and_feedback_take_turns(x64):
    fed, graph, x, y = fed_task(symmetric_alignment(decay=0.5, own=1.0))
    optimizer = alternating(optax.adam(0.1), optax.adam(0.1), forward_steps=2)
    model, state = fed, optimizer.init(eqx.filter(fed, eqx.is_inexact_array))
    moved = []
    for _ in range(6):
        new, state, *_ = take_step(graph, optimizer, model, state, (), x, y)
        pairs = [(m.layers[0].layer.weight, m.layers[0].path.feedback) for m in (new, model)]
        moved.append(tuple(not np.array_equal(a, b) for a, b in zip(*pairs, strict=True)))
        model = new
    assert moved == [(False, True), (True, False), (True, False)] * 2


def test_a_turn_leaves_the_other_optimisers_memory_alone(x64):
    """With turns, the weights go where they would go alone with the feedback that they meet."""
    fed, graph, x, y = fed_task(symmetric_alignment(decay=0.5, own=1.0))
    optimizer = alternating(optax.adam(0.1), optax.set_to_zero())
    model, state = fed, optimizer.init(eqx.filter(fed, eqx.is_inexact_array))
    for _ in range(6):
        model, state, *_ = take_step(graph, optimizer, model, state, (), x, y)
    alone, optimizer = fed, optimizers(optax.adam(0.1), optax.set_to_zero())
    state = optimizer.init(eqx.filter(fed, eqx.is_inexact_array))
    for _ in range(3):
        alone, state, *_ = take_step(graph, optimizer, alone, state, (), x, y)
    for a, b in zip(jax.tree.leaves(model), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Alignment(decay=-1.0), "expected the coefficient decay of at least 0, got -1"),
        (lambda: Noise(0.0), "expected the deviation of the noise above 0, got 0"),
        (lambda: Noise(1.0, "cauchy"), "expected distribution as 'uniform' or 'normal', got 'cauchy'"),
        (lambda: alternating(optax.sgd(1.0), optax.sgd(1.0), forward_steps=0), "forward_steps as an integer"),
    ],
)
def test_settings_out_of_range_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_noisy_and_scheduled_updates_of_the_feedback_come_from_its_own_optimiser(x64):
    fed, graph, x, y = fed_task(symmetric_alignment())
    noisy = optax.chain(optax.add_noise(0.1, 0.0, 0), optax.sgd(optax.linear_schedule(0.1, 0.0, 10)))
    optimizer = optimizers(optax.sgd(0.1), noisy)
    state = optimizer.init(eqx.filter(fed, eqx.is_inexact_array))
    new, *_ = take_step(graph, optimizer, fed, state, (), x, y)
    plain = value_and_grad(graph, fed, (), x, y)[1]
    change = np.subtract(fed.layers[1].path.feedback, new.layers[1].path.feedback)
    noise = change / 0.1 - np.asarray(plain.layers[1].path.feedback)
    assert float(np.std(noise)) == pytest.approx(np.sqrt(0.1), rel=0.3)
