"""Checkpoints are restored bit for bit, and without a second compilation."""

import hashlib
import json
import zipfile

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from checkpoint_checks import assert_identical, relaxed
from hypothesis import given, strategies as st

from vicinal.train.checkpoint import CheckpointError, load, read_metadata, save

JAX_DTYPES = ["bool", "int8", "uint8", "int16", "int32", "uint32", "float16", "float32", "complex64"]
JAX_DTYPES += ["bfloat16", "float8_e4m3fn", "float8_e5m2"]
NUMPY_DTYPES = [*JAX_DTYPES, "int64", "uint64", "float64", "complex128", ">f4", ">i2"]


def dtype_of(name):
    return np.dtype(getattr(ml_dtypes, name, name))


@st.composite
def arrays(draw, dtypes):
    """Arrays of arbitrary bits (so NaNs with any payload), 0-d and empty ones among them."""
    dtype = dtype_of(draw(st.sampled_from(dtypes)))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    count = int(np.prod(shape, dtype=int)) * dtype.itemsize
    octets = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), np.uint8)
    return (octets % 2 if dtype.kind == "b" else octets).view(dtype).reshape(shape)


numbers = st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.none()
leaves = arrays(NUMPY_DTYPES) | arrays(JAX_DTYPES).map(jnp.array) | numbers
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


def blank(leaf):
    """A template leaf that gives away nothing of the value."""
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, weak_type=leaf.weak_type)
    if isinstance(leaf, np.ndarray):
        return np.zeros_like(leaf)
    return leaf if leaf is None else type(leaf)(0)


@relaxed
@given(tree=trees)
def test_round_trip_of_random_trees(tmp_path, tree):
    path = tmp_path / "random.npz"
    save(path, tree)
    template = jax.tree.map(blank, tree)
    restored, metadata = load(path, template)
    assert_identical(restored, tree)
    assert metadata == {}


@pytest.mark.parametrize("name", ["int4", "uint4", "float8_e4m3b11fnuz", "float8_e8m0fnu", "bfloat16"])
def test_every_bit_pattern_of_narrow_dtypes(tmp_path, name):
    dtype = dtype_of(name)
    width = 4 if name.endswith("int4") else 8 * dtype.itemsize
    if width == 4:
        array = np.arange(-8 if name == "int4" else 0, 8 if name == "int4" else 16).astype(dtype)
    else:
        array = np.arange(2**width, dtype=f"u{dtype.itemsize}").view(dtype)
    tree = (array, jnp.array(array))
    save(tmp_path / "narrow.npz", tree)
    assert_identical(load(tmp_path / "narrow.npz", tree)[0], tree)


def test_double_precision(tmp_path, x64):
    tree = {
        "weight": jnp.array([np.pi, -0.0, 5e-324, np.nan]),
        "count": jnp.asarray(2**40),
        "gain": np.float64(0.1),
    }
    assert tree["weight"].dtype == np.float64
    path = tmp_path / "double.npz"
    save(path, tree)
    assert_identical(load(path, tree)[0], tree)
    template = {**tree, "weight": jax.ShapeDtypeStruct((4,), np.float64)}
    jax.config.update("jax_enable_x64", False)
    with pytest.raises(CheckpointError, match=r"'count'.* as int64, .* to int32; set jax_enable_x64"):
        load(path, template)


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_continue_the_same_random_sequence(tmp_path, implementation):
    keys = {
        "one": jax.random.key(7, impl=implementation),
        "many": jax.random.split(jax.random.key(8), (2, 3)),
    }
    expected = jax.random.normal(jax.random.fold_in(keys["one"], 5), (4,))
    path = tmp_path / "keys.npz"
    save(path, keys)
    for template in (keys, jax.eval_shape(lambda: keys)):
        restored, _ = load(path, template)
        assert_identical(restored, keys)
        assert jax.random.key_impl(restored["one"]) == implementation
        np.testing.assert_array_equal(jax.random.normal(jax.random.fold_in(restored["one"], 5), (4,)), expected)


def test_a_key_of_another_kind_is_refused(tmp_path):
    save(tmp_path / "keys.npz", jax.random.key(0, impl="rbg"))
    with pytest.raises(CheckpointError, match=r"Expected key<fry>\[\] .*got key<rbg>\[\]"):
        load(tmp_path / "keys.npz", jax.random.key(0))


def training_state(seed):
    model_key, key = jax.random.split(jax.random.key(seed))
    model = eqx.nn.MLP(3, 2, 5, 2, key=model_key)
    optimiser = optax.adam(1e-2)
    state = {"model": model, "optimiser": optimiser.init(eqx.filter(model, eqx.is_array)), "key": key}
    # A weakly typed leaf, as `jnp.asarray` of a Python number or a `lax` loop makes them.
    return {**state, "rate": jnp.asarray(0.5), "ramp": jnp.broadcast_to(jnp.asarray(1.0), (3,)) * 2.0}


