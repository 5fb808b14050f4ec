"""Settings that are read from a folder are checked as typed ones are."""

import dataclasses
import json
import re

import pytest

from vicinal.cli.main import main
from vicinal.compare import CompareSettings, TrainSettings
from vicinal.reproduce import settings_in
from vicinal.settings import read_config
from vicinal.sweeping import SweepSettings

NO = object()


def plain(kind=TrainSettings):
    return json.loads(json.dumps(dataclasses.asdict(kind())))


def edited(path, value):
    content = plain()
    *outer, last = path.split(".")
    place = content
    for name in outer:
        place = place[name]
    if value is NO:
        del place[last]
    else:
        place[last] = value
    return content


EDITED = {
    "a text for a count": ("epochs", "ten", 'a whole number for epochs, got "ten"'),
    "a number with a part for a count": ("epochs", 1.5, "a whole number for epochs, got 1.5"),
    "a truth value for a count": ("epochs", True, "a whole number for epochs, got true"),
    "nothing for a count": ("epochs", None, "a whole number for epochs, got null"),
    "a count of 0": ("epochs", 0, "epochs as an integer of at least 1, got 0"),
    "a negative count": ("batch_size", -3, "batch_size as an integer of at least 1, got -3"),
    "an optional count of 0": ("evaluate_every", 0, "evaluate_every as an integer of at least 1"),
    "a text for an optional count": ("evaluate_every", "5", "a whole number or null for evaluate_every"),
    "a text for a rate": ("learning_rate", "x", 'a number or null for learning_rate, got "x"'),
    "a truth value for a rate": ("learning_rate", False, "a number or null for learning_rate, got false"),
    "a list for a rate": ("learning_rate", [0.1], "a number or null for learning_rate"),
    "a number for a text": ("data", 3, "a text for data, got 3"),
    "a list for a text": ("rule", ["il"], "a text for rule"),
    "nothing for a text": ("rule", None, "a text for rule, got null"),
    "a number for a truth value": ("tensorboard", 1, "true or false for tensorboard, got 1"),
    "an unknown choice": ("loss", "hinge", "one of softmax_cross_entropy, .* for loss"),
    "a choice of another type": ("standardize", 1, "one of inputs, all or null for standardize, got 1"),
    "a number for a list": ("model.sizes", 64, "a list, each a whole number for model.sizes, got 64"),
    "a text for a list": ("set", "eps=1", "a list, each a text for set"),
    "a list of texts for counts": ("model.sizes", ["64"], "a list, each a whole number for model.sizes"),
    "a list of truth values": ("model.sizes", [True], "a list, each a whole number for model.sizes"),
    "a size of 0": ("model.sizes", [64, 0, 10], "model.sizes as an integer of at least 1, got 0"),
    "a stride of 0": ("model.stride", 0, "model.stride as an integer of at least 1, got 0"),
    "three sides": ("image_size", [8, 8, 8], "a list of 2 or null for image_size"),
    "a list for a dictionary": ("model", [], r"a dictionary of settings for model, got \[\]"),
    "a dictionary for a number": ("learning_rate", {}, "a number or null for learning_rate, got {}"),
    "an unknown name": ("epoch", 3, "the setting 'epoch' of another"),
    "an unknown name inside": ("model.size", 3, "the setting 'model.size' of another"),
    "a missing name": ("epochs", NO, "expected the setting epochs, got none"),
    "a missing part": ("model", NO, "expected the setting model, got none"),
    "a missing name whose default is 0": ("seed", NO, "expected the setting seed, got none"),
    "a missing name inside": ("model.kernel_size", NO, "expected the setting model.kernel_size, got none"),
    "no inference steps": ("inference.steps", 0, "inference.steps as an integer of at least 1, got 0"),
    "no inference steps with events": ("events.steps", 0, "events.steps as an integer of at least 1, got 0"),
    "an unknown code": ("events.code", "binary", "one of graded, ternary, cyclic or null for events.code"),
    "a text for a threshold": ("events.threshold", "low", "a number or null for events.threshold"),
    "a number for a truth value of events": ("events.relative", 1, "true or false or null for events.relative, got 1"),
    "an unknown name of events": ("events.size", 3, "the setting 'events.size' of another"),
    "a negative patience": ("patience", -1, "patience as an integer of at least 1, got -1"),
    "a negative time": ("checkpoint_seconds", -1, "checkpoint_seconds as a finite number"),
}


@pytest.mark.parametrize(("path", "value", "words"), EDITED.values(), ids=EDITED)
def test_a_setting_that_was_edited(tmp_path, path, value, words):
    (tmp_path / "config.json").write_text(json.dumps(edited(path, value)))
    with pytest.raises(ValueError, match=words) as caught:
        read_config(tmp_path, TrainSettings)
    said = str(caught.value)
    assert str(tmp_path / "config.json") in said
    assert re.search("expected .* got .*; (write the file as it was|resume with the command)", said)
    assert "\n" not in said
    assert len(said) < 300 + len(str(tmp_path))


