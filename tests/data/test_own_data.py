"""Data as people have them: arrays, tables and folders of images, with labels, names or numbers to predict."""

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from vicinal.data import DataError, Dataset, from_arrays, from_folder, from_frame, load, split_rows, verify
from vicinal.data.splitting import rows_of

pandas = pytest.importorskip("pandas")
Image = pytest.importorskip("PIL.Image")


def rows(n, columns=2):
    return np.arange(n * columns, dtype=np.float64).reshape(n, columns) - 5


# ----------------------------------------------------------------------------------------------- what targets mean


@pytest.mark.parametrize(
    ("y", "expected", "names"),
    [
        (["b", "a", "b", "c"] * 2, [1, 0, 1, 2] * 2, ("a", "b", "c")),
        (np.array([b"b", b"a"] * 4), [1, 0] * 4, ("a", "b")),
        (np.array(["b", "a"] * 4, object), [1, 0] * 4, ("a", "b")),
        (np.array([True, False] * 4), [1, 0] * 4, ("False", "True")),
        ([1, 0, 2, 1] * 2, [1, 0, 2, 1] * 2, None),
        ([[1], [0]] * 4, [1, 0] * 4, None),
        (np.eye(4)[[1, 0, 2, 1] * 2], [1, 0, 2, 1] * 2, None),  # one-hot
        (np.eye(4, dtype=bool)[[1, 0, 2, 1] * 2].astype(np.int8), [1, 0, 2, 1] * 2, None),
    ],
    ids=["words", "bytes", "objects", "truth", "labels", "column", "one-hot", "whole one-hot"],
)
def test_labels(y, expected, names):
    data = from_arrays(rows(8), y, test_rows=[0, 1, 2, 3, 4])
    whole = np.concatenate([data.y_test, data.y_train])
    np.testing.assert_array_equal(whole, expected)
    assert whole.dtype == np.int32
    assert data.class_names == names
    assert data.classes == (4 if np.ndim(y) == 2 and np.shape(y)[1] == 4 else max(expected) + 1)


@pytest.mark.parametrize(
    ("y", "shape"),
    [
        (np.linspace(-3, 1e6, 8), (1,)),
        (np.linspace(-3, 1e6, 8)[:, None], (1,)),
        (np.arange(24.0).reshape(8, 3), (3,)),
        (np.array([[1, 0, 1], [0, 1, 1]] * 4), (3,)),  # several truths of one example
        (np.array([0.0, 1.0] * 4), (1,)),
    ],
    ids=["row", "column", "many", "truths", "whole floats"],
)
def test_numbers_to_predict(y, shape):
    data = from_arrays(rows(8), y)
    assert (data.classes, data.class_names, data.y_train.dtype) == (None, None, np.float32)
    assert data.y_train.shape[1:] == data.y_test.shape[1:] == shape
    whole = np.sort(np.concatenate([data.y_train, data.y_test]).ravel())
    np.testing.assert_array_equal(whole, np.sort(np.float32(y).ravel()))


def test_a_word_says_what_whole_numbers_are():
    y = [0, 1_000_000] * 4
    data = from_arrays(rows(8), y, task="classification")
    assert (data.classes, data.class_names) == (2, ("0", "1000000"))
    assert set(data.y_train) == {0, 1}
    assert from_arrays(rows(8), [-1.0, 1.0] * 4, task="classification").class_names == ("-1", "1")
    numbers = from_arrays(rows(8), y, task="regression")
    assert (numbers.classes, numbers.y_train.shape[1:], numbers.y_train.max()) == (None, (1,), 1e6)


