"""Checks zip archives of arrays (`.npz`) before anything in them is read: sizes, compression, shapes and dtypes."""

import io
import math
import zipfile
from typing import IO, Any, NamedTuple

import numpy as np


class ArrayHeader(NamedTuple):
    """What the beginning of an `.npy` file says.

    Attributes:
        shape: The shape of the array.
        in_fortran_order: Whether the first index varies fastest.
        dtype: Its type; never that of Python objects.
        start: Where the numbers begin.
    """

    shape: tuple[int, ...]
    in_fortran_order: bool
    dtype: np.dtype
    start: int


def check_sizes(archive: zipfile.ZipFile, room: int, *, plain: bool = False) -> None:
    """Checks the names of an archive's members, and the sizes that they claim to have.

    Args:
        archive: The archive.
        room: The bytes that all members may have together.
        plain: Whether members must be stored as they are, neither compressed nor encrypted.

    Raises:
        ValueError: If a name comes twice, or sizes or compression are others; the message is the reason alone.
    """
    members = archive.infolist()
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise ValueError(f"the member {next(name for name in names if names.count(name) > 1)!r} comes twice")
    for member in members:
        if plain and (member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1):
            raise ValueError(f"the member {member.filename!r} is compressed or encrypted")
        if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
            raise ValueError(f"the member {member.filename!r} has two sizes")
    if (total := sum(member.file_size for member in members)) > room:
        raise ValueError(f"its members claim {total} bytes, where {room} are possible")


def read_header(stream: IO[bytes], size: int) -> ArrayHeader:
    """Reads the header of an `.npy` file.

    Args:
        stream: The file, at its beginning.
        size: The bytes of the whole file.

    Raises:
        ValueError: If it is no header of an array of this size, or one of Python objects; the message is the reason
            alone.
    """
    try:
        version = np.lib.format.read_magic(stream)
        readers: Any = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        shape, in_fortran_order, dtype = readers[version](stream)
    except Exception as error:  # a manipulated header can raise nearly anything inside numpy
        raise ValueError(f"it is no array ({type(error).__name__})") from error
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded, as they may hold code")
    if dtype.itemsize == 0:
        raise ValueError(f"it holds {dtype}, where numbers or text were expected")
    if any(isinstance(side, bool) or side < 0 for side in shape) or len(shape) > 32:
        raise ValueError(f"its shape is {shape}")
    start = stream.tell()
    if math.prod(shape) * dtype.itemsize != size - start:
        raise ValueError(f"it has {size - start} bytes of numbers, where {dtype}{list(shape)} was announced")
    return ArrayHeader(shape, in_fortran_order, dtype, start)


def read_array(content: bytes) -> np.ndarray:
    """Reads an `.npy` file from its bytes, which the array shares.

    Raises:
        ValueError: As `read_header` does.
    """
    header = read_header(io.BytesIO(content), len(content))
    flat = np.frombuffer(content, header.dtype, offset=header.start)
    if header.dtype == np.bool_ and flat.view(np.uint8).max(initial=0) > 1:
        raise ValueError("it holds truth values that are neither true nor false")
    return flat.reshape(header.shape, order="F" if header.in_fortran_order else "C")
