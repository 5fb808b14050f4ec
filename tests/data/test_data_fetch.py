"""Fetching, against a real server on this machine that behaves well or badly."""

import hashlib
import os
import signal
import socket
from dataclasses import replace

import numpy as np
import pytest
from publishing import cifar10, idx, md5, publishing

from vicinal.data import SOURCES, DataError, RemoteFile, Source, fetch, load, verify
from vicinal.data.formats import parse_cifar10, parse_idx

resource = pytest.importorskip("resource", reason="limits on the size of files are a POSIX feature")


def random_arrays(train, test, shape, seed=0):
    numbers = np.random.default_rng(seed)
    return {
        "x_train": numbers.integers(0, 256, (train, *shape), np.uint8),
        "y_train": np.arange(train, dtype=np.uint8) % 10,  # read by a path, it must have an example of every class
        "x_test": numbers.integers(0, 256, (test, *shape), np.uint8),
        "y_test": numbers.integers(0, min(train, 10), test, np.uint8),
    }


def publish_idx(publisher, arrays):
    files = []
    for key, array in arrays.items():
        content = idx(array)
        publisher.files[f"/{key}.gz"] = content
        files.append(RemoteFile((f"{publisher.address}/{key}.gz",), md5(content)))
    train, test = len(arrays["x_train"]), len(arrays["x_test"])
    source = Source(tuple(files), parse_idx, train, test, arrays["x_train"].shape[1:], 10, "nobody")
    return {"tiny": source}


@pytest.fixture
def publisher(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with publishing() as published:
        yield published


@pytest.fixture
def arrays():
    return random_arrays(7, 3, (5, 4))


@pytest.fixture
def sources(publisher, arrays):
    return publish_idx(publisher, arrays)


@pytest.fixture
def small_files():
    """Let the operating system refuse any file above 64 KiB, as a full disk would."""
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, previous)


def assert_holds(path, arrays):
    with np.load(path, allow_pickle=False) as archive:
        assert sorted(archive.files) == sorted(arrays)
        for key, expected in arrays.items():
            np.testing.assert_array_equal(archive[key], expected)


def test_fetch_gives_what_was_published(tmp_path, sources, arrays):
    path = fetch("tiny", tmp_path / "new" / "folder", sources=sources)
    assert path == tmp_path / "new" / "folder" / "tiny.npz"
    assert_holds(path, arrays)
    assert os.listdir(path.parent) == ["tiny.npz"]
    dataset = load("tiny", path.parent)
    np.testing.assert_allclose(dataset.x_train * 255, arrays["x_train"], rtol=1e-6)
    np.testing.assert_array_equal(dataset.y_test, arrays["y_test"])


def test_cifar10_is_read_from_its_records(tmp_path, publisher):
    numbers = np.random.default_rng(1)
    batches = [
        (numbers.integers(0, 256, (n, 32, 32, 3), np.uint8), numbers.integers(0, 10, n, np.uint8))
        for n in (2, 1, 3, 1, 1, 2)
    ]
    content = cifar10(batches)
    publisher.files["/cifar.tar.gz"] = content
    file = RemoteFile((f"{publisher.address}/cifar.tar.gz",), md5(content))
    source = Source((file,), parse_cifar10, 8, 2, (32, 32, 3), 10, "nobody")
    path = fetch("cifar", tmp_path, sources={"cifar": source})
    expected = {
        "x_train": np.concatenate([images for images, _ in batches[:5]]),
        "y_train": np.concatenate([labels for _, labels in batches[:5]]),
        "x_test": batches[5][0],
        "y_test": batches[5][1],
    }
    assert_holds(path, expected)


def test_the_same_files_make_the_same_bytes(tmp_path, sources):
    paths = [fetch("tiny", tmp_path / name, sources=sources) for name in "ab"]
    first, second = (verify("tiny", path.parent, sources=sources).sha256 for path in paths)
    assert first == second == hashlib.sha256(paths[0].read_bytes()).hexdigest()


