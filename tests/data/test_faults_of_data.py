"""Data that look right and would be read wrongly: each is read as its owner means it, or refused with the reason."""

import numpy as np
import pytest

from vicinal.data import from_arrays, from_folder, from_frame, load
from vicinal.data.precision import check_apart
from vicinal.data.splitting import rows_of

pandas = pytest.importorskip("pandas")
Image = pytest.importorskip("PIL.Image")

WIDTH = np.arange(8.0) / 2
KIND = ["a", "b"] * 4


def frame(**columns):
    return pandas.DataFrame({"width": WIDTH, **columns, "kind": KIND})


def written(path, text):
    path.write_text(text)
    return path


def drawn(folder, name="0.png", value=0, count=1):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(np.full((2, 3), value, np.uint8)).save(folder / f"{i}{name}")


# ----------------------------------------------------------------------------------------------- what is for testing


@pytest.mark.parametrize("name", ["split", "Split"])
def test_the_words_of_a_split_in_any_case(name):
    data = from_frame(frame(**{name: ["Train", "TEST ", " train", "train", "train", "train", "test", "train"]}))
    np.testing.assert_array_equal(data.x_test, [[0.5], [3.0]])
    assert data.feature_names == ("width",)
    assert rows_of(np.array(["Train", "TEST"]), 2, "an array of a file")[1].tolist() == [1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "test", "valid", "train"] * 2, "words train and test in column 'split', got test, train, valid"),
        ([0, 1, 0, 0] * 2, "got 0, 1; write"),
        ([True, False] * 4, "got false, true; write"),
        (["train", "test", None, "train"] * 2, "got n..e?, test, train; write"),
    ],
)
def test_other_words_of_a_split_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        from_frame(frame(split=words))
    assert from_frame(frame(split=WIDTH * 10)).feature_names == ("width", "split")  # a measurement
    both = frame(split=["train", "test"] * 4)
    with pytest.raises(ValueError, match="test table or a column 'split', got both"):
        from_frame(both, test=both)


def test_folders_for_testing_in_any_case(tmp_path):
    for part, value in (("Train", 10), ("TEST", 20)):
        for kind in ("a", "b"):
            drawn(tmp_path / part / kind, value=value)
    data = from_folder(tmp_path)
    assert data.class_names == ("a", "b")
    np.testing.assert_array_equal(np.rint(255 * data.x_test[:, 0, 0]), [20, 20])
    drawn(tmp_path / "val" / "a")
    with pytest.warns(UserWarning, match="val beside train and test is not read"):
        assert len(from_folder(tmp_path).x_train) == 2
    (tmp_path / "train").mkdir(exist_ok=True)
    if len([*tmp_path.iterdir()]) == 4:  # where names differ by case
        with pytest.raises(ValueError, match="one folder train, got Train and train"):
            from_folder(tmp_path)


@pytest.mark.parametrize("names", [("Training", "Testing"), ("cat", "val"), ("train", "cat")])
def test_classes_that_are_called_like_sets_are_refused(tmp_path, names):
    for name in names:
        drawn(tmp_path / name, count=3)
    wrong = ", ".join(name for name in sorted(names) if name != "cat")
    with pytest.raises(ValueError, match=f"for each class, got {wrong}, which name sets of examples"):
        from_folder(tmp_path)


def test_archives_with_two_of_a_kind(tmp_path):
    x, y = WIDTH[:, None], np.array([0, 1] * 4)
    for held, message in (
        ({"x": x, "X": x, "y": y}, "got x and X; leave"),
        ({"x": x, "y": y, "labels": y}, "got y and labels; leave"),
        ({"x": x, "y": y, "x_train": x, "y_train": y}, "got x, y and x_train, y_train; leave"),
    ):
        np.savez(tmp_path / "own.npz", **held)
        with pytest.raises(ValueError, match=f"own.npz: expected the examples once, {message}"):
            load(tmp_path / "own.npz")
    np.savez(tmp_path / "own.npz", X=x, target=y, x_test=x[:3], y_test=y[:3])
    np.testing.assert_array_equal(load(tmp_path / "own.npz").x_test, x[:3])


