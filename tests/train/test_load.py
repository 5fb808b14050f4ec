"""A trained model is used without what trained it: loaded from any run's folder, and asked for many outputs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vicinal as vc
from vicinal.train import checkpoint, fit, load_model, placing, predict, sweep
from vicinal.train.hooks import EarlyStopping

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(32, 4)).astype(np.float32)
Y = RANDOM.integers(0, 3, 32).astype(np.int32)


def build(seed=0, sizes=(4, 5, 3)):
    return vc.nn.MLP(sizes, key=jax.random.key(seed))


RULE = vc.rules.DirectFeedback()  # a rule with a state, which a loaded model does not need
GRAPH = vc.capture(build(), X[0])
KEY = jax.random.key(3)


def train(folder=None, **settings):
    defaults = {"key": KEY, "batch_size": 8, "steps": 6, "graph": GRAPH, "progress": False, "folder": folder}
    return fit(RULE, build(), optax.adam(1e-2), (X, Y), **defaults | settings)


def assert_same(got, expected):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert isinstance(a, jax.Array)
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a run, and the run."""
    path = tmp_path_factory.mktemp("run")
    stopping = EarlyStopping("made_loss", patience=9)
    made = {2: 1.0, 4: 0.5, 6: 0.7}

    def measure(record, state):
        record["made_loss"] = made[record["step"]]

    return path, train(path, evaluate_every=2, on_record=measure, hooks=[stopping])


def test_the_model_of_a_run(folder):
    path, run = folder
    assert_same(load_model(path, build(7)), run.model)
    assert_same(load_model(path / "checkpoint.npz", build(7)), run.model)
    assert_same(load_model(str(path), jax.eval_shape(build)), run.model)


def test_the_best_model_of_a_run(folder):
    path, run = folder
    assert_same(load_model(path, build(7), best=True), run.best)
    assert_same(load_model(path / "best.npz", build(7)), train(steps=4).model)
    train(path / "without")
    with pytest.raises(ValueError, match=r"expected the best model in .*best\.npz', got none; train with a hook"):
        load_model(path / "without", build(), best=True)


def test_a_model_saved_alone(tmp_path):
    checkpoint.save(tmp_path / "mine.npz", build(5))
    assert_same(load_model(tmp_path / "mine.npz", build()), build(5))


def test_another_structure_is_a_sentence(folder):
    path, _ = folder
    sentence = r"Expected float32\[6,4\] at leaf '\.model\.layers\[0\]\.weight', got float32\[5,4\]"
    with pytest.raises(vc.train.CheckpointError, match=sentence):
        load_model(path, build(sizes=(4, 6, 3)))
    with pytest.raises(vc.train.CheckpointError, match=r"'\.model\.layers\[2\]\.weight', got no such leaf"):
        load_model(path, build(sizes=(4, 5, 3, 2)))
    with pytest.raises(vc.train.CheckpointError, match=r"Expected no such leaf at leaf '\.model\.layers\[1\]\.weight'"):
        load_model(path, build(sizes=(4, 5)))


def test_a_member_of_a_sweep(tmp_path, monkeypatch):
    monkeypatch.setattr(placing, "in_waves", lambda members, most: [range(3), range(3, 4)])
    done = sweep(
        lambda learning_rate: (RULE, optax.sgd(learning_rate)),
        lambda key: vc.nn.MLP((4, 5, 3), key=key),
        (X, Y),
        {"learning_rate": [0.1, 0.3]},
        seeds=2,
        steps=3,
        batch_size=8,
        graph=GRAPH,
        group_size=1,
        folder=tmp_path,
        progress=False,
    )
    assert done.waves == 2
    for i, member in enumerate(done.members):
        assert_same(load_model(tmp_path, build(9), member=i), member.model)
    with pytest.raises(ValueError, match=r"expected member= from 0 to 3 for the sweep in .*, got None"):
        load_model(tmp_path, build())
    with pytest.raises(ValueError, match=r"from 0 to 3 .*, got 4"):
        load_model(tmp_path, build(), member=4)
    assert_same(load_model(tmp_path / "wave-0.npz", build(9), member=1), done.members[1].model)
    with pytest.raises(ValueError, match=r"expected member= from 0 to 3 for the sweep in .*wave-0.npz., got None"):
        load_model(tmp_path / "wave-0.npz", build())
    with pytest.raises(ValueError, match=r"expected member 3 to have started, got no checkpoint of it in .*wave-0.npz"):
        load_model(tmp_path / "wave-0.npz", build(), member=3)
    with pytest.raises(vc.train.CheckpointError, match=r"at leaf '\.model\.layers\[0\]\.weight', got float32"):
        load_model(tmp_path, build(sizes=(4, 6, 3)), member=0)


