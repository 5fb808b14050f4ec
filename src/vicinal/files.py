"""Writing files so that a reader sees the old content or the new, and never a part of either."""

import os
import secrets
import shutil
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: bytes | bytearray | memoryview) -> Path:
    """Replace the content of a file in one step.

    The content goes to a temporary file in the same folder, is flushed to the disk, and is then renamed over
    `path`. Whatever stops this on the way (full disk, missing permission, an interrupt), the temporary file
    is removed and a file that was at `path` is left as it was.

    Args:
        path: The file to write. Its folder must exist. A symbolic link is followed, and an existing file
            keeps its permissions.
        content: The whole content, in bytes.

    Returns:
        The path as given.

    Raises:
        OSError: The file could not be written; the old one is intact.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_atomically(Path(folder) / "metrics.bin", b"12")
        ...     path.read_bytes()
        b'12'
    """
    target = Path(path).resolve()
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        # "x" creates the file with the user's usual permissions and never opens somebody else's.
        with open(temporary, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return Path(path)


def write_text_atomically(path: str | os.PathLike[str], text: str) -> Path:
    """Replace the content of a text file in one step, as UTF-8 with its line ends unchanged.

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
