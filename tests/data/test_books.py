"""Text as bytes: which bytes a window holds, how texts are found and split, what is said when they are not there."""

import os
from pathlib import Path

import numpy as np
import pytest

from vicinal.data import DataError, sequences as seq


def document(text):
    return np.frombuffer(text, np.uint8)


def text_of(row):
    return bytes(row.astype(np.uint8))


def put(folder, **files):
    for name, content in files.items():
        (folder / f"books_{name}.txt").write_bytes(content)


def test_windows_cover_each_text_once():
    texts = (b"abcdefghij", b"xyz", b"ABCDEFG")
    windows = seq.byte_windows(tuple(map(document, texts)), 3)
    assert [text_of(row) for row in windows.inputs] == [b"abc", b"def", b"ghi", b"ABC", b"DEF"]
    assert [text_of(row) for row in windows.targets] == [b"bcd", b"efg", b"hij", b"BCD", b"EFG"]
    assert np.all(windows.mask)
    assert (windows.inputs.dtype, windows.targets.dtype) == (np.int32, np.int32)


def test_windows_are_drawn_evenly_from_all_places():
    texts = (b"abcdef", b"xyz", b"pqrst")
    windows = seq.random_windows(tuple(map(document, texts)), 3, 6000, seed=0)
    places = {}
    for row, target in zip(windows.inputs, windows.targets, strict=True):
        assert any(text_of(row) + bytes([target[-1]]) in text for text in texts)
        assert np.array_equal(row[1:], target[:-1])
        places[text_of(row)] = places.get(text_of(row), 0) + 1
    assert set(places) == {b"abc", b"bcd", b"cde", b"pqr", b"qrs"}
    assert all(abs(count - 1200) < 5 * 1200**0.5 for count in places.values())


def test_books_are_found_in_the_folder(tmp_path, monkeypatch):
    put(tmp_path, train=b"one\n\0\ntwo two\0three", valid=b"four\0\n", test=b"five")
    found = seq.books(tmp_path)
    assert [bytes(book) for book in found.train] == [b"one", b"two two", b"three"]
    assert [bytes(book) for book in found.validation] == [b"four"]
    assert [bytes(book) for book in found.test] == [b"five"]
    assert repr(found) == "Texts(train 15 bytes in 3, validation 4 bytes in 1, test 4 bytes in 1)"
    monkeypatch.setenv("VICINAL_DATA", str(tmp_path))
    assert len(seq.books().train) == 3


def test_a_text_is_split_by_position(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(bytes(range(100)))
    found = seq.text(path, validation=0.1, test=0.2)
    assert [len(part) for (part,) in (found.train, found.validation, found.test)] == [70, 10, 20]
    assert np.array_equal(np.concatenate([*found.train, *found.validation, *found.test]), np.arange(100))


def test_errors_of_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"books_train\.txt, found no file; set VICINAL_DATA"):
        seq.books(tmp_path)
    put(tmp_path, train=b"one", valid=b"\0\0", test=b"five")
    with pytest.raises(ValueError, match=r"expected books in .*books_valid\.txt, got an empty file"):
        seq.books(tmp_path)
    with pytest.raises(DataError, match="could not read"):  # a folder
        seq.text(tmp_path)
    (tmp_path / "short.txt").write_bytes(b"ab")
    with pytest.raises(ValueError, match=r"expected three parts of .* got 2 bytes"):
        seq.text(tmp_path / "short.txt")
    with pytest.raises(ValueError, match="expected three parts"):
        seq.text(tmp_path / "books_test.txt", 0.5, 0.5)
    with pytest.raises(ValueError, match=r"shares of validation and test in \(0, 1\)"):
        seq.text(tmp_path / "books_test.txt", 0.0, 0.5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: seq.byte_windows((document(b"abc"),), 3), "a text of more than 3 bytes"),
        (lambda: seq.byte_windows((document(b"abc"),), 0), "length as an integer of at least 1, got 0"),
        (lambda: seq.random_windows((document(b"abc"),), 3, 5, seed=0), "a text of more than 3 bytes"),
        (lambda: seq.random_windows((document(b"abc"),), 2, 0, seed=0), "examples as an integer of at least 1, got 0"),
    ],
)
def test_clear_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()


FOLDER = os.environ.get("VICINAL_DATA")


@pytest.mark.skipif(not FOLDER or not (Path(FOLDER) / "books_test.txt").exists(), reason="needs the books")
def test_the_books():
    found = seq.books()
    assert [len(texts) for texts in (found.train, found.validation, found.test)] == [80, 8, 8]
    windows = seq.random_windows(found.train, 256, 32, seed=0)
    assert windows.inputs.shape == (32, 256)
    assert windows.inputs.max() < 256
    assert not np.any(windows.inputs == 0)
