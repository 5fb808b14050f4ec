"""`vicinal`: which command, and how errors are said."""

import sys
from collections.abc import Callable

import tyro

import vicinal
from vicinal.cli.commands import ARGUMENTS, cite, compare, reproduce, rules, sweep, train
from vicinal.cli.data import fetch, list_data, verify

_DATA = {"list": list_data, "fetch": fetch, "verify": verify}
_COMMANDS: dict[str, Callable[..., None]] = {
    "compare": compare,
    "train": train,
    "sweep": sweep,
    "reproduce": reproduce,
    "rules": rules,
    "cite": cite,
}
_DESCRIPTION = "Train neural networks by local learning. Begin with `vicinal compare`."


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; a user's mistake ends in one sentence and exit code 2.

    Args:
        arguments: Without the program's name; those of the process if None.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    ARGUMENTS.set(tuple(arguments))
    if arguments == ["--version"]:
        print(f"vicinal {vicinal.__version__}")
        return
    try:
        if arguments[:1] == ["data"]:
            tyro.extras.subcommand_cli_from_dict(_DATA, prog="vicinal data", args=arguments[1:])
            return
        shown = _COMMANDS | {"data": _data}
        tyro.extras.subcommand_cli_from_dict(shown, prog="vicinal", description=_DESCRIPTION, args=arguments)
    except (ValueError, OSError) as error:
        print(f"vicinal: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("vicinal: interrupted; what was done so far is in the run's folder", file=sys.stderr)
        sys.exit(130)


def _data() -> None:
    """List, fetch and verify data sets (list, fetch NAME, verify NAME)."""
