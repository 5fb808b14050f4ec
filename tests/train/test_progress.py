"""What a run shows, with a clock that the test moves."""

import io
import math

import numpy as np
import pytest
from rich.console import Console

from vicinal.train import progress
from vicinal.train.progress import Pace, TrainingProgress


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 100 columns; what it was sent."""
    sent = io.StringIO()
    monkeypatch.setattr(
        progress, "Console", lambda **_: Console(file=sent, force_terminal=True, width=100, _environ={"TERM": "xterm"})
    )
    return sent


@pytest.fixture
def no_terminal(monkeypatch):
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=io.StringIO(), force_terminal=False))


@pytest.mark.usefixtures("no_terminal")
def test_nothing_within_a_second(clock, capsys):
    with TrainingProgress(total=10) as shown:
        for step in range(1, 11):
            clock.now += 0.09
            shown.update(step, 0.5, 0.9, 1e3)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("no_terminal")
def test_lines_every_ten_seconds_and_at_the_end(clock, capsys):
    with TrainingProgress(total=30, title="il") as shown:
        for step in range(1, 31):
            clock.now += 1.0
            shown.update(step, 0.123456, None if step < 20 else 0.9, 1234.5)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "il: step 10 of 30  loss 0.1235  1,234 examples/s",
        "il: step 20 of 30  loss 0.1235  accuracy 90.0%  1,234 examples/s",
        "il: step 30 of 30  loss 0.1235  accuracy 90.0%  1,234 examples/s",
    ]


def test_a_bar_on_a_terminal(clock, terminal, capsys):
    with TrainingProgress(total=40, done=10) as shown:
        clock.now += 2.0
        shown.update(20, 0.25, 0.5, 10.0)
        assert shown._bar.tasks[0].percentage == 50.0
        shown.update(40, 0.125, None, 10.0)
    assert shown._bar.finished
    assert "training" in terminal.getvalue()
    assert "100%" in terminal.getvalue()
    assert "loss 0.1250" in terminal.getvalue()
    assert capsys.readouterr() == ("", "")


def test_the_bar_goes_when_the_run_is_interrupted(clock, terminal):
    shown = TrainingProgress(total=40)

    def interrupted():
        with shown:
            clock.now += 2.0
            shown.update(1, 0.5, None, 1.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert shown._bar.live.is_started is False
    assert terminal.getvalue().endswith(("\x1b[?25h", "\n"))  # the cursor is back


def test_false_shows_nothing_anywhere(clock, terminal, capsys):
    with TrainingProgress(total=2, enabled=False) as shown:
        clock.now += 100.0
        shown.update(2, 0.5, None, 1.0)
    assert terminal.getvalue() == ""
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("rate", [0.0, 1e-12, 1e12])
@pytest.mark.parametrize(("total", "done", "step"), [(1, 0, 1), (1, 1, 1), (5, 0, 0)])
def test_odd_numbers_are_no_errors(clock, terminal, rate, total, done, step):
    with TrainingProgress(total, done) as shown:
        clock.now += 2.0
        shown.update(step, float("inf"), 0.0, rate)
        shown.update(step, float("nan"), 1.0, rate)


def test_the_pace_is_that_of_the_last_call():
    pace = Pace()
    assert pace.latest == math.inf
    assert pace.median == 0.0
    pace.add(1, 5.0)  # it compiles
    assert pace.median == pace.latest == 5.0
    pace.add(10, 1.0)
    assert pace.latest == 0.1


def test_calls_grow_to_the_time_they_should_take_and_at_most_double():
    pace, found = Pace(), []
    for seconds_per_step in [5.0] + [0.01] * 9 + [0.5]:  # the first compiles
        found.append(pace.next(1.0, longest=1000))
        pace.add(found[-1], found[-1] * seconds_per_step)
    assert found == [1, 1, 2, 4, 8, 16, 32, 64, 100, 100, 100]
    assert pace.next(1.0, longest=1000) == 2  # steps have become slow
    assert pace.next(0.1, longest=1000) == 1
    pace.add(1, 1e-9)
    assert pace.next(1.0, longest=50) == 50
    pace.add(3, 3e-9)  # cut short by an evaluation: that is no reason to begin again
    assert pace.next(1.0, longest=1000) == 128


def test_a_clock_that_stands_still_divides_nothing_by_zero():
    pace = Pace()
    for _ in range(3):
        pace.add(4, 0.0)
        pace.add(0, 1.0)  # a call that took no step says nothing
    assert pace.next(1.0, longest=100) == 8
    assert pace.median > 0


@pytest.mark.parametrize("seed", range(5))
def test_the_median_is_over_steps_without_the_first_call(seed):
    random = np.random.default_rng(seed)
    steps, seconds = random.integers(1, 50, 2 * seed + 3), random.uniform(1, 2, 2 * seed + 3)
    pace = Pace()
    for count, each in zip(steps, seconds, strict=True):
        pace.add(int(count), float(count * each))
    every_step = np.sort(np.repeat(seconds[1:], steps[1:]))
    lower, upper = every_step[(len(every_step) - 1) // 2], every_step[len(every_step) // 2]
    assert lower * (1 - 1e-12) <= pace.median <= upper * (1 + 1e-12)
