"""The checkpoints in a folder: the newest ones, and earlier ones to go back to if one of these is damaged."""

import contextlib
import errno
import os
import re
import warnings
from pathlib import Path
from typing import Any

from vicinal.files import remove_leftovers, write_atomically
from vicinal.train import checkpoint
from vicinal.train.stored import metadata_of

EARLIER = "earlier"
"""The folder with earlier checkpoints, in the folder of a run: `checkpoint-300.npz` is that of step 300."""


class Checkpoints:
    """The checkpoints in the folder of a run or a sweep, each under the name of its newest file.

    Args:
        folder: The folder.
        keep: How many of each name to keep, the newest included.
    """

    def __init__(self, folder: Path, keep: int):
        self._folder, self._keep = folder, keep
        self._steps = dict[str, int]()  # of the newest ones that are whole

    def check(self) -> None:
        """Raises NotADirectoryError if a file lies where earlier ones belong."""
        path = self._folder / EARLIER
        if self._keep > 1 and path.is_file():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))

    def names(self, pattern: str) -> list[str]:
        """The names that match a pattern, also of checkpoints of which only earlier ones are left."""
        newest = {path.name for path in self._folder.glob(pattern)}
        earlier = {re.sub(r"-\d+\.npz$", ".npz", path.name) for path in (self._folder / EARLIER).glob("*-*.npz")}
        return sorted(newest | {name for name in earlier if Path(name).match(pattern)})

    def newest(self, name: str) -> tuple[Path, dict[str, Any]]:
        """The newest whole checkpoint of a name, and its metadata; warns if it is not the newest file.

        Raises:
            CheckpointError: If none is whole; the sentence is about the newest.
        """
        fault = None
        for path in (self._folder / name, *self._earlier(name)):
            try:
                metadata = metadata_of(path)
            except checkpoint.CheckpointError as error:
                fault = fault or error
                continue
            if fault is not None:
                newest = str(self._folder / name)
                state = _state(self._folder / name, fault)
                warnings.warn(f"the checkpoint {newest!r} is {state}; the run resumes from {str(path)!r}", stacklevel=6)
            return path, metadata
        raise fault or checkpoint.CheckpointError(f"expected a checkpoint {name!r} in {str(self._folder)!r}, got none")

    def restored(self, name: str, path: Path, step: int) -> bool:
        """Notes the file and the step that a run resumes from, and returns whether it is the newest file.

        Otherwise that one is damaged, and does not become an earlier one.
        """
        if path == self._folder / name:
            self._steps[name] = step
        return name in self._steps

    def save(self, name: str, step: int, state: Any, metadata: dict[str, Any]) -> None:
        """Writes a checkpoint in place of the newest one, which becomes an earlier one.

        Raises:
            OSError: If it could not be written; those before it are intact.
        """
        path = self._folder / name
        if self._keep > 1 and name in self._steps and path.exists():
            self._keep_as_earlier(path, self._steps[name])
        checkpoint.save(path, state, metadata=metadata)
        self._steps[name] = step
        self._prune(name, step)

    def _keep_as_earlier(self, path: Path, step: int) -> None:
        earlier = self._folder / EARLIER / f"{path.stem}-{step}.npz"
        earlier.parent.mkdir(exist_ok=True)
        earlier.unlink(missing_ok=True)
        try:
            os.link(path.resolve(), earlier)  # takes no room
        except OSError:  # not every file system has hard links
            remove_leftovers(earlier.parent)
            write_atomically(earlier, path.read_bytes())

    def _prune(self, name: str, step: int) -> None:
        """Removes earlier ones that are too many, or not earlier: a run that went back writes these again."""
        paths = self._earlier(name)
        past = [path for path in paths if _step(path) < step]
        with contextlib.suppress(OSError):
            for path in set(paths) - set(past[: self._keep - 1]):
                path.unlink()
            if paths and self._keep == 1:
                (self._folder / EARLIER).rmdir()

    def _earlier(self, name: str) -> list[Path]:
        """The earlier checkpoints of a name, from the latest to the first."""
        stem = re.escape(Path(name).stem)
        found = (self._folder / EARLIER).glob("*.npz")
        return sorted((path for path in found if re.fullmatch(rf"{stem}-\d+", path.stem)), key=_step, reverse=True)


def _state(newest: Path, fault: checkpoint.CheckpointError) -> str:
    if not newest.exists():
        return "missing"
    cause = fault.__cause__
    return f"unreadable ({cause.strerror})" if isinstance(cause, OSError) else "damaged"


def _step(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])
