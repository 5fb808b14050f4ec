"""Files of data that claim too much, or hold something else, are refused in a sentence before memory is taken."""

import gzip
import io
import os
import pickle
import re
import struct
import zipfile
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from forging import as_npy, npy

import vicinal as vc
from vicinal.data import load
from vicinal.interchange import load_safetensors, save_safetensors

FREE = 10**7


@pytest.fixture(autouse=True)
def little_memory(monkeypatch):
    for module in ("archive", "folders", "tables"):
        monkeypatch.setattr(f"vicinal.data.{module}.free_host_bytes", lambda: FREE)


def refuses(path, words="got", **options):
    with pytest.raises(ValueError, match=words) as caught:
        load(path, **options)
    said = str(caught.value)
    assert re.search("expected .* got", said), said
    assert str(path) in said
    assert "\n" not in said
    return said


def archive_of(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


X, Y = as_npy(np.ones((20, 3), np.float32)), as_npy(np.arange(20) % 2)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npy((10**12,)), "was announced"),
        (npy((2**40, 2**40)), "was announced"),
        (npy((-20, -3), data=bytes(240)), "its shape is"),
        (npy((10**12,), "<U0"), "where numbers or text"),
        (npy((1,), "|O", pickle.dumps([print])), "Object arrays"),
        (as_npy(np.ones((20, 3), np.float32)) + b"more", "was announced"),
        (b"", "no array"),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"[" * 9000, "no array"),
    ],
    ids=["terabyte", "beyond 64 bits", "negative", "no width", "objects", "more", "empty", "brackets"],
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_arrays_in_an_archive(tmp_path, content, words, method):
    refuses(archive_of(tmp_path / "own.npz", {"x.npy": content, "y.npy": Y}, method), words)


