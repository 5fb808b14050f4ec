"""Networks in NIR: by its equations units fire as our generators and rectified units do; what does not fit is said."""

import itertools
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nir_simulator import simulate
from precision import double

import vicinal as vc
from vicinal.interchange import from_nir, save_nir, to_nir
from vicinal.spikes import Generator

nir = pytest.importorskip("nir", reason="needs nir: pip install 'vicinal[nir]'")

SIZES, STEPS = (5, 8, 7, 3), 200
AREA, TRACE = 0.25, 5.0


def network(vertex_at="pre"):
    return vc.nn.MLP(SIZES, "relu", vertex_at, key=jax.random.key(0))


def convolutional(seed=0, **settings):
    pool = vc.nn.AvgPool2d(2, 2)
    layers = [(3, 3, 1), (2, 3, 2)]
    return vc.nn.ConvNet((2, 8, 8), layers, (4, 3), padding=1, pool=pool, key=jax.random.key(seed))


def inputs(seed=0, shape=(SIZES[0],)):
    return 2 * np.random.default_rng(seed).normal(size=shape)


def stored(path, *arguments, **settings):
    save_nir(path / "network.nir", *arguments, **settings)
    return nir.read(path / "network.nir")


def activities(model, x):
    """The rectified activities of each hidden layer, and the output."""
    held = [x]
    for layer in model.layers:
        held.append(np.asarray(layer.weight) @ held[-1] + np.asarray(layer.bias))
        if layer is not model.layers[-1]:
            held[-1] = np.maximum(held[-1], 0)
    return held[1:-1], held[-1]


def bounds(model, peak, most):
    """The largest charge that rates can miss in any time, layer by layer, and the largest integral of the output's.

    The integral of a trace is `area * spikes - tau * trace`. A charge that gets `missing` less or more fires for that,
    and keeps less than one area.
    """
    found, missing = [], 0.0
    for layer in model.layers:
        missing = np.abs(np.asarray(layer.weight)).sum(1).max() * missing
        found.append(missing + AREA)
        missing = found[-1] + TRACE * max(peak, most)
    return found[:-1], found[-1] - AREA


def test_layers_units_and_traces_become_nodes():
    model, generator = network(), Generator(area=0.5, trace=4.0)
    graph = to_nir(model, jnp.ones(5), generator, dt=0.001)
    names = [
        "input",
        "layers_0",
        "hidden1",
        "hidden1_trace",
        "layers_1",
        "hidden2",
        "hidden2_trace",
        "layers_2",
        "output",
    ]
    assert graph.edges == list(itertools.pairwise(names))
    assert list(graph.nodes) == names
    np.testing.assert_array_equal(graph.nodes["layers_1"].weight, model.layers[1].weight)
    np.testing.assert_array_equal(graph.nodes["layers_1"].bias, model.layers[1].bias)
    unit, trace = graph.nodes["hidden2"], graph.nodes["hidden2_trace"]
    assert (type(unit), type(trace), unit.r.shape, unit.r.dtype) == (nir.IF, nir.LI, (7,), np.float32)
    np.testing.assert_allclose([unit.r[0], unit.v_threshold[0]], [1, 0.0005], rtol=1e-6)
    np.testing.assert_allclose([trace.tau[0], trace.r[0], trace.v_leak[0]], [0.004, 0.0005, 0], rtol=1e-6)
    unit = to_nir(model, jnp.ones(5), Generator(area=0.5, leak=20.0), dt=0.001).nodes["hidden1"]
    np.testing.assert_allclose([unit.tau[0], unit.r[0], unit.v_threshold[0]], [0.02, 0.02, 0.0005], rtol=1e-6)


