"""The lock of a run's folder: one run at a time writes into it."""

import contextlib
import errno
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from vicinal.files import remove_leftovers, resolved

LOCK = ".lock"
"""The name of the locked file, which is there while a run has the folder."""

_WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
_SECONDS = 0.2  # long enough for a run that just ends


class Held:
    """A folder that this process has locked, or that needs no lock.

    Args:
        folder: The folder, or None if the run writes nothing.
        lock: Its lock; None where the file system has none.
    """

    def __init__(self, folder: Path | None, lock: "_Lock | None" = None):
        self._folder, self._pin, self._mark, self._lock = folder, contextlib.ExitStack(), None, lock
        self._owner, self._is_written = _this_thread(), False
        if folder is None:
            return
        self._mark = folder.stat()
        with contextlib.suppress(OSError):  # where folders can be opened, an open one keeps its number
            self._pin.callback(os.close, os.open(folder, os.O_RDONLY))

    @property
    def lost(self) -> bool:
        """Whether the folder was removed, or another one has taken its place."""
        if self._folder is None or self._mark is None:
            return False
        try:
            return not os.path.samestat(self._mark, self._folder.stat())
        except (FileNotFoundError, NotADirectoryError):
            return True

    def check(self) -> None:
        """Checks that the folder is still there, before something is written into it.

        Raises:
            OSError: If it is lost, or another run has begun in it after somebody removed the lock.
        """
        if self.lost:
            reason = "the folder of the run was removed or replaced while it ran, with what was in it; start it again"
            raise OSError(errno.ENOENT, reason, str(self._folder))
        if self._lock is not None and not self._lock.holds():
            reason = f"another run has begun in the folder, since its {LOCK} was removed; leave that file alone"
            raise OSError(errno.EBUSY, reason, str(self._folder))

    @contextlib.contextmanager
    def written(self) -> Iterator[None]:
        """Around a run that writes into the folder, of which there is one at a time, in one thread too.

        Raises:
            ValueError: If a run is under way, as in a hook that starts another one.
        """
        if self._is_written:
            raise _in_use(str(self._folder))
        self._is_written = self._folder is not None
        try:
            yield
        finally:
            self._is_written = False

    @property
    def is_ours(self) -> bool:
        """Whether this thread holds the folder; a forked process does not hold what its parent holds."""
        return self._owner == _this_thread()

    @property
    def is_in_this_process(self) -> bool:
        """Whether a thread of this process holds the folder."""
        return self._owner[0] == os.getpid()

    def close(self) -> None:
        """Stops watching the folder."""
        self._pin.close()


_HELD: dict[Path, Held] = {}


@contextlib.contextmanager
def locked(folder: str | os.PathLike[str] | None, *, new: bool = False) -> Iterator[Held]:
    """Holds the lock of a run's folder, which ends with the block or with the process.

    A thread may enter it again. Leftovers of killed writes are removed. The folder is made if it is missing, and
    removed again if nothing was written.

    Args:
        folder: The folder; None locks nothing.
        new: Whether to refuse a folder that exists.

    Raises:
        ValueError: If another run, of this process or another, holds the lock.
        OSError: If the folder cannot be written to, or is not new.
    """
    if folder is None:
        yield Held(None)
        return
    place = resolved(folder)
    outer = _HELD.get(place)
    if outer is not None and outer.is_ours:
        yield outer
        return
    if outer is not None and outer.is_in_this_process:  # seen even where the file system has no locks
        raise _in_use(str(folder))
    made = _make(place, new)
    try:
        with _lock_file(place, folder) as lock:
            remove_leftovers(place)
            _HELD[place] = held = Held(place, lock)
            try:
                yield held
            finally:
                held.close()
                _HELD.pop(place, None)
    finally:
        with contextlib.suppress(OSError):  # there is something in it
            for path in made:
                path.rmdir()


def _make(place: Path, new: bool) -> list[Path]:
    """Makes a folder; returns it and those above it that were missing, the innermost first."""
    missing = [path for path in (place, *place.parents) if not path.exists()]
    place.mkdir(parents=True, exist_ok=not new)
    return missing


class _Lock:
    """The locked file in a folder, which somebody may remove.

    Args:
        path: The file.

    Raises:
        filelock.Timeout: If another run holds it.
        OSError: If it cannot be locked.
    """

    def __init__(self, path: Path):
        self._path = path
        self._take(_SECONDS)

    def _take(self, seconds: float) -> None:
        import filelock  # here, because `vicinal train --help` need not wait for it

        lock = filelock.FileLock(self._path, fallback_to_soft=False)
        lock.acquire(timeout=seconds, poll_interval=_SECONDS / 10)
        self._lock, self._mark = lock, os.stat(self._path)

    def holds(self) -> bool:
        """Whether no other run can have the folder: a file that was removed is locked anew."""
        if self._is_there():
            return True
        import filelock

        former = self._lock
        with contextlib.suppress(filelock.Timeout):
            self._take(0.0)
            former.release()
            return True
        return False

    def end(self) -> None:
        """Lets the lock go."""
        # Removed while it is held: a process that has just opened it finds that it is gone, and tries again.
        with contextlib.suppress(OSError):
            if self._is_there():
                self._path.unlink()
        self._lock.release()

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(self._mark, os.stat(self._path))
        except FileNotFoundError:
            return False


@contextlib.contextmanager
def _lock_file(place: Path, folder: str | os.PathLike[str]) -> Iterator[_Lock | None]:
    import filelock

    try:
        lock = _Lock(place / LOCK)
    except filelock.Timeout as error:
        raise _in_use(str(folder)) from error
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _WITHOUT_LOCKS:
            reason = f"could not lock the folder ({error.strerror}); choose a folder that can be written to"
            raise OSError(error.errno, reason, str(folder)) from error
        warnings.warn(
            f"the file system of {str(folder)!r} has no locks: start no second run in this folder", stacklevel=5
        )
        yield None
        return
    try:
        yield lock
    finally:
        lock.end()


def _in_use(folder: str) -> ValueError:
    return ValueError(
        f"expected a folder that no other run writes to, got {folder!r}, where one is running; "
        "wait for it to end, or choose another folder"
    )


def _this_thread() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()
