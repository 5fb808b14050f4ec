"""Codes of events: what units send of what they hold, and when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix import full

from vicinal.events import Code, Cyclic, Graded, Lines, Ternary, step_size

RANDOM = np.random.default_rng(0)
WALK = np.cumsum(RANDOM.normal(scale=0.03, size=(60, 2, 5)), axis=0)  # what two examples of five units hold


def by_hand(kind, walk, threshold):
    """The sums of events after each turn, unit by unit, in plain Python."""
    sent = np.zeros(walk.shape)
    for place in np.ndindex(walk.shape[1:]):
        total = 0.0
        for t, value in enumerate(walk[(slice(None), *place)]):
            r = value - total
            if kind is Graded and abs(r) >= threshold[t]:
                total += threshold[t] * round(r / threshold[t])
            if kind is not Graded and abs(r) > threshold[t] / 2:
                total += threshold[t] * (1 if r > 0 else -1)
            sent[(t, *place)] = total
    return sent


def sent_by(code, walk):
    lines = code.silent({"a": walk[0]})

    def turn(lines, now):
        t, held = now
        lines = code.publish(lines, {"a": held}, t, len(walk))
        return lines, lines.sent["a"]

    return np.asarray(jax.jit(lambda: jax.lax.scan(turn, lines, (jnp.arange(len(walk)), jnp.asarray(walk))))()[1])


@pytest.mark.parametrize("kind", [Graded, Ternary])
def test_what_is_sent_is_what_each_unit_sends_by_hand(x64, kind):
    np.testing.assert_allclose(sent_by(kind(0.05), WALK), by_hand(kind, WALK, np.full(60, 0.05)), atol=1e-12)


def test_sizes_of_a_cycle_are_powers_of_two_from_coarse_to_fine(x64):
    sizes = np.resize(0.01 * np.array([4.0, 2.0, 1.0]), 60)
    np.testing.assert_allclose(sent_by(Cyclic(0.01, cycle=3), WALK), by_hand(Cyclic, WALK, sizes), atol=1e-12)


@pytest.mark.parametrize("kind", [Graded, full(Ternary)])
def test_a_threshold_falls_geometrically_to_its_last(x64, kind):
    sizes = 0.02 * 8.0 ** (1 - np.arange(60) / 59)
    np.testing.assert_allclose(sent_by(kind(0.02, initial=8.0), WALK), by_hand(kind, WALK, sizes), atol=1e-12)
    beyond = kind(0.02, initial=8.0).publish(kind(0.02).silent(WALK[0]), WALK[0], 100, 60)
    np.testing.assert_allclose(beyond.sent, by_hand(kind, WALK[:1], [0.02])[0], atol=1e-12)
    only = kind(0.02, initial=8.0).publish(kind(0.02).silent(WALK[0]), WALK[0])  # the first step is the last
    np.testing.assert_allclose(only.sent, beyond.sent, atol=1e-12)


def test_a_relative_threshold_follows_the_largest_magnitude_so_far_of_an_example(x64):
    peaks = np.maximum.accumulate(np.max(np.abs(WALK), axis=2), axis=0)
    found = sent_by(Graded(0.2, relative=True), WALK)
    for example in range(2):
        expected = by_hand(Graded, WALK[:, example], 0.2 * peaks[:, example])
        np.testing.assert_allclose(found[:, example], expected, atol=1e-12)


def test_graded_events_leave_less_than_a_threshold_and_half_of_one_after_sending(x64):
    sent = sent_by(Graded(0.05), WALK)
    assert np.max(np.abs(WALK - sent)) < 0.05
    just = np.diff(sent, axis=0) != 0
    assert np.max(np.abs(WALK - sent)[1:][just]) <= 0.025 + 1e-12


def test_a_ternary_event_brings_what_was_sent_closer(x64):
    """It is sent where it lowers the squared error of what others know (Boerlin, Machens and Denève)."""
    walk = 5 * WALK  # too fast to follow
    sent = np.concatenate([np.zeros((1, 2, 5)), sent_by(Ternary(0.05), walk)])
    before, after = np.abs(walk - sent[:-1]), np.abs(walk - sent[1:])
    events = sent[1:] != sent[:-1]
    assert np.all(after[events] < before[events])
    assert np.all(before[~events] <= 0.025 + 1e-12)


def test_a_threshold_of_zero_sends_every_change(x64):
    np.testing.assert_allclose(sent_by(Graded(0.0), WALK), WALK, atol=1e-14)
    np.testing.assert_allclose(sent_by(Graded(0.0, relative=True), WALK), WALK, atol=1e-14)
    silent = Graded(0.5, relative=True).publish(Graded(0.5, relative=True).silent(jnp.zeros((2, 3))), jnp.zeros((2, 3)))
    assert not np.any(silent.sent)


def test_late_are_those_that_one_event_does_not_bring_close(x64):
    held = jnp.array([[0.14, 0.0], [0.16, 0.0], [-0.3, 0.1]])
    code = Ternary(0.1)
    lines = code.publish(code.silent(held), held)
    np.testing.assert_array_equal(code.late(lines, held), [False, True, True])
    graded = Graded(0.1).publish(Graded(0.1).silent(held), held)
    assert not np.any(Graded(0.1).late(graded, held))
    assert not np.any(code.late(Lines({}), {}))


def test_a_sum_of_many_events_in_single_precision_is_not_late():
    code, held = Ternary(0.1), jnp.full((1, 1), 30.05, jnp.float32)
    lines = code.silent(held)
    lines = jax.jit(lambda: jax.lax.fori_loop(0, 301, lambda _, lines: code.publish(lines, held), lines))()
    assert not np.any(code.late(lines, held))


def test_lines_keep_tree_shape_and_kind():
    held = {"a": jnp.ones((2, 3, 4), jnp.float16), "b": (jnp.ones((2,), jnp.float16), jnp.ones((2, 0), jnp.float16))}
    for code in (Graded(0.1), Ternary(0.1, relative=True), Cyclic(0.1, relative=True, initial=2.0)):
        lines = code.publish(code.silent(held), held, 1, 5)
        assert jax.tree.map(lambda a: (a.shape, a.dtype), lines.sent) == jax.tree.map(
            lambda a: (a.shape, a.dtype), held
        )
        assert (lines.peak is None) == (not code.relative)


def test_not_a_number_is_sent():
    held = jnp.array([[jnp.nan, 0.0]])
    for code in (Graded(0.1), Graded(0.0), Ternary(0.1), Cyclic(0.1)):
        np.testing.assert_array_equal(np.isnan(code.publish(code.silent(held), held).sent), [[True, False]])


def test_a_code_says_what_it_sends():
    code = Code(0.1)
    with pytest.raises(NotImplementedError):
        code.publish(code.silent(jnp.ones((1, 2))), jnp.ones((1, 2)))


def test_the_step_of_a_membrane(x64):
    """`n` steps of `dt` are one of `n dt`; short ones are `dt / tau`."""
    whole = step_size(dt=0.012, tau=0.02)
    part = step_size(dt=0.004, tau=0.02)
    np.testing.assert_allclose(1 - whole, (1 - part) ** 3, rtol=1e-12)
    np.testing.assert_allclose(step_size(dt=1e-9, tau=0.02), 1e-9 / 0.02, rtol=1e-6)
    assert float(step_size(dt=100.0, tau=1e-3)) == 1.0


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Graded(-0.1), ValueError, "expected the threshold of at least 0, got -0.1"),
        (lambda: Graded(True), TypeError, "expected a number, got True"),
        (lambda: Ternary(0.0), ValueError, "expected the threshold, the size of an event, above 0, got 0"),
        (lambda: Cyclic(0.0), ValueError, "expected the threshold, the size of an event, above 0, got 0"),
        (lambda: Graded(0.1, initial=0.0), ValueError, "expected initial above 0, got 0"),
        (lambda: Graded(0.1, relative=1), ValueError, "expected relative as True or False, got 1"),
        (lambda: Cyclic(0.1, cycle=0), ValueError, "expected cycle as an integer of at least 1, got 0"),
        (lambda: step_size(0.0, 1.0), ValueError, "expected dt above 0, got 0"),
        (lambda: step_size(1.0, -1.0), ValueError, "expected tau above 0, got -1"),
    ],
)
def test_settings_out_of_range_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()
