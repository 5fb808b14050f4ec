"""Reads a file that anybody may have written: what it is, and how large, is looked at before memory is taken."""

import errno
import os
import stat
from pathlib import Path

from vicinal._memory import SMALL, free_host_bytes


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Reads a file whole.

    Args:
        path: The file.

    Raises:
        OSError: If it cannot be read, is no regular file (a folder, a pipe), or is larger than the free memory.
    """
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
    if found.st_size > SMALL and found.st_size > (free := free_host_bytes()):
        raise OSError(errno.EFBIG, f"it has {found.st_size} bytes, and {free} of memory are free", os.fspath(path))
    return Path(path).read_bytes()