def test_bytes_beside_floats_are_refused():
    x, y = np.full((4, 2), 255, np.uint8), [0, 1] * 2
    with pytest.raises(ValueError, match="inputs of one kind, got float64 and uint8, of which only bytes are divided"):
        from_arrays(x / 1.0, y, x, y)
    with pytest.raises(ValueError, match="got uint8 and float64"):
        from_arrays(x, y, x / 1.0, y)
    from_arrays(x / 1.0, y, np.float32(x), y)


# ---------------------------------------------------------------------------------------------------- files of words


@pytest.mark.parametrize(
    "text",
    [
        "w;kind\n1.5;a\n2;b\n-3.25;a\n4;b\n",
        "w;kind\n1,5;a\n2;b\n-3,25;a\n4;b\n",
        "w\tkind\n1.5\ta\n2\tb\n-3.25\ta\n4\tb\n",
    ],
    ids=["points", "commas", "tabs"],
)
def test_points_and_commas_of_numbers(tmp_path, text):
    data = load(written(tmp_path / "own.csv", text), test_share=0.5)
    assert data.feature_names == ("w",)
    assert sorted([*data.x_train[:, 0], *data.x_test[:, 0]]) == [-3.25, 1.5, 2, 4]


def test_a_first_line_of_values_is_refused(tmp_path):
    rows = "\n4.9,3.0,1.4,0.2,rose\n4.7,3.2,1.3,0.2,iris\n5.0,3.1,1.2,0.3,rose\n4.0,3.2,1.3,0.1,iris\n"
    with pytest.raises(ValueError, match="a first line with the names of the columns, got numbers; add one"):
        load(written(tmp_path / "own.csv", "5.1,3.5,0.2,0.2,iris" + rows))
    for names in (["0", "1", "2", "3", "label"], ["2019", "2020", "2021", "2022", "kind"], ["a", "b", "c", "2.5", "e"]):
        data = load(written(tmp_path / "own.csv", ",".join(names) + rows), test_share=0.5)
        assert data.feature_names == tuple(names[:4])
    with pytest.raises(ValueError, match="got numbers; add one"):
        load(written(tmp_path / "own.csv", "0.5,0.5,0.5,0.5,iris" + rows))  # pandas: 0.5, 0.5.1, ...
    waves = "400.5,401,402.5,403,404,405.5,kind\n" + "1,2,3,4,5,6,a\n1,2,3,4,5,7,b\n" * 4
    assert load(written(tmp_path / "own.csv", waves)).shape == (6,)


def test_a_column_of_row_numbers_is_left_out(tmp_path):
    shuffled = frame().sample(frac=1, random_state=0)
    shuffled.to_csv(tmp_path / "own.csv")
    assert load(tmp_path / "own.csv").feature_names == ("width",)
    read = pandas.read_csv(tmp_path / "own.csv")
    assert read.columns[0] == "Unnamed: 0"
    assert from_frame(read, test=read).feature_names == ("width",)


def test_blanks_make_no_class_and_no_input(tmp_path):
    rows = "".join(f"{i},{colour},{kind}\n" for i, (colour, kind) in enumerate([(" red", "a"), ("red ", " b")] * 2))
    rows += "".join(f"{i},blue,{kind}\n" for i, kind in enumerate(["a ", "b"] * 2))
    data = load(written(tmp_path / "own.csv", "w, colour, kind\n" + rows), target="kind")
    assert (data.class_names, data.feature_names) == (("a", "b"), ("w", "colour=blue", "colour=red"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: f.assign(width=np.where(WIDTH > 1, WIDTH, np.inf)),
            "column 'width': expected finite numbers, got inf",
        ),
        (
            lambda f: f.assign(kind=["NA", None] * 4),
            "column 'kind': .*it reads NA, None, null and empty cells as missing",
        ),
        (
            lambda f: f.assign(kind=np.arange(8) * 100),
            "target 'kind': .*got 8 examples of as many classes; give task='reg",
        ),
        (lambda f: f.assign(kind=7), "target 'kind': expected at least two classes, got only 7"),
        (
            lambda f: f.assign(width=1_700_000_000 + np.arange(8)),
            "'width': expected numbers that float32 distinguishes",
        ),
        (lambda f: f.assign(c=["u", "v"] * 4, **{"c=u": WIDTH}), "inputs of different names, got 'c=u' twice; rename"),
    ],
    ids=["infinity", "missing", "prices", "one class", "seconds", "names"],
)
def test_tables_that_are_refused_by_the_name_of_the_column(change, message):
    with pytest.raises(ValueError, match=message):
        from_frame(change(frame()), target="kind")


