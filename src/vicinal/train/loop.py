"""The training loop of `fit` and `sweep`: steps in compiled calls, and what happens between the calls.

A call takes about a second, and ends at an evaluation or at the last step at the latest. At an evaluation, each live
member is measured, the hooks see its record, and the record is written. After a call, the state may be saved.
"""

import contextlib
import math
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from vicinal._memory import exhausted, is_exhausted
from vicinal.interruption import raise_again
from vicinal.train.evaluate import means
from vicinal.train.files import Files
from vicinal.train.hooks.base import Start, Watch, hooks_of
from vicinal.train.members import Members
from vicinal.train.options import Options, Schedule
from vicinal.train.progress import Pace, TrainingProgress

_LESS = "take a smaller model or batch, and in a sweep a smaller group_size"
_CHUNK_SECONDS, _LONGEST_CHUNK = 1.0, 20_000  # a compiled call takes about this long, and at most this many steps


def train_members(
    members: Members, schedule: Schedule, options: Options, files: Files, shown: TrainingProgress
) -> Pace:
    """Takes all steps, or as many as hooks and finite numbers allow.

    An exception, such as a keyboard interrupt, undoes the steps whose records are not written yet, saves the state,
    and is raised again, with a note that says so; one that says that memory ran out as a MemoryError.

    Args:
        members: What is trained; they change.
        schedule: The marks.
        options: Hooks, and time between checkpoints.
        files: Log and checkpoint.
        shown: The progress bar.

    Returns:
        The pace of the compiled calls.
    """
    with contextlib.ExitStack() as stack:
        loop = _Loop(members, schedule, options, files, stack)
        try:
            while loop.goes_on:
                raise_again()
                loop.advance()
                shown.update(loop.step, loop.loss, loop.accuracy, loop.rate, loop.events)
                files.save(members, unless_within=options.checkpoint_seconds)
            files.save(members)
        except BaseException as error:
            members.back_to(loop.mark)
            told = exhausted(error, loop.doing, _LESS) if is_exhausted(error) else error
            stopped = f"training stopped after step {int(members.steps().max())} of {schedule.steps}"
            told.add_note(stopped + _saved(members, files, error))
            if told is error:
                raise
            raise told from error
    return loop.pace


def _saved(members: Members, files: Files, error: BaseException) -> str:
    """Saves members after an error, and says what is kept, as the end of a sentence."""
    try:
        files.save(members)
    except OSError as failure:
        return "" if str(failure) == str(error) else f"; {failure.strerror or failure}"
    except Exception as failure:
        if not is_exhausted(failure):
            raise
        return "; no memory was left to write its checkpoint, and the one before it, if there is one, is intact"
    return f"; {files.kept(members)}"


class _Loop:
    """The loop under way: the step reached, and what was last seen.

    Attributes:
        step: Updates that each live member has taken.
        mark: The members after the last step whose records, if it has any, are written.
        loss: Mean training loss of late, over the live members.
        accuracy: Mean training accuracy of late, or None.
        events: Mean number of events per example of late, or None.
        rate: Examples per second, of all members together.
        doing: What is under way, in words.
    """

    def __init__(
        self, members: Members, schedule: Schedule, options: Options, files: Files, stack: contextlib.ExitStack
    ):
        self._members, self._schedule, self._files = members, schedule, files
        self.pace, self.loss, self.rate = Pace(), math.nan, 0.0
        self.accuracy: float | None = None
        self.events: float | None = None
        self.doing = "the first step"
        self.step = int(members.steps()[members.live].max(initial=0))
        self._watches = []
        for row in range(len(members.ids)):
            watch = Watch(hooks_of(options.hooks), _start(members, row, options, files), options.on_record)
            self._watches.append(stack.enter_context(watch))
        self._stop_by_hooks()  # a resumed run may have been stopped before
        self.mark = members.mark()

    @property
    def goes_on(self) -> bool:
        """Whether there are steps to take, and a member to take them."""
        return self.step < self._schedule.steps and bool(self._members.live.any())

    def advance(self) -> None:
        """Takes the steps of one compiled call, and writes the records that are due."""
        wanted = min(self._schedule.until_mark(self.step), self.pace.next(_CHUNK_SECONDS, _LONGEST_CHUNK))
        self.doing = f"steps {self.step + 1} to {self.step + wanted}"
        begun = time.monotonic()
        taken, stopped = self._members.advance(self.step, wanted)
        self.pace.add(taken, time.monotonic() - begun)
        self.step += taken
        for row, reason in stopped.items():
            self._write_end(row, {"stopped": reason})
        seen = self._seen() if taken else {}
        if seen and self._schedule.is_mark(self.step):
            self._record(seen)
        self.mark = self._members.mark()
        self.doing = f"the checkpoint after step {self.step}"

    def _seen(self) -> dict[int, dict[str, float]]:
        """What each live member has seen in training since the last record, by row."""
        sums, rows = self._members.sums(), np.flatnonzero(self._members.live)
        seen = {int(row): means(sums[row], self._members.metrics) for row in rows}
        if seen:
            self.rate = len(seen) * self._members.examples_per_step / self.pace.latest
            self.loss = float(np.mean([found["train_loss"] for found in seen.values()]))
            self.accuracy = _mean(found.get("train_accuracy") for found in seen.values())
            self.events = _mean(
                found["value_events"] + found["error_events"] for found in seen.values() if "value_events" in found
            )
        return seen

    def _record(self, seen: dict[int, dict[str, float]]) -> None:
        """Evaluates the live members, writes a record of each, and sets the sums to zero."""
        self.doing = f"the evaluation after step {self.step}"
        tested = self._members.evaluate()
        self.doing = f"hooks and on_record after step {self.step}"
        for row, found in seen.items():
            record = {"step": self.step, **self._schedule.epoch(self.step), **found}
            record |= {"examples_per_second": self.rate} if self._members.has_pace else {}
            record |= tested[row]
            watch = self._watches[row]
            if watch.needs_state:
                watch(record, self._members.state(row))
            self._files.write(self._members.ids[row], record)
            watch.best.commit()
        self._members.reset_sums()
        self._stop_by_hooks()

    def _stop_by_hooks(self) -> None:
        """Freezes the live members that a hook stops before the last step."""
        rows = [int(row) for row in np.flatnonzero(self._members.live) if self._watches[row].stopped_by is not None]
        if not rows or self.step == self._schedule.steps:
            return
        for row in rows:
            watch = self._watches[row]
            self._write_end(row, {"stopped": watch.sentence(self.step), "stopped_by": watch.stopped_by})
        self._members.stop(rows)

    def _write_end(self, row: int, why: dict[str, Any]) -> None:
        self._files.write(self._members.ids[row], {"step": int(self._members.steps()[row]), **why})


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of those that exist, if any do."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _start(members: Members, row: int, options: Options, files: Files) -> Start:
    """What the hooks of a member are told."""
    own, step = members.ids[row], int(members.steps()[row])
    best = files.keep_best(own, members.state(row).model if options.hooks else None, step)
    return Start(step, options.resume, files.records_of(own), files.folder, best, own, members.numbers[row])
