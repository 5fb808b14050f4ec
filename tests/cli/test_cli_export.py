"""`vicinal export`: the trained network of a run, for other programs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from once import once

import vicinal as vc
from vicinal.cli import main

SIZES = ("64", "8", "10")


def run(*arguments):
    main(list(map(str, arguments)))


@once
def trained(folder, *options):
    """Trains a run; returns its network, or with options one of its shape."""
    sizes = ("--model.sizes", *SIZES, "--model.activation", "relu")
    run("train", "--epochs", "1", "--batch-size", "256", *sizes, *options, "--folder", folder)
    like = vc.nn.MLP(tuple(map(int, SIZES)), "relu", key=jax.random.key(0))
    return like if options else vc.train.load_model(folder, like=like)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "plain"
    trained(folder)
    return folder


def test_networks_come_back_from_each_format(folder, tmp_path):
    model = trained(folder)
    like = jax.tree.map(lambda leaf: leaf * 0 if eqx.is_array(leaf) else leaf, model)
    nir = pytest.importorskip("nir", reason="needs nir: pip install 'vicinal[nir]'")
    for name in ("network.nir", "network.safetensors", "network.stablehlo"):
        run("export", folder, tmp_path / "new" / name)
    program = jax.export.deserialize(bytearray((tmp_path / "new" / "network.stablehlo").read_bytes()))
    x = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    np.testing.assert_allclose(program.call(x), jax.vmap(model)(jnp.asarray(x)), rtol=1e-5, atol=1e-6)
    graph = nir.read(tmp_path / "new" / "network.nir")
    loaded = vc.interchange.load_safetensors(tmp_path / "new" / "network.safetensors", like)
    for found in (vc.interchange.from_nir(graph, like), loaded):
        for one, other in zip(found.layers, model.layers, strict=True):
            np.testing.assert_array_equal(one.weight, other.weight)
            np.testing.assert_array_equal(one.bias, other.bias)
    assert (graph.nodes["hidden1"].v_threshold[0], graph.nodes["hidden1_trace"].tau[0]) == (1, 5)


def test_settings_of_spikes_reach_the_file(folder, tmp_path):
    nir = pytest.importorskip("nir", reason="needs nir: pip install 'vicinal[nir]'")
    options = ("--spikes.area", "0.5", "--spikes.leak", "20", "--spikes.trace", "4", "--spikes.dt", "0.25")
    run("export", folder, tmp_path / "network.nir", *options)
    graph = nir.read(tmp_path / "network.nir")
    unit, trace = graph.nodes["hidden1"], graph.nodes["hidden1_trace"]
    assert (unit.v_threshold[0], unit.tau[0], trace.tau[0], trace.r[0]) == (0.125, 5, 1, 0.125)
    run("export", folder, tmp_path / "network.nir", "--spikes.no-traces", "--spikes.dt", "0.25")
    assert "hidden1_trace" not in nir.read(tmp_path / "network.nir").nodes


def test_a_network_trained_in_spikes_keeps_its_generators_and_leaves_its_feedback(tmp_path):
    nir = pytest.importorskip("nir", reason="needs nir: pip install 'vicinal[nir]'")
    like = trained(tmp_path / "run", "--rule", "il-spikes", "--model.feedback", "random", "--set", "activity.area=0.5")
    run("export", tmp_path / "run", tmp_path / "network.nir")
    graph = nir.read(tmp_path / "network.nir")
    assert graph.nodes["hidden1"].v_threshold[0] == 0.5
    model = vc.interchange.from_nir(graph, like)
    assert np.abs(np.asarray(model.layers[1].weight)).max() > 0.1


@pytest.mark.slow
@pytest.mark.full
def test_tiles_are_left_out(tmp_path):
    like = trained(tmp_path / "run", "--rule", "bp", "--model.device", "idealized")
    run("export", tmp_path / "run", tmp_path / "network.safetensors")
    model = vc.interchange.load_safetensors(tmp_path / "network.safetensors", like)
    assert np.abs(np.asarray(model.layers[0].weight)).max() > 0.1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("network.onnx",), "expected a file that ends in .nir, .safetensors, .stablehlo, got"),
        (("network.safetensors", "--spikes.dt", "2"), "expected settings of spikes only for a .nir file, got some for"),
        (("network.nir", "--best"), "expected the best model in"),
    ],
)
def test_mistakes_are_a_sentence(folder, tmp_path, capsys, words, sentence):
    with pytest.raises(SystemExit) as exit_:
        run("export", folder, tmp_path / words[0], *words[1:])
    assert exit_.value.code == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_a_folder_of_several_runs_is_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"rules": ["bp"], "seeds": 2}')
    with pytest.raises(SystemExit):
        run("export", tmp_path, tmp_path / "network.nir")
    said = " ".join(capsys.readouterr().err.split())
    assert "expected the folder of a `vicinal train`, got one of a `vicinal compare`" in said
    assert "vicinal.train.load_model" in said
