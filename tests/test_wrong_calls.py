"""Wrong arguments of `capture`, `attach` and the recipes: each raises an error that says what to do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

import vicinal as vc
from vicinal.recipes import recipe

KEY = jax.random.key(0)
MODEL = vc.nn.MLP((3, 4, 2), key=KEY)


@pytest.mark.parametrize(
    ("model", "x", "error", "words"),
    [
        (MODEL, jnp.ones((8, 3)), ValueError, r"shape \[3\], got \[8, 3\]; give one example, x\[0\], not a batch"),
        (MODEL, "x", TypeError, r"an array, or a tree of arrays, got str; write jnp.asarray"),
        (MODEL, [1.0, 2.0, 3.0], TypeError, r"got a list of numbers; write jnp.asarray\(x\)"),
        (MODEL, vc.data.load("digits"), TypeError, r"got Dataset; give one of its examples, like data.x_train\[0\]"),
        (vc.nn.MLP, jnp.ones(3), TypeError, r"got the class MLP; make one with MLP\(...\)"),
    ],
)
def test_capture(model, x, error, words):
    with pytest.raises(error, match=words):
        vc.capture(model, x)


def test_what_is_of_pytorch():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="got PyTorch's Linear; build it of layers"):
        vc.capture(torch.nn.Linear(3, 2), jnp.ones(3))
    with pytest.raises(TypeError, match=r"got Tensor; convert it with jnp.asarray\(tensor.numpy\(\)\)"):
        vc.capture(MODEL, torch.ones(3))


@pytest.mark.parametrize(
    ("model", "route", "key", "error", "words"),
    [
        (MODEL, "random", KEY, TypeError, r"a route, like vicinal.feedback.random\(\), got 'random'"),
        (MODEL, vc.feedback.random, KEY, TypeError, r"got random; call it, random\(\)"),
        (MODEL, vc.feedback.random(), 0, TypeError, r"got the integer 0; write key=jax.random.key\(0\)"),
        (MODEL, vc.feedback.random(), "seed", TypeError, "as a random key, got str"),
        ("il", vc.feedback.random(), KEY, ValueError, "got str without any; the order is attach"),
        (vc.feedback.random(), MODEL, KEY, TypeError, "got MLP; the order is attach"),
    ],
)
def test_attach(model, route, key, error, words):
    with pytest.raises(error, match=words):
        vc.feedback.attach(model, route, key=key)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"lr": 0.1}, "got 'lr'; did you mean 'learning_rate'"),
        ({"steps": 5}, "got 'steps'; did you mean 'inference.steps'"),
        ({"inference.steps": 5.0}, "a whole number for inference.steps, got 5.0"),
        ({"inference.decay": 1}, "true or false for inference.decay, got 1"),
        ({"inference.step_size": "a"}, "a number for inference.step_size, got 'a'"),
        ({"learning_rate": "0.1"}, "a number for learning_rate, got '0.1'"),
        ({"b1": True}, "a number for b1, got True"),
    ],
)
def test_numbers_of_recipes(numbers, words):
    with pytest.raises(ValueError, match=words):
        recipe("il").make(**numbers)


def test_counts_and_choices_of_recipes_can_be_set():
    rule, _ = recipe("il").make(**{"inference.steps": 7, "inference.decay": True, "start": "random"})
    assert (rule.inference.steps, rule.inference.decay, rule.start) == (7, True, "random")
    with pytest.raises(TypeError, match="got the integer 0; write key"):
        recipe("fa").attach(MODEL, key=0)


class Net(eqx.Module):
    """A user's network whose class builds it."""

    layers: vc.nn.MLP

    def __init__(self, key):
        self.layers = vc.nn.MLP((3, 2), key=key)

    def __call__(self, x):
        return self.layers(x)


def make(learning_rate):
    return vc.rules.Backprop(), optax.sgd(learning_rate)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"make": "il"}, r"got 'il'; write lambda \*\*numbers: vc.recipes.recipe\('il'\)"),
        ({"build": MODEL}, r"from a key to a model, got MLP; write lambda key: MLP\(..., key=key\)"),
        ({"build": vc.nn.MLP}, r"from a key to a model, got MLP; write lambda key"),
        ({"build": lambda: MODEL}, "to take a key, got a function without arguments"),
        ({"memory": "1GB"}, "memory as a number of bytes, got '1GB'"),
        ({"graph": "g"}, "a graph of vicinal.capture, got str"),
        ({"numbers": {}}, "values of learning_rate, which make needs, got those of nothing"),
    ],
)
def test_sweep(change, words):
    given = {"make": make, "build": Net, "data": (jnp.ones((8, 3)), jnp.arange(8) % 2)}
    given |= {"numbers": {"learning_rate": [0.1]}, "steps": 2, "batch_size": 4, "progress": False}
    with pytest.raises(TypeError, match=words):
        vc.train.sweep(**(given | change))


@pytest.mark.parametrize("value", ["x", None])
def test_a_number_that_is_none(value):
    with pytest.raises(TypeError, match=f"expected a number, got {value!r}"):
        vc.rules.DynamicInversion(leak=value)


def fit(**change):
    given = {"rule": vc.rules.Backprop(), "model": MODEL, "optimizer": optax.sgd(0.1), "steps": 2, "batch_size": 4}
    given |= {"data": (jnp.ones((8, 3)), jnp.arange(8) % 2), "key": jax.random.key(0), "progress": False}
    return vc.train.fit(**(given | change))


def takes_one(record):
    return None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hooks": [takes_one]}, r"expected a hook as a function of \(record, state\), got one of \(record\)"),
        ({"hooks": [lambda: None]}, r"got one of \(\)"),
        ({"on_record": takes_one}, r"expected on_record as a function of \(record, state\), got one of \(record\)"),
    ],
)
def test_what_is_called_with_a_record(change, words):
    with pytest.raises(TypeError, match=words):
        fit(**change)


def test_a_file_where_a_folder_would_be(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", str(tmp_path / "file" / "run")):
        with pytest.raises(ValueError, match=r"expected folder='.*' as a folder, got the file .*file; choose another"):
            fit(folder=folder)
    assert (tmp_path / "file").read_text() == "x"


def test_more_steps_than_a_state_counts():
    with pytest.raises(ValueError, match=f"expected steps of at most 2147483647, which 32 bits can count, got {2**31}"):
        fit(steps=2**31)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (lambda model: vc.nn.Linear(3, 2, key=jax.random.key(1)), "got a Linear that is not in it; return attributes"),
        (lambda model: [MODEL.layers[0], MODEL.layers[0]], "expected different submodules from `where`, got one twice"),
    ],
)
def test_mark_chooses_submodules_of_the_model(where, words):
    with pytest.raises(ValueError, match=words):
        vc.mark(MODEL, where)
