"""The file of a checkpoint: packs header and arrays into an archive, and checks everything in one before it is used.

The digest tells damage. It does not tell who wrote the file, so a file with a right digest may still hold anything:
sizes, compression, the header's types and each array are checked as well. Nothing in a file is ever executed.
"""

import hashlib
import io
import os
import zipfile
from typing import Any, NamedTuple

import numpy as np

from vicinal._archives import check_sizes, read_array
from vicinal._json import strict_json
from vicinal._reading import read_bytes

FORMAT_VERSION = 1
LONGEST_HEADER = 2**26  # bytes

_HEADER = "vicinal.json"
_DIGEST_LENGTH = 64  # hexadecimal digits of a SHA-256
_LONGEST_WORDS = 300  # letters that a message quotes
_WITH_ARRAY = ("array", "key", "scalar")
_ENTRY = {"path": str, "kind": str, "shape": list, "dtype": str}


class CheckpointError(ValueError):
    """A checkpoint that cannot be written or read; the message says what was expected and what to do."""


class Contents(NamedTuple):
    """A checkpoint whose digest, sizes and header have been checked.

    Attributes:
        path: Its path, for messages.
        metadata: The user's metadata.
        leaves: An entry for each leaf: path, kind, shape, dtype, and of a key its implementation.
        archive: The open archive.
    """

    path: str
    metadata: dict[str, Any]
    leaves: list[dict[str, Any]]
    archive: zipfile.ZipFile

    def array(self, index: int) -> np.ndarray | None:
        """The array of a leaf, which cannot be written to; None if the leaf has none.

        Raises:
            CheckpointError: If it is damaged, or no array of numbers.
        """
        if self.leaves[index]["kind"] not in _WITH_ARRAY:
            return None
        try:
            return read_array(self.archive.read(f"{index}.npy"))
        except Exception as error:  # zipfile raises many kinds
            raise fault(self.path, f"leaf {self.leaves[index]['path']!r} in which {error}") from error


def fault(path: str, got: str) -> CheckpointError:
    """The error for a file with a right digest that `save` has not written."""
    return CheckpointError(
        f"Expected a checkpoint as vicinal writes it at {path!r}, got {short(got)}; restore it from a copy or use "
        "an earlier one."
    )


def short(text: str) -> str:
    """A text of a file in one line of a message, cut where it is very long."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_WORDS else f"{line[:_LONGEST_WORDS]}..."


def pack(header: bytes, arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of the archive: the header, the arrays, and the digest of all that in the comment.

    Raises:
        CheckpointError: If the header is too long to be read again.
    """
    if len(header) > LONGEST_HEADER:
        raise CheckpointError(
            f"Expected metadata and names of at most {LONGEST_HEADER} bytes, got {len(header)}; store large values as "
            "arrays in the tree."
        )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo(_HEADER), header)
        for name, array in arrays.items():
            with archive.open(name, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
        archive.comment = b"0" * _DIGEST_LENGTH
    # A view that lives on in a failed write's traceback crashes the garbage collector of Python 3.12.1 and before.
    with buffer.getbuffer() as content:
        content[-_DIGEST_LENGTH:] = digest(content)
    return buffer.getvalue()  # the same memory: no copy


def digest(content: bytes | memoryview) -> bytes:
    """The digest that belongs into the last bytes of a checkpoint."""
    with memoryview(content) as view, view[:-_DIGEST_LENGTH] as covered:
        return hashlib.sha256(covered).hexdigest().encode()


def unpack(path: str | os.PathLike[str]) -> Contents:
    """Opens a checkpoint and checks every byte, all sizes and the header.

    Raises:
        CheckpointError: The file is missing, damaged, not a checkpoint, of a newer format, or holds what `pack` would
            not have written.
    """
    where = os.fspath(path)
    try:
        content = read_bytes(path)
    except (OSError, ValueError) as error:  # a path may hold a null byte
        raise CheckpointError(
            f"Expected a checkpoint at {where!r}, got {getattr(error, 'strerror', None) or error}; check the path."
        ) from error
    # A zip file starts with this mark, and has the name of its first member at byte 30.
    if not (content.startswith(b"PK\x03\x04") and content[30:].startswith(_HEADER.encode())):
        raise CheckpointError(
            f"Expected a vicinal checkpoint, got some other file at {where!r} ({len(content)} bytes); "
            "give a file written by vicinal.train.checkpoint.save."
        )
    expected, got = content[-_DIGEST_LENGTH:], digest(content)
    if expected != got:
        raise CheckpointError(
            f"Expected SHA-256 {_short(expected)}, got {_short(got)} for the {len(content)} bytes of "
            f"{where!r}, which was cut short or altered; restore it from a copy or use an earlier one."
        )
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        check_sizes(archive, len(content), plain=True)
        if (size := archive.getinfo(_HEADER).file_size) > LONGEST_HEADER:
            raise ValueError(f"the header has {size} bytes")
        header = strict_json(archive.read(_HEADER), finite=False)
        _check_version(header, where)
        _check_header(header, set(archive.namelist()))
    except CheckpointError:
        raise
    except Exception as error:  # a manipulated archive can raise nearly anything inside zipfile
        raise fault(where, f"one in which {error or type(error).__name__}") from error
    return Contents(where, header["metadata"], header["leaves"], archive)


def _short(digest: bytes) -> str:
    return repr(digest[:12])[2:-1] + "..."  # whatever the bytes are, in one line


def _check_version(header: Any, where: str) -> None:
    version = header.get("format_version") if isinstance(header, dict) else None
    if type(version) is not int or version < 1:
        raise ValueError("the header has no format version")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"Expected a checkpoint of format {FORMAT_VERSION} or older, got format {version} in {where!r}, written "
            f"by vicinal {short(str(header.get('vicinal_version')))}; upgrade vicinal to read it."
        )


def _check_header(header: dict[str, Any], members: set[str]) -> None:
    """Raises a ValueError, with the reason alone, unless the header is one of `save` and names all members."""
    if not isinstance(header.get("metadata"), dict) or not isinstance(header.get("leaves"), list):
        raise ValueError("the header has no metadata or no leaves")
    for entry in header["leaves"]:
        if not isinstance(entry, dict) or any(type(entry.get(name)) is not kind for name, kind in _ENTRY.items()):
            raise ValueError(f"the header has the leaf {str(entry)[:60]}")
        if entry["kind"] not in (*_WITH_ARRAY, "none", "static"):
            raise ValueError(f"the leaf {entry['path']!r} is of the kind {entry['kind'][:60]!r}")
        if any(type(side) is not int or side < 0 for side in entry["shape"]):
            raise ValueError(f"the leaf {entry['path']!r} has the shape {str(entry['shape'])[:60]}")
        if entry["kind"] == "key" and type(entry.get("implementation")) is not str:
            raise ValueError(f"the key {entry['path']!r} has no implementation")
    wanted = {f"{i}.npy" for i, entry in enumerate(header["leaves"]) if entry["kind"] in _WITH_ARRAY}
    if strange := sorted(members ^ {_HEADER, *wanted}):
        raise ValueError(f"the header and the members differ in {strange[0]!r}")
