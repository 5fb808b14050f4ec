"""Signals that ask a process to end: they raise, so that a run is saved, and one sentence says what is kept.

SIGTERM and SIGHUP, which otherwise end a process on the spot, raise `Ended`; SIGINT raises `KeyboardInterrupt` as ever.
The first signal counts. Those after it are dropped: the process is on its way out, and may be writing a checkpoint.
"""

import contextlib
import contextvars
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_DEFAULTS = {
    getattr(signal, name): default
    for name, default in (
        ("SIGINT", signal.default_int_handler),
        ("SIGTERM", signal.SIG_DFL),
        ("SIGHUP", signal.SIG_DFL),
    )
    if hasattr(signal, name)  # Windows has no SIGHUP
}
_asked: int | None = None  # the signal that has raised; Python handles signals in the main thread alone


class Ended(SystemExit):
    """A signal asked the process to end; the exit code is 128 plus its number, as shells count."""

    def __init__(self, number: int):
        self.name, self.exit_code = signal.Signals(number).name, 128 + number
        super().__init__(self.exit_code)


class UnderWay(NamedTuple):
    """The command line's run, which `--resume` continues.

    Attributes:
        command: Its command.
        folder: Its folder.
    """

    command: str
    folder: Path


COMMAND: contextvars.ContextVar[UnderWay | None] = contextvars.ContextVar("command", default=None)
"""The run of the command line, once its folder is chosen; None in a script."""


def how_to_resume() -> str:
    """What continues the run under way, as the user writes it."""
    run = COMMAND.get()
    return "resume=True" if run is None else resume_command(*run)


def resume_command(command: str, folder: Path) -> str:
    """The command line that continues a run, in back quotes.

    Example:
        >>> resume_command("train", Path("runs/one")), resume_command("train", Path("-x"))
        ('`vicinal train --resume runs/one`', '`vicinal train --resume ./-x`')
    """
    place = f"./{folder}" if str(folder).startswith("-") else str(folder)  # no option
    return f"`vicinal {command} --resume {shlex.quote(place)}`"


@contextlib.contextmanager
def signals_raise() -> Iterator[bool]:
    """Lets signals raise within the block, where the program has no handlers of its own; in the main thread alone.

    Yields:
        Whether the block is the outermost of its kind in the main thread.
    """
    global _asked
    own = [number for number, default in _DEFAULTS.items() if signal.getsignal(number) is default]
    if not _in_main_thread() or any(signal.getsignal(number) is _raise for number in _DEFAULTS):
        yield False
        return
    _asked = None
    try:
        for number in own:
            signal.signal(number, _raise)
        yield True
    finally:
        for number in own:
            if signal.getsignal(number) is _raise:
                signal.signal(number, _DEFAULTS[number])


@contextlib.contextmanager
def signals_end_training(folder: Path | None) -> Iterator[None]:
    """As `signals_raise`, for a run in a folder; a script then says on standard error why it ends.

    Args:
        folder: The folder, or None: then signals do what they did before.
    """
    if folder is None:
        yield
        return
    with signals_raise() as outermost:
        try:
            yield
        except Ended as error:
            if outermost:
                print(f"vicinal: {sentence(error, between_steps(folder))}", file=sys.stderr, flush=True)
            raise


def between_steps(folder: Path) -> str:
    """What is kept of a run that stops where no step is under way."""
    return f"no step was under way, and what was trained is kept in {str(folder)!r}; resume with {how_to_resume()}"


def raise_again(error: BaseException | None = None) -> None:
    """Raises what a signal has raised, if somebody caught it: the process was asked to end.

    Args:
        error: What it was turned into, whose notes are kept.
    """
    if _asked is not None and _in_main_thread() and signal.getsignal(_asked) is _raise:
        again = _exception(_asked)
        for note in getattr(error, "__notes__", ()):
            again.add_note(note)
        raise again


def sentence(error: BaseException, otherwise: str) -> str:
    """What ended the process, and its notes, which say what is kept; or `otherwise` if it has none."""
    cause = f"ended by {error.name}" if isinstance(error, Ended) else "interrupted"
    return f"{cause}: {'; '.join(getattr(error, '__notes__', [otherwise]))}"


def _raise(number: int, frame: Any) -> None:
    global _asked
    if _asked is None:
        _asked = number
        raise _exception(number)


def _exception(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else Ended(number)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
