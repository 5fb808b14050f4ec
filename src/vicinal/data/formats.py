"""Readers of the files that the publishers distribute: idx and the binary version of CIFAR-10. No pickle."""

import gzip
import math
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

Arrays = Mapping[str, UInt8[np.ndarray, "..."]]
"""`x_train`, `y_train`, `x_test` and `y_test`, as published."""

Parser = Callable[[Sequence[Path]], Arrays]
"""Turns the downloaded files, in their source's order, into arrays."""


def read_idx(content: bytes) -> UInt8[np.ndarray, "..."]:
    """Reads an array of bytes in the idx format.

    The format: two zero bytes, the element type (8 for unsigned bytes), the number of axes, the length of
    each axis as a big-endian 32-bit integer, then the elements in row-major order.

    Args:
        content: The whole file, decompressed.

    Returns:
        The array, uint8.

    Raises:
        ValueError: The header is another one, or the number of elements does not fit it.

    Example:
        >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
        array([7, 8, 9], dtype=uint8)
    """
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(f"expected an idx file of unsigned bytes, got a file that starts with {content[:4]!r}.")
    axes = content[3]
    start = 4 + 4 * axes
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4))
    elements = len(content) - start
    if axes == 0 or elements != math.prod(shape):
        raise ValueError(f"expected idx elements for the shape {shape}, got {max(elements, 0)} bytes.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def parse_idx(files: Sequence[Path]) -> Arrays:
    """Reads the four gzipped idx files of MNIST and its variants.

    Args:
        files: Training images, training labels, test images, test labels.

    Returns:
        Images `[n, height, width]` and labels `[n]`, uint8.

    Raises:
        ValueError: A file violates the format.
        OSError: A file cannot be read or decompressed.
    """
    keys = ("x_train", "y_train", "x_test", "y_test")
    return {key: read_idx(gzip.decompress(file.read_bytes())) for key, file in zip(keys, files, strict=True)}


def parse_cifar10(files: Sequence[Path]) -> Arrays:
    """Reads the binary version of CIFAR-10.

    A batch is a sequence of records of 3073 bytes: the label, then the red, the green and the blue plane of a
    32x32 image, each row by row. Batches are read inside the archive; nothing is unpacked to the disk.

    Args:
        files: The one archive, a gzipped tar file.

    Returns:
        Images `[n, 32, 32, 3]` and labels `[n]`, uint8, in the order of the batches.

    Raises:
        ValueError: A batch is missing or has an incomplete record.
        OSError: The file cannot be read or decompressed.
        tarfile.TarError: It is no tar file.
    """
    (file,) = files
    with tarfile.open(file, "r:gz") as archive:
        train = [_cifar10_batch(archive, f"data_batch_{number}.bin") for number in range(1, 6)]
        x_test, y_test = _cifar10_batch(archive, "test_batch.bin")
    return {
        "x_train": np.concatenate([x for x, _ in train]),
        "y_train": np.concatenate([y for _, y in train]),
        "x_test": x_test,
        "y_test": y_test,
    }


def _cifar10_batch(
    archive: tarfile.TarFile, name: str
) -> tuple[UInt8[np.ndarray, "n 32 32 3"], UInt8[np.ndarray, " n"]]:
    try:
        stream = archive.extractfile(f"cifar-10-batches-bin/{name}")
    except KeyError:
        stream = None
    if stream is None:
        raise ValueError(f"expected {name} in the archive, found none.")
    with stream:
        content = stream.read()
    if len(content) % 3073:
        raise ValueError(f"expected records of 3073 bytes in {name}, got {len(content)} bytes.")
    records = np.frombuffer(content, np.uint8).reshape(-1, 3073)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].copy()
