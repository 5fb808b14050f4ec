"""Your own data on the command line: the defaults they imply, and what is refused."""

import dataclasses
import json
import math
import sys

import numpy as np
import pytest

from vicinal.cli import main
from vicinal.data import available
from vicinal.settings import ModelSettings, TaskSettings, read_config
from vicinal.sweeping import SweepSettings, sweep_task
from vicinal.task import Task
from vicinal.train.log import read

pandas = pytest.importorskip("pandas")


@pytest.fixture
def tables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(40, 3)) * [1, 10, 0.1] + 2
    frame = pandas.DataFrame(x, columns=[*"abc"])
    frame.assign(price=100 * x[:, 0] + x[:, 1]).to_csv("houses.csv", index=False)
    frame.assign(kind=np.where(x[:, 0] > 2, "rich", "poor")).to_csv("people.csv", index=False)
    return tmp_path


def run(capsys, *words):
    main([*words])
    return capsys.readouterr()


def test_a_table_of_numbers_is_regression(tables, capsys):
    words = ["--data", "houses.csv", "--model.sizes", "3", "4", "1", "--standardize", "all", "--validation", "0.25"]
    run(capsys, "train", *words, "--rule", "bp", "--epochs", "2", "--batch-size", "8", "--folder", "run")
    last = read(tables / "run" / "metrics.jsonl")[-1]
    assert last["step"] == 2 * (32 * 3 // 4) // 8  # of 32 training examples a quarter is for validation
    for name in ("train", "validation", "test"):
        assert not {f"{name}_accuracy"} & set(last)
        # The loss of one unit is half the squared error: the root mean square says the same.
        assert last[f"{name}_rmse"] == pytest.approx(math.sqrt(2 * last[f"{name}_loss"]), rel=1e-4)
    assert json.loads((tables / "run" / "config.json").read_text())["standardize"] == "all"
    assert json.loads((tables / "run" / "results.json").read_text())["settings"]["loss"] == "squared_error"


def test_outputs_and_loss_follow_from_the_targets(tables):
    numbers, labels = Task(TaskSettings(data="houses.csv")), Task(TaskSettings(data="people.csv"))
    assert (numbers.settings.loss, labels.settings.loss) == ("squared_error", None)
    assert (numbers.data.outputs, labels.data.outputs) == (1, 2)
    assert labels.data.class_names == ("poor", "rich")
    images = TaskSettings(model=ModelSettings(kind="autoencoder"))
    assert images.resolved(images.load()).loss is None
    standardized = TaskSettings(data="people.csv", standardize="inputs").load()
    np.testing.assert_allclose(standardized.x_train.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(standardized.x_train.std(axis=0), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"data": "houses.csv", "loss": "softmax_cross_entropy"},
            "expected labels .* got numbers in houses; give --loss",
        ),
        (
            {"data": "houses.csv", "model": ModelSettings(sizes=(3, 2))},
            "expected 1 output, one for each number .* got 2",
        ),
        ({"data": "people.csv", "model": ModelSettings(sizes=(3, 1))}, "expected at least 2 outputs"),
        ({"data": "people.csv", "target": "name"}, "the target among a, b, c, kind, got 'name'"),
        ({"data": "people.csv", "standardize": "all"}, "got labels; standardize only inputs"),
        ({"data": "digits", "test_share": 0.5}, "digits: expected no test_share"),
    ],
)
def test_what_does_not_fit_is_refused(tables, settings, message):
    with pytest.raises(ValueError, match=message):
        Task(TaskSettings(**settings))


def test_a_sweep_of_a_table(tables):
    settings = SweepSettings(
        data="houses.csv", standardize="all", rule="bp", learning_rates=(0.01,), seeds=1, epochs=1, batch_size=8,
        group_size=1, validation=0.25, model=ModelSettings(sizes=(3, 4, 1)),
    )  # fmt: skip
    (member,) = sweep_task(settings, tables / "swept", progress=False).numbers["members"]
    assert {"validation_loss", "test_loss", "test_r2"} <= set(member["records"][-1])
    assert "test_accuracy" not in member["records"][-1]


def test_verify_reads_every_format(tables, capsys):
    out = run(capsys, "data", "verify", "people.csv").out
    assert "32 training and 8 test examples of shape [3], 2 classes: poor, rich" in out
    out = run(capsys, "data", "verify", "houses.csv", "--test-share", "0.5").out
    assert "20 training and 20 test examples of shape [3], 1 number" in out
    assert "50 % of the examples, drawn at random, are for testing" in out
    out = run(capsys, "data", "verify", "houses.csv", "--inputs", "a", "b").out
    assert "of shape [2], 1 number" in out
    with pytest.raises(SystemExit) as ended:
        main(["data", "verify", "people.csv", "--target", "name"])
    assert ended.value.code == 2
    assert "expected the target among" in capsys.readouterr().err


def test_the_list_can_be_copied(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("VICINAL_DATA", "/somewhere/" + "a-long-way/" * 20)
    lines = run(capsys, "data", "list").out.splitlines()
    entries = available()
    assert len(lines) == 1 + len(entries)
    for line, entry in zip(lines[1:], entries, strict=True):
        assert line.split("\t") == [entry.name, entry.status, str(entry.path), entry.credit]


def test_settings_of_before_are_read_again(tmp_path):
    plain = dataclasses.asdict(TaskSettings())
    for name in ("target", "inputs", "task", "test_share", "validation", "standardize", "image_size"):
        del plain[name]
    (tmp_path / "config.json").write_text(json.dumps(plain))
    assert read_config(tmp_path, TaskSettings) == TaskSettings()


@pytest.mark.parametrize(
    ("package", "name", "extra"),
    [("pandas", "people.csv", "tables"), ("PIL", "pets", "images")],
    ids=["table", "images"],
)
def test_a_package_that_is_missing_is_named(tables, monkeypatch, capsys, package, name, extra):
    for kind in ("cat", "dog"):
        (tables / "pets" / kind).mkdir(parents=True)
        (tables / "pets" / kind / "1.png").touch()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as ended:
        main(["data", "verify", name])
    assert ended.value.code == 2
    assert f"pip install 'vicinal[{extra}]'" in capsys.readouterr().err
