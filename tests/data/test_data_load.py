"""Loading: values, and one clear sentence for each way a file can be wrong."""

import hashlib
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.extra import numpy as stn

import vicinal.data
from vicinal.data import DataError, available, data_folder, load, verify
from vicinal.data.formats import read_idx

PACKAGED = Path(vicinal.data.__file__).with_name("digits.npz")
REAL = os.environ.get("VICINAL_DATA")


def good():
    return {
        "x_train": np.arange(24, dtype=np.uint8).reshape(4, 2, 3),
        "y_train": np.array([0, 1, 2, 3]),  # every class is there: a gap is refused since labels may be any numbers
        "x_test": np.full((2, 2, 3), 255, np.uint8),
        "y_test": np.array([3, 0]),
    }


@pytest.fixture
def save(tmp_path):
    def save(**changes):
        path = tmp_path / "own.npz"
        arrays = {key: array for key, array in {**good(), **changes}.items() if array is not None}
        np.savez(path, **arrays)
        return path

    return save


def test_digits_are_every_fifth_for_testing():
    digits = load("digits")
    with np.load(PACKAGED, allow_pickle=False) as stored:
        x, y = stored["x"], stored["y"]
    np.testing.assert_array_equal(digits.x_test * 16, x[::5])
    np.testing.assert_array_equal(digits.y_test, y[::5])
    rest = [index for index in range(1797) if index % 5]
    np.testing.assert_array_equal(digits.x_train * 16, x[rest])
    np.testing.assert_array_equal(digits.y_train, y[rest])
    assert (len(digits.x_train), len(digits.x_test), digits.classes) == (1437, 360, 10)
    assert digits.x_train.dtype == digits.x_test.dtype == np.float32
    assert digits.y_train.dtype == digits.y_test.dtype == np.int32
    assert "Alpaydin" in digits.credit
    assert "CC BY 4.0" in digits.credit