def test_what_is_there_is_not_fetched_again(tmp_path, publisher, sources):
    path = fetch("tiny", tmp_path, sources=sources)
    before, asked = path.stat(), len(publisher.requests)
    assert fetch("tiny", tmp_path, sources=sources) == path
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(publisher.requests) == asked == 4


def test_a_damaged_file_is_replaced(tmp_path, sources, arrays):
    path = fetch("tiny", tmp_path, sources=sources)
    path.write_bytes(path.read_bytes()[:-30])
    fetch("tiny", tmp_path, sources=sources)
    assert_holds(path, arrays)


def test_a_valid_file_of_another_size_is_not_overwritten(tmp_path, sources):
    own = random_arrays(2, 1, (5, 4))
    np.savez(tmp_path / "tiny.npz", **own)
    with pytest.raises(ValueError, match=r"2 training and 1 test examples.*move it away"):
        fetch("tiny", tmp_path, sources=sources)
    assert_holds(tmp_path / "tiny.npz", own)


def test_the_environment_names_the_folder(tmp_path, monkeypatch, sources):
    monkeypatch.setenv("VICINAL_DATA", str(tmp_path))
    assert fetch("tiny", sources=sources) == tmp_path / "tiny.npz"


def test_progress_ends_at_the_size_of_each_file(tmp_path, publisher, arrays):
    arrays = {**arrays, "x_train": random_arrays(7, 1, (150, 150))["x_train"]}
    arrays["x_test"] = random_arrays(1, 3, (150, 150))["x_test"]
    calls = {}
    fetch(
        "tiny",
        tmp_path,
        sources=publish_idx(publisher, arrays),
        progress=lambda url, received, total: calls.setdefault(url, []).append((received, total)),
    )
    sizes = {publisher.address + path: len(content) for path, content in publisher.files.items()}
    assert calls.keys() == sizes.keys()
    for url, size in sizes.items():
        received = [count for count, _ in calls[url]]
        assert received == sorted(received)
        assert received[-1] == size
        assert {total for _, total in calls[url]} == {size}
    assert len(set(calls[f"{publisher.address}/x_train.gz"])) == 3  # 155 kB in pieces of 64 KiB


def test_the_second_mirror_serves_when_the_first_fails(tmp_path, publisher, sources, arrays):
    files = tuple(replace(f, urls=(f"{publisher.address}/gone", *f.urls)) for f in sources["tiny"].files)
    assert_holds(fetch("tiny", tmp_path, sources={"tiny": replace(sources["tiny"], files=files)}), arrays)


def break_hash(publisher, source):
    publisher.files["/y_test.gz"] += b"\x00"
    return source


def break_connection(publisher, source):
    publisher.cut.add("/y_test.gz")
    return source


def break_path(publisher, source):
    del publisher.files["/y_test.gz"]
    return source


def break_host(publisher, source):
    with socket.socket() as free:  # a port on which nothing listens once this is closed
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/y_test.gz"
    return replace(source, files=(*source.files[:3], replace(source.files[3], urls=(url,))))


def break_content(publisher, source):
    content = b"not even gzip"
    publisher.files["/y_test.gz"] = content
    return replace(source, files=(*source.files[:3], replace(source.files[3], checksum=md5(content))))


def break_size(publisher, source):
    return replace(source, train=8)


BREAKAGES = {
    break_hash: "where [0-9a-f]{32} was expected; check",
    break_connection: "cut",
    break_path: "answered 404 Not Found",
    break_host: "could not be made",
    break_content: "cannot be read: Not a gzipped file",
    break_size: "expected 8 training",
}


@pytest.mark.parametrize("state", ["absent", "damaged"])
@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_failure_is_one_sentence_and_changes_nothing(tmp_path, publisher, sources, breakage, state):
    other = tmp_path / "mnist.npz"
    other.write_bytes(b"somebody's work")
    path = tmp_path / "tiny.npz"
    if state == "damaged":
        path.write_bytes(b"half a fi")
    broken = {"tiny": breakage(publisher, sources["tiny"])}
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(DataError, match=BREAKAGES[breakage]) as caught:
        fetch("tiny", tmp_path, sources=broken)
    assert "\n" not in str(caught.value)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("breakage", [break_hash, break_connection, break_path, break_host])
