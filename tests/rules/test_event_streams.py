"""Units that go on from frame to frame: only changes cost events."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from event_builders import assigned, chain, chip, events_of, flat, graded

import vicinal as vc
from vicinal.events import Cyclic, Graded, Ternary
from vicinal.rules import EventInferenceLearning

STEPS, GAMMA, THRESHOLD = 10, 0.2, 0.05


def stream(**settings):
    return graded(THRESHOLD, **{"steps": STEPS, "step_size": GAMMA, "carry": True, "streams": 3} | settings)


def frames(x, y):
    """Three frames that move, and their targets."""
    return [(x + 0.1 * t, y - 0.2 * t) for t in range(3)]


def test_a_stream_is_one_long_presentation_by_hand(x64):
    """Values, what was sent, gradients and events of each frame, against the loop of single events."""
    model, graph, x, y = chain()
    rule = stream()
    state, units = rule.init(graph, model), chip(model, x, y, gamma=GAMMA, threshold=THRESHOLD)
    for t, (frame, target) in enumerate(frames(x, y)):
        gradient, credit, state = assigned(rule, graph, model, frame, target, state)
        before = [np.copy(n) for n in units.error_events], [np.copy(n) for n in units.value_events]
        units.clamp(frame, target)
        if not t:
            units.sweep()
        units.run(STEPS).send_errors()
        for name, sent in zip(graph.vertices, units.sent, strict=True):
            np.testing.assert_allclose(credit.values[name], sent, rtol=0, atol=1e-12)
        for layer, expected in zip(gradient.layers, units.gradient(), strict=True):
            np.testing.assert_allclose(layer.weight, expected, rtol=0, atol=1e-12)
        found = events_of(credit.info)
        np.testing.assert_array_equal(found["errors"]["output"], units.error_events[-1] - before[0][-1])
        if t:
            assert not np.any(flat(found["sweep"]))
            np.testing.assert_array_equal(found["values"]["hidden1"], units.value_events[0] - before[1][0])


def test_the_same_frame_costs_few_events_a_second_time(x64):
    model, graph, x, y = chain()
    rule = stream(steps=60)
    state, counts = rule.init(graph, model), []
    for _ in range(3):
        _, credit, state = assigned(rule, graph, model, x, y, state)
        counts.append(np.sum(flat(credit.info.events)))
    assert counts[1] < 0.1 * counts[0]
    assert counts[2] <= counts[1]
    alone = assigned(graded(THRESHOLD, steps=60, step_size=GAMMA), graph, model, x, y)[1]
    assert np.sum(flat(alone.info.events)) == counts[0]


def test_the_first_frame_is_a_presentation_of_its_own(x64):
    model, graph, x, y = chain()
    rule = stream()
    gradient, _, (_, begun) = assigned(rule, graph, model, x, y, rule.init(graph, model))
    alone = assigned(stream(carry=False), graph, model, x, y)[0]
    np.testing.assert_allclose(flat(gradient), flat(alone), rtol=1e-12, atol=1e-15)
    assert bool(begun)


@pytest.mark.parametrize("learn", ["end", "mean", "every"])
def test_a_run_of_steps_carries_its_state(x64, learn):
    """Compiled steps one after another are those of a scan, under an optimiser."""
    model, graph, x, y = chain()
    rule, optimizer = stream(learn=learn), optax.sgd(0.05)
    memory, state = optimizer.init(graph.trainable(model)), rule.init(graph, model)
    xs, ys = (jnp.stack(rows) for rows in zip(*frames(x, y), strict=True))

    @eqx.filter_jit
    def one(model, state, x, y):
        new, _, state, _, info = rule.step(graph, optimizer, model, memory, state, x, y)
        return new, state, info

    @eqx.filter_jit
    def scanned(model, state, xs, ys):
        arrays, static = eqx.partition(model, eqx.is_array)

        def body(carry, batch):
            new, state, _ = one(eqx.combine(carry[0], static), carry[1], *batch)
            return (eqx.filter(new, eqx.is_array), state), None

        return jax.lax.scan(body, (arrays, state), (xs, ys))[0]

    expected = scanned(model, state, xs, ys)
    for frame in zip(xs, ys, strict=True):
        model, state, _ = one(model, state, *frame)
    np.testing.assert_allclose(flat(eqx.filter(model, eqx.is_array)), flat(expected[0]), rtol=1e-12)
    np.testing.assert_allclose(flat(state), flat(expected[1]), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("code", [Ternary(0.05, relative=True), Cyclic(0.02), Graded(0.02, relative=True, initial=3.0)])
def test_every_code_carries_on_in_single_precision(code):
    model, x, y = vc.nn.MLP((4, 6, 3), key=jax.random.key(0)), jnp.ones((2, 4)), jnp.array([0, 2])
    rule = EventInferenceLearning(steps=3, activity=code, error=code, carry=True, streams=2)
    graph = vc.capture(model, x[0])
    state = rule.init(graph, model)
    for _ in range(2):
        _, credit, after = assigned(rule, graph, model, x, y, state)
        assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
        state = after
    assert np.all(np.isfinite(flat(credit.values)))


def test_another_number_of_examples_than_streams_is_refused(x64):
    model, graph, x, y = chain()
    rule = stream()
    state = rule.init(graph, model)
    words = r"expected batches of 3 for as many streams, got one of 2; set streams=2, or leave out what is left"
    with pytest.raises(ValueError, match=words):
        rule.value_and_grad(graph, model, state, x[:2], y[:2])


def test_a_stream_that_was_interrupted_goes_on_with_the_same_bits(tmp_path):
    model = vc.nn.MLP((4, 6, 3), key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (12, 4))
    data, rule = (x, jnp.argmax(x[:, :3], axis=1)), EventInferenceLearning(steps=4, carry=True, streams=3)

    def trained(folder, steps, resume=False):
        common = {"key": jax.random.key(2), "batch_size": 3, "progress": False}
        return vc.train.fit(
            rule, model, optax.sgd(0.1), data, steps=steps, folder=tmp_path / folder, resume=resume, **common
        )

    whole = trained("whole", 9)
    trained("cut", 5)
    resumed = trained("cut", 9, resume=True)
    for ours, theirs in ((resumed.model, whole.model), (resumed.state.rule_state, whole.state.rule_state)):
        np.testing.assert_array_equal(flat(eqx.filter(ours, eqx.is_array)), flat(eqx.filter(theirs, eqx.is_array)))
    assert bool(whole.state.rule_state[1])
