"""The folder of a sweep: a log of all members, and a checkpoint of each wave."""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import PyTree

from vicinal.train import checkpoint
from vicinal.train.best import Best
from vicinal.train.files import check_fingerprint, load_state
from vicinal.train.fingerprint import Fingerprint
from vicinal.train.log import JSONLog, keep
from vicinal.train.wave import Wave

METRICS = "metrics.jsonl"


class SweepFiles:
    """The log and the checkpoints; without a folder, nothing is read or written.

    Args:
        folder: Where to, or None.
        resume: Whether to go on from what is there.
        description: What a resumed sweep must have in common with the one before, as JSON data.
        total: Steps to take.
        prints: Gives the fingerprint of the rest that it must have in common.
        members: Those that are trained together; others of the same sweep may use the same folder.

    Attributes:
        waves: The members of each wave: those of the sweep to resume, or None until they are chosen.
        group_size: That of the sweep to resume, or None.
        folder: As given.

    Raises:
        ValueError: If the folder holds a sweep that is not to be resumed, is another one, has taken more steps than
            these, or has lost its log.
    """

    def __init__(
        self,
        folder: str | Path | None,
        resume: bool,
        description: dict[str, Any],
        total: int,
        prints: Callable[[], Fingerprint],
        members: Sequence[int],
    ):
        if folder is None and resume:
            raise ValueError("expected the folder of the sweep to resume, got folder=None")
        self.folder = None if folder is None else Path(folder)
        self._description = json.loads(json.dumps(description))
        self._members = list(members)
        self.waves: list[list[int]] | None = None
        self._log = JSONLog(None)
        self._saved_at, self._saved = time.monotonic(), {}
        self._best: dict[int, Best] = {}
        self.group_size: int | None = None
        if self.folder is None:
            return
        self._description["fingerprint"] = prints()
        there = list(self.folder.glob("wave-*.npz"))
        log = self.folder / METRICS
        if not resume and (there or (log.exists() and log.stat().st_size)):
            raise ValueError(
                f"expected a folder without a run, got {str(folder)!r} with one; resume it, or choose another"
            )
        known = [checkpoint.read_metadata(path) for path in there]
        if any("wave" not in found for found in known):
            raise ValueError(f"expected a sweep of this version in {str(folder)!r}, got an older one; begin it anew")
        known = [found for found in known if found["wave"][0] in self._members]
        for found in known:
            for name, value in self._description.items():
                if name != "fingerprint" and name in found and found[name] != value:
                    raise ValueError(
                        f"expected the {name.replace('_', ' ')} of the sweep in {str(folder)!r}, got others; "
                        "resume with its own settings, or choose another folder"
                    )
            what = f"the sweep in {str(folder)!r}"
            check_fingerprint(found.get("fingerprint"), self._description["fingerprint"], what)
            self.group_size, self.waves = found["group_size"], found["waves"]
            if max(found["steps"]) > total:
                raise ValueError(
                    f"expected at least the {max(found['steps'])} steps that the sweep in {str(folder)!r} has taken, "
                    f"got {total}; ask for more steps"
                )
        if there and not log.exists():
            raise ValueError(f"expected the log of the sweep to resume, {METRICS} in {str(folder)!r}, got none")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._keep(log, known)

    def __enter__(self) -> Self:
        self._log = JSONLog(None if self.folder is None else self.folder / METRICS)
        return self

    def __exit__(self, *exception: object) -> None:
        self._log.close()

    @property
    def records(self) -> list[dict[str, Any]]:
        """All records, of all members."""
        return self._log.records

    def write(self, record: dict[str, Any]) -> None:
        """Appends a record, which names its member."""
        self._log.write(record)

    def records_of(self, member: int) -> list[dict[str, Any]]:
        """The records of a member, as `fit` would write them."""
        own = (record for record in self.records if record.get("member") == member)
        return [{name: value for name, value in record.items() if name != "member"} for record in own]

    def keeper(self, member: int, like: PyTree, step: int) -> Best:
        """Where the best model of a member is kept."""
        path = None if self.folder is None else self.folder / f"best-{member}.npz"
        self._best[member] = Best(path, like, step)
        return self._best[member]

    def restore(self, i: int, wave: Wave) -> None:
        """Brings a wave to where its checkpoint is, if there is one."""
        if self.folder is None or not self._path(i).exists():
            return
        stacked, found = load_state(self._path(i), wave.stacked()), checkpoint.read_metadata(self._path(i))
        wave.load(stacked, np.array(found["live"]))
        self._saved[i] = wave.steps().tolist()

    def save(self, i: int, wave: Wave, unless_within: float = 0.0) -> None:
        """Writes the checkpoint of a wave, unless it is there or the last one is younger than that, in seconds."""
        steps = wave.steps().tolist()
        if self.folder is None or self._saved.get(i) == steps or time.monotonic() - self._saved_at < unless_within:
            return
        metadata = self._description | {
            "waves": [list(ids) for ids in self.waves or []],
            "wave": list((self.waves or [])[i]),
            "live": wave.live.tolist(),
            "steps": steps,
            "group_size": wave.fleet.layout.size,
        }
        for best in self._best.values():
            best.save()
        checkpoint.save(self._path(i), wave.stacked(), metadata=metadata)
        self._saved[i], self._saved_at = steps, time.monotonic()

    def _path(self, i: int) -> Path:
        """The file of a wave, named by its first member."""
        assert self.folder is not None
        assert self.waves is not None
        return self.folder / f"wave-{self.waves[i][0]}.npz"

    def _keep(self, log: Path, found: list[dict[str, Any]]) -> None:
        """Leaves in the log what the checkpoints know; the rest will be written again."""
        known = {
            member: (step, live)
            for wave in found
            for member, step, live in zip(wave["wave"], wave["steps"], wave["live"], strict=True)
        }
        own = {-1, *self._members}

        def keeps(record: dict[str, Any]) -> bool:
            if record.get("member", -1) not in own:
                return True
            step, live = known.get(record.get("member", -1), (-1, True))
            return record.get("step", math.inf) <= step and not ("stopped" in record and live)

        keep(log, keeps)
