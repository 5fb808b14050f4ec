"""`vicinal ledger`, the counts of `vicinal rules`, and those of a comparison's report."""

import dataclasses
import json

import pytest

from vicinal.cli import main
from vicinal.compare import CompareSettings, compare
from vicinal.ledgers import LedgerSettings, ledgers
from vicinal.recipes import RECIPES, counts
from vicinal.report import Comparison, as_study
from vicinal.settings import InferenceSettings, ModelSettings

SMALL = ["--model.sizes", "64", "8", "10"]


def run(capsys, *words):
    main(list(words))
    return " ".join(capsys.readouterr().out.split())


def fails(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert end.value.code == 2
    said = capsys.readouterr()
    assert not said.out
    return said.err


def test_a_ledger_is_printed_and_written(capsys, tmp_path):
    page, file = tmp_path / "new" / "page.html", tmp_path / "ledgers.json"
    printed = run(capsys, "ledger", "bp", "dfa", *SMALL, "--page", str(page), "--file", str(file))
    assert "bp 2 1 2" in printed
    assert "dfa 3 0 2" in printed
    assert "* rests on constants without a source" in printed
    assert "unsourced" in page.read_text()
    found = json.loads(file.read_text())
    assert [(item["name"], item["depth"]) for item in found] == [("bp", 3), ("dfa", 3)]


def test_constants_come_from_a_file(capsys, tmp_path):
    file = tmp_path / "chip.toml"
    sourced = "{ value = 0, source = 'ours' }"
    file.write_text(f"dac_energy = {sourced}\nadc_energy = {sourced}\ndram_energy = {sourced}\n")
    printed = run(capsys, "ledger", "bp", *SMALL, "--constants", str(file))
    assert "by the constants 'chip'" in printed
    assert "without a source" not in printed


def test_published_data_are_not_loaded(monkeypatch, tmp_path):
    monkeypatch.setenv("VICINAL_DATA", str(tmp_path))  # there is nothing there
    model = ModelSettings(kind="convolutional", sizes=(10,))
    (found,) = ledgers(["bp"], LedgerSettings(data="cifar10", model=model, batch_size=7))
    assert found.batch == 7
    assert [(use.inputs, use.outputs, use.forward / 7) for use in found.uses] == [
        (3 * 9, 16, 15 * 15),  # (32 - 3) // 2 + 1 positions a side
        (16 * 9, 32, 7 * 7),
        (32 * 7 * 7, 10, 1),
    ]


def test_settings_reach_the_rule():
    one, other = (
        ledgers(["il"], LedgerSettings(inference=InferenceSettings(steps=steps)))[0].transposed for steps in (3, 9)
    )
    assert (one, other) == (2 * 3, 2 * 9)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("ledger", "expected different rules, at least one, got none"),
        ("ledger bpp", "did you mean 'bp'"),
        ("ledger bp --array 0 8", "two whole numbers above 0, got (0, 8)"),
        ("ledger bp --array 8", "--array"),
        ("ledger bp --turns -1", "turns as an integer of at least 0, got -1"),
        ("ledger bp --batch-size 0", "batch_size as an integer of at least 1, got 0"),
        ("ledger bp --epochs 3", "an option of `vicinal ledger`, got --epochs"),
        ("ledger bp --data nothing.npz", "nothing.npz"),
        ("ledger bp --constants nothing.toml", "expected to read or write 'nothing.toml'"),
        ("ledger il --inference.tolerance 0.1", "or --turns on the command line"),
        ("ledger di", "expected loops of known length"),
        ("ledger bp --model.sizes 5 4 3", "have shape [64]"),
    ],
)
def test_a_wrong_line_ends_in_a_sentence(capsys, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    said = fails(capsys, *words.split())
    assert said.startswith("vicinal: expected") or "nothing.npz" in said
    assert sentence in said


def test_rules_show_the_stored_counts(capsys):
    printed = run(capsys, "rules")
    assert "on arrays 3 forward and 2 transposed reads, 3 outer products" in printed
    assert "as many reads as its loop makes turns" in printed


def test_stored_counts_are_those_of_a_new_count():
    assert counts.known().keys() == RECIPES.keys()
    for name in ("bp", "il", "dfa", "di"):  # `vicinal rules --check` counts all
        assert counts.counts_of(name) == counts.known()[name]


def test_a_report_shows_what_an_update_asks_of_arrays(tmp_path):
    settings = CompareSettings(
        rules=("bp", "dfa"), seeds=1, epochs=1, batch_size=128, model=ModelSettings(sizes=(64, 8, 10))
    )
    compare(settings, tmp_path / "run", progress=False)
    results = Comparison.from_json((tmp_path / "run" / "results.json").read_text())
    assert [rule.array_counts["transposed"] for rule in results.rules] == [1, 0]
    (section,) = [section for section in as_study(results).sections if section.heading == "On arrays"]
    assert [row[1:4] for row in section.tables[0].rows] == [[2, 1, 2], [3, 0, 2]]
    assert len(section.panels) == 2
    assert "On arrays" in (tmp_path / "run" / "report.html").read_text()
    uncounted = [dataclasses.replace(rule, array_counts={}) for rule in results.rules]
    study = as_study(dataclasses.replace(results, rules=uncounted))
    assert "On arrays" not in [section.heading for section in study.sections]


def test_synaptic_operations_are_measured_where_events_are_sent(capsys, tmp_path):
    file, words = tmp_path / "found.json", [*SMALL, "--measured", "5"]
    printed = run(capsys, "ledger", "bp", "il-events", "bp-events", *words, "--file", str(file))
    assert "Measured on 5 training examples of digits, with first weights of seed 0, untrained;" in printed
    assert "il-events, dense" in printed
    bp, il, events = (item["synaptic_operations"] for item in json.loads(file.read_text()))
    assert bp is None
    assert il["examples"] == 5
    update = 2 * (64 * 8 + 8 * 10) + 8 * 10
    assert il["dense"]["backprop"] == events["dense"]["backprop"] == update
    assert il["dense"]["settling"] == 8 * 10 * 2 * 20  # 20 steps, predictions and errors
    assert 0 < il["operations"]["values"] + il["operations"]["errors"] < il["dense"]["settling"]
    assert events["operations"]["total"] < update
    assert "Synaptic operations" not in run(capsys, "ledger", "il-events", *SMALL, "--measured", "0")


def test_published_data_are_measured_when_asked(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("VICINAL_DATA", str(tmp_path))  # there is nothing there
    words = ["ledger", "il-events", "--data", "mnist", "--model.sizes", "784", "10"]
    assert "Synaptic operations" not in run(capsys, *words)
    assert "mnist" in fails(capsys, *words, "--measured", "5")


def test_synaptic_operations_of_trained_weights(capsys, tmp_path):
    folder = str(tmp_path / "run")
    run(capsys, "train", "--rule", "il-events", *SMALL, "--epochs", "1", "--batch-size", "128", "--folder", folder)
    trained = run(capsys, "ledger", "il-events", *SMALL, "--run", folder)
    wanted = f"64 training examples of digits, with the trained weights of {folder}"
    assert "".join(wanted.split()) in "".join(trained.split())
    said = fails(capsys, "ledger", "il-events", "--model.sizes", "64", "9", "10", "--run", folder)
    assert "Expected float32[9,64]" in said
