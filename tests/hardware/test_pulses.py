"""Steps for cells against the laws they follow, on one array and in training."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vicinal as vc
from vicinal import hardware as hw

KEY = jax.random.key(0)
LINEAR = hw.Device(step=0.01)
Y = jnp.arange(4) % 3


def array(weight, device, seed=0):
    """One layer without bias on an array whose scale is 1."""
    layer = vc.nn.Linear(weight.shape[1], weight.shape[0], use_bias=False, key=KEY)
    layer = eqx.tree_at(lambda layer: layer.weight, layer, weight)
    tile = hw.place(layer, device, forward="ideal", backward="ideal", key=jax.random.key(seed))
    tile = eqx.tree_at(lambda t: t.crossbar.scale, tile, jnp.ones((), weight.dtype))
    stored = tile.crossbar.cells.clipped(weight)
    return eqx.tree_at(lambda t: t.layer.weight, tile, stored)


def parameters(tile):
    """What an optimiser sees of the model."""
    return vc.capture(tile, jnp.ones(tile.layer.weight.shape[1])).trainable(tile)


def gradient_like(params, value):
    return eqx.tree_at(lambda t: t.layer.weight, params, value)


def after(optimizer, tile, gradients):
    """The weight after gradients `[updates, out, in]`, or after those of a function of `(weight, i)`."""
    first = parameters(tile)
    count = len(gradients) if not callable(gradients) else gradients.count

    def update(carry, i):
        params, state = carry
        model = eqx.combine(params, tile)
        asked = gradients(params.layer.weight, i) if callable(gradients) else gradients[i]
        change, state = optimizer.update(gradient_like(params, asked), state, params, model_fn=lambda: model)
        return (optax.apply_updates(params, change), state), params.layer.weight

    run = jax.jit(lambda carry: jax.lax.scan(update, carry, jnp.arange(count)))
    (params, state), path = run((first, optimizer.init(first)))
    return params.layer.weight, state, path


class Noisy:
    """The gradient of (w - t)^2 / 2 with noise."""

    def __init__(self, target, noise, count):
        self.target, self.noise, self.count = target, noise, count

    def __call__(self, weight, i):
        drawn = jax.random.normal(jax.random.fold_in(jax.random.key(5), i), weight.shape, weight.dtype)
        return weight - self.target + self.noise * drawn


def test_pulses_change_cells_by_what_is_wanted_on_average(x64):
    tile = array(jnp.zeros((20, 1000)), LINEAR)
    gradient = jnp.broadcast_to(jnp.linspace(-0.03, 0.03, 20)[:, None], (20, 1000))
    weight, state, _ = after(hw.pulsed(1.0), tile, gradient[None])
    part = np.abs(np.asarray(gradient[:, 0])) / 0.01 % 1
    deviation = 0.01 * np.sqrt(part * (1 - part) / 1000)
    np.testing.assert_allclose(np.mean(weight, 1), -gradient[:, 0], atol=1e-12 + 4 * deviation.max())
    found = hw.pulse_counts(state)[".layer.weight"]
    assert int(found) == int(found.last) == round(float(jnp.sum(jnp.abs(weight))) / 0.01)
    assert int(found.cells) == int(jnp.sum(weight != 0))


def test_without_a_gradient_nothing_is_pulsed(x64):
    tile = array(jax.random.uniform(KEY, (5, 4), minval=-0.5, maxval=0.5), hw.Device(step=0.01, cycle=3.0))
    params, nothing = parameters(tile), jnp.zeros((5, 4))
    for optimizer in (hw.pulsed(1.0), hw.thresholded(1.0), hw.coincident(1.0)):
        change, state = optimizer.update(
            gradient_like(params, nothing),
            optimizer.init(params),
            params,
            model_fn=lambda: tile,
            examples=One(nothing, params),
        )
        assert not np.any(change.layer.weight)
        assert int(hw.pulse_counts(state)[".layer.weight"]) == 0


class One:
    """A batch of one example."""

    count = 1

    def __init__(self, gradient, params):
        self.gradient, self.params = gradient, params

    def __call__(self, i):
        return gradient_like(self.params, self.gradient)

    def uses(self, path):
        return 1


def test_coincidences_have_the_mean_and_the_variance_of_their_law(x64):
    """Many updates from the same weight, far from its bounds: E = lr d x^T, variance BL p q (1 - p q) step^2."""
    x, d = jnp.array([1.0, -0.5, 0.1, 0.0]), jnp.array([0.6, -0.2, 0.05])
    step, rate, tile = 0.01, 0.11, array(jnp.zeros((3, 4)), LINEAR)
    params, optimizer = parameters(tile), hw.coincident(rate)
    gradient = -jnp.outer(d, x)

    def one(i):
        bar = eqx.tree_at(lambda t: t.crossbar.seed, tile, jax.random.key_data(jax.random.fold_in(KEY, i)))
        change, _ = optimizer.update(
            gradient_like(params, gradient),
            optimizer.init(params),
            params,
            model_fn=lambda: bar,
            examples=One(gradient, params),
        )
        return change.layer.weight

    found = np.asarray(jax.jit(jax.vmap(one))(jnp.arange(4000)))
    length = np.ceil(rate * 0.6 / step)
    height = np.sqrt(rate / (step * length))
    k = np.sqrt(0.6)
    chance = np.outer(height / k * np.abs(d), height * k * np.abs(x))  # of a coincidence in one slot
    variance = length * chance * (1 - chance) * step**2
    np.testing.assert_allclose(found.mean(0), rate * np.outer(d, x), atol=1e-12 + 4 * np.sqrt(variance.max() / 4000))
    np.testing.assert_allclose(found.var(0), variance, rtol=0.15, atol=1e-12)


@pytest.mark.parametrize("noise", [0.2, 0.5, 1.0])
def test_asymmetry_pulls_a_noisy_weight_to_zero_and_transfer_does_not(x64, noise):
    """On (w - .4)^2 / 2 plain pulses rest at t / (1 + E|g| / b); E|g| is that of the noise and of what is missing."""
    tile = array(jnp.zeros((1, 400)), hw.Device(step=0.001, soft=1.0))
    _, _, path = after(hw.pulsed(0.02), tile, Noisy(0.4, noise, 1500))
    rest = float(jnp.mean(path[1000:]))
    gaps = jax.random.normal(jax.random.key(9), (100_000,)) * noise + rest - 0.4
    assert rest == pytest.approx(0.4 / (1 + float(jnp.mean(jnp.abs(gaps)))), rel=0.05)
    fast = hw.Device(step=0.001, soft=1.0)
    _, _, path = after(hw.transfer(0.02, fast, gamma=0.02), tile, Noisy(0.4, noise, 4000))
    assert abs(float(jnp.mean(path[3000:])) - 0.4) < abs(rest - 0.4) / 2.5


def test_symmetric_linear_cells_find_the_target_either_way(x64):
    tile = array(jnp.zeros((1, 400)), hw.Device(step=0.001))
    for optimizer, count in ((hw.pulsed(0.02), 1000), (hw.transfer(0.02, hw.Device(step=0.001), gamma=0.02), 4000)):
        _, _, path = after(optimizer, tile, Noisy(0.4, 0.5, count))
        assert float(jnp.mean(path[-count // 4 :])) == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize(
    ("rate", "order", "steps"), [(0.3, 1.0, [0.02, 0.01, 0.005, 0.0025]), (0.001, 0.5, [0.4, 0.1, 0.025])]
)
def test_small_pulses_tend_to_gradient_descent(x64, rate, order, steps):
    """The distance falls as step where updates are larger than a step, as its root where they are much smaller."""
    weight = jax.random.uniform(KEY, (30, 30), jnp.float64, -0.5, 0.5)
    gradients = jax.random.normal(jax.random.key(1), (60, 30, 30), jnp.float64) * 0.3
    exact = weight - rate * jnp.sum(gradients, 0)
    wide = {"upper": 50.0, "lower": -50.0}

    def distance(step):
        found, *_ = after(hw.pulsed(rate, most=10_000), array(weight, hw.Device(step=step, **wide)), gradients)
        return float(jnp.linalg.norm(found - exact))

    slope = np.polyfit(np.log(steps), np.log([distance(step) for step in steps]), 1)[0]
    assert slope == pytest.approx(order, abs=0.15)


def test_thresholded_changes_lag_less_than_a_step_behind(x64):
    weight = jax.random.uniform(KEY, (10, 10), jnp.float64, -0.3, 0.3)
    gradients = jax.random.normal(jax.random.key(1), (50, 10, 10), jnp.float64)
    found, state, _ = after(hw.thresholded(0.003), array(weight, LINEAR), gradients)
    exact = weight - 0.003 * jnp.sum(gradients, 0)
    assert float(jnp.max(jnp.abs(found - exact))) < 0.01
    np.testing.assert_allclose(found + state.arrays[".layer.weight"], exact, atol=1e-12)


def test_written_weights_are_noisy_around_the_hidden_ones(x64):
    device = hw.Device(step=0.001, write_noise=10.0)
    tile = array(jnp.zeros((20, 200)), device)
    gradients = jnp.full((5, 20, 200), -0.002).at[:, 10:].set(0.0)
    weight, state, _ = after(hw.pulsed(1.0), tile, gradients)
    np.testing.assert_allclose(state.hidden[".layer.weight"][:10], 0.01, rtol=1e-9)  # five times two pulses
    assert np.all(weight[10:] == 0)
    assert float(jnp.std(weight[:10] - 0.01)) == pytest.approx(0.01, rel=0.05)


def test_one_column_is_transferred_at_a_time(x64):
    tile = array(jnp.zeros((2, 3)), hw.Device(step=0.001))
    optimizer = hw.transfer(1.0, hw.Device(step=0.001), gamma=1.0, every=2, columns="one")
    gradients = jnp.zeros((6, 2, 3)).at[0].set(-0.01)
    _, _, path = after(optimizer, tile, jnp.concatenate([gradients, jnp.zeros((1, 2, 3))]))
    moved = [tuple(np.flatnonzero(np.asarray(w)[0])) for w in path]
    assert moved == [(), (), (0,), (0,), (0, 1), (0, 1), (0, 1, 2)]


def steps_of(model, optimizer, rule=None, x=None):
    rule, x = rule or vc.rules.Backprop(), jax.random.normal(KEY, (4, 5)) if x is None else x
    graph = vc.capture(model, x[0])
    step = eqx.filter_jit(lambda m: rule.step(graph, optimizer, m, optimizer.init(graph.trainable(m)), (), x, Y)[0])
    return step(model)


def test_with_all_cells_stuck_a_step_changes_biases_only():
    model = hw.place(vc.nn.MLP((5, 6, 3), key=KEY), hw.Device(step=0.01, cycle=1.0, stuck_high=1.0), key=KEY)
    new = steps_of(model, hw.pulsed(0.5))
    for ours, theirs in zip(new.layers, model.layers, strict=True):
        assert np.array_equal(ours.layer.weight, theirs.layer.weight)
        assert not np.array_equal(ours.layer.bias, theirs.layer.bias)


def test_biases_change_as_without_cells():
    model = hw.place(vc.nn.MLP((5, 6, 3), key=KEY), LINEAR, forward="ideal", backward="ideal", key=KEY)
    ours, theirs = steps_of(model, hw.pulsed(optax.adam(0.1))), steps_of(hw.remove(model), optax.adam(0.1))
    for a, b in zip(ours.layers, theirs.layers, strict=True):
        np.testing.assert_allclose(a.layer.bias, b.bias, rtol=1e-5)


def test_feedback_that_learns_is_pulsed_too():
    fed = vc.feedback.attach(vc.nn.MLP((5, 6, 3), key=KEY), vc.feedback.kolen_pollack(), key=KEY)
    model = hw.place(fed, LINEAR, key=KEY)
    for optimizer in (hw.pulsed(0.5), vc.feedback.optimizers(hw.pulsed(0.5))):
        new = steps_of(model, optimizer)
        change = np.asarray(new.layers[1].layer.path.feedback - model.layers[1].layer.path.feedback)
        steps = change / float(0.01 * model.layers[1].feedback.scale)
        assert np.any(change)
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)


def test_wrong_uses_are_refused():
    bare = vc.nn.MLP((5, 6, 3), key=KEY)
    with pytest.raises(ValueError, match="expected a model with cells, got one without; place it first"):
        hw.pulsed(0.1).init(eqx.filter(bare, eqx.is_inexact_array))
    model = hw.place(bare, LINEAR, key=KEY)
    graph = vc.capture(model, jnp.ones(5))
    params = graph.trainable(model)
    optimizer = hw.pulsed(0.1)
    with pytest.raises(ValueError, match=r"model_fn=lambda: model"):
        optimizer.update(params, optimizer.init(params), params)
    with pytest.raises(ValueError, match="expected columns as 'all' or 'one', got 'two'"):
        hw.transfer(0.1, LINEAR, columns="two")
    with pytest.raises(ValueError, match="got one without; take `pulsed`"):
        steps_of(model, hw.coincident(0.1), vc.rules.IncrementalPC(steps=2))
    convolutional = hw.place(vc.nn.ConvNet((1, 5, 5), [(2, 3, 1)], (3,), key=KEY), LINEAR, key=KEY)
    with pytest.raises(ValueError, match="the kernel of a convolution; take `pulsed`"):
        steps_of(convolutional, hw.coincident(0.1), x=jax.random.normal(KEY, (4, 1, 5, 5)))
    recurrent = hw.place(vc.nn.RNN(2, 4, 3, key=KEY), LINEAR, key=KEY)
    with pytest.raises(ValueError, match="a matrix that is used more than once; take `pulsed`"):
        steps_of(recurrent, hw.coincident(0.1), x=jax.random.normal(KEY, (4, 3, 2)))
