"""`vicinal`: choose the command, and report errors.

Only the module of the chosen command is imported, so that `vicinal --help` and the small commands do not wait for the
imports of training.
"""

import contextvars
import gc
import importlib
import io
import os
import sys
import traceback
import warnings
from typing import Any, NamedTuple, NoReturn

from vicinal._nearest import did_you_mean
from vicinal.interruption import COMMAND, Ended, between_steps, raise_again, sentence, signals_raise

ARGUMENTS: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("arguments", default=())
"""The words of the command line, without the program's name."""


class Command(NamedTuple):
    """The place of a command.

    Attributes:
        module: Its module.
        function: Its name there.
        summary: The first line of its documentation.
    """

    module: str
    function: str
    summary: str


COMMANDS = {
    "compare": Command(
        "vicinal.cli.commands",
        "compare",
        "Train several rules side by side, print a table and write report.html.",
    ),
    "train": Command(
        "vicinal.cli.commands",
        "train",
        "Train one network by one rule; checkpoints, a log and a report go into one folder.",
    ),
    "sweep": Command(
        "vicinal.cli.commands",
        "sweep",
        "Train every combination of some numbers and rules with every seed, on all cores or devices.",
    ),
    "reproduce": Command(
        "vicinal.cli.reproducing",
        "reproduce",
        "Run an experiment of a paper again, and put its claims beside what was measured; without a name, list them.",
    ),
    "results": Command(
        "vicinal.cli.results",
        "results",
        "Write the pages of a folder of stored results: one for each family, and an index of all claims.",
    ),
    "draw": Command(
        "vicinal.cli.drawing",
        "draw",
        "Draw a network: its vertices, their shapes and parameters, and who reads whom.",
    ),
    "ledger": Command(
        "vicinal.cli.ledger",
        "ledger",
        "Count what an update by a rule asks of arrays that hold the weights: reads, conversions, energy, time.",
    ),
    "export": Command(
        "vicinal.cli.exporting",
        "export",
        "Write the trained network of a run for other programs: NIR, safetensors or StableHLO.",
    ),
    "rules": Command("vicinal.cli.recipes", "rules", "List the recipes: paper, settings, locality, transport, cost."),
    "cite": Command("vicinal.cli.recipes", "cite", "Print the BibTeX of a recipe's papers."),
    "data list": Command("vicinal.cli.data", "list_data", "List the data sets, and where they are or would be."),
    "data fetch": Command(
        "vicinal.cli.data", "fetch", "Download a data set, check it, and store it in the data folder."
    ),
    "data verify": Command("vicinal.cli.data", "verify", "Read a data set whole, and say what is in it."),
}
"""The commands by name."""

_DESCRIPTION = "Train neural networks by local learning. Begin with `vicinal compare`."


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. All ends in one sentence: a user's mistake with exit code 2, an unexpected error with 1.

    SIGINT, SIGTERM and SIGHUP save the run, and end in a sentence too, with exit codes 130, 143 and 129.

    Args:
        arguments: The words without the program's name; None for those of the process.
    """
    is_process, arguments = arguments is None, sys.argv[1:] if arguments is None else arguments
    ARGUMENTS.set(tuple(arguments))
    COMMAND.set(None)
    if is_process:
        _speak_plainly()
    with signals_raise():
        try:
            _run_and_report(arguments, is_process)
        finally:
            COMMAND.set(None)  # what a script trains afterwards is none of this


def _run_and_report(arguments: list[str], is_process: bool) -> None:
    try:
        _run_to_signal(arguments)
        print(end="", flush=True)  # an output that is full is found out here, and not when Python ends
    except (KeyboardInterrupt, Ended) as error:
        print(f"vicinal: {sentence(error, _kept())}", file=sys.stderr, flush=True)
        code = error.exit_code if isinstance(error, Ended) else 130
        _end_output()
        if is_process:  # a normal exit while XLA compiles may end in a segmentation fault
            os._exit(code)
        sys.exit(code)
    except (Exception, SystemExit) as error:
        _end_output()
        # If the reader closed the pipe, as `vicinal rules | head` does, Rich raises SystemExit.
        if not isinstance(error, BrokenPipeError) and not isinstance(error.__context__, BrokenPipeError):
            _fail(error, arguments)


def _end_output() -> None:
    """Writes what is printed; drops it where that fails, or Python would try again at its end, and complain."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run_to_signal(arguments: list[str]) -> None:
    """Runs the command; an error that a library has made of a signal, as in an import, is that signal again."""
    try:
        _run(arguments)
    except Exception as error:
        raise_again(error)
        raise


def _kept() -> str:
    """What is kept if training is not under way."""
    from vicinal.config import CONFIG

    run = COMMAND.get()
    begun = run is not None and (run.folder / CONFIG).exists()
    return between_steps(run.folder) if begun else "no run had begun, and nothing is lost"


def _fail(error: Exception | SystemExit, arguments: list[str]) -> NoReturn:
    from vicinal.cli import errors

    if isinstance(error, SystemExit) and errors.is_own(error):  # and not that of a library
        raise error
    is_mistake = errors.is_mistake(error)
    said = errors.words(error) if is_mistake else errors.report(error, arguments)
    if os.environ.get(errors.SHOW):
        traceback.print_exception(error)
    print(f"vicinal: {said}", file=sys.stderr)
    sys.exit(2 if is_mistake else 1)


def _speak_plainly() -> None:
    """Show warnings as sentences, without the line of code, and letters that the output cannot show as their codes."""

    def shown(message: Warning | str, category: type, filename: str, lineno: int, line: str | None = None) -> str:
        del category, filename, lineno, line
        return f"vicinal: warning: {' '.join(str(message).split())}\n"

    warnings.formatwarning = shown
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run(arguments: list[str]) -> None:
    first = arguments[0] if arguments else "--help"
    if first in ("--version", "-V", "version"):
        from vicinal import __version__

        print(f"vicinal {__version__}")
    elif first in ("--help", "-h", "help") and len(arguments) < 2:
        print(_help("vicinal", {name: command.summary for name, command in COMMANDS.items()}))
    elif first == "help":
        _run([*arguments[1:], "--help"])
    elif first == "data" and (len(arguments) == 1 or arguments[1] in ("--help", "-h")):
        own = {name.split()[1]: command.summary for name, command in COMMANDS.items() if name.startswith("data ")}
        print(_help("vicinal data", own))
    else:
        name = " ".join(arguments[:2]) if first == "data" else first
        if name not in COMMANDS:
            raise ValueError(f"expected a command of {_commands()}, got {name!r}{did_you_mean(name, COMMANDS)}")
        command = COMMANDS[name]
        gc.disable()  # imports make many objects and no garbage; collection took a sixth of their time
        try:
            from vicinal.cli.parsing import parse  # and with it tyro

            function: Any = getattr(importlib.import_module(command.module), command.function)
        finally:
            gc.enable()
        parse(function, name, arguments[len(name.split()) :])()


def _commands() -> str:
    return ", ".join(COMMANDS)


def _help(program: str, summaries: dict[str, str]) -> str:
    width = max(map(len, summaries)) + 2
    lines = [f"usage: {program} COMMAND [OPTIONS]", "", _DESCRIPTION, ""]
    lines += [f"  {name:{width}}{summary}" for name, summary in summaries.items()]
    return "\n".join([*lines, "", f"`{program} COMMAND --help` lists a command's options."])
