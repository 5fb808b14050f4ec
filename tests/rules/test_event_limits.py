"""What inference learning by events tends to: inference learning, its flow, its equilibrium; and where it does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from event_builders import assigned, chain, flat, graded, layers_of, network, settled, ternary
from matrix import full
from precision import double

import vicinal as vc
from vicinal.events import Cyclic, Graded, step_size
from vicinal.inference import Result
from vicinal.testing import cases

CROSS_ENTROPY = vc.losses.softmax_cross_entropy
CASES = {case.name: case for case in cases()}


def slope(settings, distances):
    """The order in which distances fall with a setting."""
    return np.polyfit(np.log(settings), np.log(distances), 1)[0]


def rms(tree, other):
    return np.sqrt(np.mean((flat(tree) - flat(other)) ** 2))


def relative(tree, other):
    return rms(tree, other) / np.sqrt(np.mean(flat(other) ** 2))


@pytest.mark.parametrize("name", CASES)
def test_events_of_every_change_are_inference_learning(x64, name):
    """Values, errors, gradient, energies; rates and potentials, convolutions, time, tied weights, residuals."""
    case = CASES[name]
    model, x, y = double(case.model), double(case.x), case.y
    graph, common = vc.capture(model, x[0]), {"steps": 6, "step_size": 0.2, "loss": CROSS_ENTROPY}
    common |= {"nudge": 0.8, "precision": 1.5}
    expected, theirs, _ = assigned(settled(**common), graph, model, x, y)
    for threshold, close in ((1e-9, 1e-7), (0.0, 1e-12)):
        gradient, ours, _ = assigned(graded(threshold, **common), graph, model, x, y)
        for found, other in ((gradient, expected), (ours.values, theirs.values), (ours.errors, theirs.errors)):
            np.testing.assert_allclose(flat(found), flat(other), rtol=0, atol=close)
        np.testing.assert_allclose(ours.output_error, theirs.output_error, rtol=0, atol=close)
        np.testing.assert_allclose(flat(ours.info.energies), flat(theirs.info.energies), rtol=0, atol=close)
        np.testing.assert_allclose(ours.loss, theirs.loss, rtol=1e-12)
        np.testing.assert_array_equal(ours.info.result, theirs.info.result)
        np.testing.assert_array_equal(ours.info.steps, theirs.info.steps)


@pytest.mark.parametrize("place", ["post", full("pre")])
def test_the_distance_to_inference_learning_is_of_first_order_in_the_thresholds(x64, place):
    model, graph, x, y = network((20, 16, 12, 5), vertex_at=place, batch=64)
    expected = assigned(settled(20, 0.1), graph, model, x, y)[1]
    thresholds, found = 10 ** -np.arange(1.0, 6.0), []
    for threshold in thresholds:
        credit = assigned(graded(threshold), graph, model, x, y)[1]
        found.append([relative(credit.values, expected.values), relative(credit.errors, expected.errors)])
    for distances in np.transpose(found):
        assert slope(thresholds, distances) == pytest.approx(1, abs=0.15)
        assert distances[0] > 0.05


def flow(model, x, y, time, steps):
    """The flow `v_l' = f'(v_l) W^T e - e_l` of potentials from the feedforward ones, by Runge and Kutta in NumPy."""
    layers, x, y = layers_of(model), np.asarray(x), np.asarray(y)

    def predictions(v):
        below = [x, *map(np.tanh, v)]
        return [r @ w.T + b[None] for (w, b), r in zip(layers, below, strict=True)]

    def velocity(v):
        e = [a - p for a, p in zip([*v, y], predictions(v), strict=True)]
        return [(1 - np.tanh(a) ** 2) * (e[k + 1] @ layers[k + 1][0]) - e[k] for k, a in enumerate(v)]

    v, h = [], time / steps
    for w, b in layers[:-1]:
        v.append((np.tanh(v[-1]) if v else x) @ w.T + b[None])
    for _ in range(steps):
        k1 = velocity(v)
        k2 = velocity([a + h / 2 * k for a, k in zip(v, k1, strict=True)])
        k3 = velocity([a + h / 2 * k for a, k in zip(v, k2, strict=True)])
        k4 = velocity([a + h * k for a, k in zip(v, k3, strict=True)])
        v = [a + h / 6 * (p + 2 * q + 2 * r + s) for a, p, q, r, s in zip(v, k1, k2, k3, k4, strict=True)]
    return v


def test_short_steps_follow_the_flow_of_the_energy(x64):
    model, graph, x, y = chain()
    tau, time, counts = 0.02, 0.03, np.array([8, 16, 32, 64])
    expected, distances = flow(model, x, y, time / tau, 400), []
    assert rms(expected, flow(model, x, y, time / tau, 200)) < 1e-9
    for steps in counts:
        gamma = step_size(dt=time / steps, tau=tau)
        distances.append(rms(assigned(graded(1e-9, steps=int(steps), step_size=gamma), graph, model, x, y)[1].values,
                             dict(zip(graph.vertices, expected, strict=True))))  # fmt: skip
    assert slope(time / counts, distances) == pytest.approx(1, abs=0.1)


def test_a_step_is_the_membranes_own_solution_while_nothing_else_changes(x64):
    """`v = p + (v_0 - p) exp(-t / tau)`, for any length of the steps."""
    model, graph, x, y = network((4, 6, 3))
    dt, tau = 0.013, 0.02
    for steps in (1, 7):
        rule = graded(0.05, steps=steps, step_size=step_size(dt, tau), error=Graded(1e6), carry=True, streams=len(x))
        units, _ = rule.init(graph, model)
        begun = jax.tree.map(lambda v: jnp.asarray(np.random.default_rng(0).normal(size=v.shape)), units)
        _, _, (ended, _) = assigned(rule, graph, model, x, y, (begun, jnp.ones((), bool)))
        (w, b), *_ = layers_of(model)
        p, start = np.tanh(np.asarray(x) @ w.T + b[None]), np.asarray(begun.values["hidden1"])
        expected = p + (start - p) * np.exp(-steps * dt / tau)
        errors = flat(begun.errors.sent["output"])  # what was sent before stays
        assert np.any(errors)
        back = np.asarray(begun.errors.sent["output"]) @ layers_of(model)[1][0]
        np.testing.assert_allclose(
            ended.values["hidden1"], expected + back * (1 - np.exp(-steps * dt / tau)), rtol=1e-9
        )


@pytest.mark.parametrize("place", ["post", full("pre")])
def test_graded_events_settle_at_a_distance_from_equilibrium_of_first_order(x64, place):
    model, graph, x, y = network((20, 16, 12, 5), vertex_at=place, batch=16)
    rest = assigned(settled(3000, 0.2, tolerance=1e-12), graph, model, x, y)[1]
    assert set(np.asarray(rest.info.result)) == {Result.CONVERGED}
    thresholds, distances = 0.1 / 2.0 ** np.arange(5), []
    for threshold in thresholds:
        credit = assigned(graded(threshold, steps=400, step_size=0.2), graph, model, x, y)[1]
        distances.append(rms(credit.values, rest.values))
    assert slope(thresholds, distances) == pytest.approx(1, abs=0.25)


def test_ternary_events_settle_where_their_size_falls_with_the_step(x64):
    model, graph, x, y = network((20, 16, 12, 5), batch=16)
    rest = assigned(settled(3000, 0.2, tolerance=1e-12), graph, model, x, y)[1]
    sizes, distances = 0.2 / 2.0 ** np.arange(5), []
    for dt in sizes:  # all for the same number of steps, more than any needs, so that one program serves all
        credit = assigned(ternary(dt / 2, steps=3000, step_size=dt), graph, model, x, y)[1]
        distances.append(rms(credit.values, rest.values))
    assert slope(sizes, distances) == pytest.approx(1, abs=0.25)


def test_ternary_events_do_not_follow_where_their_size_alone_falls(x64):
    """One event per step limits how fast a unit is followed: in the end nothing was sent, and the result says so."""
    model, graph, x, y = network((20, 16, 12, 5), batch=16)
    expected = assigned(settled(20, 0.1), graph, model, x, y)[1].values
    distances = []
    for threshold in (0.1, 0.03, 0.01, 0.003, 0.001):
        credit = assigned(ternary(threshold), graph, model, x, y)[1]
        distances.append(relative(credit.values, expected))
        assert set(np.asarray(credit.info.result)) == {Result.SLEW_LIMITED}
    assert np.all(np.diff(distances) > 0)
    assert distances[-1] > 0.95
    assert "send larger events" in Result.SLEW_LIMITED.sentence


def test_ternary_events_that_can_follow_are_not_reported(x64):
    model, graph, x, y = network()
    slow = ternary(0.1, ratio=1.0, steps=400, step_size=0.02, nudge=0.5)
    assert set(np.asarray(assigned(slow, graph, model, x, y)[1].info.result)) == {Result.STEP_LIMIT}
    assert set(np.asarray(assigned(graded(0.1), graph, model, x, y)[1].info.result)) == {Result.STEP_LIMIT}


def test_a_cycle_of_sizes_follows_sooner_than_one_size(x64):
    """Coarse events come first, so that a few steps are enough; the finest are as fine."""
    model, graph, x, y = network((20, 16, 12, 5), batch=16)
    expected = assigned(settled(60, 0.1), graph, model, x, y)[1].values
    one = ternary(0.02, steps=60)
    cycle = graded(0.02, steps=60, activity=Cyclic(0.02, cycle=4), error=Cyclic(0.005, cycle=4))
    distances = [relative(assigned(rule, graph, model, x, y)[1].values, expected) for rule in (one, cycle)]
    assert distances[1] < 0.6 * distances[0]


def test_thresholds_may_be_parts_of_what_units_hold(x64):
    """An output scaled by `c`, with its error and what is held above: the same events, `c` times as large."""
    model, graph, x, y = network((4, 6, 3), activation="identity", vertex_at="pre")
    codes = {"activity": Graded(0.05, relative=True), "error": Graded(0.05, relative=True)}
    rule = graded(0.0, steps=8, **codes)
    found = assigned(rule, graph, model, x, y)[1]
    scaled = jax.tree.map(lambda leaf: 16 * leaf if leaf.ndim == 1 else leaf, model)  # biases; and inputs and targets
    other = assigned(rule, graph, scaled, 16 * x, 16 * y)[1]
    for name, count in (found.info.events.values | found.info.events.errors).items():
        np.testing.assert_array_equal(count, (other.info.events.values | other.info.events.errors)[name])
    np.testing.assert_allclose(other.values["hidden1"], 16 * np.asarray(found.values["hidden1"]), rtol=1e-12)


def test_a_threshold_may_fall_from_step_to_step(x64):
    """Coarse at first and exact at the end, it comes closer to inference learning than the coarse one throughout."""
    model, graph, x, y = network((20, 16, 12, 5), batch=16)
    expected = assigned(settled(60, 0.2), graph, model, x, y)[1].values
    falling = graded(0.0, steps=60, step_size=0.2, activity=Graded(1e-4, initial=1e3), error=Graded(1e-4, initial=1e3))
    coarse = graded(0.1, ratio=1.0, steps=60, step_size=0.2)
    distances = [relative(assigned(rule, graph, model, x, y)[1].values, expected) for rule in (falling, coarse)]
    assert distances[0] < 0.2 * distances[1]
