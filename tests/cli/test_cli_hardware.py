"""Tiles on the command line."""

import json

import pytest

from vicinal.cli import main

QUICK = ("--epochs", "1", "--batch-size", "256", "--model.sizes", "64", "8", "10")


def run(*arguments):
    main(list(map(str, arguments)))


def refused(capsys, *arguments):
    """The sentence with which a command ends."""
    with pytest.raises(SystemExit) as exit_:
        run(*arguments)
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return " ".join(said.split())


def test_a_network_on_cells_is_trained_and_its_settings_are_kept(capsys, tmp_path):
    options = ("--model.device", "capacitor", "--model.adc", "6", "--model.cells", "stuck=0.25")
    run("train", "--rule", "fa", *QUICK, *options, "--folder", tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    model = config.get("settings", config)["model"]
    assert (model["device"], model["adc"], model["cells"]) == ("capacitor", 6.0, ["stuck=0.25"])
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    assert results["settings"]["model"]["device"] == "capacitor"
    assert "capacitor" in (tmp_path / "a" / "report.html").read_text()
    angles = results["rules"][0]["angles"]  # to exact backpropagation, by the names of the bare layers
    assert set(angles) == {"layers[0]", "layers[1]", "concatenated"}
    before = (tmp_path / "a" / "results.json").read_text()
    said = refused(capsys, "train", "--rule", "fa", *QUICK, "--folder", tmp_path / "a")
    assert "expected a folder without a run" in said
    assert (tmp_path / "a" / "results.json").read_text() == before


def test_numbers_of_the_hardware_vary_in_a_sweep_of_one_program(tmp_path):
    run(
        *("sweep", "--rule", "bp", *QUICK, "--seeds", "1", "--model.device", "idealized", "--model.pulses", "transfer"),
        *("--vary", "model.adc=4,8", "model.cells.soft=0,1", "--group-size", "4", "--folder", tmp_path / "b"),
    )
    results = json.loads((tmp_path / "b" / "results.json").read_text())
    members = results["numbers"]["members"]
    assert [member["numbers"] for member in members] == [
        {"model.adc": adc, "model.cells.soft": soft} for adc in (4, 8) for soft in (0, 1)
    ]
    assert "programs" not in results["summary"]
    assert len({json.dumps(member["records"][-1]["train_loss"]) for member in members}) == 4


def test_the_local_product_is_averaged_over_a_part_of_the_steps(capsys, tmp_path):
    options = ("--rule", "il", *QUICK, "--seeds", "1", "--model.read-noise", "0.5")
    run("sweep", *options, "--vary", "average=0,0.5", "--folder", tmp_path / "f")
    results = json.loads((tmp_path / "f" / "results.json").read_text())
    members = results["numbers"]["members"]
    assert [member["numbers"] for member in members] == [{"average": 0}, {"average": 0.5}]
    assert len({member["records"][-1]["train_loss"] for member in members}) == 2
    options = ("train", *QUICK, "--inference.average", "0.5", "--folder", tmp_path / "g")
    assert "a tolerance of 0.01" in refused(capsys, *options, "--rule", "il", "--inference.tolerance", "0.01")
    assert "inference.average" in refused(capsys, *options, "--rule", "bp")


def test_repeated_reads_vary_in_programs_of_their_own(tmp_path):
    run(*("sweep", "--rule", "bp", *QUICK, "--seeds", "1", "--vary", "model.repeats=1,3", "--folder", tmp_path / "e"))
    results = json.loads((tmp_path / "e" / "results.json").read_text())
    members = results["numbers"]["members"]
    assert [member["numbers"] for member in members] == [{"model.repeats": 1}, {"model.repeats": 3}]
    assert len({member["records"][-1]["train_loss"] for member in members}) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--model.device", "capacitr"), "did you mean 'capacitor'"),
        (("--model.cells", "soft=0.5"), "expected model.device beside model.cells, got none"),
        (("--model.device", "ecram", "--model.cells", "sofd=0.5"), "got 'sofd'; did you mean 'soft'"),
        (("--model.device", "ecram", "--model.cells", "soft=3"), "expected soft from 0 to 1, got 3"),
        (("--model.adc", "1"), "expected adc, in bits, of at least 2, got 1"),
        (("--model.repeats", "0"), "expected repeats as an integer of at least 1, got 0"),
        (("--model.repeats", "2", "--model.periphery", "ideal"), "expected noise that 2 reads of the same input"),
        (("--model.read-noise", "-1"), "expected read_noise of at least 0, got -1"),
        (("--model.device", "nowhere.csv"), "nowhere.csv"),
    ],
)
def test_wrong_settings_are_one_sentence(capsys, tmp_path, options, words):
    assert words in refused(capsys, "train", *QUICK, *options, "--folder", tmp_path / "c")


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        ("model.adcs=4,6", "got 'model.adcs'; did you mean 'model.adc'"),
        ("model.cells.soft=0,1", "expected model.device beside model.cells, got none"),
        ("model.adc=1,6", "expected adc, in bits, of at least 2, got 1"),
    ],
)
def test_wrong_numbers_of_a_sweep_are_one_sentence(capsys, tmp_path, vary, words):
    assert words in refused(capsys, "sweep", *QUICK, "--vary", vary, "--folder", tmp_path / "d")
