"""How cells answer pulses, against closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vicinal.hardware import Device

KEY = jax.random.key(0)


def drawn(shape, **numbers):
    return eqx.filter_jit(lambda device: device.draw(shape, key=KEY))(Device(**numbers))


def one_cell(**numbers):
    return drawn((), **{"step": 0.02} | numbers)


def softly(w, n, step, bound, soft):
    """n single pulses towards a bound, one after another."""
    for _ in range(n):
        w = w + step * (1 - soft * w / bound)
    return w


@pytest.mark.parametrize("soft", [0.3, 1.0])
@pytest.mark.parametrize("direction", [1, -1])
def test_many_pulses_at_once_are_as_many_single_ones(x64, soft, direction):
    cells = one_cell(soft=soft, upper=1.2, lower=-0.8)
    bound = 1.2 if direction > 0 else -0.8
    counts = np.arange(51)
    found = eqx.filter_jit(cells.pulsed)(np.full(51, 0.1), 1.0 * direction * counts)
    expected = [softly(0.1, n, direction * 0.02, bound, soft) for n in counts]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_linear_cells_take_equal_steps_and_stop_at_their_bounds(x64):
    cells = one_cell()
    found = eqx.filter_jit(cells.pulsed)(np.full(5, 0.5), np.array([0.0, 3.0, -3.0, 200.0, -200.0]))
    np.testing.assert_allclose(found, [0.5, 0.56, 0.44, 1.0, -1.0], atol=1e-12)


def test_steps_up_and_down_may_differ(x64):
    cells = one_cell(up_down=0.25)
    found = eqx.filter_jit(cells.pulsed)(np.zeros(2), np.array([1.0, -1.0]))
    np.testing.assert_allclose(found, [0.025, -0.015], rtol=1e-6)


def test_the_exponential_curve_is_that_of_soft_bounds(x64):
    """G(P) = Gmin + B (1 - exp(-P/A)), from Gmin to Gmax in 32 pulses; w = -1 at Gmin and 1 at Gmax."""
    life, pulses = 20.0, np.arange(33)
    end = 1 - np.exp(-32 / life)
    weights = 2 * (1 - np.exp(-pulses / life)) / end - 1
    asymptote = 2 / end - 1  # where the curve would end
    cells = one_cell(step=asymptote * (1 - np.exp(-1 / life)), soft=1 / asymptote)
    found = eqx.filter_jit(cells.pulsed)(np.full(33, -1.0), pulses.astype(float))
    np.testing.assert_allclose(found, weights, atol=1e-12)


@pytest.mark.parametrize("numbers", [{"soft": 1.0, "up_down": 0.3}, {"soft": 0.5, "soft_down": 0.9, "up_down": -0.1}])
def test_alternating_pulses_end_within_a_step_of_the_symmetry_point(x64, numbers):
    cells = one_cell(**numbers)
    w = jnp.asarray(-0.9)

    def pair(_, w):
        return cells.pulsed(cells.pulsed(w, jnp.asarray(1.0)), jnp.asarray(-1.0))

    w = float(jax.lax.fori_loop(0, 2000, pair, w))
    up, down, g, h = 0.02 * (1 + numbers["up_down"]), 0.02 * (1 - numbers["up_down"]), numbers["soft"], None
    h = numbers.get("soft_down", g)
    expected = (up - down) / (up * g + down * h)  # up (1 - g w) = down (1 + h w)
    assert float(cells.symmetry_points) == pytest.approx(expected, rel=1e-9)
    assert abs(w - expected) < 0.02


def test_symmetric_linear_cells_are_symmetric_at_zero_and_others_at_a_bound():
    assert float(one_cell().symmetry_points) == 0
    assert float(one_cell(up_down=0.1).symmetry_points) == 1
    assert float(one_cell(up_down=-0.1).symmetry_points) == -1


def test_random_signs_make_soft_cells_forget(x64):
    """E w_t = w_0 (1 - a/b)^t under pulses of random sign."""
    cells = drawn((4000,), step=0.0033, soft=1.0)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (400, 4000))
    w, _ = jax.lax.scan(lambda w, n: (cells.pulsed(w, n), None), jnp.ones(4000), signs)
    assert np.mean(np.asarray(w)) == pytest.approx((1 - 0.0033) ** 400, rel=0.03)


def test_noise_from_pulse_to_pulse_grows_with_the_root_of_their_number_and_spares_other_cells(x64):
    cells = drawn((20_000,), step=0.001, cycle=0.5)
    counts = np.where(np.arange(20_000) % 2 == 0, 16.0, 0.0)
    found = np.asarray(eqx.filter_jit(cells.pulsed)(np.full(20_000, 0.25), counts, KEY))
    assert np.all(found[1::2] == 0.25)
    assert found[::2].mean() == pytest.approx(0.25 + 0.016, abs=4 * 0.002 / 100)
    assert found[::2].std() == pytest.approx(0.001 * 0.5 * 4, rel=0.03)


def test_cells_differ_as_much_as_the_device_says(x64):
    cells = drawn((40_000,), step=0.01, spread=0.1, up_down_spread=0.05, bound_spread=0.2)
    cells = jax.tree.map(np.asarray, cells)
    step, tilt = (cells.up + cells.down) / 2, (cells.up - cells.down) / (cells.up + cells.down)
    for found, mean, deviation in ((step, 0.01, 0.001), (tilt, 0, 0.05), (cells.upper, 1, 0.2), (cells.lower, -1, 0.2)):
        assert np.mean(found) == pytest.approx(mean, abs=4 * deviation / 200)
        assert np.std(found) == pytest.approx(deviation, rel=0.03)
    assert abs(np.corrcoef(cells.upper, cells.lower)[0, 1]) < 4 / 200


def test_stuck_cells_never_move_and_are_as_many_as_the_device_says(x64):
    count, parts = 20_000, {"stuck": 0.01, "stuck_low": 0.02, "stuck_high": 0.05}
    cells = drawn((count,), step=0.01, cycle=1.0, bound_spread=0.3, **parts)
    free = drawn((count,), step=0.01, cycle=1.0, bound_spread=0.3)
    start = np.asarray(cells.clipped(jnp.zeros(count)))
    pulsed = eqx.filter_jit(cells.pulsed)
    end = np.asarray(pulsed(pulsed(start, np.full(count, 31.0), KEY), np.full(count, -7.0), KEY))
    stuck = np.asarray(cells.is_stuck)
    assert np.array_equal(end[stuck], start[stuck])
    assert not np.any((end == start)[~stuck])
    places = {"stuck": np.zeros(count), "stuck_low": np.asarray(free.lower), "stuck_high": np.asarray(free.upper)}
    for name, part in parts.items():
        found = np.mean(stuck & (start == places[name]))
        assert found == pytest.approx(part, abs=4 * (part / count) ** 0.5)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"step": 0.0}, "expected the step of a pulse above 0, got 0"),
        ({"soft": 1.5}, "expected soft from 0 to 1, got 1.5"),
        ({"upper": -1.0}, "expected the upper bound above 0"),
        ({"cycle": -0.1}, "expected cycle of at least 0"),
        ({"stuck": 0.6, "stuck_low": 0.6}, "expected the stuck cells together up to 1"),
    ],
)
def test_wrong_numbers_are_refused(numbers, words):
    with pytest.raises(ValueError, match=words):
        Device(**{"step": 0.01} | numbers)
