"""Synaptic operations against the ledger, closed forms, and loops over events and synapses in NumPy."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from once import once

import vicinal as vc
from vicinal.events import Graded
from vicinal.hardware import synaptic_operations
from vicinal.rules import EventBackprop, EventInferenceLearning, SpikingInferenceLearning

pytestmark = pytest.mark.usefixtures("x64")
BATCH = 2


@once
def chain(depth, vertex_at="pre", activation="tanh"):
    """A chain of `depth` weight matrices, and a batch."""
    sizes = (7, 6, 5, 4, 3)
    model = vc.nn.MLP((*sizes[:depth], 3), activation=activation, vertex_at=vertex_at, key=jax.random.key(0))
    model = jax.tree.map(lambda leaf: leaf.astype(float) if eqx.is_array(leaf) else leaf, model)
    x = jax.random.normal(jax.random.key(1), (BATCH, 7), float)
    return vc.capture(model, x[0]), model, x, jnp.arange(BATCH) % 3, (*sizes[:depth], 3)


def exact(steps, **settings):
    return EventInferenceLearning(steps=steps, step_size=0.1, activity=Graded(0.0), error=Graded(0.0), **settings)


def rough(steps=12, activity=0.06, **settings):
    return EventInferenceLearning(steps=steps, step_size=0.1, activity=Graded(activity), error=Graded(0.03), **settings)


def operations(rule, built, **options):
    graph, model, x, y, *_ = built
    return synaptic_operations(rule, graph, model, rule.init(graph, model), x, y, **options)


@pytest.mark.parametrize("depth", [3, 4])
def test_counts_times_reach_are_the_ledgers_products_of_the_same_steps(depth):
    """T-n31: with thresholds of 0 all units send in each step in which something has reached them."""
    T, L = 9, depth
    built = chain(L)
    graph, model, x, y, n = built
    found = operations(exact(T), built)

    def reads(steps):
        """Forward and transposed multiplications for an example, by layer from 1."""
        ledger = vc.hardware.ledger(vc.rules.InferenceLearning(vc.inference.Simultaneous(steps=steps)), model, x, y)
        each = [
            (u.inputs * u.outputs * u.forward / BATCH, u.inputs * u.outputs * u.transposed / BATCH) for u in ledger.uses
        ]
        return dict(enumerate(each, start=1))

    nothing = reads(1)
    up = sum(reads(T - (L - 1 - k) + 1)[k + 1][0] - nothing[k + 1][0] for k in range(1, L))
    down = sum(reads(T + 1 - (L - k))[k][1] for k in range(2, L + 1))
    assert up == sum(n[k] * n[k + 1] * (T - (L - 1 - k)) for k in range(1, L))
    np.testing.assert_array_equal(found.values, up)
    np.testing.assert_array_equal(found.errors, down)
    np.testing.assert_array_equal(found.sweep, sum(n[k] * n[k + 1] for k in range(L)))
    np.testing.assert_array_equal(found.weights, sum(n[k] * n[k + 1] for k in range(L)))
    info = exact(T).value_and_grad(graph, model, (), x, y)[3]
    assert found.values[0] == sum(int(info.events.values[f"hidden{k}"][0]) * n[k + 1] for k in range(1, L))


def record(rule, built):
    graph, model, x, y, *_ = built
    recording = rule.record(graph, model, (), x, y)
    layers = [np.asarray(layer.weight) for layer in model.layers]
    names = list(graph.vertices)
    sent = [np.asarray(recording.activities[name]) for name in names]
    errors = [np.asarray(recording.errors[name]) for name in (*names, "output")]
    return layers, sent, errors, np.asarray(x)


def rectified(a):
    return np.maximum(a, 0)


def test_a_loop_over_events_and_synapses():
    """ReLU at potentials: what is sent below 0 changes nothing above."""
    rule, built = rough(steps=20, activity=0.0005), chain(3, "pre", "relu")
    layers, sent, errors, x = record(rule, built)
    found = operations(rule, built)
    for b in range(BATCH):
        up = down = silent = 0
        for k, values in enumerate(sent):
            for t in range(1, len(values)):
                for j in range(values.shape[2]):
                    before, now = values[t - 1, b, j], values[t, b, j]
                    heard = max(before, 0) != max(now, 0)
                    silent += before != now and not heard
                    up += layers[k + 1].shape[0] if heard else 0
        for k, values in enumerate(errors):
            changed = sum(
                values[t, b, i] != values[t - 1, b, i] for t in range(1, len(values)) for i in range(values.shape[2])
            )
            down += changed * layers[k].shape[1] if k else 0  # nobody receives those of the first vertex
        weights = sweep = 0
        for k, layer in enumerate(layers):
            below = x[b] if k == 0 else rectified(sent[k - 1][:, b])
            first, end = (below, below) if k == 0 else (below[0], below[-1])
            sweep += np.count_nonzero(first) * layer.shape[0]
            weights += np.count_nonzero(np.outer(errors[k][-1, b], end))
        assert (found.values[b], found.errors[b], found.weights[b], found.sweep[b]) == (up, down, weights, sweep)
        assert silent > 0 < up


def test_a_lazy_synapse_is_touched_when_an_end_sends():
    rule, built = rough(learn="mean", part=0.75), chain(3)
    layers, sent, errors, x = record(rule, built)
    first = rule.steps - 9 + 1
    touches = np.zeros(BATCH)
    for b in range(BATCH):
        for k in range(len(layers)):
            below = [x[b] if k == 0 else np.tanh(sent[k - 1][t, b]) for t in range(rule.steps + 1)]
            above = [errors[k][t, b] for t in range(rule.steps + 1)]
            for i in range(layers[k].shape[0]):
                for j in range(layers[k].shape[1]):
                    ends = [(above[t][i], below[t][j]) for t in range(first, rule.steps + 1)]
                    touches[b] += sum(now != then for then, now in itertools.pairwise(ends))
                    touches[b] += ends[-1][0] * ends[-1][1] != 0
    np.testing.assert_array_equal(operations(rule, built).weights, touches)


def test_at_any_time_is_the_mean_over_the_last_steps_and_every_step_their_sum():
    built = chain(3)
    layers, sent, errors, x = record(rough(), built)

    def pairs(t, b):
        ends = [x[b], *(np.tanh(values[t, b]) for values in sent)]
        return sum(np.count_nonzero(np.outer(errors[k][t, b], ends[k])) for k in range(len(layers)))

    for learn, first, share in (("any", 7, 6), ("every", 1, 1)):
        expected = [sum(pairs(t, b) for t in range(first, 13)) / share for b in range(BATCH)]
        np.testing.assert_allclose(operations(rough(learn=learn), built).weights, expected, rtol=1e-12)


def test_at_rates_a_derivative_goes_down_with_the_error():
    """What synapses read on the way down is the error times the slope at the prediction from sent values."""
    rule, built = rough(), chain(3, "post")
    layers, sent, errors, _ = record(rule, built)
    down = np.zeros(BATCH)
    for k in (1, 2):
        for b in range(BATCH):
            potentials = sent[k - 1][:, b] @ layers[k].T + np.asarray(built[1].layers[k].bias)
            slopes = 1 - np.tanh(potentials) ** 2 if k < 2 else np.ones_like(potentials)
            slopes = np.concatenate([slopes[:1], slopes])  # a round of errors sees values of the step before
            carried = errors[k][:, b] * slopes
            down[b] += np.sum(carried[1:] != carried[:-1]) * layers[k].shape[1]
    np.testing.assert_array_equal(operations(rule, built).errors, down)


def test_backpropagation_by_events_sends_once():
    built = chain(3)
    found = operations(EventBackprop(Graded(0.0), Graded(0.0)), built)
    n = built[4]
    np.testing.assert_array_equal(found.values, 0)
    np.testing.assert_array_equal(found.errors, sum(n[k] * n[k + 1] for k in (1, 2)))
    forward = sum(n[k] * n[k + 1] for k in range(3))
    assert found.dense == {
        "sweep": forward,
        "settling": found.errors[0],
        "weights": forward,
        "backprop": found.total[0],
    }
    coarse = operations(EventBackprop(Graded(0.3), Graded(0.1)), built)
    assert all(coarse.total < found.total)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_spikes_reach_every_synapse_behind_a_slope(activation):
    rule, built = SpikingInferenceLearning(steps=20), chain(3, "pre", activation)
    graph, model, x, y, n = built
    recording, found = rule.record(graph, model, (), x, y), operations(rule, built)
    up = down = np.zeros(BATCH)
    for k, name in enumerate(graph.vertices, start=1):
        heard = np.asarray(recording.values[name])[1:] > 0 if activation == "relu" else True
        up = up + np.sum(np.abs(recording.value_spikes[name]) * heard, axis=(0, 2)) * n[k + 1]
    for k, name in enumerate(("hidden2", "output"), start=1):
        down = down + np.sum(np.abs(recording.error_spikes[name]), axis=(0, 2)) * n[k]
    assert all(up > 0)
    np.testing.assert_array_equal(found.values, up)
    np.testing.assert_array_equal(found.errors, down)


@once
def convolutional():
    model = vc.nn.ConvNet((2, 7, 7), [(3, 3, 2)], (5, 3), activation="tanh", vertex_at="pre", key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (BATCH, 2, 7, 7))
    return vc.capture(model, x[0]), model, x, jnp.arange(BATCH) % 3


@once
def recurrent():
    model = vc.nn.RNN(2, 4, 3, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (BATCH, 3, 2))
    return vc.capture(model, x[0]), model, x, jnp.arange(BATCH) % 3


def tied(weights, x):
    h = vc.vertex(weights["in"] @ x, "h1")
    h = vc.vertex(weights["shared"] @ jnp.tanh(h), "h2")
    h = vc.vertex(weights["shared"] @ jnp.tanh(h), "h3")
    return weights["in"][:, :3].T @ jnp.tanh(h)


@once
def of_tied_weights():
    keys = jax.random.split(jax.random.key(0), 3)
    weights = {"in": jax.random.normal(keys[0], (4, 5)) / 2, "shared": jax.random.normal(keys[1], (4, 4)) / 2}
    model, x = jax.tree_util.Partial(tied, weights), jax.random.normal(keys[2], (BATCH, 5))
    return vc.capture(model, x[0]), model, x, jnp.arange(BATCH) % 3


@pytest.mark.parametrize("build", [convolutional, recurrent, of_tied_weights])
def test_when_all_units_send_operations_of_a_step_are_the_ledgers(build):
    """Steps beyond those in which nothing has reached some unit yet."""
    few, more = (operations(exact(steps), build()) for steps in (6, 9))
    zeros = 16 / BATCH if build is recurrent else 0  # the rates before the first step: nobody sends them
    assert few.dense["sweep"] == few.sweep[0] + zeros
    each = (more.dense["settling"] - few.dense["settling"]) / 3
    np.testing.assert_allclose((more.settling - few.settling) / 3, each, rtol=1e-12)


def test_a_convolution_learns_where_a_window_holds_both_ends():
    rule, built = rough(), convolutional()
    graph, model, x, y = built
    recording = rule.record(graph, model, (), x, y)
    name = graph.vertices[0]
    convolution = next(s for s in graph.synapses(name))
    sent, error = np.asarray(x) != 0, np.asarray(recording.errors[name])[-1] != 0
    pad = (error.shape[-1] - 1) * 2 + 3 - 7
    low = pad // 2
    wide = np.pad(sent, ((0, 0), (0, 0), (low, pad - low), (low, pad - low)))
    expected = np.zeros(BATCH)
    for b, k, i, j in zip(*np.nonzero(error), strict=True):
        expected[b] += wide[b, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].sum()
        assert 0 <= k < 3
    pairs = np.where(error[:, None], jax.vmap(convolution.reached)(jnp.asarray(sent)), 0)
    assert convolution.multiplications == 3 * 2 * 9 * error.shape[-1] ** 2
    np.testing.assert_array_equal(pairs.reshape(BATCH, -1).sum(1), expected)


def test_a_stream_pays_for_changes_of_its_inputs():
    built = chain(3)
    graph, model, x, y, n = built
    rule = rough(carry=True, streams=BATCH)
    state = rule.init(graph, model)
    first = synaptic_operations(rule, graph, model, state, x, y)
    _, _, state, _ = rule.value_and_grad(graph, model, state, x, y)
    moved = x.at[:, 2].add(1.0)
    second = synaptic_operations(rule, graph, model, state, moved, y, before=x)
    assert all(first.sweep > n[0] * n[1])
    np.testing.assert_array_equal(second.sweep, n[1])  # one input of each
    with pytest.raises(ValueError, match="expected the inputs of the frame before, got none"):
        synaptic_operations(rule, graph, model, state, moved, y)
    with pytest.raises(ValueError, match="expected before only for a stream that has begun"):
        operations(rough(), built, before=x)


def test_what_it_refuses():
    with pytest.raises(TypeError, match="expected a rule whose units send events"):
        operations(vc.rules.Backprop(), chain(3))
    model, x = vc.nn.RNN(2, 4, 3, key=jax.random.key(0)), (jnp.ones((1, 3, 2)), jnp.array([2]))
    graph = vc.capture(model, (x[0][0], x[1][0]))
    with pytest.raises(ValueError, match=r"expected a model without masks, got one with masks of hidden\[0\]"):
        synaptic_operations(rough(), graph, model, (), x, jnp.zeros(1, int))

    def together(weights, x):
        return weights["b"] @ vc.vertex(jax.jit(lambda w, x: jnp.tanh(w @ x))(weights["a"], x), "h")

    model = jax.tree_util.Partial(together, {"a": jnp.ones((3, 2)), "b": jnp.ones((2, 3))})
    graph = vc.capture(model, jnp.ones(2))
    with pytest.raises(ValueError, match=r"expected a product with .*'a'.* that is the result of its own call"):
        synaptic_operations(rough(), graph, model, (), jnp.ones((1, 2)), jnp.zeros(1, int))
