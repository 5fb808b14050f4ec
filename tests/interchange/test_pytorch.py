"""Parameters to and from PyTorch: with torch, outputs agree; without it, names and shapes match those written here."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vicinal as vc
from vicinal.interchange import from_state_dict, to_state_dict

RANDOM = np.random.default_rng(0)
KEYS = jax.random.split(jax.random.key(0), 8)


def numbers(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def same(got, expected):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------------------------------------------- without PyTorch


MLP = vc.nn.MLP((3, 4, 2), key=KEYS[0])
SEQUENTIAL = {"0.weight": numbers(4, 3), "0.bias": numbers(4), "2.weight": numbers(2, 4), "2.bias": numbers(2)}


def by_hand(state, x):
    hidden = np.tanh(state["0.weight"] @ x + state["0.bias"])
    return state["2.weight"] @ hidden + state["2.bias"]


@pytest.mark.parametrize("prefix", ["", "net."])
def test_a_sequential_is_matched_in_order(prefix):
    x = numbers(3)
    state = dict(sorted(((prefix + name, value) for name, value in SEQUENTIAL.items()), reverse=True))
    np.testing.assert_allclose(from_state_dict(MLP, state)(x), by_hand(SEQUENTIAL, x), rtol=1e-5, atol=1e-6)


def test_the_tenth_layer_comes_after_the_second():
    model = vc.nn.MLP((1,) * 5, key=KEYS[0])
    state = {
        f"{i}.{part}": numbers(1, 1) if part == "weight" else numbers(1)
        for i in (0, 10, 2, 4)
        for part in ("weight", "bias")
    }
    loaded = from_state_dict(model, state)
    for layer, i in zip(loaded.layers, (0, 2, 4, 10), strict=True):
        np.testing.assert_array_equal(layer.weight, state[f"{i}.weight"])


def test_names_are_given_or_our_own():
    own = to_state_dict(MLP)
    assert list(own) == ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]
    same(from_state_dict(vc.nn.MLP((3, 4, 2), key=KEYS[1]), own), MLP)
    names = {"layers.0": "encoder.fc", "layers.1": "head", "layers.1.bias": "head_bias"}
    theirs = to_state_dict(MLP, names)
    assert list(theirs) == ["encoder.fc.weight", "encoder.fc.bias", "head.weight", "head_bias"]
    same(from_state_dict(vc.nn.MLP((3, 4, 2), key=KEYS[1]), theirs, names), MLP)
    upper = to_state_dict(MLP, str.upper)
    assert next(iter(upper)) == "LAYERS.0.WEIGHT"
    same(from_state_dict(MLP, upper, str.upper), MLP)
    ordered = to_state_dict(MLP, like=SEQUENTIAL)
    assert {name: value.shape for name, value in ordered.items()} == {n: v.shape for n, v in SEQUENTIAL.items()}
    np.testing.assert_array_equal(ordered["2.weight"], MLP.layers[1].weight)


def test_a_marked_layer_has_the_name_of_the_layer():
    mlp = eqx.nn.MLP(3, 2, 4, 1, key=KEYS[2])
    marked = vc.mark(mlp, lambda mlp: mlp.layers[:-1])
    assert list(to_state_dict(marked)) == list(to_state_dict(mlp))
    loaded = from_state_dict(marked, SEQUENTIAL)
    np.testing.assert_array_equal(loaded.layers[0].module.weight, SEQUENTIAL["0.weight"])


def test_biases_of_convolutions_lose_their_axes():
    for layer in (vc.nn.Conv2d(2, 3, 3, key=KEYS[3]), eqx.nn.Conv1d(2, 3, 3, key=KEYS[3])):
        state = to_state_dict(layer)
        assert list(state) == ["weight", "bias"]
        assert state["bias"].shape == (3,)
        other = type(layer)(2, 3, 3, key=KEYS[4])
        same(from_state_dict(other, state), layer)


@pytest.mark.parametrize(
    ("state", "names", "sentence"),
    [
        ({**SEQUENTIAL, "0.bias": numbers(5)}, None, r"expected float32\[4\] at '0.bias', got float32\[5\]"),
        ({**SEQUENTIAL, "0.bias": np.zeros(4)}, None, r"expected float32\[4\] at '0.bias', got float64\[4\]"),
        ({**SEQUENTIAL, "4.bias": numbers(2)}, None, r"for each of the model's 2, 'layers.0', 'layers.1', got 3 in"),
        ({"0.weight": numbers(4, 3)}, None, r"for each of the model's 2, .*, got 1 in '0.weight'"),
        (
            {n: v for n, v in SEQUENTIAL.items() if n != "2.bias"},
            None,
            r"got missing '2.bias' and unknown none; give the names with names=",
        ),
        (
            {"fc1.weight": numbers(4, 3), "fc1.bias": numbers(4)},
            None,
            r"or those of a torch.nn.Sequential, got 'fc1.weig",
        ),
        (SEQUENTIAL, {"layers.0": "0"}, r"missing 'layers.1.weight', 'layers.1.bias' and unknown '2.weight', '2.bias'"),
        (SEQUENTIAL, {"layer.0": "0"}, r"expected names of the model's arrays, .*, got 'layer.0'"),
    ],
    ids=["shape", "dtype", "more", "fewer", "no bias", "no sequential", "unnamed", "misspelt"],
)
def test_what_does_not_match_is_a_sentence(state, names, sentence):
    with pytest.raises(ValueError, match=sentence) as refused:
        from_state_dict(MLP, state, names)
    assert "\n" not in str(refused.value)


def test_what_pytorch_computes_otherwise_is_refused():
    layer = eqx.nn.ConvTranspose2d(2, 2, 3, key=KEYS[0])
    with pytest.raises(ValueError, match="expected layers that PyTorch computes alike, got ConvTranspose2d at 'up'"):
        to_state_dict({"up": layer})
    norm, _ = eqx.nn.make_with_state(eqx.nn.BatchNorm)(2, "batch", mode="batch")
    with pytest.raises(ValueError, match=r"holds its running averages, vicinal.nn.BatchNorm, got Equinox's at 'norm'"):
        to_state_dict({"norm": norm})
    with pytest.raises(ValueError, match=r"expected shape \[5, 3\] at '0.weight', got \[4, 3\]"):
        to_state_dict(MLP, like={**SEQUENTIAL, "0.weight": numbers(5, 3)})
    with pytest.raises(ValueError, match="expected a name of its own for each array"):
        to_state_dict(MLP, lambda name: "same")


def test_tensors_need_torch(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(ImportError, match="tensors need PyTorch"):
        to_state_dict(MLP, tensors=True)


# ------------------------------------------------------------------------------------------------------- with PyTorch


class Convolutions(eqx.Module):
    """A convolution, a normalisation and a linear layer, with the names of the module below."""

    conv: vc.nn.Conv2d
    norm: eqx.nn.LayerNorm
    out: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 2)
        self.conv = vc.nn.Conv2d(2, 3, 3, stride=2, padding=1, key=keys[0])
        self.norm = eqx.nn.LayerNorm((3, 3, 3))
        self.out = eqx.nn.Linear(27, 2, key=keys[1])

    def __call__(self, x):
        return self.out(self.norm(jnp.tanh(self.conv(x))).reshape(-1))


class Normalized(eqx.Module):
    """Batch norm between a convolution and a linear layer, in a list as in a `Sequential`."""

    layers: list

    def __init__(self, key):
        keys = jax.random.split(key, 2)
        conv, norm = vc.nn.Conv2d(2, 3, 3, key=keys[0]), vc.nn.BatchNorm(3)
        self.layers = [conv, norm, eqx.nn.Linear(27, 2, key=keys[1])]

    def __call__(self, x):
        return self.layers[2](jnp.tanh(self.layers[1](self.layers[0](x))).reshape(-1))


class Embedded(eqx.Module):
    """The last state of a recurrent cell that reads embedded words."""

    words: eqx.nn.Embedding
    cell: eqx.nn.GRUCell | eqx.nn.LSTMCell

    def __init__(self, cell, key):
        keys = jax.random.split(key, 2)
        self.words, self.cell = eqx.nn.Embedding(5, 3, key=keys[0]), cell(3, 4, key=keys[1])

    def __call__(self, tokens):
        lstm = isinstance(self.cell, eqx.nn.LSTMCell)
        state = (jnp.zeros(4), jnp.zeros(4)) if lstm else jnp.zeros(4)
        for token in tokens:
            state = self.cell(self.words(token), state)
        return state[0] if lstm else state


def torch_module(name):
    """The PyTorch twin of each model, and an input."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class TorchConvolutions(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 3, stride=2, padding=1)
            self.norm = nn.LayerNorm((3, 3, 3))
            self.out = nn.Linear(27, 2)

        def forward(self, x):
            return self.out(self.norm(torch.tanh(self.conv(x))).flatten())

    class TorchEmbedded(nn.Module):
        def __init__(self, cell):
            super().__init__()
            self.words, self.cell = nn.Embedding(5, 3), cell(3, 4)

        def forward(self, tokens):
            state = None
            for token in tokens:
                state = self.cell(self.words(token), state)
            return state[0] if isinstance(self.cell, nn.LSTMCell) else state

    torch.manual_seed(0)
    made = {
        "MLP": lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)),
        "convolution": TorchConvolutions,
        "batch norm": lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(27, 2)
        ).eval(),
        "GRU": lambda: TorchEmbedded(nn.GRUCell),
        "LSTM": lambda: TorchEmbedded(nn.LSTMCell),
    }
    module = made[name]()
    with torch.no_grad():
        for parameter in module.parameters():  # so that nothing is zero or one
            parameter.copy_(torch.from_numpy(numbers(*parameter.shape)) * 0.5)
        for average in module.buffers():
            if average.ndim:
                average.copy_(torch.from_numpy(np.abs(numbers(*average.shape)) + 0.5))
    return torch, module