def test_class_names_allow_for_classes_without_examples(tmp_path):
    data = from_arrays(rows(8), [0, 2] * 4, class_names=["a", "b", "c"])
    assert (data.classes, data.class_names) == (3, ("a", "b", "c"))
    np.savez(tmp_path / "own.npz", X=rows(8), target=np.array([0, 2] * 4), class_names=np.array(["a", "b", "c"]))
    assert load(tmp_path / "own.npz").class_names == ("a", "b", "c")
    with pytest.raises(ValueError, match="expected labels from 0 to 1, got 0 to 2"):
        from_arrays(rows(8), [0, 2] * 4, class_names=["a", "b"])


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        ([0, 2] * 4, {}, "labels from 0 to 1 for 2 classes, got 0, 2; give task='classification'"),
        ([0, 10**6] * 4, {}, "got 0, 1000000; give"),
        ([1, 2] * 4, {}, "got 1, 2; give task='classification'"),
        (
            [-1, 1] * 4,
            {},
            "expected labels from 0 up, got -1 to 1; number the classes from 0, or give task='classification'",
        ),
        (["a"] * 8, {}, "at least two classes, got only a"),
        (["a", ""] * 4, {}, "a label for every example, got an empty word"),
        (["a", None] * 4, {}, "a target for every example, got missing ones"),
        (np.array(["a", 1] * 4, object), {}, "words or numbers, got both"),
        (np.arange(24).reshape(8, 3), {}, r"one-hot rows \[n, classes\] or floats, got int64 of shape \(8, 3\)"),
        ([0.5, np.inf] * 4, {}, "expected finite numbers"),
        ([0.5, np.nan] * 4, {"task": "classification"}, "a label for every example, got NaN"),
        (["a", "b"] * 4, {"task": "regression"}, "expected numbers, got words"),
        (["a", "b"] * 4, {"task": "words"}, "expected the task as 'classification' or 'regression', got 'words'"),
        ([1j] * 8, {}, "words, integer labels or floats, got complex128"),
        ([0, 1] * 3, {}, "one target for each example, got 8 and 6"),
        ([0, 0, 0, 0, 0, 0, 0, 1], {"test_rows": [7]}, "training example of every class, got none of 1"),
        ([0, 1] * 4, {"test_rows": [1], "test_share": 0.1}, "either test rows or a test share"),
        ([0, 1] * 4, {"test_share": 0.01}, "leaves examples on both sides, got 0.01 of 8 examples"),
        ([0, 1] * 4, {"test_share": 1}, "a share of the examples above 0 and below 1, got 1"),
        (list(range(8)), {}, "a class with at least two examples, got 8 examples of as many classes"),
    ],
)
def test_wrong_targets(y, options, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(rows(8), y, **options)


# ----------------------------------------------------------------------------------------------- what is for testing


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(2, 40), min_size=1, max_size=6), st.floats(0.05, 0.95))
@example([2, 2, 17], 0.75)  # the large class gives more than its share rounded up
def test_a_share_of_each_class_is_set_aside(counts, share):
    labels = np.repeat(np.arange(len(counts)), counts)
    n = len(labels)
    wanted = int(np.floor(share * n + 0.5))
    if not 1 <= wanted < n:
        return
    kept, aside = split_rows(n, share, labels)
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, aside])), np.arange(n))
    room = sum(count - 1 for count in counts)
    assert len(aside) == min(wanted, room)
    drawn = np.bincount(labels[aside], minlength=len(counts))
    if all(share * count <= count - 1 for count in counts):
        assert (np.abs(drawn - np.array(counts) * wanted / n) <= 1).all()  # its share, rounded down or up
    assert (np.bincount(labels[kept], minlength=len(counts)) >= 1).all()
    np.testing.assert_array_equal(split_rows(n, share, labels)[1], aside)


def test_the_rows_are_mixed_and_depend_on_the_seed():
    first, second = (split_rows(1000, 0.5, seed=seed)[1] for seed in (0, 1))
    assert len(first) == 500
    assert not np.array_equal(first, second)
    assert 200 < (first < 500).sum() < 300


