"""Time between checkpoints, and clocks that go back."""

import math
import time

import optax
import pytest
from fit_builders import ADAM, BACKPROP, LEARNING, X, Y, train, untimed

import vicinal as vc
from vicinal.train import sweep
from vicinal.train.files import CHECKPOINT
from vicinal.train.progress import TrainingProgress

FAR_BACK = [1e9, *(1e6 - i for i in range(1000))]  # a clock is set back, and goes on backwards


@pytest.mark.parametrize(
    ("seconds", "error"),
    [(math.nan, ValueError), (-1, ValueError), (math.inf, ValueError), ("5", TypeError), (None, TypeError)],
)
def test_the_time_between_checkpoints_is_checked_before_anything_is_written(tmp_path, seconds, error):
    with pytest.raises(error, match=r"expected checkpoint_seconds as a finite number of seconds of at least 0, got"):
        train(steps=1, folder=tmp_path / "run", checkpoint_seconds=seconds)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def backwards(monkeypatch):
    """Every clock that Python has is set back by years, and runs backwards from there."""
    readings = iter(FAR_BACK)
    for name in ("time", "monotonic", "perf_counter"):
        monkeypatch.setattr(time, name, lambda: next(readings))


def test_checkpoints_are_written_while_a_clock_goes_back(tmp_path, saved, cut, backwards):
    cut(1)
    train(steps=4, folder=tmp_path, checkpoint_seconds=60.0)
    assert saved == [1, 2, 3, 4]  # it is not known how old the last one is


def test_a_clock_that_goes_back_changes_no_numbers(tmp_path, monkeypatch, cut):
    cut(3)
    plain = train(LEARNING, ADAM, steps=12, evaluate_every=4)
    readings = iter(FAR_BACK)
    for name in ("time", "monotonic", "perf_counter"):
        monkeypatch.setattr(time, name, lambda: next(readings))
    run = train(LEARNING, ADAM, steps=12, evaluate_every=4, folder=tmp_path)
    assert untimed(run.records) == untimed(plain.records)
    assert all(0 < record["examples_per_second"] < math.inf for record in run.records)
    assert run.seconds_per_step > 0
    assert (tmp_path / CHECKPOINT).exists()


def test_lines_of_progress_go_on_after_a_clock_went_back(monkeypatch, capsys):
    now = [1e9]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with TrainingProgress(100) as shown:
        for step, at in enumerate([1e9 + 11, 1e3, 1e3 + 5, 1e3 + 11, 1e3 + 22], start=1):
            now[0] = at
            shown.update(step, 1.0, None, 1.0)
    assert [line.split()[2] for line in capsys.readouterr().err.splitlines()] == ["1", "4", "5"]


def test_a_sweep_is_laid_out_while_a_clock_stands_still(monkeypatch):
    monkeypatch.setattr(time, "perf_counter", lambda: 7.0)
    done = sweep(
        lambda learning_rate: (BACKPROP, optax.sgd(learning_rate)),
        lambda key: vc.nn.MLP((4, 2, 3), key=key),
        (X, Y),
        {"learning_rate": [0.1, 0.2, 0.3]},
        steps=2,
        batch_size=8,
        progress=False,
    )
    assert [member.steps for member in done.members] == [2, 2, 2]
    assert done.layout.size == 2  # nothing says that another is faster than the last that was tried
