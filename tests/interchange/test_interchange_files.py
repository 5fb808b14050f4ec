"""Models in safetensors files and as StableHLO programs: every bit comes back, every mismatch raises."""

import json
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vicinal as vc
from vicinal.interchange import export, load_safetensors, save_safetensors

MODEL = vc.nn.MLP((3, 4, 2), key=jax.random.key(0))


def bits(tree):
    leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array | np.ndarray)]
    keys = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    arrays = [np.asarray(jax.random.key_data(a) if k else a) for a, k in zip(leaves, keys, strict=True)]
    return [(a.shape, str(a.dtype), a.tobytes()) for a in arrays]


def header_of(path):
    """Reads the header as the format specifies: its length in eight bytes, then JSON."""
    content = path.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def test_arrays_come_back_with_the_same_bits(tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    tree = {
        "model": MODEL,
        "half": jnp.arange(3, dtype=jnp.bfloat16) / 3,
        "small": jnp.arange(3, dtype=jnp.float16),
        "turned": jnp.arange(6.0).reshape(2, 3).T,
        "scalar": jnp.asarray(0.1),
        "empty": jnp.zeros((0, 2)),
        "many": (jnp.array([True, False]), jnp.arange(2, dtype=jnp.uint8)),
        "key": jax.random.key(7),
        "NumPy": np.arange(3.0),
        "function": jnp.tanh,
        "number": 3,
    }
    save_safetensors(path, tree, metadata={"loss": "0.25"})
    blank = jax.tree.map(lambda leaf: leaf * 0 if eqx.is_inexact_array(leaf) else leaf, tree)
    loaded = load_safetensors(path, blank)
    assert bits(loaded) == bits(tree)
    assert (loaded["function"], loaded["number"]) == (jnp.tanh, 3)
    assert isinstance(loaded["NumPy"], np.ndarray)
    header = header_of(path)
    assert header["__metadata__"] == {"format": "vicinal", "loss": "0.25"}
    assert header["model.layers.0.weight"]["shape"] == [4, 3]
    assert header["half"]["dtype"] == "BF16"


def test_a_file_by_others(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    arrays = {"layers.0.weight": np.ones((2, 3), np.float32), "layers.0.bias": np.zeros(2, np.float32)}
    numpy.save_file(arrays, tmp_path / "theirs.safetensors")
    model = load_safetensors(tmp_path / "theirs.safetensors", vc.nn.MLP((3, 2), key=jax.random.key(0)))
    np.testing.assert_array_equal(model(jnp.ones(3)), [3.0, 3.0])


def test_what_does_not_match_is_a_sentence(tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    save_safetensors(path, MODEL)
    with pytest.raises(ValueError, match=r"expected float32\[5, 3\] at 'layers.0.weight', got float32\[4, 3\]"):
        load_safetensors(path, vc.nn.MLP((3, 5, 2), key=jax.random.key(0)))
    with pytest.raises(ValueError, match=r"expected bfloat16\[4, 3\] at 'layers.0.weight', got float32\[4, 3\]"):
        load_safetensors(path, jax.tree.map(lambda a: a.astype(jnp.bfloat16), MODEL))
    with pytest.raises(ValueError, match=r"got missing 'layers.2.weight', 'layers.2.bias' and unknown none"):
        load_safetensors(path, vc.nn.MLP((3, 4, 2, 1), key=jax.random.key(0)))
    with pytest.raises(ValueError, match=r"got missing none and unknown 'layers.0.bias', 'layers.1.bias'"):
        load_safetensors(path, vc.nn.MLP((3, 4, 2), use_bias=False, key=jax.random.key(0)))
    save_safetensors(tmp_path / "wide", {"a": np.ones(2)})
    with pytest.raises(ValueError, match="expected to load 'a' as float64, but JAX would round it to float32"):
        load_safetensors(tmp_path / "wide", {"a": jax.ShapeDtypeStruct((2,), np.dtype("float64"))})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"expected a safetensors file at .*, got something else"):
        load_safetensors(path, MODEL)
    with pytest.raises(ValueError, match="expected a model with arrays, got none"):
        save_safetensors(path, jnp.tanh)
    with pytest.raises(TypeError, match="expected metadata of strings by name"):
        save_safetensors(path, MODEL, metadata={"loss": 0.25})
    with pytest.raises(ValueError, match=r"expected a name of its own for each array of the model, got 'a\.b'"):
        save_safetensors(path, {"a": {"b": jnp.ones(1)}, "a.b": jnp.ones(1)})


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    save_safetensors(path, MODEL)
    before = path.read_bytes()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        save_safetensors(path, jax.tree.map(lambda a: a + 1, MODEL))
    assert path.read_bytes() == before
    assert [child.name for child in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["safetensors", "flatbuffers"])
def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    write = {"safetensors": save_safetensors, "flatbuffers": lambda path, model: export(model, jnp.ones(3), path)}
    with pytest.raises(ImportError, match=r"pip install 'vicinal\["):
        write[name](tmp_path / "model", MODEL)


def test_an_exported_model_runs_without_this_library(tmp_path):
    pytest.importorskip("flatbuffers")
    path = tmp_path / "model.stablehlo"
    export(lambda x: {"logits": MODEL(x["a"])}, {"a": jnp.ones(3)}, path)
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    random = np.random.default_rng(0)
    for size in (1, 5):
        x = random.normal(size=(size, 3)).astype(np.float32)
        first, last = ((np.asarray(layer.weight), np.asarray(layer.bias)) for layer in MODEL.layers)
        expected = np.tanh(x @ first[0].T + first[1]) @ last[0].T + last[1]
        np.testing.assert_allclose(program.call({"a": jnp.asarray(x)})["logits"], expected, rtol=1e-5, atol=1e-6)


def test_an_exported_model_has_no_dropout(tmp_path):
    pytest.importorskip("flatbuffers")
    path = tmp_path / "model.stablehlo"
    export(eqx.nn.Dropout(0.5), jnp.ones(3), path)
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    np.testing.assert_array_equal(program.call(jnp.ones((4, 3))), np.ones((4, 3)))
