"""Datasets of Hugging Face: the same batches, bit for bit, as from a pair of arrays; or a sentence."""

import numpy as np
import pytest
from given_builders import KEY, X, Y, batches, same, train

import vicinal as vc
from vicinal.data import epoch_order


@pytest.fixture(scope="module")
def plain():
    return train((X, Y), epochs=2)


@pytest.fixture(scope="module")
def hugging_face():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"pixels": datasets.Sequence(datasets.Value("float32"), length=4), "label": datasets.ClassLabel(names=[*"abc"])}
    )
    return datasets, datasets.Dataset.from_dict({"pixels": X.tolist(), "label": Y.tolist()}, features=features)


def test_hugging_face_in_the_order_of_arrays(plain, hugging_face, tmp_path):
    _, data = hugging_face
    same(train(data, epochs=2), plain)
    found = vc.data.from_hugging_face(data, batch_size=7)
    assert found.class_names == ("a", "b", "c")
    assert [len(y) for _, y in found] == [7, 7, 7, 7, 2]
    for got, expected in zip(found.collected(), (X, Y), strict=True):
        np.testing.assert_array_equal(got, expected)
    mixed = vc.data.from_hugging_face(data, "pixels", "label", batch_size=7, key=KEY)
    order = np.asarray(epoch_order(KEY, 3, 30))
    np.testing.assert_array_equal(np.concatenate([y for _, y in mixed.epoch(3, 1)]), Y[order[7:28]])
    train(data, epochs=1, folder=tmp_path)
    same(train(data, epochs=2, folder=tmp_path, resume=True), plain)


def test_hugging_face_splits_and_streams(hugging_face):
    datasets, data = hugging_face
    splits = datasets.DatasetDict({"train": data, "validation": data.select(range(20)), "test": data.select(range(12))})
    run = train(splits, epochs=1)
    expected = train((X, Y), epochs=1, validation=(X[:20], Y[:20]), test=(X[:12], Y[:12]))
    for name in ("validation_loss", "test_loss", "test_accuracy"):
        assert run.records[-1][name] == pytest.approx(expected.records[-1][name], rel=1e-6)
    stream = data.to_iterable_dataset()
    same(train(stream, steps=6, evaluate_every=3), train(iter(batches() * 2), steps=6, evaluate_every=3))
    with pytest.raises(TypeError, match="expected one split, got train, validation, test; choose one"):
        vc.data.from_hugging_face(splits)


def test_hugging_face_columns(hugging_face):
    datasets, _ = hugging_face
    table = datasets.Dataset.from_dict(
        {
            "a": [1, 2],
            "b": [0.5, 1.5],
            "word": ["u", "v"],
            "hole": [1.0, None],
            "y": [0.25, 4.0],
            "ragged": [[1], [1, 2]],
        }
    )
    x, y = vc.data.from_hugging_face(table, ["a", "b"], "y").collected()
    np.testing.assert_array_equal(x, [[1, 0.5], [2, 1.5]])
    assert (y.tolist(), x.dtype, y.dtype) == ([[0.25], [4.0]], np.float32, np.float32)
    tokens = datasets.Dataset.from_dict({"ids": [[1, 2], [3, 4]], "label": [0, 1]})
    assert vc.data.from_hugging_face(tokens).collected()[0].dtype == np.int32
    for names, message in (
        (["a", "word"], "column 'word', got words"),
        ("hole", "column 'hole', got NaN, infinity or missing"),
        ("ragged", "column 'ragged', got values of different shapes"),
        ("c", "inputs among the columns a, b, .*, got 'c'"),
    ):
        with pytest.raises(ValueError, match=message):
            vc.data.from_hugging_face(table, names, "y").collected()
    with pytest.raises(ValueError, match=r"column 'word', got words; .*class_encode_column"):
        vc.data.from_hugging_face(table, ["a"], "word").collected()
    late = datasets.Dataset.from_dict({"ms": [1_700_000_000_123, 5], "s": [1_700_000_000, 1_700_000_009], "y": [0, 1]})
    for name, message in (
        ("ms", "int32 can hold in column 'ms', got 5 to 1700000000123"),
        ("s", "column 's': .*float32"),
    ):
        with pytest.raises(ValueError, match=message):
            vc.data.from_hugging_face(late, name, "y").collected()
    with pytest.raises(TypeError, match=r"expected a datasets.Dataset or datasets.IterableDataset, got list"):
        vc.data.from_hugging_face([1])


def test_hugging_face_images(hugging_face):
    datasets, _ = hugging_face
    image = pytest.importorskip("PIL.Image")
    pictures = [image.fromarray(np.full((2, 3), value, np.uint8)) for value in (51, 255)]
    data = datasets.Dataset.from_dict({"image": pictures, "label": [0, 1]})
    x, _ = vc.data.from_hugging_face(data.cast_column("image", datasets.Image())).collected()
    np.testing.assert_array_equal(x, np.stack([np.full((2, 3), value, np.float32) for value in (0.2, 1)]))
