"""Errors on the command line: which are a user's mistakes, and what becomes of the others."""

import contextlib
import datetime
import dis
import importlib.metadata
import os
import platform
import shlex
import tempfile
import textwrap
import traceback
import types
from collections.abc import Sequence
from pathlib import Path

from vicinal._memory import exhausted, is_exhausted
from vicinal.files import write_text_atomically
from vicinal.interruption import COMMAND

SHOW = "VICINAL_TRACEBACK"
"""An environment variable: if it is set, tracebacks are printed too."""

_PACKAGES = ("vicinal", "jax", "jaxlib", "equinox", "optax", "numpy", "tyro")
_LONG = 1000  # characters of a message that are shown


def is_mistake(error: BaseException) -> bool:
    """Whether an error is a user's mistake, which a sentence describes.

    Such are the refusals of the operating system (a missing file, a full disk), memory that runs out, and what a
    `raise` statement of this project raises of the kinds below. All else is unexpected: an error of the same kind from
    inside another library, or from an operation that fails without such a statement, says nothing to a user.
    """
    if (isinstance(error, OSError) and error.errno is not None) or is_exhausted(error):
        return True
    return isinstance(error, ValueError | TypeError | OSError | ImportError) and is_own(error) and _is_raised(error)


def is_own(error: BaseException) -> bool:
    """Whether an error arose in the code of this project, and not below it."""
    last = _last(error)
    module = "" if last is None else last.tb_frame.f_globals.get("__name__", "")
    return module.split(".")[0] in ("vicinal", "vicinal_experiments")


def words(error: BaseException) -> str:
    """The message of a user's mistake, in one line."""
    if isinstance(error, FileExistsError | NotADirectoryError) and error.filename is not None:
        return f"expected a folder at {str(error.filename)!r}, got a file; choose another"
    if isinstance(error, OSError) and error.filename is not None:  # without its number
        said = f"expected to read or write {str(error.filename)!r}, got: {error.strerror or error}"
        return "; ".join([said, *getattr(error, "__notes__", [])])  # what is kept of a run
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        said, run = f"expected to read or to print, got: {error.strerror or error}", COMMAND.get()
        kept = [] if run is None else [f"what is written in {str(run.folder)!r} is kept"]
        return "; ".join([said, *getattr(error, "__notes__", kept)])
    if is_exhausted(error):
        told = exhausted(error, "the command", "take a smaller model or batch, or fewer data")
        return "; ".join([str(told), *getattr(error, "__notes__", [])])
    return textwrap.shorten(str(error), _LONG, placeholder=" ...") or type(error).__name__


def report(error: BaseException, arguments: Sequence[str]) -> str:
    """Keep the traceback of an unexpected error in a file: in the run's folder, the working folder, or a temporary one.

    Args:
        error: The error.
        arguments: The command line.

    Returns:
        A sentence that says where.
    """
    first = "".join(traceback.format_exception_only(error)).strip().splitlines()[0]
    what = textwrap.shorten(first, 300, placeholder=" ...")
    path = _write(_text(error, arguments))
    if path is None:
        return f"unexpected {what}; no file could be written for its traceback, which {SHOW}=1 prints"
    return f"unexpected {what}; this is a fault of vicinal, please report it with {path}, which holds the traceback"


def _last(error: BaseException) -> types.TracebackType | None:
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last


def _is_raised(error: BaseException) -> bool:
    """Whether a `raise` statement raised an error, rather than an operation that failed."""
    last = _last(error)
    return last is not None and last.tb_frame.f_code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def _write(text: str) -> Path | None:
    now = datetime.datetime.now(datetime.UTC)
    run, name = COMMAND.get(), f"error-{now:%Y%m%d-%H%M%S}-{os.getpid()}.txt"
    for place in (None if run is None else run.folder, Path(), Path(tempfile.gettempdir())):
        if place is not None and place.is_dir():
            with contextlib.suppress(OSError):
                return write_text_atomically(place / name, text)
    return None


def _text(error: BaseException, arguments: Sequence[str]) -> str:
    versions = [f"python {platform.python_version()}, {platform.platform()}"]
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    head = "\n".join([shlex.join(["vicinal", *arguments]), *versions, "", ""])
    return "".join([head, *traceback.format_exception(error)]).encode("utf-8", "backslashreplace").decode()