def test_bytes_are_divided_by_255_whatever_they_hold(save):
    dataset = load(save())
    expected = [[[row * 6 + i * 3 + j for j in range(3)] for i in range(2)] for row in range(4)]
    np.testing.assert_allclose(dataset.x_train, np.array(expected) / 255.0, rtol=1e-6)
    np.testing.assert_array_equal(dataset.x_test, 1.0)
    assert (dataset.name, dataset.classes, dataset.y_train.dtype) == ("own", 4, np.int32)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_floats_are_converted_but_not_scaled(save, dtype):
    x = np.array([[0.0, 0.25], [-0.5, 1000.0]], dtype)  # standardised floats have any range
    dataset = load(save(x_train=x, y_train=np.array([0, 1]), x_test=x[:1], y_test=np.array([1])))
    assert dataset.x_train.dtype == np.float32
    np.testing.assert_array_equal(dataset.x_train, [[0.0, 0.25], [-0.5, 1000.0]])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(
    data=st.data(),
    train=st.integers(1, 4),
    test=st.integers(1, 4),
    shape=stn.array_shapes(max_dims=3, max_side=3),
    label_type=st.sampled_from(["u1", "i1", "<i8", ">u4"]),
)
def test_any_valid_file_loads_to_the_unit_interval(tmp_path, data, train, test, shape, label_type):
    x = {n: data.draw(stn.arrays(np.uint8, (n, *shape))) for n in {train, test}}
    classes = data.draw(st.integers(1, train))  # each of which is among the training examples
    y = np.concatenate([np.arange(classes), data.draw(stn.arrays(int, train - classes, elements=st.just(0)))])
    y = {
        "train": y.astype(label_type),
        "test": data.draw(stn.arrays(label_type, test, elements=st.integers(0, classes - 1))),
    }
    np.savez(tmp_path / "any.npz", x_train=x[train], y_train=y["train"], x_test=x[test], y_test=y["test"])
    dataset = load("any", tmp_path)
    np.testing.assert_array_equal(np.rint(dataset.x_train.astype(np.float64) * 255), x[train])
    assert dataset.x_test.min() >= 0
    assert dataset.x_test.max() <= 1
    np.testing.assert_array_equal(dataset.y_train, y["train"])
    np.testing.assert_array_equal(dataset.y_test, y["test"])
    assert dataset.classes == classes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "expected the arrays x_train, y_train, x_test, y_test, got .*; add y_test"),
        ({"y_train": np.array([0, 1])}, r"x_train of shape \[n, ...\].*got \(4, 2, 3\) and \(2,\)"),
        ({"x_test": np.zeros((2, 3, 3), np.uint8)}, "agree in all axes but the first"),
        ({"x_train": np.zeros((0, 2, 3), np.uint8), "y_train": np.zeros(0, int)}, "at least one"),
        ({"x_train": np.zeros(4, np.uint8)}, r"x_train: expected examples \[n, ...\]"),
        (
            {"x_train": np.zeros((4, 2, 3), np.int64)},
            "expected uint8 in 0..255 or floats, got int64; scale",
        ),
        ({"x_train": np.zeros((4, 2, 3), bool)}, "got bool"),
        ({"x_train": np.full((4, 2, 3), "a")}, "got <U1"),
        ({"x_train": np.full((4, 2, 3), 0.5j)}, "got complex128"),
        (
            {"x_train": np.full((4, 2, 3), 1e300)},
            "x_train: expected what float32 can hold, got 1e.300 to 1e.300; scale",
        ),
        ({"x_test": np.full((2, 2, 3), np.nan)}, "x_test: expected finite values"),
        ({"x_test": np.full((2, 2, 3), np.inf)}, "x_test: expected finite values"),
        ({"x_train": np.full((4, 2, 3), None)}, "plain arrays.*Object arrays cannot be loaded"),
        ({"y_train": np.array([0.0, 1.0, 2.0, 1.0])}, "y_train and .*y_test of one kind, got numbers and whole"),
        ({"y_train": np.eye(4, dtype=int)}, r"y_train: expected labels \[n\].*got int64 of shape \(4, 4\)"),
        ({"y_train": np.array([0, 1, 2, 1])}, "expected a training example of every class, got none of 3, which"),
        (
            {"y_train": np.array([0, 2, 2, 3]), "y_test": np.array([3, 0])},
            "from 0 to 2 for 3 classes, got 0, 2, 3; give",
        ),
        ({"y_train": np.array([0, 1, 0, 10**6])}, "for 4 classes, got 0, 1, 3, 1000000; give task='classification'"),
        ({"y_train": np.full(4, "a")}, "of one kind, got whole numbers and words"),
        ({"y_train": np.array([0.5, np.nan, 1, 2]), "y_test": np.ones(2)}, "y_train: expected finite numbers"),
        ({"y_train": np.array([0, -1, 2, 1])}, "y_train: expected labels from 0 up, got -1 to 2"),
        ({"y_train": np.array([0, 2**31, 2, 1])}, "got 0 to 2147483648"),
    ],
)
def test_a_wrong_array_is_named(save, changes, message):
    path = save(**changes)
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=message):
        verify(path)


def test_labels_of_a_known_set_stay_below_its_classes(tmp_path):
    np.savez(tmp_path / "mnist.npz", **{**good(), "y_test": np.array([0, 10])})
    with pytest.raises(ValueError, match="y_test: expected labels from 0 to 9, got 0 to 10"):
        load("mnist", tmp_path)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_a_known_set_that_is_missing_says_how_to_get_it(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"run `vicinal data fetch {name}`, or set VICINAL_DATA"):
        load(name, tmp_path)


@pytest.mark.parametrize("name", ["minst", "", "../own", "a/b", "..", "a\\b"])
def test_an_unknown_name_lists_the_known_ones(tmp_path, name):
    with pytest.raises(ValueError, match=r"expected the name of a data set \(digits, mnist, fashion_mnist, cifar10\)"):
        load(name, tmp_path)


def test_a_missing_path():
    with pytest.raises(FileNotFoundError, match="found none; check the path"):
        load("nowhere/own.npz")