@pytest.mark.parametrize("vertex_at", ["pre", "post"])
def test_rates_are_those_of_rectified_units_up_to_a_constant_charge(tmp_path, x64, vertex_at):
    """So their error falls as one over the time; it does not grow, however long one counts."""
    model = double(network(vertex_at))
    graph = stored(tmp_path, model, jnp.ones(5), Generator(area=AREA, trace=TRACE))
    errors = []
    for steps in (STEPS // 4, STEPS, 4 * STEPS):
        squares = []
        for seed in range(3):
            x = inputs(seed)
            spikes, output, peak = simulate(graph, x, steps)
            hidden, expected = activities(model, x)
            limits, last = bounds(model, peak, max(map(np.max, hidden)))
            for name, activity, limit in zip(("hidden1", "hidden2"), hidden, limits, strict=True):
                assert np.max(np.abs(AREA * spikes[name] - steps * activity)) <= limit
            assert np.max(np.abs(output - expected)) <= last / steps
            np.testing.assert_allclose(expected, model(jnp.asarray(x)), rtol=1e-12)
            squares.append(np.mean((output - expected) ** 2))
        errors.append(np.sqrt(np.mean(squares)))
    slope = np.polyfit(np.log([STEPS // 4, STEPS, 4 * STEPS]), np.log(errors), 1)[0]
    assert slope == pytest.approx(-1, abs=0.1)


@pytest.mark.parametrize("leak", [None, 20.0])
def test_units_send_the_spikes_of_our_generators(x64, leak):
    """Of a constant current all but one spike, which a charge of half an area at the start may add; above, a few."""
    model, x = double(network()), inputs(1)
    generator = Generator(area=AREA, trace=TRACE, leak=leak, most=None)
    spikes, output, _ = simulate(to_nir(model, jnp.ones(5), generator), x, STEPS)
    counts, ours = generated(model, generator, x)
    assert np.max(np.abs(spikes["hidden1"] - counts[0])) <= 1
    assert np.max(np.abs(spikes["hidden2"] - counts[1])) <= 4
    assert min(counts[0].max(), counts[1].max()) > 100
    np.testing.assert_allclose(output, ours, atol=4 * AREA / STEPS * np.abs(model.layers[2].weight).sum(1).max())
    rates = generator.rate(jnp.asarray(activities(model, x)[0][0]))
    np.testing.assert_allclose(AREA * spikes["hidden1"] / STEPS, rates, atol=1.01 * AREA / STEPS)


def generated(model, generator, x):
    """The spikes of our generators, fed forward from traces, and the mean output."""

    def step(sent, _):
        counts, below = [], jnp.asarray(x)
        for i, layer in enumerate(model.layers[:-1]):
            sent[i] = generator.send(sent[i], jax.nn.relu(layer(below))[None])
            counts.append(sent[i].spikes[0, 0])
            below = sent[i].traces[0]
        return sent, (counts, model.layers[-1](below))

    silent = [generator.silent(jnp.zeros((1, size))) for size in SIZES[1:-1]]
    _, (counts, outputs) = jax.jit(lambda sent: jax.lax.scan(step, sent, None, STEPS))(silent)
    return [np.sum(np.asarray(n), 0) for n in counts], np.mean(np.asarray(outputs), 0)


def test_time_may_be_counted_in_any_unit(x64):
    model, x, generator = double(network()), inputs(2), Generator(area=AREA, trace=TRACE)
    counts = [simulate(to_nir(model, x, generator, dt=dt), x, STEPS, dt)[0] for dt in (1.0, 0.0009765625)]
    for name in ("hidden1", "hidden2"):
        np.testing.assert_array_equal(counts[0][name], counts[1][name])


def test_without_traces_a_reset_to_zero_loses_charge_and_subtraction_does_not(x64):
    """Why there are traces: of a jump across the threshold NIR's equations forget the rest."""
    model, x = double(network()), inputs(0)
    graph = to_nir(model, x, Generator(area=AREA), dt=0.5, traces=False)
    np.testing.assert_allclose(graph.nodes["layers_1"].weight, AREA * 0.5 * np.asarray(model.layers[1].weight))
    assert not any(isinstance(node, nir.LI) for node in graph.nodes.values())
    expected = activities(model, x)[1]
    errors = {
        subtracts: [np.max(np.abs(simulate(graph, x, t, 0.5, subtracts)[1] - expected)) for t in (STEPS, 4 * STEPS)]
        for subtracts in (True, False)
    }
    assert errors[True][1] < 0.4 * errors[True][0] < 0.01
    assert errors[False][1] > 0.9 * errors[False][0] > 20 * errors[True][1]


@pytest.mark.parametrize("steps", [50, 200])
def test_convolutions_pooling_and_biases(tmp_path, steps):
    model, x = convolutional(), inputs(0, (2, 8, 8)).astype(np.float32)
    graph = stored(tmp_path, model, x, Generator(area=AREA, trace=2.0))
    kinds = ["Input", *["Conv2d", "IF", "LI", "AvgPool2d"] * 2, "Flatten", "Affine", "IF", "LI", "Affine", "Output"]
    after, name, found = dict(graph.edges), "input", ["Input"]
    while name in after:
        name = after[name]
        found.append(type(graph.nodes[name]).__name__)
    assert found == kinds
    np.testing.assert_allclose(simulate(graph, x, steps)[1], model(x), atol=5 / steps)
    assert_same(from_nir(graph, convolutional(1)), model)


def assert_same(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if eqx.is_array(one):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("kind", ["float32", "float64", "bfloat16"])
def test_parameters_come_back_with_the_same_bits(tmp_path, x64, kind):
    model, other = (
        jax.tree.map(
            lambda leaf: leaf.astype(kind) if eqx.is_array(leaf) else leaf,
            vc.nn.Autoencoder((4, 3, 4), use_bias=False, key=jax.random.key(seed)),
        )
        for seed in (0, 1)
    )
    graph = stored(tmp_path, model, jnp.ones(4), Generator(area=0.3, leak=20.0), dt=0.01)
    assert graph.nodes["layers_0"].weight.dtype == ("float64" if kind == "float64" else "float32")
    assert isinstance(graph.nodes["layers_0"], nir.Linear)
    # A leak divides by its time constant what its resistance has multiplied: rounding may remain.
    back = from_nir(graph, other)
    for one, expected in zip(back.mlp.layers, model.mlp.layers, strict=True):
        np.testing.assert_allclose(one.weight, expected.weight, rtol=1e-6)
    assert_same(from_nir(stored(tmp_path, model, jnp.ones(4)), other), model)


def test_a_network_by_others_keeps_what_it_computes():
    """Resistances and thresholds go into the weights above; biases may be missing."""
    random = np.random.default_rng(0)
    first, last, x = (random.normal(size=shape) for shape in ((4, 3), (2, 4), 3))
    unit, trace = nir.IF(*map(np.full, [4] * 2, [3.0, 0.75])), nir.LI(*map(np.full, [4] * 3, [2.0, 5.0, 0.0]))
    graph = nir.NIRGraph.from_list(nir.Linear(first), unit, trace, nir.Affine(last, np.ones(2)))
    like = vc.nn.MLP((3, 4, 2), "relu", key=jax.random.key(0))
    expected = last @ (5 * 3 / 0.75 * np.maximum(first @ x, 0)) + 1
    for reset in (0.0, -0.5) if hasattr(unit, "v_reset") else (0.0,):  # from v_reset to the threshold: 0.75
        unit.v_threshold, unit.v_reset = np.full(4, 0.75 + reset), np.full(4, reset)
        model = from_nir(graph, like)
        np.testing.assert_allclose(model(jnp.asarray(x, jnp.float32)), expected, rtol=1e-5)
        np.testing.assert_allclose(simulate(graph, x, 2000, 0.5)[1], expected, atol=0.1)


def test_files_have_no_reset_potential(tmp_path):
    """It is 0, as where it is missing; and nir before 1.0.6, which some simulators need, refuses a file that has it."""
    save_nir(tmp_path / "network.nir", network(), jnp.ones(5))
    with pytest.importorskip("h5py").File(tmp_path / "network.nir") as file:
        assert set(file["node/nodes/hidden1"]) == {"r", "type", "v_threshold"}
    unit = nir.read(tmp_path / "network.nir").nodes["hidden1"]
    assert not np.any(getattr(unit, "v_reset", 0))


def with_layer(model, layer):
    return eqx.tree_at(lambda m: m.layers[0], model, layer)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: vc.nn.MLP((5, 3), key=jax.random.key(0)), "expected the activation 'relu'.* got 'tanh'; train"),
        (
            lambda: vc.nn.ResidualMLP((5, 4, 3), 4, activation="relu", key=jax.random.key(0)),
            "expected a chain of layers, vicinal.nn.MLP, Autoencoder or ConvNet, got ResidualMLP; other models",
        ),
        (lambda: vc.nn.Transformer(5, 4, 3, length=2, key=jax.random.key(0)), "expected a chain of .* got Transformer"),
        (
            lambda: vc.feedback.attach(network(), vc.feedback.random(), key=jax.random.key(1)),
            "expected layers of vicinal.nn, Linear, got Fed; take feedback off with vicinal.feedback.detach",
        ),
        (
            lambda: with_layer(network(), eqx.nn.Sequential([network().layers[0], vc.nn.BatchNorm(8)])),
            "expected layers of vicinal.nn, Linear, got Sequential",
        ),
    ],
)
def test_models_without_counterpart(model, message):
    with pytest.raises(ValueError, match=message):
        to_nir(model(), jnp.ones(5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pool": vc.nn.MaxPool2d(2, 2)}, "expected pooling by an AvgPool2d .* got MaxPool2d; a maximum"),
        (
            {"convolutions": [(3, (3, 1), 1)]},
            "expected convolutions with square kernels .* got kernels 3 × 1 and 1 groups",
        ),
        ({"convolutions": [(3, 2, 1)], "padding": "SAME"}, "expected padding that is equal on both sides, got"),
    ],
)
def test_convolutions_without_counterpart(settings, message):
    settings = {"convolutions": [(3, 3, 1)]} | settings
    model = vc.nn.ConvNet((1, 6, 6), sizes=(2,), key=jax.random.key(0), **settings)
    with pytest.raises(ValueError, match=message):
        to_nir(model, jnp.ones((1, 6, 6)))


def test_wrong_arguments():
    with pytest.raises(TypeError, match=r"expected generator as a vicinal.spikes.Generator, got 0.5"):
        to_nir(network(), jnp.ones(5), 0.5)
    with pytest.raises(ValueError, match="expected dt as a number above 0, got 0"):
        to_nir(network(), jnp.ones(5), dt=0)
    with pytest.raises(ValueError, match=r"expected an input of shape \[5\], got \[4\]"):
        to_nir(network(), jnp.ones(4))
    with pytest.raises(TypeError, match=r"expected a nir.NIRGraph, as nir.read returns, got str"):
        from_nir("network.nir", network())


def units(**changes):
    fields = {"r": np.ones(8), "v_threshold": np.ones(8)}
    return nir.IF(**fields | changes)


WIDE, NARROW = nir.Linear(np.ones((8, 5))), nir.Linear(np.ones((3, 8)))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([WIDE, units()], "expected a chain Input -> weights -> .* got Input -> Linear -> IF -> Output"),
        ([WIDE, NARROW], "expected a chain .* got Input -> Linear -> Linear -> Output"),
        ([WIDE, nir.Threshold(np.ones(8)), NARROW], "expected a chain .* Threshold"),
        ([WIDE, units(r=np.arange(1.0, 9)), NARROW], "expected one r for all units of 'if', got 8 different ones"),
        (
            [WIDE, units(), nir.Linear(np.ones((4, 8)))],
            "expected Affine of weights 3 × 8, as in the model, got .* 4 × 8",
        ),
        ([WIDE], "expected Affine of weights 3 × 8, as in the model, got no more"),
        ([WIDE, nir.LIF(*np.ones((4, 8))), NARROW], "expected units of 'lif' that rest at v_leak = 0, got 1.0"),
        (
            [WIDE, units(), nir.Affine(np.ones((3, 8)), np.ones(3))],
            "expected no biases, as in the model, got some in layer 2",
        ),
    ],
)
def test_graphs_that_do_not_fit(nodes, message):
    with pytest.raises(ValueError, match=message):
        from_nir(nir.NIRGraph.from_list(*nodes), vc.nn.MLP((5, 8, 3), "relu", use_bias=False, key=jax.random.key(0)))


def test_a_graph_that_is_no_chain():
    nodes = {"input": nir.Input(np.array([5])), "a": WIDE, "b": WIDE, "output": nir.Output(np.array([8]))}
    edges = [("input", "a"), ("input", "b"), ("a", "output"), ("b", "output")]
    with pytest.raises(ValueError, match=r"expected a chain .* got 4 nodes with 4 edges"):
        from_nir(nir.NIRGraph(nodes, edges), network())


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(ImportError, match=r"A graph of NIR needs nir; pip install 'vicinal\[nir\]'"):
        save_nir(tmp_path / "network.nir", network(), jnp.ones(5))
