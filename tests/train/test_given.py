"""Whatever people call data: the same batches, bit for bit, as from a pair of arrays; or a sentence."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.sparse
from given_builders import KEY, SGD, X, Y, batches, same, train

import vicinal as vc
from vicinal.data import Batches, Dataset
from vicinal.train import fit, sweep
from vicinal.train.given import given


@pytest.fixture(scope="module")
def plain():
    return train((X, Y), epochs=2)


@pytest.mark.parametrize(
    "data",
    [
        [X, Y],
        {"x": X, "y": Y},
        {"X": X, "target": Y},
        {"x_train": X, "y_train": Y, "class_names": np.array(["a", "b", "c"])},
        (jnp.asarray(X), jnp.asarray(Y)),
        (X.astype(np.float64), Y.astype(np.int64)),
    ],
    ids=["list", "dictionary", "names", "train", "jax", "wide"],
)
def test_arrays_of_all_sorts(plain, data):
    same(train(data, epochs=2), plain)


def test_pandas_and_torch(plain):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd")).assign(kind=Y)
    same(train((frame[[*"abcd"]], frame["kind"]), epochs=2), plain)
    made = vc.data.from_frame(frame, target="kind")
    same(train(frame, epochs=2), train(made, epochs=2))
    same(train(frame, epochs=2, test=frame[5:15]), train((X, Y), epochs=2, test=(X[5:15], Y[5:15])))
    with pytest.raises(TypeError, match="expected test as a DataFrame too, got tuple"):
        train(frame, epochs=1, test=(X, Y))
    with pytest.raises(TypeError, match=r"expected test as a pair of arrays .x, y., got a DataFrame"):
        train((X, Y), epochs=1, test=frame)


def test_torch(plain):
    torch = pytest.importorskip("torch")
    x, y = torch.tensor(X), torch.tensor(Y)
    utils = torch.utils.data
    same(train((x.requires_grad_(), y), epochs=2), plain)
    same(train(utils.TensorDataset(x, y), epochs=2), plain)
    loader = utils.DataLoader(utils.TensorDataset(x.detach(), y), batch_size=10)
    same(train(loader, epochs=2, test=loader), train(batches(), epochs=2, test=batches()))

    class Own(utils.Dataset):
        def __getitem__(self, index):
            return x[index], y[index]

        def __len__(self):
            return 30

    with pytest.raises(TypeError, match="got Own, a PyTorch Dataset, which gives examples; wrap it"):
        train(Own(), epochs=1)
    same(train(utils.DataLoader(Own(), batch_size=10), epochs=2), train(batches(), epochs=2))


def test_shuffled_loaders_resume_where_they_were(tmp_path):
    torch = pytest.importorskip("torch")

    def loader():  # as a new process makes it
        data = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
        generator = torch.Generator().manual_seed(3)
        return torch.utils.data.DataLoader(data, batch_size=10, shuffle=True, generator=generator)

    whole = train(loader(), steps=8, evaluate_every=4)
    for i, wrapped in enumerate((lambda given: given, vc.data.batches)):  # three batches a pass: 4 is inside the second
        train(wrapped(loader()), steps=4, evaluate_every=4, folder=tmp_path / str(i))
        same(train(wrapped(loader()), steps=8, evaluate_every=4, folder=tmp_path / str(i), resume=True), whole)


def test_torch_is_not_imported_for_others():
    code = "import sys, vicinal as vc, numpy as np; from vicinal.train.given import given;"
    code += "given((np.ones((2, 2)), np.ones(2)), None, None, batch_size=1, key=None);"
    code += "assert not {'torch', 'pandas', 'datasets', 'PIL'} & set(sys.modules)"
    import subprocess

    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_output_unit_wants_a_column():
    model = vc.nn.MLP((4, 5, 1), key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"got float32\[\]; for one output unit write y\[:, None\]"):
        fit(vc.rules.Backprop(loss=vc.losses.squared_error), model, SGD, (X, X[:, 0]), key=KEY, epochs=1, batch_size=5)


def test_dictionaries_of_arrays_are_inputs():
    x = {"left": X[:, :2], "right": X[:, 2:]}

    class Joined(vc.nn.MLP):
        def __call__(self, x):
            return super().__call__(jnp.concatenate([x["left"], x["right"]]))

    own = Joined((4, 5, 3), key=jax.random.key(0))
    run = fit(vc.rules.Backprop(), own, SGD, (x, Y), key=KEY, epochs=2, batch_size=10, progress=False, test=(x, Y))
    expected = train((X, Y), epochs=2, test=(X, Y))
    for one, other in zip(jax.tree.leaves(run.model), jax.tree.leaves(expected.model), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


# -------------------------------------------------------------------------------------------- batches and their length


def test_iterables_with_a_length_have_epochs():
    run = train(batches(), epochs=2)
    assert [(record["step"], record["epoch"]) for record in run.records] == [(3, 1.0), (6, 2.0)]
    same(train([{"x": x, "y": y} for x, y in batches()], epochs=2), run)
    same(train(vc.data.batches(batches()), epochs=2), run)
    with pytest.raises(ValueError, match="expected steps with an iterable of batches that has no length, got epochs"):
        train(iter(batches()), epochs=1)


def test_a_length_that_is_wrong_is_noticed():
    class Wrong(list):
        def __len__(self):
            return 30  # of examples, not of batches

    with pytest.raises(ValueError, match="expected the 30 batches of the iterable's length, got 3 in a pass"):
        train(Wrong(batches()), epochs=1)
    same(train(Wrong(batches()), steps=6), train(batches(), steps=6))  # where nobody asks, it does not matter


def test_passes_may_differ_and_resume_where_they_were(tmp_path):
    begun = []

    def shuffled(number):
        begun.append(number)
        order = np.random.default_rng(number).permutation(30)
        return iter(batches(10, X[order], Y[order]))

    whole = train(vc.data.batches(shuffled), steps=8, evaluate_every=4)
    assert begun[:3] == [0, 1, 2]
    train(vc.data.batches(shuffled), steps=4, evaluate_every=4, folder=tmp_path)
    resumed = train(vc.data.batches(shuffled), steps=8, evaluate_every=4, folder=tmp_path, resume=True)
    same(resumed, whole)


def test_passes_of_known_length_are_not_read_again():
    read = []

    def begin(number, skip):
        for i in range(skip, 3):
            read.append((number, i))
            yield batches()[i]

    source = sys.modules["vicinal.train.batches"].IterableSource(Batches(begin, 3))
    source.example()
    held, index, count = source.chunk(7, 2)
    assert read == [(0, 0), (2, 1), (2, 2)]
    np.testing.assert_array_equal(held.get(jnp.int32(index))[1], Y[10:20])
    assert count == 2


def test_columns_by_name():
    rows = [{"pixels": x, "digit": y, "id": np.arange(len(y))} for x, y in batches()]
    found = vc.data.batches(rows, inputs="pixels", target="digit")
    np.testing.assert_array_equal(found.collected()[0], X)
    both = vc.data.batches(rows, inputs=["pixels", "id"], target="digit").collected()[0]
    assert {name: part.shape for name, part in both.items()} == {"pixels": (30, 4), "id": (30,)}
    with pytest.raises(TypeError, match=r"inputs called 'image' in a dictionary of arrays, got pixels, digit, id"):
        next(iter(vc.data.batches(rows, inputs="image")))
    anew = vc.data.batches(lambda: iter(rows), "pixels", "digit")
    assert [len(list(anew)), len(list(anew.epoch(1, 2)))] == [3, 1]
    with pytest.raises(TypeError, match="batches that can be restarted, got a list_iterator"):
        vc.data.batches(iter(rows))
    with pytest.raises(TypeError, match="an iterable of batches, or a function that gives one, got int"):
        vc.data.batches(3)


# ------------------------------------------------------------------------------------- what is measured along the way


def test_a_share_for_validation_is_kept_from_training():
    found = given((X, Y), (X[:6], Y[:6]), 0.2, batch_size=10, key=KEY)
    assert [*found.sets] == ["validation", "test"]
    (x, y), (x_validation, y_validation) = found.data, found.sets["validation"]
    assert np.bincount(y_validation).tolist() == [2, 2, 2]  # 20 % of each class
    rows = np.concatenate([x, x_validation])
    assert len(rows) == 30
    assert {row.tobytes() for row in rows} == {row.tobytes() for row in X}  # each row once
    expected = train((x, y), epochs=2, validation=(x_validation, y_validation))
    assert set(expected.records[-1]) >= {"validation_loss", "validation_accuracy"}
    assert "test_loss" not in expected.records[-1]
    same(train((X, Y), epochs=2, validation=0.2), expected)
    trees = given(({"a": X}, Y), None, 0.2, batch_size=10, key=KEY)
    np.testing.assert_array_equal(trees.sets["validation"][0]["a"], x_validation)
    regression = given((X, np.arange(30)), None, 0.1, batch_size=1, key=KEY)  # as many values as examples: no classes
    assert len(regression.sets["validation"][0]) == 3


def test_a_sweep_and_its_fit_share_the_validation_set():
    def build(key):
        return vc.nn.MLP((4, 5, 3), key=key)

    done = sweep(
        lambda learning_rate: (vc.rules.Backprop(), optax.sgd(learning_rate)), build, {"x": X, "y": Y},
        {"learning_rate": [0.1]}, epochs=1, batch_size=8, validation=0.2, test=(X, Y), group_size=1, progress=False,
    )  # fmt: skip
    model_key, key = vc.train.keys_of(0)
    alone = fit(
        vc.rules.Backprop(), build(model_key), SGD, (X, Y), key=key, epochs=1, batch_size=8, validation=0.2,
        test=(X, Y), progress=False,
    )  # fmt: skip
    for name in ("validation_loss", "validation_accuracy", "test_loss", "train_loss"):
        assert done.members[0].records[-1][name] == pytest.approx(alone.records[-1][name], rel=1e-6)
    with pytest.raises(TypeError, match=r"expected data as a Dataset or a pair .*got list; a sweep keeps it on"):
        sweep(None, build, batches(), {"learning_rate": [0.1]}, epochs=1)
    with pytest.raises(TypeError, match="expected test as a Dataset or a pair of arrays"):
        sweep(None, build, (X, Y), {"learning_rate": [0.1]}, epochs=1, test=batches())


def test_a_test_set_in_batches_counts_every_example_once():
    ragged = [(X[:7], Y[:7]), {"x": X[7:8], "y": Y[7:8]}, (X[8:], Y[8:])]
    inside = train((X, Y), epochs=1, test=ragged, validation=vc.data.batches(ragged)).records[-1]
    once = train((X, Y), epochs=1, test=(X, Y)).records[-1]
    for name in ("loss", "accuracy"):
        assert inside[f"test_{name}"] == pytest.approx(once[f"test_{name}"], rel=1e-6)
        assert inside[f"validation_{name}"] == inside[f"test_{name}"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"test": iter(batches())}, TypeError, "read at every evaluation, got a list_iterator, which can be read once"),
        ({"test": (batch for batch in batches())}, TypeError, "got a generator"),
        ({"test": X}, TypeError, r"expected test as a pair of arrays .x, y., a data set .*an array of shape \[30, 4\]"),
        ({"test": 3}, TypeError, "expected test as a pair .*got int"),
        ({"test": "digits"}, TypeError, "expected test as a pair .*got str"),
        ({"test": (X, Y[:3])}, ValueError, "as many targets as inputs, got 3 and 30"),
        ({"test": []}, ValueError, "expected at least one batch, got none"),
        ({"validation": 0.0}, ValueError, "above 0 and below 1, got 0"),
        ({"validation": 1}, ValueError, "above 0 and below 1, got 1"),
        ({"validation": iter([])}, TypeError, "expected validation as something that can be read at every"),
        ({"data": batches(), "validation": 0.1}, ValueError, "validation as a set, since the data come in batches"),
        ({"data": {"pixels": X}}, TypeError, "the inputs as one of x, .*got pixels; vicinal.data.batches"),
        ({"data": {"x_train": X, "y_train": Y, "x_test": X}}, ValueError, "x_test and y_test, got one of them"),
        ({"data": {"x": X, "y": Y, "y_test": Y}}, ValueError, "x_test and y_test, got one of them"),
        ({"data": {"x": X, "y": Y, "x_val": X}}, ValueError, "got x_val too; .*validation=.x, y."),
        ({"data": {"x_train": X, "y_train": Y, "x": X}}, ValueError, "in a dictionary of arrays, got x too"),
        (
            {"data": (1.7e9 + np.arange(120.0).reshape(30, 4), Y)},
            ValueError,
            "x of the data: .*in column 0, of which it",
        ),
        ({"validation": (X, 1.7e9 + np.arange(30.0))}, ValueError, "y of the validation: .*got 30 from 1700000000"),
        ({"data": (np.ma.masked_less(X, 0), Y)}, TypeError, "whole arrays, got a masked array with .* masked values"),
        ({"data": (scipy.sparse.csr_matrix(X), Y)}, TypeError, r"got a csr_matrix; call its toarray\(\)"),
        ({"data": (X, np.zeros(30, [("label", int)]))}, TypeError, "arrays of numbers, got .*label"),
        ({"data": (X, X[:, 0])}, ValueError, r"output's shape \[3\], .*got float32\[\]"),
        ({"data": "own.csv"}, TypeError, r"got str; vicinal.data.load\('own.csv'\) reads it"),
        (
            {"data": (X, Y.astype(str))},
            TypeError,
            "arrays of numbers, got <U11; vicinal.data.from_arrays numbers words",
        ),
    ],
)
def test_what_is_refused(options, error, message):
    data = options.pop("data", (X, Y))
    with pytest.raises(error, match=message):
        train(data, epochs=1, **options)


def test_the_test_part_of_a_dictionary_is_used():
    parts = {"x": X, "y": Y, "x_test": X[:9], "y_test": Y[:9]}
    (x, y), (x_test, y_test) = given(parts, None, None, batch_size=5, key=None).sets["test"], (X[:9], Y[:9])
    np.testing.assert_array_equal(x, x_test)
    np.testing.assert_array_equal(y, y_test)
    other = given((X, Y), parts, None, batch_size=5, key=None).sets["test"]  # as of a Dataset
    np.testing.assert_array_equal(other[0], x_test)


def test_a_dataset_stands_for_its_test_part():
    data = Dataset("mine", X, Y, X[:9], Y[:9], 3)
    same(train((X, Y), epochs=1, test=data), train(data, epochs=1))
    same(train({"x_train": X, "y_train": Y, "x_test": X[:9], "y_test": Y[:9]}, epochs=1), train(data, epochs=1))