@pytest.mark.parametrize(
    "chosen",
    [[True, False, False, True], [1, 0, 0, 1], ["test", "train", "train", "test"], [3, 0]],
    ids=["truth", "ones", "words", "indices"],
)
def test_a_file_says_what_is_for_testing(tmp_path, chosen):
    np.savez(tmp_path / "own.npz", x=rows(4), y=np.array([0, 0, 1, 1]), split=np.array(chosen))
    data = load(tmp_path / "own.npz")
    np.testing.assert_array_equal(data.x_test, np.float32(rows(4)[[0, 3]]))
    np.testing.assert_array_equal(data.y_train, [0, 1])
    assert data.credit == "own.npz: a file of the user's own"
    assert verify(tmp_path / "own.npz").test == 2
    with pytest.raises(ValueError, match="either test rows or a test share"):
        load(tmp_path / "own.npz", test_share=0.5)


@pytest.mark.parametrize(
    "chosen", [[2, 2], [0, 4], [-1], [0.5], ["train", "later", "test", "test"], [True, False], [[0]]], ids=str
)
def test_what_does_not_say_what_is_for_testing(chosen):
    with pytest.raises(ValueError, match="split: expected which of the 4 examples are for testing"):
        rows_of(np.array(chosen), 4, "split")
    with pytest.raises(ValueError, match="for training and for testing, got 0"):
        rows_of(np.zeros(4, bool), 4, "split")


def test_a_share_is_drawn_where_nothing_says_it(tmp_path):
    np.savez(tmp_path / "own.npz", X=rows(20), y=np.array(["no", "yes"] * 10))
    data = load(tmp_path / "own.npz")
    assert np.bincount(data.y_test).tolist() == [2, 2]
    assert data.credit.endswith("own; 20 % of the examples, drawn at random from each class, are for testing")
    np.testing.assert_array_equal(load(tmp_path / "own.npz").x_test, data.x_test)
    assert len(load(tmp_path / "own.npz", test_share=0.5).x_test) == 10
    whole = np.sort(np.concatenate([data.x_train, data.x_test])[:, 0])
    np.testing.assert_array_equal(whole, rows(20)[:, 0])  # nothing is lost, nothing comes twice
    np.savez(tmp_path / "halves.npz", x_train=rows(20), y_train=np.linspace(0, 1, 20))
    assert load(tmp_path / "halves.npz").credit.endswith("drawn at random, are for testing")
    with pytest.raises(ValueError, match="digits: expected no test_share"):
        load("digits", test_share=0.5)


def test_standardized_by_hand():
    x, y = np.array([[1.0, 3.0], [3.0, 3.0], [8.0, 3.0]]), np.array([[10.0], [20.0], [60.0]])
    data = from_arrays(x[:2], y[:2], x[2:], y[2:]).standardized(targets=True)
    np.testing.assert_array_equal(data.x_train, [[-1, 0], [1, 0]])
    np.testing.assert_array_equal(data.x_test, [[6, 0]])  # (8 - 2) / 1; what never changes says nothing
    np.testing.assert_array_equal(data.y_test, [[9]])  # (60 - 15) / 5
    with pytest.raises(ValueError, match="got labels; standardize only inputs"):
        from_arrays(rows(8), [0, 1] * 4).standardized(targets=True)


# ----------------------------------------------------------------------------------------------------------- tables


def table(n=20):
    return pandas.DataFrame(
        {
            "width": np.linspace(-1, 30, n),
            "count": np.arange(n) % 7,
            "wild": np.arange(n) % 2 == 0,
            "colour": np.array(["red", "blue", "green", "blue"] * 5)[:n],
            "kind": np.array(["a", "b"] * 10)[:n],
        }
    )


