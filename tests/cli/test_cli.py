"""The command line from a user's view."""

import csv
import json
import re
import statistics
import subprocess
import sys

import jax.numpy as jnp
import pytest
from matrix import full

from vicinal.cli import main
from vicinal.compare import CompareSettings
from vicinal.report import Comparison, Study
from vicinal_experiments import EXPERIMENTS

SIZES = ["--model.sizes", "64", "16", "10"]
QUICK = ["--epochs", "2", *SIZES]


def run(capsys, *arguments):
    main(list(arguments))
    return capsys.readouterr()


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    assert exit_.value.code == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_compare_writes_everything(capsys, somewhere):
    printed = run(capsys, "compare", *QUICK, "--seeds", "2", "--figures", "pdf", "svg").out
    folder = somewhere / "runs" / "compare-001"
    assert "backpropagation" in printed
    assert f"report: {folder.relative_to(somewhere)}/report.html" in printed
    results = Comparison.from_json((folder / "results.json").read_text())
    assert [rule.name for rule in results.rules] == ["bp", "il"]
    assert results.rules[1].angles.keys() == {"layers[0]", "layers[1]", "concatenated"}
    assert results.rules[1].norm_ratios.keys() == results.rules[1].angles.keys()
    assert 0 < results.rules[1].norm_ratios["layers[0]"][0] < results.rules[1].norm_ratios["layers[1]"][0]
    assert results.rules[1].energies.keys() == {"hidden1", "output"}
    assert all(0.2 < value <= 1 for rule in results.rules for value in rule.test_accuracy)
    assert json.loads((folder / "config.json").read_text())["seeds"] == 2
    records = [json.loads(line) for line in (folder / "il-seed1" / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == 2 * (1437 // 32)
    assert (folder / "il-seed1" / "checkpoint.npz").exists()
    assert [node.name for node in results.graph] == ["hidden1", "output"]
    assert results.rules[1].curve.test_loss[1][-1] == pytest.approx(records[-1]["test_loss"])
    for layer, of_seeds in results.rules[1].angles.items():  # the mean over training, and the median of the norms
        assert of_seeds[1] == pytest.approx(statistics.fmean(record["angles"][layer] for record in records))
        ratios = [record["norm_ratios"][layer] for record in records]
        assert results.rules[1].norm_ratios[layer][1] == pytest.approx(statistics.median(ratios))
    for rule in results.rules:  # what was taken for what agrees with the accuracy that was measured
        right = sum(rule.confusion[label][label] for label in range(10)) / 360
        assert right == pytest.approx(sum(rule.test_accuracy) / 2)
        assert sum(map(sum, rule.confusion)) == pytest.approx(360)
    points = list(csv.DictReader((folder / "curves.csv").read_text().splitlines()))
    last = [row for row in points if (row["rule"], row["seed"], row["step"]) == ("il", "1", str(records[-1]["step"]))]
    values = {row["quantity"]: float(row["value"]) for row in last}
    assert values["test_loss"] == records[-1]["test_loss"]
    assert values["angles.layers[0]"] == records[-1]["angles"]["layers[0]"]
    names = {path.name for path in folder.iterdir() if path.suffix in (".pdf", ".svg")}
    drawn = ("learning-curves", "angles", "energies", "on-arrays", "on-arrays-2")
    figures = {f"{name}.{kind}" for name in drawn for kind in ("pdf", "svg")}
    assert names == figures | {"graph.svg"}
    assert "<html" in (folder / "report.html").read_text()


def test_angles_on_other_feedback_are_to_backpropagation_itself(capsys, somewhere):
    run(capsys, "compare", *QUICK, "--rules", "bp", "--seeds", "1", "--model.feedback", "random", "--folder", "fed")
    (found,) = Comparison.from_json((somewhere / "fed" / "results.json").read_text()).rules
    assert found.angles.keys() == {"layers[0]", "layers[1]", "concatenated"}
    assert min(found.angles["layers[0]"]) > 10
    assert max(found.angles["layers[1]"]) < 0.1  # no error goes back through anything on its way to the read-out


def test_two_comparisons_give_the_same_numbers(capsys, somewhere):
    for name in ("a", "b"):
        run(capsys, "compare", "--epochs", "1", *SIZES, "--rules", "il", "--seeds", "1", "--folder", name)
    first, second = (Comparison.from_json((somewhere / name / "results.json").read_text()) for name in ("a", "b"))
    for ours, theirs in zip(first.rules, second.rules, strict=True):
        assert (ours.test_accuracy, ours.test_loss, ours.angles, ours.energies) == (
            (theirs.test_accuracy, theirs.test_loss, theirs.angles, theirs.energies)
        )


def test_train_resumes_to_the_same_end(capsys, somewhere):
    options = *SIZES, "--rule", "bp-sgd"
    run(capsys, "train", "--epochs", "1", *options, "--folder", "short")
    config = json.loads((somewhere / "short" / "config.json").read_text())
    assert config.pop("checkpoint_seconds") == 60.0
    (somewhere / "short" / "config.json").write_text(json.dumps(config))  # as an older version wrote it
    run(capsys, "train", "--resume", "short", "--epochs", "2", "--checkpoint_seconds=0")
    run(capsys, "train", "--epochs", "2", *options, "--folder", "long")
    assert (somewhere / "short" / "checkpoint.npz").read_bytes() == (somewhere / "long" / "checkpoint.npz").read_bytes()
    volatile = {"examples_per_second"}
    logs = [
        [json.loads(line) for line in (somewhere / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("short", "long")
    ]
    for ours, theirs in zip(*logs, strict=True):
        assert {k: v for k, v in ours.items() if k not in volatile} == {
            k: v for k, v in theirs.items() if k not in volatile
        }
    config = json.loads((somewhere / "short" / "config.json").read_text())
    assert (config["epochs"], config["checkpoint_seconds"]) == (2, 0.0)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model.kind", "convolutional", "--model.channels", "4", "--rule", "bp"],
        full(["--model.kind", "recurrent", "--model.sizes", "8"]),
        full(["--model.kind", "autoencoder", "--model.sizes", "64", "8", "64"]),
        full(["--model.vertex-at", "pre", "--loss", "squared_error", "--model.activation", "relu"]),
        ["--inference.steps", "4", "--inference.tolerance", "0.01", "--inference.momentum", "0.5"],
        ["--inference.nudge", "0.5", "--inference.start", "random", "--inference.precision", "2"],
    ],
)
def test_train_on_every_kind_of_model(capsys, somewhere, arguments):
    printed = run(capsys, "train", "--epochs", "1", "--batch-size", "128", *arguments).out
    assert "report: runs/train-001/report.html" in printed


@pytest.mark.parametrize(("epochs", "least"), [("1", 0.5), full("8", 0.9)])
def test_phaseless_alignment_learns_the_digits(capsys, somewhere, epochs, least):
    arguments = ["--rule", "pal", "--model.vertex-at", "pre", "--model.sizes", "64", "32", "10", "--epochs", epochs]
    run(capsys, "train", *arguments, "--folder", "noisy")
    (found,) = Comparison.from_json((somewhere / "noisy" / "results.json").read_text()).rules
    assert found.test_accuracy[0] > least


def test_a_diverging_run_is_a_result(capsys, somewhere):
    diverging = ["--rule", "il-sgd", "--learning-rate", "1e6", "--model.activation", "relu", "--loss", "squared_error"]
    with pytest.raises(SystemExit) as exit_:
        main(["train", *QUICK, *diverging])
    assert exit_.value.code == 1
    printed = capsys.readouterr().out
    sentence = re.search(r"stopped at step \d+, the last good state: .*", printed.replace("\n", " "))
    assert sentence
    assert "vertex 'hidden1'" in sentence[0] or "parameter" in sentence[0] or "output" in sentence[0]
    assert (somewhere / "runs" / "train-001" / "report.html").exists()
    saturating = ["--epochs", "1", *SIZES, "--rule", "il-sgd", "--learning-rate", "1e6"]
    saturating = run(capsys, "train", *saturating).out  # finite, but no angle
    assert "report: runs/train-002" in saturating


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--rule", "il2"], "expected a recipe of bp, il"),
        (["train", "--rule", "pal"], r"expected 'hidden1' as weight @ rates .*--model.vertex-at pre"),
        (
            ["train", "--rule", "pal", "--model.vertex-at", "pre", "--model.kind", "recurrent"],
            "expected a chain of layers for phaseless alignment",
        ),
        (["train", "--rule", "pal", "--model.kind", "residual"], "for phaseless alignment"),
        (["compare", "--rules", "bp", "bp"], "expected different rules"),
        (["compare", "--seeds", "0"], "seeds as an integer of at least 1"),
        (["train", "--data", "imagenet"], "imagenet"),
        (["train", "--data", "missing.npz"], "missing.npz"),
        (["train", "--model.channels", "3"], "got model.channels"),
        (["train", "--model.preset", "mnist-mlp"], r"the examples of digits have shape \[64\]"),
        (["train", "--model.preset", "vgg"], "expected a preset of mnist-mlp"),
        (["train", "--model.sizes", "64"], "at least two sizes"),
        (["train", "--batch-size", "5000"], "batch size from 1 to 1437"),
        (["train", "--epochs", "0"], "epochs as an integer of at least 1, got 0"),
        (["train", "--rule", "bp", "--inference.steps", "3"], "expected a rule that reads inference.steps"),
        (["train", "--resume", "nowhere"], "got no config.json there"),
        (["train", "--model.sizes", "64", "9"], "at least 10 outputs"),
        (["train", "--model.kind", "convolutional", "--model.stride", "0"], "stride as an integer of at least 1"),
        (["train", "--seed", "99999999999999"], "expected a seed"),
        (["train", "--inference.nudge", "0"], r"nudge in \(0, 1\]"),
        (["train", "--inference.momentum", "1.5"], r"momentum in \[0, 1\)"),
        (["train", "--learning-rate", "-1"], "learning rate of at least 0"),
        (["train", "--batch-size", "0"], "batch_size as an integer of at least 1"),
        (["train", "--set", "eps=1"], "expected a number of il among learning_rate, b1"),
        (["train", "--set", "eps"], "expected NAME=VALUE"),
        (["train", "--set", "nudge=1", "nudge=0.5"], "expected nudge in one place, got it in 2"),
        (["train", "--set", "nudge=1", "--inference.nudge", "0.5"], "expected nudge in one place"),
        (
            ["sweep", "--vary", "inference.step-size=0.1,0.2", "--inference.step-size", "0.1"],
            "expected step_size in one place",
        ),
        (["sweep", "--learning-rates", "0.1", "--set", "learning-rate=2"], "expected learning_rate in one place"),
        (["sweep", "--learning-rates", "0.1", "0.10000001"], "differ in six digits"),
        (["sweep", "--learning-rates", "0.1", "--memory-gb", "inf"], "memory above 0"),
        (["sweep"], "expected numbers to vary, got none"),
        (["sweep", "--vary", "nothing=1,2"], "expected a number of il among"),
        (["sweep", "--vary", "nudge=0.5,2"], r"nudge in \(0, 1\]"),
        (["sweep", "--learning-rates", "0.1", "0.1"], "values of learning_rate that differ"),
        (["sweep", "--learning-rates", "0.1", "--learning-rate", "1"], "either one learning rate or several"),
        (["sweep", "--learning-rates", "-1", "--seeds", "1"], "learning rate of at least 0"),
        (["sweep", "--learning-rates", "0.1", "--seeds", "0"], "seeds as an integer of at least 1"),
        (["sweep", "--learning-rates", "0.1", "--group-size", "0"], "group_size as an integer of at least 1"),
        (["sweep", "--learning-rates", "0.1", "--memory-gb", "0"], "memory above 0"),
        (["sweep", "--learning-rates", "0.1", "--memory-gb", "1e-6"], "expected memory of at least"),
        (["reproduce", "il-theory/everything"], "expected an experiment of il-theory/stability"),
        (["reproduce", "il-theory/stability", "--seeds", "0"], "at least one seed"),
        (["reproduce", "--quick"], "expected the name of an experiment"),
        (["reproduce", "--resume=runs/one", "--quick"], "expected nothing but --checkpoint-seconds"),
        (["train", "--checkpoint-seconds", "nan"], "checkpoint_seconds as a finite number .* got nan"),
        (["compare", "--checkpoint-seconds", "-1"], "checkpoint_seconds as a finite number .* got -1.0"),
        (["sweep", "--learning-rates", "0.1", "--checkpoint-seconds", "inf"], "of at least 0, got inf"),
        (["reproduce", "il-theory/stability", "--quick", "--checkpoint-seconds", "-2"], "of at least 0, got -2.0"),
        (["cite", "il2"], "expected a recipe"),
        (["data", "fetch", "imagenet"], "imagenet"),
        (["data", "verify", "mnist.npz"], "mnist.npz"),
    ],
)
def test_mistakes_end_in_one_sentence(capsys, arguments, words):
    error = fails(capsys, *arguments)
    assert re.search(words, " ".join(error.split()))
    assert len(error.strip().splitlines()) == 1


def test_a_folder_is_never_overwritten(capsys, somewhere):
    run(capsys, "train", "--epochs", "1", *SIZES, "--rule", "bp-sgd", "--folder", "mine")
    before = {path.name: path.read_bytes() for path in (somewhere / "mine").iterdir()}
    assert "--resume mine" in fails(capsys, "train", *QUICK, "--folder", "mine")
    assert "keeps its own" in fails(capsys, "train", "--resume", "mine", "--batch-size", "16")
    assert "keeps its own" in fails(capsys, "train", "--resume", "mine", "--batch-size", "32")  # also if the default
    assert "both" in fails(capsys, "train", "--resume", "mine", "--folder", "other")
    assert before == {path.name: path.read_bytes() for path in (somewhere / "mine").iterdir()}


def test_rules_cite_and_data(capsys, monkeypatch, somewhere):
    monkeypatch.setenv("COLUMNS", "100")
    listed = run(capsys, "rules").out
    for name, local in (("il", "yes"), ("pal", "yes"), ("bp", "no: the error of hidden1 depends on")):
        block = re.search(rf"^{name}  .*?(?=^\S|\Z)", listed, flags=re.DOTALL | re.MULTILINE)
        assert block
        assert local in block[0]
    assert "@inproceedings{alonso2022," in run(capsys, "cite", "il").out
    monkeypatch.setenv("VICINAL_DATA", str(somewhere))
    assert "missing" in run(capsys, "data", "list").out
    assert (
        "1437 training and 360 test examples of shape [8, 8], 10 classes" in run(capsys, "data", "verify", "digits").out
    )


def test_sweep_writes_everything_and_resumes(capsys, somewhere):
    arguments = ["--rule", "bp-sgd", "--learning-rates", "0.1", "1", "1e30", "--seeds", "2", "--group-size", "2"]
    arguments += ["--model.activation", "relu"]
    printed = run(capsys, "sweep", *QUICK, *arguments, "--folder", "s").out
    assert "3 combinations of learning_rate, 2 seeds each. 2 of 6 members diverged." in " ".join(printed.split())
    assert "report: s/report.html" in printed
    study = Study.from_json((somewhere / "s" / "results.json").read_text())
    members = study.numbers["members"]
    assert [(m["numbers"]["learning_rate"], m["seed"], m["stopped"] is None) for m in members] == [
        (rate, seed, rate < 10) for rate in (0.1, 1.0, 1e30) for seed in (0, 1)
    ]
    assert "<html" in (somewhere / "s" / "report.html").read_text()
    run(capsys, "sweep", "--resume", "s", "--epochs", "3")
    longer = Study.from_json((somewhere / "s" / "results.json").read_text()).numbers["members"]
    assert longer[0]["records"][:2] == members[0]["records"]
    assert len(longer[0]["records"]) == 3


def test_a_sweep_of_several_numbers_is_what_train_does(capsys, somewhere):
    options = "--epochs", "1", *SIZES, "--rule", "il-prox", "--learning-rate", "2"
    varied = "eps=0.1,1", "inference.step-size=0.01,0.02"
    run(capsys, "sweep", *options, "--vary", *varied, "--seeds", "1", "--group-size", "1", "--folder", "s")
    members = Study.from_json((somewhere / "s" / "results.json").read_text()).numbers["members"]
    assert [m["numbers"] for m in members] == [
        {"eps": eps, "inference.step_size": size} for eps in (0.1, 1.0) for size in (0.01, 0.02)
    ]
    run(capsys, "train", *options, "--set", "eps=1", "inference.step-size=0.02", "--folder", "t")
    records = [json.loads(line) for line in (somewhere / "t" / "metrics.jsonl").read_text().splitlines()]
    assert members[3]["records"][-1]["test_loss"] == pytest.approx(records[-1]["test_loss"], rel=1e-4)
    assert members[0]["records"][-1]["test_loss"] != pytest.approx(records[-1]["test_loss"], rel=1e-3)


def test_reproduce_lists_its_experiments(capsys):
    printed = run(capsys, "reproduce").out
    assert "il-theory/stability" in printed
    assert all(name in printed for name in EXPERIMENTS)


def test_inference_settings_reach_the_rules_that_settle(capsys, somewhere):
    options = "--epochs", "1", *SIZES, "--rules", "il", "--seeds", "1", "--inference.steps", "3"
    run(capsys, "compare", *options, "--folder", "c")
    (found,) = Comparison.from_json((somewhere / "c" / "results.json").read_text()).rules
    assert len(found.energies["output"]) == 4


@pytest.mark.parametrize(
    ("command", "setting", "words"),
    [
        ("train", "rules", "continue it with `vicinal compare --resume other`"),
        ("sweep", "seed", "continue it with `vicinal train --resume other`"),
        ("train", "colour", "got the setting 'colour' of another"),
    ],
)
def test_a_run_of_another_command_is_not_resumed(capsys, somewhere, command, setting, words):
    (somewhere / "other").mkdir()
    (somewhere / "other" / "config.json").write_text(json.dumps({setting: 1}))
    assert words in fails(capsys, command, "--resume", "other")


def test_a_refused_resume_leaves_the_run_as_it_was(capsys, somewhere):
    options = *QUICK, "--rule", "bp-sgd"
    run(capsys, "sweep", *options, "--learning-rates", "0.1", "--seeds", "1", "--group-size", "1", "--folder", "s")
    run(capsys, "train", *options, "--folder", "t")
    for name, words in (("s", "at least the"), ("t", "at least the")):
        before = {path.name: path.read_bytes() for path in (somewhere / name).iterdir()}
        command = "sweep" if name == "s" else "train"
        assert words in fails(capsys, command, "--resume", name, "--epochs", "1")
        assert before == {path.name: path.read_bytes() for path in (somewhere / name).iterdir()}


def test_a_mistake_does_not_spoil_the_folder(capsys, somewhere):
    fails(capsys, "sweep", *QUICK, "--learning-rates", "0.1", "--memory-gb", "1e-6", "--folder", "mine")
    fails(capsys, "train", "--folder", "mine", "--batch-size", "0")
    assert not (somewhere / "mine").exists()
    run(capsys, "train", "--epochs", "1", *SIZES, "--rule", "bp-sgd", "--folder", "mine")


def test_draw_shows_the_network(capsys, somewhere):
    printed = run(capsys, "draw", "--model.kind", "recurrent", "--model.sizes", "5", "--file", "pictures/net.svg").out
    assert "hidden[1][5] <- input, hidden[0]" in printed
    drawing = (somewhere / "pictures" / "net.svg").read_text()
    assert drawing.startswith("<svg")
    assert "hidden[7]" in drawing
    assert "expected a file that ends in .svg, got 'net.pdf'" in fails(capsys, "draw", "--file", "net.pdf")


def test_version(capsys):
    assert run(capsys, "--version").out.startswith("vicinal ")


def test_as_a_program(somewhere):
    finished = subprocess.run(
        [sys.executable, "-m", "vicinal", "train", "--rule", "nonsense"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 2
    assert finished.stderr.startswith("vicinal: expected a recipe")


def test_train_stops_early_and_keeps_the_best_model(capsys, somewhere):
    quick = ["--model.sizes", "64", "16", "10", "--epochs", "60", "--validation", "0.2", "--learning-rate", "0.05"]
    printed = run(capsys, "train", "--rule", "bp", *quick, "--patience", "2", "--tensorboard").out
    folder = somewhere / "runs" / "train-001"
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [record["validation_loss"] for record in records if "validation_loss" in record]
    assert len(losses) < 60
    assert losses.index(min(losses)) == len(losses) - 3  # two records without an improvement after the best one
    assert records[-1]["stopped_by"] == "EarlyStopping"
    assert "stopped by EarlyStopping" in printed
    assert (folder / "best.npz").exists()
    assert list((folder / "tensorboard").iterdir())
    assert "--validation" in fails(capsys, "train", "--patience", "2")
    assert "patience" in fails(capsys, "train", "--patience", "0", "--validation", "0.1")


def test_a_clipped_gradient_moves_weights_by_so_much_at_most(capsys, somewhere):
    settings = CompareSettings(clip=1e-3, learning_rate=0.5)
    _, optimizer = settings.make("bp-sgd")["bp-sgd"]
    gradient = {"w": jnp.array([3.0, 4.0])}
    update, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    assert update["w"].tolist() == pytest.approx([-0.5e-3 * 0.6, -0.5e-3 * 0.8])
    assert "clip" in fails(capsys, "train", "--clip", "0")