def test_a_folder_of_runs_names_them(folder, tmp_path):
    train(tmp_path / "il-seed0", steps=1)
    with pytest.raises(ValueError, match="got one with the runs il-seed0; give the folder of one of them"):
        load_model(tmp_path, build())
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"which holds checkpoint\.npz, got one without"):
        load_model(tmp_path / "empty", build())
    with pytest.raises(vc.train.CheckpointError, match="Expected a checkpoint at"):
        load_model(tmp_path / "nothing", build())
    with pytest.raises(ValueError, match="expected the folder of a sweep for member=1"):
        load_model(folder[0], build(), member=1)


# ---------------------------------------------------------------------------------------------------------- outputs


@pytest.mark.parametrize("batch_size", [1000, 32, 7, 1])
def test_outputs_of_any_number_of_examples(folder, batch_size):
    _, run = folder
    model = run.model
    expected = np.tanh(X @ np.asarray(model.layers[0].weight).T + np.asarray(model.layers[0].bias))
    expected = expected @ np.asarray(model.layers[1].weight).T + np.asarray(model.layers[1].bias)
    got = run.predict(X, batch_size=batch_size)
    assert isinstance(got, np.ndarray)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        run.predict(jnp.asarray(X[:5]), batch_size=batch_size), expected[:5], rtol=1e-5, atol=1e-6
    )


def test_outputs_of_trees():
    def model(x):
        return {"sum": x["a"] + x["b"], "b": (x["b"],)}

    x = {"a": X, "b": X[:, :1]}
    graph = vc.capture(model, jax.tree.map(lambda a: a[0], x | {"b": jnp.broadcast_to(x["b"], (32, 4))}))
    x["b"] = np.broadcast_to(x["b"], (32, 4))
    found = predict(graph, model, x, batch_size=5)
    np.testing.assert_allclose(found["sum"], x["a"] + x["b"])
    np.testing.assert_array_equal(found["b"][0], x["b"])


def test_outputs_are_without_dropout():
    class Dropping(eqx.Module):
        linear: eqx.nn.Linear
        dropout: eqx.nn.Dropout

        def __call__(self, x, *, key):
            return self.dropout(self.linear(x), key=key)

    model = Dropping(eqx.nn.Linear(4, 3, key=KEY), eqx.nn.Dropout(0.5))
    run = fit(vc.rules.Backprop(), model, optax.sgd(0.0), (X, Y), key=KEY, batch_size=8, steps=1, progress=False)
    expected = X @ np.asarray(model.linear.weight).T + np.asarray(model.linear.bias)
    np.testing.assert_allclose(run.predict(X, batch_size=20), expected, rtol=1e-5, atol=1e-6)


def test_what_has_no_outputs_is_a_sentence(folder):
    _, run = folder
    with pytest.raises(TypeError, match="expected inputs as an array, or a tuple or dictionary of arrays, got a list"):
        run.predict(list(X))
    with pytest.raises(TypeError, match="expected arrays whose first axis runs over the examples, got a Python float"):
        run.predict((0.5,))
    with pytest.raises(ValueError, match="expected at least one example, got none"):
        run.predict(X[:0])
    with pytest.raises(ValueError, match="expected batch_size as an integer of at least 1, got 0"):
        run.predict(X, batch_size=0)
    with pytest.raises(ValueError, match=r"expected a batch of inputs float32\[batch, 4\], got float32\[32, 3\]"):
        run.predict(X[:, :3])