WRITTEN = {
    "own.csv": lambda frame, path: frame.to_csv(path, index=False),
    "counted.csv": lambda frame, path: frame.to_csv(path),
    "german.csv": lambda frame, path: frame.to_csv(path, index=False, sep=";", decimal=","),
    "own.tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "own.parquet": lambda frame, path: frame.to_parquet(path),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_table_is_read(tmp_path, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    WRITTEN[name](table(), tmp_path / name)
    data = load(str(tmp_path / name))
    assert data.feature_names == ("width", "count", "wild", "colour=blue", "colour=green", "colour=red")
    assert (data.class_names, data.name) == (("a", "b"), name.partition(".")[0])
    width = np.concatenate([data.x_train, data.x_test])[:, 0]
    row = np.array([np.argmin(np.abs(np.linspace(-1, 30, 20) - value)) for value in width])
    np.testing.assert_allclose(width, np.linspace(-1, 30, 20)[row], rtol=1e-6)
    colours = np.array(["blue", "green", "red"])
    np.testing.assert_array_equal(
        np.concatenate([data.x_train, data.x_test])[:, 1:],
        np.stack([row % 7, row % 2 == 0, *(table()["colour"].to_numpy()[row] == colours[:, None])], axis=1),
    )
    np.testing.assert_array_equal(np.concatenate([data.y_train, data.y_test]), row % 2)
    summary = verify(tmp_path / name)
    assert (summary.train, summary.test, summary.class_names) == (16, 4, ("a", "b"))


def test_which_column_is_the_target():
    frame = table()
    assert from_frame(frame, "width").classes is None
    assert from_frame(frame, "width").feature_names[-2:] == ("kind=a", "kind=b")
    assert from_frame(frame.rename(columns={"wild": "Target"})).class_names == ("False", "True")
    assert from_frame(frame, target="colour").class_names == ("blue", "green", "red")
    with pytest.raises(ValueError, match="the target among width, count, wild, colour, kind, got 'size'"):
        from_frame(frame, target="size")
    with pytest.raises(ValueError, match="one target, got y and label; give target="):
        from_frame(frame.rename(columns={"wild": "label", "width": "y"}))


def test_which_columns_are_inputs(tmp_path):
    data = from_frame(table(), target="kind", inputs=["wild", "width"])
    assert data.feature_names == ("wild", "width")
    table().assign(name=[f"id{i}" for i in range(20)]).to_csv(tmp_path / "own.csv", index=False)
    assert load(tmp_path / "own.csv", target="kind", inputs=["count"]).shape == (1,)
    assert from_frame(table(), target="kind", inputs="count").feature_names == ("count",)
    with pytest.raises(
        ValueError, match=r"got 20 in 20 rows, such as 'id0'; leave the column out \(inputs=, --inputs\)"
    ) as caught:
        load(tmp_path / "own.csv", target="kind")
    assert "column 'name'" in str(caught.value)
    for wrong in ("size", "kind"):
        with pytest.raises(ValueError, match=f"inputs among the columns beside 'kind', got '{wrong}'"):
            from_frame(table(), target="kind", inputs=["width", wrong])


def test_tables_say_what_is_for_testing():
    frame = table().assign(split=["train"] * 15 + ["test"] * 5)
    data = from_frame(frame, target="kind")
    np.testing.assert_allclose(data.x_test[:, 0], frame["width"][15:], rtol=1e-6)
    assert "split" not in "".join(data.feature_names)
    data = from_frame(table()[:15], test=table()[15:], target="kind")
    np.testing.assert_allclose(data.x_test[:, 0], frame["width"][15:], rtol=1e-6)
    with pytest.raises(ValueError, match="same columns in both tables, got split in only one"):
        from_frame(frame, test=table(), target="kind")


def with_words(count):
    return lambda frame: frame.assign(colour=[f"id{i % count}" for i in range(20)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: f.assign(width=f["width"].where(f["width"] > 5)),
            "column 'width': .* every row, got none in 4 of 20",
        ),
        (lambda f: f.assign(kind=f["kind"].where(f["width"] > 5)), "column 'kind': expected a value in every row"),
        (lambda f: f.assign(width=pandas.Timestamp("2024-01-01")), "'width': expected numbers, truth values or words"),
        (lambda f: f.assign(width=["1"] * 19 + [2]), "truth values or words, got object; convert or"),
        (lambda f: f[["kind"]], "expected columns beside the target 'kind', got none"),
        (lambda f: f[:0], "expected rows"),
        (
            lambda f: pandas.concat([with_words(20)(f), f]),
            "at most 20 different words .*, got 23 in 40 rows, such as 'blue'; leave",
        ),
    ],
)
def test_wrong_tables(change, message):
    with pytest.raises(ValueError, match=message):
        from_frame(change(table()), target="kind")


