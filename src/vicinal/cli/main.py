"""`vicinal`: which command, and how errors are said.

Only the module of the chosen command is imported, so that `vicinal --help` and the small commands need not wait for
what training needs.
"""

import contextvars
import gc
import importlib
import os
import sys
from typing import Any, NamedTuple

from vicinal._nearest import did_you_mean

ARGUMENTS: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("arguments", default=())
"""The words of the command line, without the program's name."""


class Command(NamedTuple):
    """Where a command is.

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
    "draw": Command(
        "vicinal.cli.drawing",
        "draw",
        "Draw a network: its vertices, their shapes and parameters, and who reads whom.",
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
    """Runs the command line; a user's mistake ends in one sentence and exit code 2.

    Args:
        arguments: Without the program's name; those of the process if None.
    """
    is_process, arguments = arguments is None, sys.argv[1:] if arguments is None else arguments
    ARGUMENTS.set(tuple(arguments))
    try:
        _run(arguments)
    except BrokenPipeError:  # whoever read the output has seen enough, like `vicinal rules | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"vicinal: {_words(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("vicinal: interrupted; what was done so far is in the run's folder", file=sys.stderr)
        if is_process:  # an interpreter that ends while XLA compiles may end in a segmentation fault
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(130)
        sys.exit(130)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:  # without its number
        return f"expected to read or write {str(error.filename)!r}, got: {error.strerror or error}"
    return " ".join(str(error).split()) or type(error).__name__


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
        gc.disable()  # imports make many objects and no garbage; looking for it took a sixth of their time
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
