"""Tiles: an ideal one changes nothing, and any other reads as its periphery does, in either direction."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix import diagonal, full
from once import once
from precision import double
from rule_table import RULES

import vicinal as vc
from vicinal import hardware as hw
from vicinal.testing import cases

KEY = jax.random.key(0)
NOTHING = hw.Periphery(dac=None, adc=None, bound=None, read_noise=0.0, weight_noise=0.0)  # computed, not left out
WIDE = hw.Periphery(dac=None, adc=None, bound=1e9, read_noise=None, weight_noise=None)  # nor is this; it compiles fast
CHAINS = {
    "implicit SGD": vc.rules.ImplicitSGD(learning_rate=0.1),
    "phaseless": vc.rules.PhaselessAlignment(times=vc.rules.TimeConstants(dt=0.5, presentation=2.0, low_pass=10.0)),
}


def gradient(rule, model, case):
    """The gradient of a batch, without tiles in its tree."""
    graph = vc.capture(model, case.x[0])

    @eqx.filter_jit
    def run(model):
        state = rule.init(graph, model, key=jax.random.key(1))
        return rule.value_and_grad(graph, model, state, case.x, case.y, key=jax.random.key(2))[1]

    return hw.remove(run(model))


def assert_same(rule, case, rtol=1e-12, read=NOTHING):
    tiles = hw.place(case.model, None, forward=read, backward=read, key=KEY)
    ours, theirs = gradient(rule, tiles, case), gradient(rule, case.model, case)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(1.0, float(np.abs(b).max())))


MAIN = [name for name in RULES if "," not in name and not name.endswith(" inference")]
SMALL = ["two layers", "two layers, potentials"]
WHOLE = [
    (rule, kind) if (rule, kind) == ("backpropagation", "mlp") else full(rule, kind)
    for rule in RULES
    for kind in ("mlp", "mlp, potentials")
    if "chains" not in rule
]


@pytest.mark.parametrize(("rule", "kind"), [*diagonal(MAIN, SMALL), *WHOLE])
def test_reads_without_noise_and_rounding_change_no_gradient(x64, rule, kind):
    assert_same(RULES[rule], fresh(kind), read=WIDE if kind in SMALL else NOTHING)


@pytest.mark.full
def test_reads_without_noise_and_rounding_change_no_inversion(x64):
    assert_same(RULES["dynamic inversion, in chains"], fresh("mlp, potentials"))


@pytest.mark.parametrize("kind", ["convolutional", "recurrent"])
@pytest.mark.parametrize(
    ("rule", "read"),
    [
        ("backpropagation", WIDE),
        *(full(rule, NOTHING) for rule in ("backpropagation", "inference learning", "activation relaxation")),
    ],
    ids=["bound", "backpropagation", "inference learning", "activation relaxation"],
)
def test_reads_of_maps_and_in_time_change_no_gradient(x64, rule, read, kind):
    assert_same(RULES[rule], fresh(kind), read=read)


@pytest.mark.parametrize("rule", [full(name) for name in CHAINS])
def test_rules_for_chains_and_implicit_steps_have_the_same_gradient(x64, rule):
    assert_same(CHAINS[rule], fresh("mlp, potentials"), 1e-10)


@once
def small(vertex_at="post"):
    """Two layers, which compile faster than the three of the cases."""
    (case,) = (case for case in cases() if case.name == "mlp")
    return dataclasses.replace(case, model=vc.nn.MLP((5, 4, 3), vertex_at=vertex_at, key=KEY))


@once
def fresh(kind):
    """A case in double precision, made while double precision is on."""
    if kind.startswith("two layers"):
        case = small("pre" if "potentials" in kind else "post")
    else:
        (case,) = (case for case in cases() if case.name == kind)
    return dataclasses.replace(case, model=double(case.model), x=double(case.x))


def test_in_single_precision_to_seven_digits():
    assert_same(RULES["inference learning"], small(), 1e-6, WIDE)


def test_an_ideal_tile_runs_the_layer_itself():
    model = vc.nn.MLP((5, 6, 3), key=KEY)
    tiles = hw.place(model, forward="ideal", backward="ideal", key=KEY)
    x = jax.random.normal(KEY, (4, 5))
    bare, placed = (jax.jit(lambda m: jax.vmap(m)(x))(m) for m in (model, tiles))
    assert np.array_equal(bare, placed)


@pytest.mark.parametrize("device", [None, "idealized"])
def test_removing_gives_the_model_back(device):
    model = vc.nn.MLP((5, 6, 3), key=KEY)
    device = None if device is None else hw.Device(step=0.001)
    back = hw.remove(hw.place(model, device, key=KEY))
    assert eqx.tree_equal(model, back)


GEOMETRIES = {
    "stride and padding": {"stride": 2, "padding": 1},
    "dilation": {"dilation": 2},
    "same": {"padding": "SAME", "stride": 2},
    "groups": {"groups": 2},
    "sides": {"kernel_size": (2, 3), "padding": (1, 0)},
}


@pytest.mark.parametrize(
    ("name", "read"), [*((name, WIDE) for name in GEOMETRIES), ("groups", NOTHING)], ids=[*GEOMETRIES, "noise"]
)
def test_a_convolution_is_read_patch_by_patch_in_either_direction(x64, name, read):
    settings = {"kernel_size": 3, **GEOMETRIES[name]}
    layer = double(vc.nn.Conv2d(4, 6, key=KEY, **settings))
    tile = hw.place(layer, forward=read, backward=read, key=KEY)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 9, 8)))

    def value(layer, x):
        out = layer(x)
        return jnp.sum(np.random.default_rng(1).normal(size=out.shape) * jnp.sin(out))

    def slopes(*layers):
        return [jax.grad(value, (0, 1), allow_int=True)(layer, x) for layer in layers]

    ours, theirs = jax.jit(slopes)(tile, layer)
    for a, b in zip(jax.tree.leaves((ours[0].layer, ours[1])), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_convolutions_of_equinox_in_one_dimension(x64):
    layer = double(eqx.nn.Conv1d(2, 3, 4, padding=2, key=KEY))
    tile = hw.place(layer, forward=WIDE, backward=WIDE, key=KEY)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9)))
    np.testing.assert_allclose(*jax.jit(lambda x: (tile(x), layer(x)))(x), atol=1e-12)


def test_each_patch_has_an_input_range_of_its_own(x64):
    """Three levels of a patch's largest entry; a range for the whole image would round the dim half to nothing."""
    layer = double(vc.nn.Conv2d(1, 1, 1, use_bias=False, key=KEY))
    coarse = hw.Periphery(dac=2, adc=None, bound=None, read_noise=None)
    tile = hw.place(layer, forward=coarse, backward="ideal", key=KEY)
    x = jnp.array([[[100.0, 1.0]]])
    np.testing.assert_allclose(*jax.jit(lambda x: (tile(x), layer(x)))(x), rtol=1e-12)