def test_an_archive_that_is_a_bomb(tmp_path):
    big = as_npy(np.zeros((2 * FREE // 4,), np.float32))
    path = archive_of(tmp_path / "own.npz", {"x.npy": big, "y.npy": Y}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < FREE / 50
    refuses(path, r"claim \d+ bytes, where 10000000 are possible")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_a_member_twice(tmp_path):
    path = archive_of(tmp_path / "own.npz", {"x.npy": X, "y.npy": Y})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("y.npy", Y)
    refuses(path, r"'y\.npy' comes twice")


@pytest.mark.parametrize("name", ["../x.npy", "/x.npy", "..\\x.npy", "x.npy/"])
def test_names_with_folders_are_only_names(tmp_path, name):
    path = archive_of(tmp_path / "own.npz", {"x.npy": X, "y.npy": Y, name: X})
    assert load(path).shape == (3,)
    assert [*tmp_path.iterdir()] == [path]
    refuses(archive_of(path, {name: X, "y.npy": Y}))


def test_a_packed_table_that_is_a_bomb(tmp_path):
    path = tmp_path / "own.csv.gz"
    with gzip.open(path, "wb") as stream:
        stream.write(b"a,b\n")
        for _ in range(FREE // 2**20 + 1):
            stream.write(b"1,2\n" * 2**18)
    refuses(path, r"expected a table at .* where 10000000 of memory are free")


@pytest.mark.parametrize("name", ["own.csv", "own.tsv", "own.csv.gz"])
def test_a_table_of_a_million_columns(tmp_path, name):
    path, mark = tmp_path / name, "\t" if name.endswith("tsv") else ","
    text = mark.join(f"c{i}" for i in range(10**6)).encode()
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    refuses(path, r"more than 100000 columns \(1000000\); write the numbers as an npz file")


def test_a_table_with_an_endless_first_line(tmp_path):
    (tmp_path / "own.csv").write_bytes(b"a" * 2**25)
    refuses(tmp_path / "own.csv", "a first line of more than")


def test_a_parquet_table_that_is_a_bomb(tmp_path):
    import pyarrow
    from pyarrow import parquet

    numbers = pyarrow.array(np.zeros(3 * FREE // 8, np.int8))
    parquet.write_table(pyarrow.table(dict.fromkeys("abc", numbers)), tmp_path / "own.parquet")
    assert (tmp_path / "own.parquet").stat().st_size < FREE / 50
    refuses(tmp_path / "own.parquet", "of memory are free")


def test_a_parquet_table_that_was_altered(tmp_path):
    import pandas

    path = tmp_path / "own.parquet"
    pandas.DataFrame({"a": [1.0, 2.0] * 9, "label": [0, 1] * 9}).to_parquet(path)
    content = path.read_bytes()
    for at in range(len(content) - 40, len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            load(path)
        except ValueError as error:
            assert "\n" not in str(error)  # noqa: PT017, an altered note may leave a table that is whole


@pytest.mark.parametrize("cut", [1, 4, 9, 30])
def test_a_packed_table_that_was_cut_short(tmp_path, cut):
    path = tmp_path / "own.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 30)[:-cut])
    refuses(path, "expected a table at")


def png(width, height, data=b""):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.fixture
def pets(tmp_path):
    for i, kind in enumerate(("cat", "dog")):
        (tmp_path / "pets" / kind).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "pets" / kind / f"{number}.png").write_bytes(png(4, 4, (b"\0" + bytes([50 * i] * 4)) * 4))
    return tmp_path / "pets"


@pytest.mark.parametrize("size", [(10**4, 10**4), (2 * 10**4, 2 * 10**4), (10**9, 10**9), (0, 4), (4, 8)])
@pytest.mark.parametrize("place", ["cat/0.png", "dog/2.png"])
def test_images_that_claim_another_size(pets, size, place):
    (pets / place).write_bytes(png(*size))
    refuses(str(pets), Path(place).name)


def test_many_images_that_do_not_fit(pets):
    for file in pets.rglob("*.png"):
        file.write_bytes(png(3000, 3000))
    said = refuses(str(pets), "expected images that fit into 10000000 bytes of memory, got 6 images of up to 3000x3000")
    assert "--image-size" in said
    refuses(str(pets), "6 images of up to 9000x9000", image_size=(9000, 9000))


def test_one_image_that_does_not_fit_is_not_decoded(pets):
    (pets / "dog" / "1.png").write_bytes(png(2, 4_000_000))
    refuses(str(pets), r"6 images of up to 4000000x2 \(1\.png\)")


def test_links_out_of_the_folder_are_not_followed(pets, tmp_path):
    outside = tmp_path / "private.png"
    outside.write_bytes(png(4, 4, (b"\0" + bytes(4)) * 4))
    (pets / "cat" / "9.png").symlink_to(outside)
    refuses(str(pets), r"got the link .*9\.png out of it")
    (pets / "cat" / "9.png").unlink()
    (pets / "cat" / "9.png").symlink_to(pets / "cat" / "0.png")
    assert sum(map(len, (load(str(pets)).x_train, load(str(pets)).x_test))) == 7
    (tmp_path / "linked").symlink_to(pets)
    assert load(str(tmp_path / "linked")).shape == (4, 4)


def test_a_pipe_among_images_is_not_waited_for(pets):
    os.mkfifo(pets / "cat" / "9.png")
    refuses(str(pets), "no regular file")


def test_a_link_in_a_circle_among_images(pets):
    (pets / "cat" / "9.png").symlink_to("9.png")
    refuses(str(pets), "no regular file")


def test_a_damaged_image_of_every_length(pets):
    content = (pets / "cat" / "0.png").read_bytes()
    for length in range(content.index(b"IDAT") + 8):
        (pets / "cat" / "0.png").write_bytes(content[:length])
        refuses(str(pets), "expected an image at")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[" * 5000,
        b"{}",
        b'{"0.weight": 3}',
        b'{"layers.0.weight": {"dtype": "F32", "shape": [100000000000], "data_offsets": [0, 4000000000000]}}',
        b'{"layers.0.weight": {"dtype": "F32", "shape": [-2, -3], "data_offsets": [0, 24]}}',
        b'{"layers.0.weight": {"dtype": "F99", "shape": [2, 3], "data_offsets": [0, 24]}}',
        b'{"layers.0.weight": {"dtype": "F4", "shape": [2, 3], "data_offsets": [0, 3]}}',
        b'{"layers.0.weight": {"dtype": "U16", "shape": [2, 3], "data_offsets": [0, 12]}}',
    ],
)
def test_safetensors(tmp_path, header):
    model, path = vc.nn.MLP((3, 2), key=jax.random.key(0)), tmp_path / "model.safetensors"
    save_safetensors(path, model)
    for size in (len(header), 2**63, 0):
        path.write_bytes(struct.pack("<Q", size) + header + bytes(24))
        with pytest.raises(ValueError, match=r"expected .* got") as caught:
            load_safetensors(path, model)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[" * 10**5, "3", "", '{"format": NaN}', '{"format": ' + "9" * 10**6 + "}", '"\\ud800"']
)
def test_stored_results(tmp_path, text):
    (tmp_path / "family").mkdir()
    (tmp_path / "family" / "own.json").write_text(text)
    for read in (lambda: vc.report.write_results_pages(tmp_path), lambda: vc.report.Study.from_json(text)):
        with pytest.raises(ValueError, match=r"expected|not a stored study"):
            read()


def test_compression_does_not_matter(tmp_path):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.ones((20, 3), np.float32), y=np.arange(20) % 2)
    (tmp_path / "own.npz").write_bytes(buffer.getvalue())
    assert load(tmp_path / "own.npz").shape == (3,)
