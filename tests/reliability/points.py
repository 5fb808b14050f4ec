"""Ends a process at a chosen point of its work on files, as a power cut or `kill -9` would."""

import builtins
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

POINTS = ("in a write", "before a sync", "before a rename", "after a rename", "in a log line", "after a log line")
"""Half of a file written; all of it, but not on the disk; on the disk under a temporary name; under its own name, but
neither the folder is synced nor the next record written; half of a record; a record without its checkpoint."""


def arm(point: str, count: int, folder: Path) -> None:
    """Ends this process when it comes to a point for the `count`-th time, with a file of a folder."""
    passed = 0

    def reached(path: Any) -> bool:
        nonlocal passed
        passed += folder in Path(os.path.abspath(path)).parents
        return passed == count

    if point in ("in a write", "in a log line", "after a log line"):
        builtins.open = _torn(builtins.open, "xw" if point == "in a write" else "a", reached, point[:2] == "in")
    elif point == "before a sync":
        os.fsync = _dying(os.fsync, lambda file: os.readlink(f"/proc/self/fd/{file}"), reached, before=True)
    else:
        os.replace = _dying(os.replace, lambda source, target: target, reached, before=point == "before a rename")


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    while True:
        time.sleep(1)


def _dying(function: Callable, path_of: Callable, reached: Callable[[Any], bool], *, before: bool) -> Callable:
    def call(*arguments: Any) -> Any:
        last = reached(path_of(*arguments))
        if last and before:
            _die()
        done = function(*arguments)
        if last:
            _die()
        return done

    return call


def _torn(function: Callable, modes: str, reached: Callable[[Any], bool], half: bool) -> Callable:
    """`open`, whose files, opened in one of these modes, are written to in part at the end."""

    class Torn:
        def __init__(self, stream: Any, path: Any):
            self._stream, self._path = stream, path

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *exception: object) -> None:
            self._stream.close()

        def write(self, content: Any) -> int:
            last = reached(self._path)
            done = self._stream.write(content[: len(content) // 2] if last and half else content)
            if last:
                self._stream.flush()
                _die()
            return done

    def opened(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        stream = function(path, mode, *arguments, **options)
        return Torn(stream, path) if mode[0] in modes and not isinstance(path, int) else stream

    return opened
