"""Common mistakes in what `fit` and `sweep` are given: each is a sentence that says what to write."""

import jax
import numpy as np
import optax
import pytest

import vicinal as vc
from vicinal.train import fit, sweep

X, Y = np.ones((8, 4), np.float32), np.zeros(8, np.int32)
MODEL = vc.nn.MLP((4, 3), key=jax.random.key(0))
RULE, SGD = vc.rules.Backprop(), optax.sgd(0.1)
GIVEN = {"rule": RULE, "model": MODEL, "optimizer": SGD, "key": jax.random.key(0)}


def train(folder, **settings):
    given = GIVEN | settings
    parts = (given.pop(name) for name in ("rule", "model", "optimizer"))
    return fit(*parts, (X, Y), **{"steps": 1, "batch_size": 8, "progress": False, "folder": folder} | given)


class Network:
    """A class where a model is meant."""


MISTAKES = {
    "a recipe's name": ({"rule": "il"}, r"got the string 'il'; write rule, optimizer = vc.recipes.recipe\('il'\).make"),
    "a class of rules": ({"rule": vc.rules.Backprop}, r"expected a rule, got the class Backprop; write Backprop\(\)"),
    "optimiser as rule": ({"rule": SGD}, "expected a rule, got an optimiser; the order is rule, model, optimizer"),
    "model as rule": ({"rule": MODEL}, "expected a rule, got MLP; take one from vicinal.rules, and mind the order"),
    "an optimiser's name": ({"optimizer": "adam"}, r"got the string 'adam'; write optax.adam\(learning_rate\)"),
    "a rate": ({"optimizer": 0.01}, r"expected an optax optimiser, got the number 0.01; write optax.adam\(0.01\)"),
    "a function": ({"optimizer": optax.adam}, "got the function adam; call it with a learning rate"),
    "rule as optimiser": ({"optimizer": RULE}, "expected an optax optimiser, got a rule; the order is"),
    "nothing": ({"optimizer": None}, r"expected an optax optimiser, got NoneType; write optax.adam\(1e-3\)"),
    "optimiser and model swapped": (
        {"model": SGD, "optimizer": MODEL},
        "expected a model, got an optimiser; the order",
    ),
    "rule and model swapped": ({"model": RULE}, "expected a model, got a rule; the order is rule, model, optimizer"),
    "a class of models": ({"model": Network}, r"expected a model, got the class Network; make one with Network\(...\)"),
    "an integer as key": ({"key": 0}, r"got the integer 0; write key=jax.random.key\(0\)"),
    "a generator": ({"key": np.random.default_rng(0)}, r"expected key as a random key, got Generator; write key="),
    "several keys": ({"key": jax.random.split(jax.random.key(0))}, r"expected one random key, got .* shape \[2\]"),
    "a word as graph": ({"graph": "captured"}, "expected a graph of vicinal.capture, got str"),
    "half an epoch": ({"epochs": 0.5, "steps": None}, r"got 0.5; give steps= for a part of an epoch"),
}


@pytest.mark.parametrize(("settings", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_a_sentence(tmp_path, settings, sentence):
    with pytest.raises(TypeError, match=sentence) as refused:
        train(tmp_path / "run", **settings)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("key", [jax.random.PRNGKey(3), np.array([0, 3], np.uint32)], ids=["old", "NumPy"])
def test_an_old_key_is_a_key(key):
    run = train(None, key=key)
    assert run.stopped is None
    for got, expected in zip(jax.tree.leaves(run.model), jax.tree.leaves(train(None).model), strict=True):
        assert got.shape == expected.shape


def test_what_looks_like_an_optimiser_is_one():
    class Own:
        """An optimiser without optax."""

        def init(self, parameters):
            return ()

        def update(self, gradient, state, parameters=None):
            return jax.tree.map(lambda g: -0.1 * g, gradient), state

    got, expected = train(None, optimizer=Own()).model, train(None).model
    np.testing.assert_allclose(got.layers[0].weight, expected.layers[0].weight, rtol=1e-6)


def test_what_is_of_pytorch_is_a_sentence(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(4, 3)
    with pytest.raises(TypeError, match=r"got PyTorch's Linear; build it of layers .* vc.interchange.from_state_dict"):
        train(tmp_path / "run", model=module)
    with pytest.raises(TypeError, match=r"expected an optax optimiser, got PyTorch's SGD; take the one of optax"):
        train(tmp_path / "run", optimizer=torch.optim.SGD(module.parameters(), 0.1))
    bound = jax.tree_util.Partial(lambda weights, x: weights["w"] @ x, {"w": torch.zeros(3, 4)})
    with pytest.raises(TypeError, match=r"got a PyTorch tensor at .*\['w'\].*; convert it with jnp.asarray"):
        train(tmp_path / "run", model=bound)


def grid(make, build=lambda key: MODEL):
    return sweep(make, build, (X, Y), {"learning_rate": [0.1]}, steps=1, batch_size=8, progress=False)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        ("il", "expected make as a function, got 'il'"),
        (lambda learning_rate: optax.sgd(learning_rate), r"a pair \(rule, optimizer\), got GradientTransf"),
        (lambda learning_rate: RULE, r"expected make to return a pair \(rule, optimizer\), got Backprop"),
        (lambda learning_rate: (optax.sgd(learning_rate), RULE), "got the optimiser first; exchange them"),
        (lambda learning_rate: (RULE, learning_rate), r"expected an optax optimiser, got the number 0.1; write"),
    ],
    ids=["a name", "an optimiser alone", "a rule alone", "swapped", "a rate"],
)
def test_a_mistake_in_a_sweep_is_a_sentence(make, sentence):
    with pytest.raises(TypeError, match=sentence):
        grid(make)


def test_a_class_that_a_sweep_builds_is_a_sentence():
    with pytest.raises(TypeError, match="expected a model, got the class Network"):
        grid(lambda learning_rate: (RULE, optax.sgd(learning_rate)), lambda key: Network)