def vectors(*sizes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=size)) for size in sizes]


def test_forward_and_backward_have_a_periphery_each(x64):
    layer = double(vc.nn.Linear(6, 4, key=KEY))
    coarse = hw.Periphery(dac=3, adc=None, bound=None, read_noise=None)
    x, error = vectors(6, 4)

    @jax.jit
    def run(tiles, x, error):
        both = [(out, *back(error)) for out, back in (jax.vjp(tile, x) for tile in tiles)]
        return both, coarse.read(layer.weight.T, error, key=KEY), coarse.read(layer.weight, x, key=KEY)

    ends = [("ideal", coarse), (coarse, "ideal")]
    tiles = [hw.place(layer, forward=forward, backward=backward, key=KEY) for forward, backward in ends]
    ((out, carried), (rounded_out, exact)), rounded, rounded_product = run(tiles, x, error)
    weight = np.asarray(layer.weight)
    np.testing.assert_allclose(out, weight @ x + np.asarray(layer.bias), rtol=1e-12)
    np.testing.assert_allclose(carried, rounded, rtol=1e-12)
    np.testing.assert_allclose(rounded_out, rounded_product + np.asarray(layer.bias), rtol=1e-12)
    np.testing.assert_allclose(exact, weight.T @ error, rtol=1e-12)