TEXTS = {
    "empty": b"",
    "cut": b'{"epochs": 3',
    "a list": b"[]",
    "a number": b"3",
    "null": b"null",
    "brackets": b"[" * 100_000,
    "closed brackets": b"[" * 100_000 + b"]" * 100_000,
    "no UTF-8": b'{"data": "\xff"}',
    "UTF-16": '{"epochs": 3}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "NaN": b'{"learning_rate": NaN}',
    "infinity": b'{"learning_rate": -Infinity}',
    "a huge number": b'{"learning_rate": 1e999}',
    "many digits": b'{"epochs": ' + b"9" * 1_000_000 + b"}",
    "a name twice": b'{"epochs": 3, "epochs": 4}',
    "half a character": b'{"data": "\\ud800"}',
    "two values": b"{} {}",
    "a comment": b"{} // epochs",
}


@pytest.mark.parametrize("content", TEXTS.values(), ids=TEXTS)
def test_a_file_that_holds_no_settings(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    for read in (lambda: read_config(tmp_path, TrainSettings), lambda: settings_in(tmp_path)):
        with pytest.raises(ValueError, match=r"expected .* got .*; ") as caught:
            read()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400


def test_a_folder_in_its_place_and_a_file_in_the_folders(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ValueError, match=r"something else .Is a directory."):
        read_config(tmp_path, TrainSettings)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"got no config\.json there"):
        read_config(tmp_path / "file", TrainSettings)


@pytest.mark.parametrize("kind", [TrainSettings, CompareSettings, SweepSettings])
def test_what_was_written_is_read_again(tmp_path, kind):
    model = dataclasses.replace(kind().model, sizes=(64, 3), channels=(1,))
    settings = dataclasses.replace(kind(), model=model, learning_rate=0.1, image_size=(8, 9), set=("eps=1",))
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(settings)))
    assert read_config(tmp_path, kind) == settings


def test_settings_of_a_run_that_knew_no_events_are_read(tmp_path):
    older = plain()
    del older["events"]
    (tmp_path / "config.json").write_text(json.dumps(older))
    assert read_config(tmp_path, TrainSettings) == TrainSettings()


def test_the_memory_of_a_sweep_is_checked_where_it_is_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(plain(SweepSettings) | {"memory_gb": -1}))
    with pytest.raises(ValueError, match=r"config\.json: expected memory above 0, got -1\.0 GB; write the file as"):
        read_config(tmp_path, SweepSettings)


def test_a_whole_number_is_a_number(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(edited("learning_rate", 1)))
    rate = read_config(tmp_path, TrainSettings).learning_rate
    assert (rate, type(rate)) == (1.0, float)


@pytest.mark.parametrize(
    ("name", "value"),
    [("quick", 1), ("seeds", "3"), ("seeds", True), ("seeds", 1.5), ("large", None), ("experiment", 3)],
)
def test_the_arguments_of_an_experiment(tmp_path, name, value):
    config = {"experiment": "il-theory/online", "quick": True, "seeds": None}
    (tmp_path / "config.json").write_text(json.dumps(config | {name: value}))
    with pytest.raises(ValueError, match=f"expected .* for {name}, got {re.escape(json.dumps(value))}; write the file"):
        settings_in(tmp_path)


@pytest.mark.parametrize(
    ("added", "words"),
    [
        ({"rule": "il"}, "got the setting 'rule' of another; resume with the command that started the run"),
        ({"seeds": 0}, "expected seeds as an integer of at least 1, got 0; write the file"),
    ],
)
def test_arguments_that_an_experiment_does_not_have(tmp_path, added, words):
    config = {"experiment": "il-theory/online", "quick": True, "seeds": None}
    (tmp_path / "config.json").write_text(json.dumps(config | added))
    with pytest.raises(ValueError, match=words):
        settings_in(tmp_path)


@pytest.mark.parametrize("name", ["quick", "seeds"])
def test_an_argument_of_an_experiment_that_is_missing(tmp_path, name):
    config = {"experiment": "il-theory/online", "quick": True, "seeds": None}
    del config[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"expected the setting {name}, got none; write the file as it was"):
        settings_in(tmp_path)


def test_a_long_text_is_not_shown_whole(tmp_path):
    config = {"experiment": "il-theory/online", "quick": "x" * 9000, "seeds": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match='expected true or false for quick, got "xxx') as caught:
        settings_in(tmp_path)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model.sizes", "64,0,10"], "model.sizes as an integer of at least 1, got 0"),
        (["--inference.steps", "0"], "inference.steps as an integer of at least 1, got 0"),
        (["--rule", "il-events", "--events.steps", "0"], "events.steps as an integer of at least 1, got 0"),
        (["--epochs", "0"], "epochs as an integer of at least 1, got 0"),
        (["--evaluate-every", "-1"], "evaluate_every as an integer of at least 1, got -1"),
    ],
)
def test_typed_settings_are_refused_by_the_same_words(tmp_path, capsys, words, said):
    with pytest.raises(SystemExit) as ended:
        main(["train", "--folder", str(tmp_path / "run"), *words])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
