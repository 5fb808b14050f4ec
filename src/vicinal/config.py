"""The file in a run's folder that holds its settings: written before the run, read when it goes on."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vicinal.files import write_atomically, write_text_atomically

CONFIG = "config.json"
"""The file in a run's folder that holds its resolved settings."""


@contextlib.contextmanager
def kept_config(folder: Path, settings: Any) -> Iterator[None]:
    """Keeps resolved settings in a run's folder; if the run is refused, the folder is as it was.

    Args:
        folder: Of the run; made if missing.
        settings: A dataclass, or plain data.

    Raises:
        OSError: If they cannot be written.
    """
    path, content = folder / CONFIG, dataclasses.asdict(settings) if dataclasses.is_dataclass(settings) else settings
    before, made = path.read_bytes() if path.exists() else None, not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, json.dumps(content, indent=2) + "\n")
    try:
        yield
    except Exception:
        if before is not None:
            write_atomically(path, before)
        elif all(entry == path or _is_empty(entry) for entry in folder.iterdir()):  # nothing was begun
            for entry in folder.iterdir():
                entry.rmdir() if entry.is_dir() else entry.unlink()
            if made:
                folder.rmdir()
        raise


def _is_empty(entry: Path) -> bool:
    return not any(entry.iterdir()) if entry.is_dir() else entry.stat().st_size == 0


def read_config(folder: Path, kind: type) -> Any:
    """Reads settings of a kind from a run's folder.

    Raises:
        ValueError: If the folder holds none, or others.
    """
    path = folder / CONFIG
    try:
        return _from_plain(kind, json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise ValueError(f"expected a run in {folder}, got no {CONFIG} there; name the folder of a run") from error
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"expected the settings of a run in {path}, got something else: {error}") from error


def _from_plain(kind: Any, plain: Any) -> Any:
    if not dataclasses.is_dataclass(kind):
        return tuple(plain) if isinstance(plain, list) else plain
    kinds = {field.name: field.type for field in dataclasses.fields(kind)}
    for field in dataclasses.fields(kind):
        value, default = plain.get(field.name), field.default
        if isinstance(default, int | float | str) and isinstance(value, str) != isinstance(default, str):
            raise ValueError(f"{field.name} is {value!r}")
    return kind(**{name: _from_plain(kinds[name], value) for name, value in plain.items()})