def test_the_gradient_of_a_weight_is_the_exact_outer_product(x64):
    layer = double(vc.nn.Linear(6, 4, key=KEY))
    tile = hw.place(layer, key=KEY)
    x, error = vectors(6, 4)

    @jax.jit
    def slope(weight):
        return jax.vjp(lambda weight: eqx.tree_at(lambda t: t.layer.weight, tile, weight)(x), weight)[1](error)[0]

    np.testing.assert_allclose(slope(tile.layer.weight), np.outer(error, x), rtol=1e-12)


@pytest.fixture(scope="module")
def noisy():
    noise = hw.Periphery(dac=None, adc=None, bound=None, read_noise=0.1)
    return hw.place(vc.nn.Linear(6, 200, use_bias=False, key=KEY), forward=noise, backward=noise, key=KEY)


def test_noise_is_new_for_each_input_and_weight_and_the_same_for_the_same(noisy):
    x = np.random.default_rng(0).normal(size=6).astype(np.float32)
    noise, weight = {}, np.array(noisy.layer.weight)
    weight[3, 2] += 1e-6
    other = eqx.tree_at(lambda t: t.layer.weight, noisy, jnp.asarray(weight))
    nudged = x.copy()
    nudged[5] = np.nextafter(x[5], np.float32(np.inf))
    signs = x * np.array([-1, -1, 1, 1, 1, 1], np.float32)
    read = jax.jit(lambda tile, x: (tile(x), tile.layer(x)))
    for name, tile, value in (("x", noisy, x), ("W", other, x), ("nudged", noisy, nudged), ("signs", noisy, signs)):
        noise[name] = np.subtract(*read(tile, value)) / np.max(np.abs(value))
    assert np.array_equal(read(noisy, x)[0], read(noisy, x)[0])
    for name in ("W", "nudged", "signs"):
        assert abs(np.corrcoef(noise["x"], noise[name])[0, 1]) < 4 / 200**0.5


def test_forward_and_backward_draws_are_independent(x64):
    """A symmetric matrix and the same vector either way."""
    noise = hw.Periphery(dac=None, adc=None, bound=None, read_noise=0.1)
    layer = double(vc.nn.Linear(200, 200, use_bias=False, key=KEY))
    weight = np.asarray(layer.weight) + np.asarray(layer.weight).T
    layer = eqx.tree_at(lambda layer: layer.weight, layer, jnp.asarray(weight))
    tile, (x,) = hw.place(layer, forward=noise, backward=noise, key=KEY), vectors(200)

    @jax.jit
    def both_ways(x):
        out, back = jax.vjp(tile, x)
        return out, back(x)[0]

    out, carried = both_ways(x)
    found = np.corrcoef(out - weight @ x, carried - weight @ x)[0, 1]
    assert abs(found) < 4 / 200**0.5


def test_a_feedback_weight_lies_on_an_array_of_its_own(x64):
    model = double(vc.nn.MLP((6, 5, 4), key=KEY))
    fed = vc.feedback.attach(model, vc.feedback.random(), key=jax.random.key(1))
    stuck = hw.Device(step=0.001, stuck=1.0)
    tiles = hw.place(fed, stuck, forward="ideal", backward=WIDE, key=KEY)
    loose = hw.place(fed, hw.Device(step=0.001), forward="ideal", backward=WIDE, key=KEY)
    assert not np.any(tiles.layers[1].layer.path.feedback)  # all its cells are stuck at 0: no error comes through
    carry = jax.jit(lambda layer: jax.vjp(layer, jnp.ones(5))[1](jnp.ones(4))[0])
    assert not np.any(carry(tiles.layers[1]))
    feedback = np.asarray(loose.layers[1].layer.path.feedback)
    np.testing.assert_allclose(carry(loose.layers[1]), feedback.T @ np.ones(4), rtol=1e-12)
    assert not eqx.tree_equal(loose.layers[1].crossbar.seed, loose.layers[1].feedback.seed)


