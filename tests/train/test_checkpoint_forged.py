"""A checkpoint with a right digest may hold anything: it is refused in a sentence, before memory is taken."""

import os
import pickle
import re
import tracemalloc
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forging import HEADER, as_npy, members_of, npy, packed, sealed, with_header, with_member, with_sizes

from vicinal.train.checkpoint import CheckpointError, load, read_metadata, read_paths, save

TREE = {"key": jax.random.key(1), "live": jnp.array([True, False]), "n": np.arange(3), "step": 3, "w": jnp.ones((2, 3))}
KEY, LIVE, N, STEP, WEIGHT = (f"{i}.npy" for i in range(5))


class Opens:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "saved.npz"
    save(path, TREE, metadata={"loss": 0.1})
    return path


def refuses(path, content):
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            load(path, TREE)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    said = str(caught.value)
    assert re.search(r"^Expected .* got .*; (restore|check|give|upgrade|load) .*\.$", said), said
    assert "\n" not in said
    assert len(said) < 1000 + len(str(path))
    return said


def leaf(index, **changes):
    def change(header):
        header["leaves"][index] |= changes

    return change


def without(name):
    return lambda header: {key: value for key, value in header.items() if key != name}


HEADERS = {
    "a list": lambda header: [header],
    "a text": lambda header: "header",
    "no version": without("format_version"),
    "a version in words": lambda header: header | {"format_version": "1"},
    "a true version": lambda header: header | {"format_version": True},
    "version 0": lambda header: header | {"format_version": 0},
    "a version with a part": lambda header: header | {"format_version": 1.5},
    "no metadata": without("metadata"),
    "metadata in a list": lambda header: header | {"metadata": []},
    "no leaves": without("leaves"),
    "leaves by name": lambda header: header | {"leaves": {}},
    "no leaf": lambda header: header | {"leaves": []},
    "a leaf in words": lambda header: header | {"leaves": ["w"] * 5},
    "a leaf too few": lambda header: header | {"leaves": header["leaves"][:-1]},
    "a leaf too many": lambda header: header | {"leaves": header["leaves"] * 2},
    "no path": leaf(4, path=None),
    "a path by number": leaf(4, path=4),
    "a kind that nobody knows": leaf(4, kind="object"),
    "a kind in a list": leaf(4, kind=["array"]),
    "a shape in words": leaf(4, shape="2,3"),
    "a shape of words": leaf(4, shape=["2", "3"]),
    "a shape of truth values": leaf(4, shape=[True, 3]),
    "a negative shape": leaf(4, shape=[-2, -3]),
    "a huge shape": leaf(4, shape=[10**30]),
    "a dtype that nobody knows": leaf(4, dtype="float31"),
    "no dtype": leaf(4, dtype=None),
    "an array for a key": leaf(0, kind="array", dtype="uint32", shape=[2]),
    "a key without implementation": leaf(0, implementation=None),
    "an implementation that nobody knows": leaf(0, implementation="dice"),
    "another implementation": leaf(0, implementation="rbg"),
    "a number of another kind": leaf(3, dtype="float"),
    "a long dtype": leaf(3, dtype="x" * 9000),
    "a long path": leaf(3, path="x" * 9000),
    "a long kind": leaf(3, kind="x" * 9000),
    "a long version": lambda header: header | {"format_version": 2, "vicinal_version": "x\n" * 9000},
}


@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS)
def test_headers(saved, change):
    refuses(saved, with_header(saved.read_bytes(), change))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"format_version":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"format_version": 1, "format_version": 1}',
        b'{"format_version": ' + b"9" * 10_000 + b"}",
    ],
    ids=["empty", "cut", "no UTF-8", "byte order mark", "brackets", "deep", "twice", "digits"],
)
def test_headers_that_are_no_json(saved, text):
    refuses(saved, with_member(saved.read_bytes(), HEADER, text))


