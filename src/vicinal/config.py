"""The file in a run's folder that holds its settings: written before the run, read to resume it."""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vicinal._json import strict_json
from vicinal._lock import LOCK, Held, locked
from vicinal._plain import from_plain
from vicinal._reading import read_bytes
from vicinal.files import write_atomically
from vicinal.interruption import how_to_resume

CONFIG = "config.json"
"""The name of the file with a run's resolved settings."""
_LATER = (
    "checkpoint_seconds",
    "keep",
    "feedback_learning_rate",
    "shift",
    "events",
)  # settings that older runs do not have


@contextlib.contextmanager
def kept_config(folder: Path, settings: Any) -> Iterator[None]:
    """Locks a run's folder, and writes the resolved settings into it; if the run raises, restores the folder.

    Args:
        folder: The folder of the run; made if missing.
        settings: A dataclass, or plain data.

    Raises:
        ValueError: If another run holds the folder.
        OSError: If the file cannot be written.
    """
    plain = dataclasses.asdict(settings) if dataclasses.is_dataclass(settings) else settings
    path, content = folder / CONFIG, f"{json.dumps(plain, indent=2)}\n".encode()
    with locked(folder) as held:
        before, standing = path.read_bytes() if path.exists() else None, _entries(folder)
        if content != before:
            write_atomically(path, content)
        try:
            yield
        except Exception as error:
            if held.lost:
                raise
            if before is None:
                _restore(folder, standing)
            elif before != content and not isinstance(error, OSError):  # after a full disk the run is resumed
                write_atomically(path, before)
            raise


@contextlib.contextmanager
def last_files(held: Held) -> Iterator[None]:
    """Around the writing of a report, after training: says what is kept if that fails.

    Args:
        held: The folder of the run.

    Raises:
        OSError: If the folder is lost, or a file cannot be written.
    """
    held.check()
    try:
        yield
    except OSError as error:
        error.add_note(f"training has ended, and is kept; {how_to_resume()} writes this again, and trains no more")
        raise


def _restore(folder: Path, before: dict[Path, bool]) -> None:
    """Removes the settings, and what is new and empty, from a folder in which nothing else was written."""
    now = _entries(folder)
    if any(filled and not before.get(entry, False) for entry, filled in now.items()):
        return
    (folder / CONFIG).unlink()
    for entry in now.keys() - before.keys():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _entries(folder: Path) -> dict[Path, bool]:
    """What is in a folder, and whether there is something in it; without settings and lock."""
    return {entry: _has_content(entry) for entry in folder.iterdir() if entry.name not in (CONFIG, LOCK)}


def _has_content(entry: Path) -> bool:
    try:
        inner = entry.iterdir() if entry.is_dir() else [entry]
        return any(path.is_dir() or path.stat().st_size > 0 for path in inner)
    except OSError:  # it cannot be looked into, or a link leads nowhere
        return True


def read_config(folder: Path, kind: type) -> Any:
    """Reads the settings of a run, a dataclass of this kind, from its folder; checks them as typed ones are checked.

    Raises:
        ValueError: If the folder holds no settings, settings of another kind, or one that is out of range.
    """
    path = folder / CONFIG
    plain = read_plain(folder)
    try:
        settings = from_plain(kind, plain, _may_miss)
        settings.check()
        return settings
    except KeyError as error:
        raise ValueError(
            f"expected the settings of a run of this command in {path}, got the setting {error} of another; "
            "resume with the command that started the run"
        ) from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}; write the file as it was, or start the run again") from error


def read_plain(folder: Path) -> Any:
    """Reads the settings of a run as plain data.

    Raises:
        ValueError: If the folder holds no settings, or the file is no JSON.
    """
    path = folder / CONFIG
    try:
        return strict_json(read_bytes(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"expected a run in {folder}, got no {CONFIG} there; name the folder of a run") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"expected the settings of a run in {path}, got something else ({reason}); write the file as it was, or "
            "start the run again"
        ) from error


def _may_miss(field: dataclasses.Field) -> bool:
    """Whether a setting may be missing: it is of a later version, or says that nothing was given."""
    return field.name in _LATER or field.default is None or field.default is False or field.default == ()