def test_names_are_looked_up_in_the_argument_then_the_environment(save, tmp_path, monkeypatch):
    path = save()
    assert load("own", tmp_path).name == "own"
    monkeypatch.setenv("VICINAL_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    assert load("own").name == load(str(path)).name == "own"
    with pytest.raises(ValueError, match="there is no"):
        load("own", tmp_path / "elsewhere")
    monkeypatch.setenv("VICINAL_DATA", "")
    assert data_folder().name == "vicinal"


@pytest.mark.parametrize("content", [b"", b"PK", b"text", b"\x80\x04N.", np.lib.format.MAGIC_PREFIX + b"\x01\x00"])
def test_something_else_by_the_name_of_an_npz(tmp_path, content):
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(ValueError, match="expected an intact npz file"):
        load(tmp_path / "own.npz")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(data=st.data(), compressed=st.booleans())
def test_a_truncated_file_is_refused(tmp_path, data, compressed):
    path = tmp_path / "own.npz"
    (np.savez_compressed if compressed else np.savez)(path, **good())
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(ValueError, match="expected an intact npz file"):
        load(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=120)
@given(data=st.data())
def test_a_changed_byte_is_noticed_or_harmless(tmp_path, data):
    path = tmp_path / "own.npz"
    np.savez(path, **good())
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        dataset = load(path)
    except (ValueError, DataError):
        pass
    else:
        np.testing.assert_array_equal(np.rint(dataset.x_train * 255), good()["x_train"])
        np.testing.assert_array_equal(dataset.y_test, good()["y_test"])


def test_a_member_with_a_misleading_header_is_refused(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((4, 2, 3), np.uint8))
    member = buffer.getvalue().replace(b"(4, 2, 3)", b"(4, 2, (]")
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        for key in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{key}.npy", member)
    with pytest.raises(ValueError, match="expected an intact npz file"):
        load(tmp_path / "own.npz")


def test_a_pickle_is_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    np.savez(tmp_path / "own.npz", **{**good(), "x_train": np.array([Trap()], object)})
    with pytest.raises(ValueError, match="Object arrays"):
        load(tmp_path / "own.npz")
    assert not (tmp_path / "sprung").exists()


def test_available_looks_into_the_folder(tmp_path):
    (tmp_path / "cifar10.npz").touch()
    entries = {entry.name: entry for entry in available(tmp_path)}
    assert {name: entry.status for name, entry in entries.items()} == {
        "digits": "embedded",
        "mnist": "missing",
        "fashion_mnist": "missing",
        "cifar10": "present",
    }
    assert entries["mnist"].path == tmp_path / "mnist.npz"
    assert entries["digits"].path == PACKAGED
    assert all(entry.credit for entry in entries.values())


def test_verify_summarises(save, tmp_path):
    path = save()
    summary = verify("own", tmp_path)
    assert (summary.name, summary.path, summary.train, summary.test) == ("own", path, 4, 2)
    assert (summary.shape, summary.classes) == ((2, 3), 4)
    assert summary.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_verify_wants_a_known_set_complete(save, tmp_path):
    save().rename(tmp_path / "mnist.npz")
    assert len(load("mnist", tmp_path).x_train) == 4
    with pytest.raises(ValueError, match=r"expected 60000 training and 10000 test examples .* got 4 and 2"):
        verify("mnist", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with b''"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x00", "unsigned bytes"),
        (b"\x00\x00\x08\x00", "bytes"),
        (b"\x00\x00\x08\x02\x00\x00\x00\x01", "bytes"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x02\x05", r"shape \(2,\), got 1 bytes"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x01\x05\x05", r"shape \(1,\), got 2 bytes"),
    ],
)
def test_a_wrong_idx_file_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        read_idx(content)


@given(stn.arrays(np.uint8, stn.array_shapes(max_dims=4, max_side=4)))
def test_idx_reads_what_its_description_says(array):
    content = b"\x00\x00\x08" + bytes([array.ndim])
    content += b"".join(side.to_bytes(4, "big") for side in array.shape) + bytes(array.ravel().tolist())
    np.testing.assert_array_equal(read_idx(content), array)


# Examples of each class are public facts: MNIST's from its label files, the others balanced by design.
@pytest.mark.skipif(not REAL, reason="set VICINAL_DATA to a folder with the real files")
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("mnist", [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
        ("fashion_mnist", [6000] * 10),
        ("cifar10", [5000] * 10),
    ],
)
def test_the_real_files(name, counts):
    if not (Path(REAL) / f"{name}.npz").is_file():
        pytest.skip(f"{name}.npz is not in VICINAL_DATA")
    dataset = load(name, REAL)
    assert np.bincount(dataset.y_train).tolist() == counts
    assert dataset.x_train.dtype == np.float32
    assert (dataset.x_train.min(), dataset.x_train.max()) == (0.0, 1.0)
    if name == "mnist":  # the published mean of the training pixels
        assert dataset.x_train.mean(dtype=np.float64) == pytest.approx(0.1307, abs=5e-5)
    del dataset
    summary = verify(name, REAL)
    assert (summary.train, summary.test) == ({"cifar10": 50000}.get(name, 60000), 10000)
