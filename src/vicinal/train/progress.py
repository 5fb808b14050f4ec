"""The speed of a run and its display: a bar on a terminal, lines elsewhere, nothing in the first second."""

import math
import sys
import time
from typing import Any, Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class Pace:
    """The speed of the steps of a run, from its compiled calls.

    Attributes:
        calls: `(steps, seconds per step)` of each call.
    """

    def __init__(self):
        self.calls: list[tuple[int, float]] = []
        self._most = 1

    def add(self, steps: int, seconds: float) -> None:
        """Records a call; one too short for the clock counts as a nanosecond per step."""
        if steps > 0:
            self.calls.append((steps, max(seconds / steps, 1e-9)))
        if steps >= self._most:
            self._most *= 2

    def next(self, seconds: float, longest: int) -> int:
        """How many steps the next call should take.

        The number at most doubles from call to call: the first call includes compilation, and
        most divergences come early, where a short call finds them cheaply.

        Args:
            seconds: How long the call should take.
            longest: The most steps.
        """
        return min(self._most, longest, max(1, int(seconds / self.latest)))

    @property
    def latest(self) -> float:
        """Seconds per step of the last call; infinite before the first."""
        return self.calls[-1][1] if self.calls else math.inf

    @property
    def median(self) -> float:
        """Median seconds per step, without those of the first call (it compiles)."""
        steps, seconds = np.array(sorted(self.calls[1:] or self.calls, key=lambda call: call[1]) or [(1, 0.0)]).T
        return float(seconds[np.searchsorted(np.cumsum(steps), steps.sum() / 2)])


class TrainingProgress:
    """Shows steps, loss, accuracy, events and examples per second.

    Args:
        total: Steps in all.
        done: Steps done before (a resumed run).
        enabled: False shows nothing; None shows a bar on a terminal and a line every ten seconds elsewhere.
        title: What is being trained.

    Attributes:
        total: As given.
        before: Steps trained before, which also count towards the total.
    """

    _QUIET_SECONDS, _LINE_SECONDS = 1.0, 10.0

    def __init__(self, total: int, done: int = 0, enabled: bool | None = None, title: str = "training"):
        self.total, self.before, self.title, self._enabled = total, 0, title, enabled
        self._begun = self._last_line = time.monotonic()
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._done = done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, loss: float, accuracy: float | None, rate: float, events: float | None = None) -> None:
        """Shows the progress.

        Args:
            step: Steps done.
            loss: Recent mean training loss.
            accuracy: Recent training accuracy in [0, 1], or None.
            rate: Examples per second.
            events: Recent mean number of events per example, or None.
        """
        now, step = time.monotonic(), self.before + step
        if now < self._last_line:  # the clock went back
            self._begun = self._last_line = now
        if self._enabled is False or now - self._begun < self._QUIET_SECONDS:
            return
        words = f"loss {loss:.4f}" + ("" if accuracy is None else f"  accuracy {accuracy:.1%}")
        words += ("" if events is None else f"  {events:,.1f} events") + f"  {rate:,.0f} examples/s"
        if self._console.is_terminal:
            self._show_bar(step, words)
        elif now - self._last_line >= self._LINE_SECONDS or step >= self.total:
            self._last_line = now
            print(f"{self.title}: step {step} of {self.total}  {words}", file=sys.stderr, flush=True)

    def _show_bar(self, step: int, words: str) -> None:
        if self._bar is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.percentage:>3.0f}%"),
            )
            self._bar = Progress(
                *columns, TextColumn("{task.fields[words]}"), TimeRemainingColumn(), console=self._console
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, completed=self._done, words=words)
        self._bar.update(self._task, completed=step, words=words)