# --------------------------------------------------------------------------------------------------- numbers and names


def test_numbers_that_float32_cannot_tell_apart():
    seconds = 1.7e9 + np.arange(60.0)[:, None]  # steps of float32 are 128 s wide there
    with pytest.raises(
        ValueError, match=r"x: .*got 60 from 1700000000 to 1700000059, of which it keeps 1; subtract an"
    ):
        from_arrays(seconds, [0, 1] * 30)
    with pytest.raises(ValueError, match="to 1700000059 in column 1, of which"):
        check_apart(np.concatenate([seconds - 1.7e9, seconds], axis=1), "x")
    for y in (seconds, seconds[:, 0].astype(int)):
        with pytest.raises(ValueError, match=r"y: expected numbers that float32 distinguishes"):
            from_arrays(seconds - 1.7e9, y, task="regression")
    days = 1.7e9 + 86400 * np.arange(60.0)[:, None]
    from_arrays(days, [0, 1] * 30)
    check_apart(128 * np.arange(4.0) + 2.0**30, "steps of float32 itself")
    check_apart(np.array([0.3, 0.1 + 0.2]), "one number, but for its last bit")
    check_apart(np.full(3, 1.7e9), "one number")
    check_apart(np.float32(seconds), "already float32")


def test_class_names_are_used_whatever_the_targets_are():
    def names(y, given, task=None):
        data = from_arrays(np.arange(8.0)[:, None], y, class_names=given, task=task, test_share=0.5)
        rows = np.argsort(np.concatenate([data.x_train, data.x_test])[:, 0])
        labels = np.concatenate([data.y_train, data.y_test])[rows]
        assert data.classes == len(data.class_names)
        return [data.class_names[label] for label in labels[:2]], data.class_names

    assert names([True, False] * 4, ["no", "yes"]) == (["yes", "no"], ("no", "yes"))
    assert names([-1, 1] * 4, ["down", "up"], "classification") == (["down", "up"], ("down", "up"))
    assert names([2, 0] * 4, ["a", "b", "c"], "classification") == (["c", "a"], ("a", "b", "c"))
    assert names(["dog", "cat"] * 4, ["dog", "cow", "cat"]) == (["dog", "cat"], ("dog", "cow", "cat"))
    for y, given, task in (
        ([True, False] * 4, ["no", "yes", "both"], None),
        ([-1, 1] * 4, ["down"], "classification"),
        (["dog", "cat"] * 4, ["Dog", "Cat"], None),
    ):
        with pytest.raises(ValueError, match=r"y: expected class_names for the 2 classes .*, got"):
            names(y, given, task)


def test_names_of_floats_stay_apart():
    data = from_arrays(WIDTH[:, None], [1234567.0, 1234568.0] * 4, task="classification")
    assert data.class_names == ("1234567.0", "1234568.0")


def test_photographs_are_turned_as_their_camera_says(tmp_path):
    upright = np.repeat(np.array([[0], [250]], np.uint8), 16, axis=0).repeat(16, axis=1)  # [32, 16], dark above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
        for i in range(2):
            Image.fromarray(np.rot90(upright)).save(tmp_path / kind / f"{i}.jpg", exif=exif, quality=95)
    data = from_folder(tmp_path, test_share=0.5)
    assert data.shape == (32, 16)
    assert data.x_train[0, :14].max() < 0.1 < 0.9 < data.x_train[0, 18:].min()