def test_files_that_are_no_tables(tmp_path):
    path = tmp_path / "own.csv"
    with pytest.raises(FileNotFoundError, match="found none"):
        load(path)
    wrong = {b"": "a table at", b"\xff\xfe\x00": "a table at", b'a,b\n1,2,3,4\n5\n"': "a table at"}
    for content, message in (wrong | {b"1,2,0\n3,4,1\n": "a first line with the names"}).items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load(path)
    with pytest.raises(TypeError, match="expected a pandas DataFrame, got ndarray"):
        from_frame(np.ones((3, 3)))
    table().to_csv(path)
    with pytest.raises(ValueError, match="expected no image_size, which these data do not read"):
        load(path, image_size=(2, 2))
    assert issubclass(DataError, OSError)


# ---------------------------------------------------------------------------------------------------------- images


def draw(folder, name, value, size=(2, 3), mode="L"):
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*size, 3) if mode == "RGB" else size, value, np.uint8)
    Image.fromarray(pixels).save(folder / name)


@pytest.fixture
def pets(tmp_path):
    for i in range(5):
        draw(tmp_path / "pets" / "cat", f"{i}.png", i)
        draw(tmp_path / "pets" / "dog", f"{i}.png", 100 + i)
    return tmp_path / "pets"


def test_a_folder_of_images(pets):
    (pets / "cat" / "notes.txt").write_text("not an image")
    data = load(str(pets))
    assert (data.name, data.shape, data.class_names) == ("pets", (2, 3), ("cat", "dog"))
    assert (len(data.x_train), len(data.x_test)) == (8, 2)
    value = np.rint(255 * np.concatenate([data.x_train, data.x_test])[:, 1, 2]).astype(int)
    assert sorted(value) == [0, 1, 2, 3, 4, 100, 101, 102, 103, 104]
    np.testing.assert_array_equal(np.concatenate([data.y_train, data.y_test]), value >= 100)
    summary = verify(pets)
    assert (summary.train, summary.sha256) == (8, None)
    assert from_folder(pets, image_size=(4, 5)).shape == (4, 5)


def test_a_folder_with_a_folder_for_testing(tmp_path):
    for part, offset in (("train", 0), ("test", 50)):
        draw(tmp_path / part / "a", "1.png", offset, mode="RGB")
        draw(tmp_path / part / "b", "1.png", offset + 9, mode="RGB")
    data = from_folder(tmp_path)
    np.testing.assert_array_equal(np.rint(255 * data.x_test[:, 0, 0]), [[50] * 3, [59] * 3])
    assert isinstance(data, Dataset)
    with pytest.raises(ValueError, match="expected no test share"):
        from_folder(tmp_path, test_share=0.1)


def test_folders_that_are_no_data_set(pets, tmp_path):
    with pytest.raises(FileNotFoundError, match="a folder of images at"):
        from_folder(tmp_path / "none")
    with pytest.raises(ValueError, match=r"at least two .*got 0 folders"):
        from_folder(pets / "cat")
    with pytest.raises(ValueError, match="an image size as height and width in pixels, got 3"):
        from_folder(pets, image_size=3)
    draw(pets / "cat", "9.png", 1, size=(5, 5))
    with pytest.raises(ValueError, match=r"one size and mode, got 2x3 grey and 5x5 grey \(9.png\); give image_size"):
        from_folder(pets)
    draw(pets / "cat", "9.png", 1, mode="RGB")
    with pytest.raises(ValueError, match=r"2x3 grey and 2x3 colour \(9.png\); convert them all"):
        from_folder(pets)
    (pets / "cat" / "9.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"expected an image at .*9\.png, got"):
        from_folder(pets)
    (pets / "bird").mkdir()
    with pytest.raises(ValueError, match="got none in bird"):
        from_folder(pets)
