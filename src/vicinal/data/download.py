"""Fetches a published data set: download, check the hash, convert, and only then move into place."""

import os
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import pooch
import requests

from vicinal._nearest import did_you_mean
from vicinal.data.archive import read_arrays
from vicinal.data.arrays import to_dataset
from vicinal.data.catalogue import check_complete, verify
from vicinal.data.errors import DataError
from vicinal.data.formats import Arrays
from vicinal.data.loading import DIGITS_PATH, data_folder
from vicinal.data.names import KEYS
from vicinal.data.sources import SOURCES, RemoteFile, Source
from vicinal.files import write_atomically

Progress = Callable[[str, int, int], None]
"""Called as `progress(url, received, total)`, in bytes; the total is 0 when the server does not tell it."""

_CHUNK = 1 << 16
_TIMEOUT = 30.0  # seconds without a byte before a connection counts as dead


def fetch(
    name: str,
    folder: str | os.PathLike[str] | None = None,
    *,
    sources: Mapping[str, Source] = SOURCES,
    progress: Progress | None = None,
) -> Path:
    """Downloads a published data set into the data folder, unless it exists.

    Everything is downloaded into a temporary folder beside the result, compared with the published hashes and
    converted there. The result appears in one step, and the temporary folder is removed, whatever happens. A
    valid file that is already there is left alone; a damaged one is replaced once the new one is complete.

    Args:
        name: Which data set: a key of `sources`, or `"digits"`, which is part of the package.
        folder: Where to put `<name>.npz`, as for `data_folder`; created if missing.
        sources: Where each data set is published.
        progress: Called after each piece that arrives; None for silence.

    Returns:
        The path of the npz file, which `load` reads.

    Raises:
        ValueError: No such data set is published, or a valid file of another size stands in the way.
        DataError: The network, the server, the disk or the published files fail.
    """
    if name == "digits":
        return DIGITS_PATH
    if name not in sources:
        hint = did_you_mean(name, sources) or "; check the spelling."
        raise ValueError(f"expected one of {', '.join(sources)}, got {name!r}{hint}")
    place = data_folder(folder)
    path = place / f"{name}.npz"
    try:
        if path.exists() and _already_there(name, path, sources):
            return path
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=place, ignore_cleanup_errors=True) as scratch:
            arrays = _download_and_parse(name, sources[name], Path(scratch), progress)
        _store(path, arrays)
    except DataError:
        raise
    except OSError as error:
        raise DataError(
            f"could not write {name} into {place}: {error.strerror or error}; free some space there or name "
            "another folder."
        ) from error
    return path


def _already_there(name: str, path: Path, sources: Mapping[str, Source]) -> bool:
    """Whether the file is valid; raises if it holds another data set than its name says."""
    if not path.is_file():
        raise DataError(f"expected a file at {path}, found something else; move it away.")
    try:
        verify(name, path.parent, sources=sources)
    except ValueError:
        try:
            # Whatever its labels, gaps included: never overwrite another data set.
            found = to_dataset(read_arrays(path, KEYS), name, "", origin=str(path), classes=2**31 - 1)
        except ValueError:
            return False
        raise ValueError(
            f"expected {name} as published at {path}, got a data set of {len(found.x_train)} training and "
            f"{len(found.x_test)} test examples of shape {found.shape}; move it away or name another folder."
        ) from None
    return True


def _download_and_parse(name: str, source: Source, scratch: Path, progress: Progress | None) -> Arrays:
    files = []
    for number, remote in enumerate(source.files):
        file = scratch / str(number)
        _download(remote, file, progress)
        files.append(file)
    try:
        arrays = source.parse(files)
        dataset = to_dataset(arrays, name, source.credit, origin=name, classes=source.classes)
        check_complete(dataset, source, name)
    except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"the files of {name} arrived intact but cannot be read: {error}; please report it.") from error
    return arrays


def _store(path: Path, arrays: Arrays) -> None:
    # Uncompressed: images of bytes load several times faster and gain little. numpy stamps no dates into the
    # file, so that the same arrays always make the same bytes.
    buffer = BytesIO()
    np.savez(
        buffer,
        x_train=arrays["x_train"],
        y_train=arrays["y_train"],
        x_test=arrays["x_test"],
        y_test=arrays["y_test"],
    )
    write_atomically(path, buffer.getvalue())


def _download(remote: RemoteFile, file: Path, progress: Progress | None) -> None:
    """Download one file from the first address that delivers it intact."""
    failures = []
    for url in remote.urls:
        try:
            pooch.HTTPDownloader(
                progressbar=False if progress is None else _Bar(url, progress),
                chunk_size=_CHUNK,
                timeout=_TIMEOUT,
                # A server that compresses on the way would make requests unpack the archive itself.
                headers={"Accept-Encoding": "identity"},
            )(url, str(file), None)
        except requests.RequestException as error:
            failures.append(_sentence(url, error))
            continue
        algorithm, _, expected = remote.checksum.partition(":")
        received = pooch.file_hash(str(file), alg=algorithm)
        if received == expected.lower():
            return
        failures.append(f"{url} sent a file with the {algorithm} {received} where {expected} was expected")
    raise DataError(f"{'; '.join(failures)}; check the connection and try again, or fetch the file by hand.")


def _sentence(url: str, error: requests.RequestException) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"{url} answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return f"{url} did not answer within {_TIMEOUT:g} seconds"
    if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
        return f"the connection to {url} could not be made or was cut"
    return f"{url} could not be downloaded ({type(error).__name__})"


class _Bar:
    """Turns the calls that pooch makes on a progress bar into calls of a `Progress` function."""

    def __init__(self, url: str, report: Progress) -> None:
        self.url = url
        self.report = report
        self.total = 0
        self.received = 0

    def update(self, size: int) -> None:
        # pooch announces whole chunks, so that the last one overshoots.
        self.received = min(self.received + size, self.total) if self.total else self.received + size
        self.report(self.url, self.received, self.total)

    def reset(self) -> None:
        """Does nothing: pooch resets the bar at the end."""
        self.received = 0

    def close(self) -> None:
        """Nothing to close."""