@pytest.mark.parametrize("route", ["tied", "sign_symmetric", "kolen_pollack", "weight_mirror"])
def test_every_path_of_feedback_keeps_its_gradients_on_tiles(x64, route):
    case = fresh("two layers")
    fed = vc.feedback.attach(case.model, getattr(vc.feedback, route)(), key=jax.random.key(1))
    assert_same(RULES["backpropagation"], dataclasses.replace(case, model=fed), read=WIDE)


def test_cells_are_fixed_and_weights_are_trained():
    graph = vc.capture(hw.place(vc.nn.MLP((5, 6, 3), key=KEY), "capacitor", key=KEY), jnp.ones(5))
    roles = {path: role for path, role in graph.roles.items() if role == "parameter"}
    assert list(roles) == [f".layers[{i}].layer.{name}" for i in (0, 1) for name in ("weight", "bias")]


def test_wrong_calls_are_refused():
    model = vc.nn.MLP((5, 6, 3), key=KEY)
    placed = hw.place(model, key=KEY)
    with pytest.raises(ValueError, match=r"got a tile already, layers\[0\]"):
        hw.place(placed, key=KEY)
    with pytest.raises(ValueError, match="expected a model with linear or convolutional layers"):
        hw.place({"weight": jnp.ones(3)}, key=KEY)
    with pytest.raises(ValueError, match="got a transposed convolution"):
        hw.place(eqx.nn.ConvTranspose2d(1, 1, 3, key=KEY), key=KEY)
    with pytest.raises(ValueError, match="did you mean 'ecram'"):
        hw.place(model, "ecran", key=KEY)
    with pytest.raises(TypeError, match=r"expected a vicinal.hardware.Periphery or its name, got 7"):
        hw.place(model, forward=7, key=KEY)
    with pytest.raises(TypeError, match=r"expected a vicinal.hardware.Device, its name or None, got 0.1"):
        hw.place(model, 0.1, key=KEY)
    fed = vc.feedback.attach(placed, vc.feedback.random(), key=KEY)
    with pytest.raises(ValueError, match="expected feedback that was attached before the model was placed"):
        fed(jnp.ones(5))


def norms(model, x):
    graph = vc.capture(model, x[0])
    found = jax.jit(lambda model: graph.presynaptic(model, graph.feedforward(model, x)[1], x))(model)
    return {name.replace(".layer.", "."): norm for name, norm in found.items()}


@pytest.mark.parametrize("kind", ["mlp", "convolutional"])
def test_what_enters_each_weight_and_its_bias_is_found_behind_a_read(x64, kind):
    """The norms that the normalised step divides by are those of the bare layers, biases and channels included."""
    case = fresh(kind)
    tiles = hw.place(case.model, forward=WIDE, backward=WIDE, key=KEY)
    ours, theirs = norms(tiles, case.x), norms(case.model, case.x)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 6  # three weights, three biases
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-12)


def test_a_bias_that_is_added_to_the_product_of_a_jitted_function_is_its_bias():
    weights = {"weight": jnp.ones((2, 3)), "bias": jnp.ones(2)}
    product = jax.jit(lambda weight, x: weight @ x)
    model = jax.tree_util.Partial(lambda weights, x: product(weights["weight"], x) + weights["bias"], weights)
    graph = vc.capture(model, jnp.ones(3))
    found = graph.presynaptic(model, {}, jnp.ones((1, 3)))
    assert {name.split("[")[-1]: float(norm[0]) for name, norm in found.items()} == {"'weight']": 4.0, "'bias']": 4.0}
