"""Integrate-and-fire generators against closed forms and against an integration in fine steps."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vicinal.spikes import Generator, count

RANDOM = np.random.default_rng(0)


@eqx.filter_jit
def presented(generator, drives):
    """The state after each step for drives `[steps, batch, units]`, or a tree of them."""

    def step(state, drive):
        state = generator.send(state, drive)
        return state, state

    return jax.lax.scan(step, generator.silent(jax.tree.map(lambda drive: drive[0], drives)), drives)[1]


def constant(drive, steps):
    """The drive of one example, `[units]`, at all steps."""
    return jnp.broadcast_to(jnp.asarray(drive)[None, None], (steps, 1, len(drive)))


def spikes_of(generator, drive, steps):
    """The number of spikes of each unit after so many steps."""
    spikes = np.asarray(presented(generator, constant(drive, steps)).spikes)[:, :, 0]
    return np.sum(spikes[:, 0] - spikes[:, 1], axis=0)


def closed_form(u, area, leak):
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(u * leak > area, area / (-leak * np.log(1 - area / (u * leak))), 0.0)


DRIVES = np.concatenate([[0.0], RANDOM.uniform(0.005, 6, 60)])


@pytest.mark.parametrize(("area", "leak"), [(1.0, None), (0.3, None), (1.0, 20.0), (1.0, 3.0), (0.1, 20.0)])
def test_simulated_rates_are_those_of_the_closed_form(x64, area, leak):
    """Within a spike in any time."""
    generator = Generator(area, most=None, leak=leak)
    rate = DRIVES if leak is None else closed_form(DRIVES, area, leak)
    np.testing.assert_allclose(generator.rate(jnp.asarray(DRIVES)), rate, rtol=1e-12)
    for steps in (1, 40, 500):
        counted = spikes_of(generator, DRIVES, steps)
        assert np.max(np.abs(counted * area / steps - rate)) <= area / steps * (1 + 1e-9)


def test_a_leak_lowers_rates_by_half_an_area_over_its_time_constant(x64):
    """In first order of the area; what is left is of second order."""
    areas, leak, drive = 0.4 / 2.0 ** np.arange(5), 20.0, 1.3
    left = [abs(float(Generator(a, None, leak).rate(drive)) - (drive - a / (2 * leak))) for a in areas]
    assert np.polyfit(np.log(areas), np.log(left), 1)[0] == pytest.approx(2, abs=0.1)


def fine_spikes(drives, area, leak, most, parts=4000):
    """Spikes and charges of each step by Euler's steps of a fine grid; what cannot be sent is kept."""
    charge, kept, rows = area / 2, 0, []
    for drive in drives:
        due, kept = kept, 0
        for _ in range(parts):
            charge += (drive - charge / leak) / parts
            if charge >= area:
                charge, due = charge - area, due + 1
        sent = min(due, most)
        kept = due - sent
        rows.append((sent, charge + kept * area))
    return np.array(rows).T


def test_spikes_within_a_step_come_at_their_times(x64):
    """Rates that change from step to step, some of them more than can be sent."""
    drives = RANDOM.uniform(0, 2, 30)
    drives[10:14] = 9.0
    generator = Generator(0.7, most=8, leak=4.0)
    found = presented(generator, jnp.asarray(drives)[:, None, None])
    spikes, charges = fine_spikes(drives, 0.7, 4.0, 8)
    assert np.max(spikes) == 8
    assert np.count_nonzero(spikes == 8) > 4  # also after, while what was kept is sent
    np.testing.assert_array_equal(found.spikes[:, 0, 0, 0], spikes)
    np.testing.assert_allclose(found.charges[:, 0, 0, 0], charges, atol=0.01)


def test_counts_of_integrate_and_fire_are_exact_to_one_and_random_ones_to_a_root(x64):
    """The relative error of a count of N spikes: 1 / N, and 1 / sqrt(N) for spikes of a Poisson process."""
    drive = RANDOM.uniform(0.5, 1.5, 4000)
    times, regular, random = 2 ** np.arange(2, 8), [], []
    for steps in times:
        regular.append(np.sqrt(np.mean((spikes_of(Generator(1.0), drive, int(steps)) / steps / drive - 1) ** 2)))
        random.append(np.sqrt(np.mean((RANDOM.poisson(drive * steps) / steps / drive - 1) ** 2)))
    slopes = [np.polyfit(np.log(times), np.log(errors), 1)[0] for errors in (regular, random)]
    assert slopes[0] == pytest.approx(-1, abs=0.1)
    assert slopes[1] == pytest.approx(-0.5, abs=0.1)


