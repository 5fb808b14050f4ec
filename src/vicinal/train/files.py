"""The folder of a run: its log and its checkpoint, opened, matched against the arguments, and written."""

import dataclasses
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

from vicinal.train import checkpoint
from vicinal.train.advance import TrainingState
from vicinal.train.best import Best
from vicinal.train.fingerprint import Fingerprint, difference
from vicinal.train.log import JSONLog, keep

CHECKPOINT, METRICS, BEST = "checkpoint.npz", "metrics.jsonl", "best.npz"
"""What a run writes into its folder."""


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0  # a run that failed in its first step leaves an empty log


def check_fingerprint(stored: Fingerprint | None, own: Fingerprint, what: str) -> None:
    """Raises ValueError if what is to be resumed was begun with something else; warns if that cannot be told."""
    name, untold = difference(stored, own)
    if name is not None:
        raise ValueError(f"expected the {name} of {what}, got another; resume with it, or choose another folder")
    if untold is not None:
        warnings.warn(f"{what} {untold}", stacklevel=2)


def load_state(path: Path, like: PyTree) -> PyTree:
    """The state in a checkpoint; one of before sums were exact begins its sums anew."""
    try:
        return checkpoint.load(path, like)[0]
    except checkpoint.CheckpointError:
        if ".sums['loss']" not in checkpoint.read_paths(path):  # where it is exact, this is no leaf
            raise
    kept = [field.name for field in dataclasses.fields(like) if field.name != "sums"]
    parts = {name: checkpoint.load(path, getattr(like, name), part=f".{name}")[0] for name in kept}
    return dataclasses.replace(like, **parts)


class RunFiles:
    """The folder of a run; without one, nothing is read or written.

    Args:
        folder: Where to, or None.
        settings: What a resumed run must have in common with the one before, kept beside the checkpoint.
        prints: Gives the fingerprint of the rest that it must have in common.

    Attributes:
        best: The best model, from `open` on.
    """

    def __init__(self, folder: str | Path | None, settings: dict[str, Any], prints: Callable[[], Fingerprint]):
        self._folder, self._settings = None if folder is None else Path(folder), settings
        if folder is not None:
            self._settings = settings | {"fingerprint": prints()}
        self._saved: TrainingState | None = None
        self._saved_at = time.monotonic()

    def open(self, first: TrainingState, total: int, resume: bool) -> TrainingState:
        """The state to go on from: `first`, or that of the checkpoint. If they do not match, nothing is written."""
        if self._folder is None:
            if resume:
                raise ValueError("expected the folder of the run to resume, got folder=None")
            self.best = Best(None, first.model, 0)
            return first
        self._saved = first
        if (self._folder / CHECKPOINT).exists() and resume:
            self._saved = self._load(self._folder, first, total)
        elif not resume and any(_has_content(self._folder / name) for name in (CHECKPOINT, METRICS, BEST)):
            raise ValueError(
                f"expected a folder without a run, got {str(self._folder)!r} with one; resume it, or choose another"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        self.best = Best(self._folder / BEST, first.model, int(self._saved.step))
        return self._saved

    def _load(self, folder: Path, first: TrainingState, total: int) -> TrainingState:
        found = checkpoint.read_metadata(folder / CHECKPOINT)
        self._check(folder, found, self._settings)
        # Before the state is read: another optimiser has another state, and is then named as what differs.
        check_fingerprint(found.get("fingerprint"), self._settings["fingerprint"], f"the run in {str(folder)!r}")
        loaded = load_state(folder / CHECKPOINT, first)
        key, first_key = (jax.random.key_data(state.key).tolist() for state in (loaded, first))
        self._check(folder, {"key": key}, {"key": first_key})
        if int(loaded.step) > total:
            raise ValueError(
                f"expected at least the {int(loaded.step)} steps that the run in {str(folder)!r} has taken, "
                f"got {total}; ask for more steps"
            )
        return loaded

    @staticmethod
    def _check(folder: Path, expected: dict[str, Any], got: dict[str, Any]) -> None:
        for name in got:
            if name != "fingerprint" and name in expected and got[name] != expected[name]:
                raise ValueError(
                    f"expected the {name.replace('_', ' ')} of the run in {str(folder)!r}, "
                    f"{expected[name]}, got {got[name]}; resume with it, or choose another folder"
                )

    def log(self, state: TrainingState) -> JSONLog:
        """The log as it was at `state`, without what comes after, which the run will write again."""
        if self._folder is None:
            return JSONLog(None)
        path = self._folder / METRICS
        last = int(state.step)
        keep(path, lambda record: record.get("step", 0) <= last and "stopped" not in record)
        return JSONLog(path)

    def save(self, state: TrainingState, unless_within: float = 0.0) -> None:
        """Writes the checkpoint, unless this state is there or the last one is younger than that, in seconds."""
        if self._folder is None or state is self._saved or time.monotonic() - self._saved_at < unless_within:
            return
        path = self._folder / CHECKPOINT
        try:
            self.best.save()
            checkpoint.save(path, state, metadata=self._settings)
        except OSError as error:
            reason = f"could not write the checkpoint ({error.strerror or error}); the one before it is intact"
            raise OSError(error.errno, reason, str(path)) from error
        self._saved, self._saved_at = state, time.monotonic()
