"""Writes files atomically: a reader sees the old content or the new, never a part of either."""

import contextlib
import errno
import io
import os
import re
import secrets
import shutil
from pathlib import Path

_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")


def write_atomically(path: str | os.PathLike[str], content: bytes | bytearray | memoryview) -> Path:
    """Replaces the content of a file in one step.

    Writes a temporary file in the same folder, flushes it to the disk, renames it to `path`, and flushes the folder. On
    any failure (full disk, missing permission, an interrupt), removes the temporary file and leaves `path` unchanged.

    Args:
        path: The file to write. Its folder must exist. A symbolic link is followed, and an existing file
            keeps its permissions.
        content: The whole content, in bytes.

    Returns:
        The path as given.

    Raises:
        OSError: The file, which the error names, could not be written; the old one is intact.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_atomically(Path(folder) / "metrics.bin", b"12")
        ...     path.read_bytes()
        b'12'
    """
    target = resolved(path)
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        # "x" creates the file with the user's usual permissions and never opens an existing one.
        with open(temporary, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the folder may be gone
            temporary.unlink()
        if isinstance(error, OSError) and error.errno is not None:  # it names the temporary file, or none
            error.filename, error.filename2 = os.fspath(path), None
        raise
    _flush(target.parent)
    return Path(path)


def resolved(path: str | os.PathLike[str]) -> Path:
    """A path from the root of the file system, without links.

    Args:
        path: The path; nothing need be there.

    Raises:
        OSError: If links lead in a circle, or it is relative and the working folder was removed.
    """
    try:
        return Path(path).resolve()
    except RuntimeError as error:  # of Python before 3.13
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from error
    except FileNotFoundError as error:
        raise OSError(errno.ENOENT, "the working folder was removed; go to another one", str(path)) from error


def append_whole(stream: io.FileIO, content: bytes) -> None:
    """Appends all of the content to a file or, if that fails, nothing.

    Args:
        stream: The file, opened without a buffer to append to it.
        content: The bytes.

    Raises:
        OSError: They could not be written; the file ends where it did.
    """
    end, left = os.fstat(stream.fileno()).st_size, memoryview(content)
    try:
        while left:
            left = left[stream.write(left) :]
    except BaseException:
        with contextlib.suppress(OSError):
            stream.truncate(end)
        raise


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of writes that were killed, when nobody writes into the folder.

    Where a file was a symbolic link, its temporary file is beside the target, maybe in the folder of another run, and
    stays.

    Args:
        folder: The folder.
    """
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            path.unlink()


def _flush(folder: Path) -> None:
    """Flushes a folder to the disk, so that a renamed file keeps its new name; not all platforms can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text_atomically(path: str | os.PathLike[str], text: str) -> Path:
    """Replaces the content of a text file in one step, as UTF-8 with unchanged line ends.

    Args:
        path: The file to write, as for `write_atomically`.
        text: The whole content.

    Returns:
        The path as given.

    Raises:
        OSError: The file could not be written; the old one is intact.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text_atomically(Path(folder) / "note.txt", "ΔW = 0").read_text(encoding="utf-8")
        'ΔW = 0'
    """
    return write_atomically(path, text.encode("utf-8"))