def test_a_good_file_survives_a_bad_network(tmp_path, publisher, sources, arrays, breakage):
    path = fetch("tiny", tmp_path, sources=sources)
    broken = {"tiny": breakage(publisher, sources["tiny"])}
    assert fetch("tiny", tmp_path, sources=broken) == path
    assert_holds(path, arrays)


# Random images fill the disk during the download; black ones compress well and fill it when converted.
@pytest.mark.parametrize("stage", ["download", "conversion"])
@pytest.mark.parametrize("present", [False, True])
def test_a_full_disk_changes_nothing(tmp_path, publisher, small_files, stage, present):
    arrays = random_arrays(100, 2, (30, 30))
    if stage == "conversion":
        arrays["x_train"][:] = 0
    sources = publish_idx(publisher, arrays)
    assert (len(publisher.files["/x_train.gz"]) > 64 << 10) == (stage == "download")
    if present:
        (tmp_path / "tiny.npz").write_bytes(b"damaged")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(DataError, match=r"could not write tiny into .*File too large; free some space"):
        fetch("tiny", tmp_path, sources=sources)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_silent_server_is_given_up(tmp_path, publisher, sources, monkeypatch):
    monkeypatch.setattr("vicinal.data.download._TIMEOUT", 0.2)
    publisher.silent.add("/x_train.gz")
    with pytest.raises(DataError, match=r"did not answer within 0\.2 seconds"):
        fetch("tiny", tmp_path, sources=sources)
    assert os.listdir(tmp_path) == []


def test_an_interrupt_leaves_nothing(tmp_path, sources):
    def interrupt(url, received, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("tiny", tmp_path, sources=sources, progress=interrupt)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_a_file(tmp_path, sources):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="could not write tiny into"):
        fetch("tiny", tmp_path / "file", sources=sources)


def test_a_folder_in_the_place_of_the_file(tmp_path, sources):
    (tmp_path / "tiny.npz").mkdir()
    with pytest.raises(DataError, match="found something else"):
        fetch("tiny", tmp_path, sources=sources)


def test_unknown_and_embedded_names(tmp_path):
    with pytest.raises(ValueError, match="expected one of mnist, fashion_mnist, cifar10, got 'minst'"):
        fetch("minst", tmp_path)
    assert fetch("digits", tmp_path).is_file()
    assert os.listdir(tmp_path) == []


def test_a_batch_that_is_missing_or_cut(tmp_path):
    batch = (np.zeros((1, 32, 32, 3), np.uint8), np.zeros(1, np.uint8))
    (tmp_path / "archive").write_bytes(cifar10([batch] * 6, leave_out="data_batch_3.bin"))
    with pytest.raises(ValueError, match=r"expected data_batch_3\.bin in the archive"):
        parse_cifar10([tmp_path / "archive"])
    (tmp_path / "archive").write_bytes(cifar10([batch] * 5 + [(np.zeros((1, 32, 31, 3), np.uint8), [0])]))
    with pytest.raises(ValueError, match=r"3073 bytes in test_batch\.bin, got 2977 bytes"):
        parse_cifar10([tmp_path / "archive"])


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_fully_described(name):
    source = SOURCES[name]
    assert source.credit.strip()
    for file in source.files:
        algorithm, digest = file.checksum.split(":")
        assert len(bytes.fromhex(digest)) == hashlib.new(algorithm, usedforsecurity=False).digest_size
        assert all(url.startswith(("https://", "http://")) for url in file.urls)
        assert len(set(file.urls)) == len(file.urls) >= 1
    checksums = [file.checksum for other in SOURCES.values() for file in other.files]
    assert len(set(checksums)) == len(checksums)