ARRAYS = {
    "empty": (WEIGHT, b""),
    "no array": (WEIGHT, b"weights"),
    "cut short": (WEIGHT, as_npy(np.ones((2, 3), np.float32))[:-1]),
    "too long": (WEIGHT, as_npy(np.ones((2, 3), np.float32)) + b"0"),
    "a terabyte": (WEIGHT, npy((10**12,), data=b"0" * 24)),
    "beyond 64 bits": (WEIGHT, npy((2**40, 2**40), data=b"0" * 24)),
    "a negative shape": (WEIGHT, npy((-2, -3), data=b"0" * 24)),
    "many axes": (WEIGHT, npy((1,) * 40 + (2, 3), data=b"0" * 24)),
    "no width": (WEIGHT, npy((10**12,), "<U0")),
    "objects": (WEIGHT, as_npy(np.array([[None] * 3] * 2), allow_pickle=True)),
    "fields": (WEIGHT, npy((2, 3), [("a", "<f4")], b"0" * 24)),
    "an unknown version": (WEIGHT, as_npy(np.ones((2, 3), np.float32)).replace(b"NUMPY\x01", b"NUMPY\x09")),
    "another dtype": (WEIGHT, as_npy(np.ones((2, 3), np.int32))),
    "other bytes first": (WEIGHT, as_npy(np.ones((2, 3), ">f4"))),
    "another shape": (WEIGHT, as_npy(np.ones((3, 2), np.float32))),
    "text": (WEIGHT, as_npy(np.array([["a"] * 3] * 2))),
    "another dtype of a NumPy array": (N, as_npy(np.ones(3))),
    "neither true nor false": (LIVE, npy((2,), "|b1", b"\x01\x02")),
    "a number in a row": (STEP, as_npy(np.arange(3))),
    "a number without digits": (STEP, as_npy(np.zeros(0, np.uint8))),
    "a key of three": (KEY, as_npy(np.zeros(3, np.uint32))),
    "two keys": (KEY, as_npy(np.zeros((2, 2), np.uint32))),
    "a key of floats": (KEY, as_npy(np.zeros(2, np.float32))),
}


@pytest.mark.parametrize(("name", "content"), ARRAYS.values(), ids=ARRAYS)
def test_arrays(saved, name, content):
    refuses(saved, with_member(saved.read_bytes(), name, content))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_member_could_be_a_bomb(saved, method):
    members = members_of(saved.read_bytes())
    members[WEIGHT] = as_npy(np.zeros((2_000, 3_000), np.float32))
    assert "compressed" in refuses(saved, packed(members, method))


@pytest.mark.parametrize("size", [0, 1, 10**9, 2**32 - 1])
def test_sizes_in_the_directory(saved, size):
    refuses(saved, with_sizes(saved.read_bytes(), size))


@pytest.mark.parametrize("name", ["../../weights.npy", "/etc/passwd", "5.npy", "", "4.npy/", "C:\\4.npy"])
def test_members_that_no_leaf_has_are_refused_and_nothing_is_unpacked(saved, name):
    refuses(saved, with_member(saved.read_bytes(), name, b"content"))
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_twice_is_refused(saved):
    content = saved.read_bytes()
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr(WEIGHT, as_npy(np.zeros((2, 3), np.float32)))
        archive.comment = b"0" * 64
    assert "comes twice" in refuses(saved, sealed(saved.read_bytes()))
    saved.write_bytes(content)
    np.testing.assert_array_equal(load(saved, TREE)[0]["w"], np.ones((2, 3)))


def test_a_pickle_is_not_run(saved, tmp_path):
    evil = pickle.dumps(np.array([Opens(str(tmp_path / "ran"))], object))
    for content in (evil, npy((1,), "|O", evil)):
        refuses(saved, with_member(saved.read_bytes(), WEIGHT, content))
    assert not (tmp_path / "ran").exists()


def test_an_archive_cut_in_the_middle_and_sealed_again(saved):
    content = saved.read_bytes()
    for length in range(100, len(content) - 86, 61):
        refuses(saved, sealed(content[:length] + b"0" * 64))


def test_a_forged_checkpoint_that_is_as_save_writes_it_is_read(saved):
    """The table above refuses for what it changes, not for how it packs."""
    saved.write_bytes(with_header(saved.read_bytes(), lambda header: header | {"metadata": {"loss": 2}}))
    assert read_metadata(saved) == {"loss": 2}
    assert read_paths(saved) == [f"['{name}']" for name in TREE]
    found, _ = load(saved, TREE)
    assert found["step"] == 3
    assert found["n"].flags.writeable
    np.testing.assert_array_equal(found["live"], [True, False])


def test_devices_and_pipes_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path / "pipe", "null\0byte"):
        with pytest.raises(CheckpointError, match=r"Expected a checkpoint at .*; check the path"):
            read_metadata(path)


def test_a_header_that_could_not_be_read_again_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr("vicinal.train.checkpoint_file.LONGEST_HEADER", 1000)
    with pytest.raises(CheckpointError, match=r"at most 1000 bytes, got \d+; store large values"):
        save(tmp_path / "long.npz", TREE, metadata={"note": "word " * 200})
    assert not list(tmp_path.iterdir())
