"""The folder of a run or a sweep: its log, checkpoints and best models, checked against the arguments."""

import dataclasses
import errno
import json
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from jaxtyping import PyTree

from vicinal._lock import Held
from vicinal.interruption import how_to_resume
from vicinal.train import checkpoint
from vicinal.train.best import Best
from vicinal.train.checkpoints import Checkpoints
from vicinal.train.fingerprint import Fingerprint, difference
from vicinal.train.log import JSONLog, keep, read
from vicinal.train.members import Members
from vicinal.train.options import Options
from vicinal.train.stored import Known, check_log, check_same_log, log_digest

CHECKPOINT, METRICS, BEST, WAVES = "checkpoint.npz", "metrics.jsonl", "best.npz", "wave-*.npz"
"""The files in the folder: `WAVES` for a sweep (and a best model for each member), the others for a single run."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Files:
    """The log, the checkpoints and the best models of one run, or of a part of a sweep.

    Without a folder, nothing is read or written. Entering the `with` block cuts the log back to the checkpoint; before
    that, nothing changes.

    Args:
        options: The folder, or None, and whether to resume from its checkpoints.
        held: The locked folder.
        steps: Updates in all, those of a resumed run included.
        settings: The settings that a resumed run must share with the one before, as JSON data.
        prints: Returns the fingerprint of everything else that it must share.
        members: The members of a sweep that share a program, while others share the folder; `[None]` for a run alone.

    Attributes:
        folder: The folder of the options.
        found: The metadata of the checkpoints to resume from.

    Raises:
        ValueError: If the folder holds a run and `resume` is False, another run, one that has taken more steps, or one
            without its log.
    """

    def __init__(
        self,
        options: Options,
        held: Held,
        steps: int,
        settings: dict[str, Any],
        prints: Callable[[], Fingerprint],
        members: Sequence[int | None] = (None,),
    ):
        self.folder = None if options.folder is None else Path(options.folder).absolute()  # hooks may change directory
        self._held, self._steps, self._members = held, steps, members
        self._kind = "run" if None in members else "sweep"
        self._settings = json.loads(json.dumps(settings))
        self._log, self._best = JSONLog(None), dict[int | None, Best]()
        self._saved, self._saved_at = dict[str, Any](), time.monotonic()
        self._known = dict[int | None, tuple[int, bool]]()  # of the checkpoints: steps, and whether a member goes on
        self.found: list[dict[str, Any]] = []
        self._sources = dict[str, tuple[Path, dict[str, Any]]]()  # the checkpoints to resume from, by name
        self._checkpoints = Checkpoints(self.folder or Path(), options.keep)
        if self.folder is not None:
            self._settings["fingerprint"] = prints()
            self._open(self.folder, options.resume)
        elif options.resume:
            raise ValueError(f"expected the folder of the {self._kind} to resume, got folder=None")

    def _open(self, folder: Path, resume: bool) -> None:
        self._checkpoints.check()
        waves, alone = self._checkpoints.names(WAVES), self._checkpoints.names(CHECKPOINT)
        if not resume:
            if waves or any(_has_content(folder / name) for name in (CHECKPOINT, METRICS, BEST)):
                raise ValueError(
                    f"expected a folder without a run, got {str(folder)!r} with one; resume it, or choose another"
                )
            return
        own, other = (alone, waves) if self._kind == "run" else (waves, alone)
        if other:
            kind = "sweep" if self._kind == "run" else "run"
            raise ValueError(f"expected a {self._kind} in {str(folder)!r}, got a {kind}; choose another folder")
        self._sources = {name: self._checkpoints.newest(name) for name in own}
        found = [metadata for _, metadata in self._sources.values()]
        if self._kind == "sweep" and any("wave" not in metadata for metadata in found):
            raise ValueError(f"expected a sweep of this version in {str(folder)!r}, got an older one; start it again")
        self.found = [metadata for metadata in found if metadata.get("wave", [None])[0] in self._members]
        for metadata in self.found:
            self._match(metadata)
            states = (metadata.get(name, []) for name in ("wave", "steps", "live"))
            self._known |= {member: (step, live) for member, step, live in zip(*states, strict=True)}
        self._check_steps()
        if own and not (folder / METRICS).exists():
            raise ValueError(f"expected the log of the {self._kind} to resume, {METRICS} in {str(folder)!r}, got none")

    def _match(self, found: dict[str, Any]) -> None:
        """Raises ValueError if a checkpoint belongs to another run; warns if we cannot compare everything."""
        what = f"the {self._kind} in {str(self.folder)!r}"
        for name, own in self._settings.items():
            if name != "fingerprint" and name in found and found[name] != own:
                got = "got others" if isinstance(own, list) else f"{found[name]}, got {own}"
                raise ValueError(
                    f"expected the {name.replace('_', ' ')} of {what}, {got}; resume with it, or choose another folder"
                )
        name, untold = difference(found.get("fingerprint"), self._settings["fingerprint"])
        if name is not None:
            raise ValueError(f"expected the {name} of {what}, got another; resume with it, or choose another folder")
        if untold is not None:
            warnings.warn(f"{what} {untold}", stacklevel=5)

    def _check_steps(self) -> None:
        taken = max((step for step, _ in self._known.values()), default=0)
        if taken > self._steps:
            raise ValueError(
                f"expected at least the {taken} steps that the {self._kind} in {str(self.folder)!r} has taken, "
                f"got {self._steps}; ask for more steps"
            )

    def __enter__(self) -> Self:
        if self.folder is not None:
            self._held.check()
            self._check_log(self.folder / METRICS)
            keep(self.folder / METRICS, self._is_known)
            self._log = JSONLog(self.folder / METRICS)
        return self

    def __exit__(self, *exception: object) -> None:
        self._log.close()

    def _check_log(self, path: Path) -> None:
        """Raises ValueError if the log is not the one that the run to resume has written."""
        records, count = read(path) if path.exists() else [], self._settings.get("members")
        alike = all("evaluate_every" in metadata for metadata in self.found)
        interval = self._settings["evaluate_every"] if alike else None
        check_log(str(path), records, None if count is None else len(count), self._known, interval)
        for metadata in self.found:
            own = self._before(metadata.get("wave", [None]), records, self._known)
            check_same_log(str(path), metadata.get("log"), own)

    def _is_known(self, record: dict[str, Any]) -> bool:
        """Whether a record of these members is no later than the checkpoint; the run will write the others again."""
        member = record.get("member")
        if member is not None and member not in self._members:
            return True
        return _is_before(record, self._known)

    def _before(self, ids: Sequence[int | None], records: list[dict[str, Any]], known: Known) -> list[dict[str, Any]]:
        """The records of members that belong to a checkpoint."""
        own = set(ids)
        return [record for record in records if record.get("member") in own and _is_before(record, known)]

    def write(self, member: int | None, record: dict[str, Any]) -> None:
        """Appends a record of a member to the log.

        Raises:
            OSError: If the folder is lost, or the record could not be written.
        """
        self._held.check()
        self._log.write(record if member is None else {"member": member, **record})

    def records_of(self, member: int | None) -> list[dict[str, Any]]:
        """What was measured of a member, one dictionary per evaluation."""
        return [record for record in self._of(member) if "stopped" not in record]

    def ending_of(self, member: int | None) -> dict[str, Any]:
        """`stopped` and perhaps `stopped_by`, if the member stopped before its last step; else empty."""
        ending = next((record for record in self._of(member) if "stopped" in record), {})
        return {name: value for name, value in ending.items() if name != "step"}

    def _of(self, member: int | None) -> list[dict[str, Any]]:
        own = (record for record in self._log.records if record.get("member") == member)
        return [{name: value for name, value in record.items() if name != "member"} for record in own]

    def keep_best(self, member: int | None, like: PyTree, step: int) -> Best:
        """Where hooks keep the best model of a member that has taken `step` updates."""
        name = BEST if member is None else f"best-{member}.npz"
        self._best[member] = Best(None if self.folder is None else self.folder / name, like, step)
        return self._best[member]

    def best_of(self, member: int | None) -> PyTree:
        """The best model of a member, or None."""
        return self._best[member].model

    def restore(self, members: Members) -> None:
        """Restores members from their newest whole checkpoint, if there is one."""
        self._saved[members.file] = _progress(members)  # before the first step there is nothing to save
        if members.file in self._sources:
            path, metadata = self._sources[members.file]
            members.restore(load_state(path, members.saved()[0]), metadata)
            steps = members.steps().tolist()
            if min(steps) < 0 or metadata.get("steps", steps) != steps:
                raise checkpoint.CheckpointError(
                    f"Expected the steps that the state in {str(path)!r} has taken, got {steps} and beside it "
                    f"{metadata.get('steps')}; restore it from a copy or use an earlier one."
                )
            states = zip(steps, members.live.tolist(), strict=True)
            self._known |= dict(zip(members.ids, states, strict=True))
            self._check_steps()
            is_newest = self._checkpoints.restored(members.file, path, _step(members))
            self._saved[members.file] = _progress(members) if is_newest else None

    def save(self, members: Members, unless_within: float = 0.0) -> None:
        """Writes a checkpoint, unless it is up to date or the last one is younger than `unless_within` seconds.

        Raises:
            OSError: If the folder or the log is lost, or the checkpoint could not be written.
        """
        if self.folder is None or 0 <= time.monotonic() - self._saved_at < unless_within:  # a clock may go back
            return
        self._held.check()
        self._log.check()
        path, progress = self.folder / members.file, _progress(members)
        if self._saved[members.file] == progress:
            return
        try:
            for best in self._best.values():
                best.save()
            state, metadata = members.saved()
            live = members.live if self._kind == "sweep" else [True]  # a run that stopped may go on
            known = dict(zip(members.ids, zip(members.steps().tolist(), live, strict=True), strict=True))
            log = log_digest(self._before(members.ids, self._log.records, known))
            self._log.sync()
            self._checkpoints.save(members.file, _step(members), state, self._settings | metadata | {"log": log})
        except OSError as error:
            before = "the one before it is intact" if path.exists() else "there is none before it"
            reason = f"could not write the checkpoint ({error.strerror or error}); {before}"
            advice = "make room, then resume" if error.errno in _FULL else "resume"
            raise OSError(error.errno, f"{reason}; {advice} with {how_to_resume()}", str(path)) from error
        self._saved[members.file], self._saved_at = progress, time.monotonic()

    def kept(self, members: Members) -> str:
        """What `save` has kept of members, and how to go on, as the end of a sentence."""
        if self.folder is None:
            return "nothing is kept, as it has no folder"
        if not (self.folder / members.file).exists():
            return f"nothing is lost, and {how_to_resume()} begins in {str(self.folder)!r}"
        return f"its checkpoint in {str(self.folder)!r} is written; resume with {how_to_resume()}"


def _is_before(record: dict[str, Any], known: Known) -> bool:
    """Whether a record is no later than its member's checkpoint."""
    step, live = known.get(record.get("member"), (0, True))
    return record["step"] <= step and not ("stopped" in record and live)


def _progress(members: Members) -> Any:
    """What distinguishes two states of a run."""
    return members.steps().tolist(), members.live.tolist()


def _step(members: Members) -> int:
    return int(members.steps().max())


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0  # a run that failed in its first step leaves an empty log


def load_state(path: Path, like: PyTree) -> PyTree:
    """The state in a checkpoint; if it is from before sums were exact, its sums are those of `like`."""
    try:
        return checkpoint.load(path, like)[0]
    except checkpoint.CheckpointError:
        if ".sums['loss']" not in checkpoint.read_paths(path):  # exact sums have other leaves
            raise
    kept = [field.name for field in dataclasses.fields(like) if field.name != "sums"]
    parts = {name: checkpoint.load(path, getattr(like, name), part=f".{name}")[0] for name in kept}
    return dataclasses.replace(like, **parts)