def make_step(traces):
    optimiser = optax.adam(1e-2)

    @eqx.filter_jit
    def step(state):
        traces.append(1)
        key, noise_key = jax.random.split(state["key"])
        x = jax.random.normal(noise_key, (4, 3))
        gradient = eqx.filter_grad(lambda model: jnp.sum(jax.vmap(model)(x) ** 2))(state["model"])
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to its integer step count
            updates, moments = optimiser.update(gradient, state["optimiser"])
        return {
            **state,
            "model": eqx.apply_updates(state["model"], updates),
            "optimiser": moments,
            "key": key,
        }

    return step


def test_training_state_continues_bit_for_bit_without_retracing(tmp_path):
    traces = []
    step = make_step(traces)
    state = step(training_state(0))
    path = tmp_path / "state.npz"
    save(path, state, metadata={"step": 1})
    expected = step(state)
    traced = len(traces)

    restored, metadata = load(path, like=training_state(1))
    assert metadata == {"step": 1}
    assert restored["rate"].weak_type
    assert restored["model"].activation is state["model"].activation
    assert_identical(eqx.filter(restored, eqx.is_array), eqx.filter(state, eqx.is_array))
    assert_identical(eqx.filter(step(restored), eqx.is_array), eqx.filter(expected, eqx.is_array))
    assert len(traces) == traced

    restored, _ = load(path, like=eqx.filter_eval_shape(training_state, 1))
    step(restored)
    assert len(traces) == traced


def test_what_the_compiler_sees_is_unchanged(tmp_path):
    """Type, weak type, sharding and commitment are all that a compiled function is chosen by."""
    state = jax.tree.leaves(eqx.filter(training_state(0), eqx.is_array))
    assert [leaf.aval.weak_type for leaf in state if leaf.dtype == jnp.float32].count(True) == 2
    save(tmp_path / "state.npz", state)
    for restored, leaf in zip(load(tmp_path / "state.npz", state)[0], state, strict=True):
        assert (restored.aval, restored.sharding, restored.committed) == (
            leaf.aval,
            leaf.sharding,
            leaf.committed,
        )


def test_a_chosen_placement_is_kept(tmp_path):
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    array = jax.device_put(jnp.arange(6, dtype=jnp.float32), sharding)
    save(tmp_path / "sharded.npz", array)
    for template in (array, jax.ShapeDtypeStruct((6,), jnp.float32, sharding=sharding)):
        restored, _ = load(tmp_path / "sharded.npz", template)
        assert restored.sharding == sharding
        np.testing.assert_array_equal(restored, np.arange(6, dtype=np.float32))


def test_restored_arrays_can_be_donated_and_written(tmp_path):
    tree = (jnp.ones(4), np.ones(4))
    save(tmp_path / "ones.npz", tree)
    (donated, written), _ = load(tmp_path / "ones.npz", tree)
    np.testing.assert_array_equal(jax.jit(lambda x: x + 1, donate_argnums=0)(donated), np.full(4, 2.0))
    written += 1


def test_a_template_whose_buffers_were_donated(tmp_path):
    state = jnp.arange(3.0)
    save(tmp_path / "state.npz", state)
    state.delete()
    np.testing.assert_array_equal(load(tmp_path / "state.npz", state)[0], [0.0, 1.0, 2.0])


def test_the_file_is_what_the_documentation_says(tmp_path):
    path = tmp_path / "state.npz"
    save(path, {"b": np.arange(3), "a": jnp.array([1.5], jnp.bfloat16)}, metadata={"note": "é"})
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.comment.decode() == hashlib.sha256(content[:-64]).hexdigest()
        header = json.loads(archive.read("vicinal.json"))
    assert header["format_version"] == 1
    assert header["metadata"] == {"note": "é"}
    assert [(leaf["path"], leaf["dtype"], leaf["shape"]) for leaf in header["leaves"]] == [
        ("['a']", "bfloat16", [1]),
        ("['b']", "int64", [3]),
    ]
    with np.load(path, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["0"], np.array([0x3FC0], np.uint16))  # 1.5 in bfloat16
        np.testing.assert_array_equal(archive["1"], [0, 1, 2])


def test_equal_states_make_equal_files(tmp_path):
    for name in ("a.npz", "b.npz"):
        save(tmp_path / name, training_state(3), metadata={"step": 2})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@given(
    metadata=st.dictionaries(
        st.text(), st.recursive(st.none() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists)
    )
)
@relaxed
def test_metadata_round_trip(tmp_path, metadata):
    save(tmp_path / "state.npz", {"w": jnp.ones(1)}, metadata=metadata)
    assert read_metadata(tmp_path / "state.npz") == metadata


def test_a_part_is_what_lies_under_its_path(tmp_path):
    """And not what has a name that begins alike."""

    class Pair(eqx.Module):
        model: jax.Array
        model_before: jax.Array

    save(tmp_path / "pair.npz", Pair(jnp.arange(2.0), jnp.ones(3)))
    found, _ = load(tmp_path / "pair.npz", jnp.zeros(2), part=".model")
    np.testing.assert_array_equal(found, [0.0, 1.0])