def test_a_trace_is_the_low_pass_of_spikes(x64):
    """Each spike leaves a mark that falls with the time constant and sums to the area, whatever its sign."""
    area, tau = 0.8, 5.0
    values = jnp.zeros((60, 1, 2)).at[0].set(jnp.array([[0.5, -0.5]]))  # with the charge at first: one spike
    found = presented(Generator(area, trace=tau), values)
    mark = area * (1 - np.exp(-1 / tau)) * np.exp(-np.arange(60) / tau)
    np.testing.assert_allclose(found.traces[:, 0, 0], mark, rtol=1e-12)
    np.testing.assert_allclose(found.traces[:, 0, 1], -mark, rtol=1e-12)
    assert np.sum(mark) == pytest.approx(area, rel=1e-4)
    assert float(Generator(area, trace=tau).mark) == pytest.approx(mark[0])


def test_traces_stay_within_an_area_of_what_is_held_once_they_are_there(x64):
    generator, held = Generator(1.0), jnp.asarray(RANDOM.uniform(-5, 5, (1, 50)))
    begun = generator.sending(held)
    np.testing.assert_array_equal(begun.traces, held)

    def step(state, _):
        state = generator.send(state, held)
        return state, state.traces

    traces = jax.lax.scan(step, begun, None, 100)[1]
    assert np.max(np.abs(traces - held[None])) <= generator.area


def test_generators_that_have_sent_for_long_have_traces_at_their_means(x64):
    held = jnp.array([[1.3, -0.7, 0.01]])
    expected = np.sign(held) * closed_form(np.abs(np.asarray(held)), 1.0, 20.0)
    np.testing.assert_allclose(Generator(leak=20.0).sending(held).traces, expected, rtol=1e-12)


def test_what_cannot_be_sent_piles_up_and_is_reported(x64):
    generator, held = Generator(0.5, most=4), jnp.array([[1.3, -0.2], [-1.4, 0.0], [2.6, 0.0]])
    assert generator.limit == 2.0
    np.testing.assert_array_equal(generator.crowded({"a": held}), [False, True, True])  # 1.5 times the rate, against 2
    np.testing.assert_array_equal(generator.crowded({"a": held[:, 1:], "b": held[:, :1, None]}), [False, True, True])
    found = presented(generator, jnp.broadcast_to(held[None], (40, 3, 2)))
    np.testing.assert_allclose(found.charges[-1, 0, 2, 0], 0.25 + 40 * 0.6, rtol=1e-12)
    assert float(generator.rate(2.6)) == 2.0
    assert np.max(found.charges[-1, :, :2]) < 0.5 + 1e-9
    free = Generator(0.5, most=None)
    assert free.limit is None
    assert not np.any(free.crowded({"a": 1e9 * held}))


def test_spikes_are_counted_for_each_example(x64):
    held = {"a": jnp.array([[[2.0, -3.0], [0.0, 0.0]]]), "b": jnp.array([[[[1.0]], [[-4.0]]]])}
    spikes = jax.tree.map(lambda n: n[0], presented(Generator(), held).spikes)
    np.testing.assert_array_equal(count(spikes), [6, 4])
    assert count(spikes).dtype == jnp.int32


def test_a_value_that_is_no_number_is_sent():
    held = jnp.broadcast_to(jnp.array([[[jnp.nan, 1.0]]]), (2, 1, 2))
    for generator in (Generator(), Generator(leak=20.0)):
        traces = presented(generator, held).traces
        assert np.isnan(traces[-1, 0, 0])
        assert np.isfinite(traces[-1, 0, 1])


def test_charges_of_half_precision_sum_small_numbers():
    """Half the area, in steps below the precision of the sum."""
    traces = presented(Generator(), jnp.full((260, 1, 1), 0.002, jnp.bfloat16)).traces
    assert traces.dtype == jnp.bfloat16
    assert float(traces[-1, 0, 0]) > 0.01


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"area": 0.0}, ValueError, "expected the area of a spike above 0, got 0"),
        ({"most": 0}, ValueError, "expected most as an integer of at least 1, got 0"),
        ({"most": 2.0}, TypeError, "expected most as an integer"),
        ({"leak": -1.0}, ValueError, "expected the leak, a time constant, above 0, got -1"),
        ({"trace": 0.0}, ValueError, "expected the time constant of the trace above 0, got 0"),
        ({"area": "x"}, TypeError, "expected a number, got 'x'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, error, words):
    with pytest.raises(error, match=words):
        Generator(**settings)
