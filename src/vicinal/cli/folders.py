"""Which command's run a folder holds."""

from pathlib import Path

from vicinal.config import read_plain
from vicinal.interruption import resume_command

_COMMANDS = {"experiment": "reproduce", "vary": "sweep", "rules": "compare", "seed": "train"}
"""A setting -> the first command of this order that has it."""


def command_of(folder: Path) -> str | None:
    """The command whose run a folder holds; None if its settings do not tell."""
    try:
        names = set(read_plain(folder))
    except (TypeError, ValueError):
        return None
    return next((command for name, command in _COMMANDS.items() if name in names), None)


def resumption(folder: Path) -> str:
    """What to do about a folder that holds a run, as the end of a sentence."""
    command = command_of(folder)
    if command is None:
        return "choose another"
    return f"continue it with {resume_command(command, folder)}, or choose another"


def check_command(folder: Path, command: str) -> None:
    """Raises ValueError if a folder holds a run of another command than the one that is to resume it."""
    if command_of(folder) not in (None, command):
        raise ValueError(f"expected the folder of a `vicinal {command}`, got {str(folder)!r}; {resumption(folder)}")