MODELS = {
    "MLP": (MLP, numbers(3)),
    "convolution": (Convolutions(KEYS[5]), numbers(2, 5, 5)),
    "batch norm": (eqx.nn.inference_mode(Normalized(KEYS[5])), numbers(2, 5, 5)),
    "GRU": (Embedded(eqx.nn.GRUCell, KEYS[6]), np.array([1, 4, 0])),
    "LSTM": (Embedded(eqx.nn.LSTMCell, KEYS[7]), np.array([1, 4, 0])),
}


@pytest.mark.parametrize("name", MODELS)
def test_outputs_agree_both_ways(name):
    model, x = MODELS[name]
    torch, module = torch_module(name)

    def theirs():
        with torch.no_grad():
            given = torch.from_numpy(x)
            return module(given[None])[0].numpy() if name == "batch norm" else module(given).numpy()

    loaded = from_state_dict(model, module.state_dict())
    np.testing.assert_allclose(loaded(jnp.asarray(x)), theirs(), rtol=1e-6, atol=1e-6)
    module.load_state_dict(to_state_dict(model, like=module.state_dict(), tensors=True))
    np.testing.assert_allclose(model(jnp.asarray(x)), theirs(), rtol=1e-6, atol=1e-6)
    same(from_state_dict(loaded, module.state_dict()), model)


def test_bfloat16_keeps_its_bits():
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(3, 2).to(torch.bfloat16)
    model = jax.tree.map(lambda a: a.astype(jnp.bfloat16), vc.nn.Linear(3, 2, key=KEYS[0]))
    loaded = from_state_dict(model, module.state_dict())
    np.testing.assert_array_equal(loaded.weight.astype(jnp.float32), module.weight.detach().float().numpy())
    module.load_state_dict(to_state_dict(model, tensors=True))
    np.testing.assert_array_equal(model.weight.astype(jnp.float32), module.weight.detach().float().numpy())
