"""Bad command lines: each ends in one sentence and exit code 2, prints nothing else and leaves nothing behind."""

import dataclasses
import json
import re
import shlex

import numpy as np
import pytest

from vicinal.cli import main
from vicinal.compare import CompareSettings, TrainSettings
from vicinal.sweeping import SweepSettings

COMMANDS = "expected a command of compare, train, sweep, reproduce, results, draw, ledger, export, rules, cite, "
COMMANDS += "data list, data fetch, data verify, got "
RECIPES = r"expected a recipe of bp, il, .*, relaxed-pc, got "
DATA = r"expected the name of a data set (digits, mnist, fashion_mnist, cifar10), got "
LISTED = "; `vicinal {} --help` lists the options"
OF_IL = r"expected a number of il among learning_rate, b1, b2, inference.steps, .*, throw, average, got "
WITHOUT = "expected a folder without a run, got {}; continue it with `vicinal {} --resume {}`, or choose another"
ANOTHER = (
    "expected the folder of a `vicinal {}`, got '{}'; continue it with `vicinal {} --resume {}`, or choose another"
)
NO_VALUE = "expected a value for {}, got none"
ASSIGNMENT = "expected NAME=VALUE or NAME=VALUE,VALUE,..., got "
RATE = "expected learning_rate as a finite number, got "
ONE = "expected {} as an integer of at least 1, got {}"

LINES = {
    # which command
    "trian": COMMANDS + "'trian'; did you mean 'train'?",
    "bogus --help": COMMANDS + "'bogus'",
    "--bogus": COMMANDS + "'--bogus'",
    "help bogus": COMMANDS + "'bogus'",
    "data fetsh mnist": COMMANDS + "'data fetsh'; did you mean 'data fetch'?",
    # names and words
    "data fetch": "expected a name after `vicinal data fetch`, got none" + LISTED.format("data fetch"),
    "data fetch mnist cifar10": "expected one name after `vicinal data fetch`, got 'cifar10' too"
    + LISTED.format("data fetch"),
    "data list extra": "expected only options, which begin with --, after `vicinal data list`, got 'extra'"
    + LISTED.format("data list"),
    "rules il": "expected only options, which begin with --, after `vicinal rules`, got 'il'" + LISTED.format("rules"),
    "cite": "expected a name after `vicinal cite`, got none" + LISTED.format("cite"),
    "cite il bp": "expected one name after `vicinal cite`, got 'bp' too" + LISTED.format("cite"),
    "cite ''": RECIPES + "''; `vicinal rules` lists them",
    "cite 'ïl'": RECIPES + "'ïl'; `vicinal rules` lists them",
    "train il": "expected only options, which begin with --, after `vicinal train`, got 'il'" + LISTED.format("train"),
    "train --rule bp il": "expected one value of --rule, got 'il' too" + LISTED.format("train"),
    "results": "expected a name after `vicinal results`, got none" + LISTED.format("results"),
    "results nowhere": "expected a folder of results, got 'nowhere'; name a folder such as docs/results",
    "results file": "expected a folder of results, got 'file'; name a folder such as docs/results",
    "results t": "expected folders with stored studies in t, got none; name a folder such as docs/results",
    # options
    "rules --chekc": "expected an option of `vicinal rules`, got --chekc; did you mean '--check'?",
    "train --epoch 3": "expected an option of `vicinal train`, got --epoch; did you mean '--epochs'?",
    "train -lr 0.1": "expected an option of `vicinal train`, got -lr; did you mean '--learning-rate'?",
    "train --verbose": "expected an option of `vicinal train`, got --verbose; `vicinal train --help` lists them",
    "train --rules bp": "expected an option of `vicinal train`, got --rules; did you mean '--rule'?",
    "compare --rule bp": "expected an option of `vicinal compare`, got --rule; did you mean '--rules'?",
    "train --rule": NO_VALUE.format("--rule") + LISTED.format("train"),
    "train --rule=": NO_VALUE.format("--rule"),
    "train --rule ''": NO_VALUE.format("--rule"),
    "train --folder ''": NO_VALUE.format("--folder"),
    "train --set": NO_VALUE.format("--set"),
    "train --figures": NO_VALUE.format("--figures"),
    "train --model.sizes --epochs 3": NO_VALUE.format("--model.sizes"),
    "sweep --vary": NO_VALUE.format("--vary"),
    "compare --rules bp --rules il": "expected --rules once, got it twice; give all its values behind one",
    "train --epochs 1 --epochs 2": "expected --epochs once, got it twice; leave one out",
    "train --set b1=0.9 --set b2=0.9": "expected --set once, got it twice; give all its values behind one",
    # kinds of values
    "train --epochs ten": "expected a whole number for --epochs, got 'ten'" + LISTED.format("train"),
    "train --epochs 1.5": "expected a whole number for --epochs, got '1.5'" + LISTED.format("train"),
    "train --epochs inf": "expected a whole number for --epochs, got 'inf'" + LISTED.format("train"),
    "train --learning-rate 0.1,0.2": "expected a number for --learning-rate, got '0.1,0.2'" + LISTED.format("train"),
    "train --learning-rate ½": "expected a number for --learning-rate, got '½'" + LISTED.format("train"),
    "sweep --learning-rates 0.1,x": "expected numbers for --learning-rates, got '0.1', 'x'" + LISTED.format("sweep"),
    "draw --model.sizes 64 x 10": "expected numbers for --model.sizes, got '64', 'x', '10'" + LISTED.format("draw"),
    "data verify digits --image-size 8": "expected 2 values of --image-size, got 1" + LISTED.format("data verify"),
    "train --figures jpg": "expected --figures as one of pdf, png, svg, got 'jpg'; did you mean 'png'?",
    "train --inference.decay maybe": "expected --inference.decay as one of False, True, got 'maybe'"
    + LISTED.format("train"),
    "train --events.code binary": "expected --events.code as one of cyclic, graded, ternary, got 'binary'; did "
    "you mean 'ternary'?",
    "draw --model.kind mpl": "expected --model.kind as one of autoencoder, convolutional, mlp, recurrent, residual, "
    "transformer, got 'mpl'; did you mean 'mlp'?",
    # ranges
    "train --epochs 0": ONE.format("epochs", 0),
    "train --epochs -1": ONE.format("epochs", -1),
    "train --epochs 99999999999999999999": "expected steps of at most 2147483647, .*, got 4399999999999999999956; .*",
    "train --seed -1": "expected a seed from 0 to 4294967295, got -1",
    "train --batch-size -3": ONE.format("batch_size", -3),
    "train --evaluate-every 0": ONE.format("evaluate_every", 0),
    "train --validation nan": "expected a share of the examples above 0 and below 1, got nan",
    "train --learning-rate nan": RATE + "nan",
    "train --learning-rate inf": RATE + "inf",
    "train --learning-rate -0.1": "expected a learning rate of at least 0, got -0.1",
    "train --clip inf": "expected clip as a number above 0, got inf",
    "train --checkpoint-seconds inf": "expected checkpoint_seconds as a finite number of seconds of at least 0, "
    "got inf",
    "train --inference.step-size inf": "expected the step size as a finite number of at least 0, got inf",
    "train --inference.tolerance 0": "expected the tolerance above 0, got 0",
    "train --inference.precision inf": "expected precision as a finite number of at least 0, got inf",
    "train --inference.nudge nan": "expected nudge as a finite number in (0, 1], got nan",
    "train --inference.momentum 1": "expected momentum in [0, 1), got 1",
    "train --model.shift nan": "expected the shift as a finite number, got nan",
    "train --model.feedback random --model.feedback-learning-rate inf": "expected model.feedback_learning_rate as a "
    "finite number of at least 0, got inf",
    "train --rule il-events --events.threshold -1": "expected the threshold of at least 0, got -1",
    "train --rule il-events --events.threshold nan": "expected the threshold as a finite number of at least 0, got nan",
    "train --rule il-events --events.part 0": "expected part, a part of the steps, above 0 to 1, got 0",
    "train --rule il-events --events.code ternary --events.threshold 0": "expected the threshold, the size of an "
    "event, above 0, got 0",
    "draw --model.sizes 64 -3 10": ONE.format("model.sizes", -3),
    "compare --seeds -2": ONE.format("seeds", -2),
    "sweep --learning-rates 0.1 inf": RATE + "inf",
    "sweep --learning-rates 0.1 --memory-gb nan": "expected memory above 0, got nan GB",
    "sweep --vary nudge=NAN,0.5": "expected nudge as a finite number, got nan",
    "reproduce il-theory/stability --seeds -1": "expected at least one seed, got -1",
    # numbers by name
    "train --set eps": ASSIGNMENT + "'eps'",
    "train --set eps=": ASSIGNMENT + "'eps='",
    "train --set lr=0.1": OF_IL + "'lr'; did you mean 'learning_rate'?",
    "train --set inference.step_size=inf": "expected inference.step_size as a finite number, got inf",
    "train --set b1=x": "expected a number for b1, got 'x'",
    "train --set b1=0.9 b1=0.8": "expected b1 in one place, got it in 2; leave the others out",
    "train --set b1=0.1,0.2": "expected one value of b1, got 2; `vicinal sweep` varies numbers",
    "train --set inference.steps=1.5": "expected a whole number for inference.steps, got 1.5",
    # contradictions
    "compare --rules bp,backprop": "expected different rules, at least one, got bp backprop",
    "sweep --learning-rates 0.1 --rule bp --rules il": "expected either one rule or several to try, got both",
    "train --events.threshold 0.1": "expected a rule that reads events.threshold, got il; leave it out",
    "train --rule bp-events --events.code ternary": "expected a rule that reads events.code, got bp-events; "
    "leave it out",
    "compare --events.learn any": "expected a rule that reads events.learn, got bp il; leave it out",
    "train --rule il-events --events.steps 3 --inference.steps 4": "expected steps in one place, got it in 2; leave "
    "the others out",
    "train --rule il-events --events.threshold 0.1 --set activity.threshold=0.1": "expected activity.threshold in one "
    "place, got it in 2; leave the others out",
    "train --rule il-events --set carry=true": "expected a rule that begins each batch anew, .*, got carry=true; .*",
    "sweep": "expected numbers to vary, got none; give --learning-rates or --vary NAME=VALUE,VALUE",
    "train --model.depth 3": "expected only settings that the model (mlp) reads, got model.depth; leave it out",
    "train --data digits --target label": "digits: expected no target, which these data do not read, got one.",
    "train --model.sizes 63 10": "expected an input of shape [63], got [64]; the examples of digits have shape [64]: "
    "choose a model that reads them",
    "reproduce il-theory/stability --large": "expected an experiment with large sizes, .*, got il-theory/.*",
    "reproduce --judge results.json --quick": "expected only a name and a folder beside --judge, got more; stored "
    "numbers keep their size",
    # folders
    "train --folder file": r"expected a folder at '.*file', got a file; choose another",
    "train --folder file/run": r"expected a folder at '.*file/run', got a file; choose another",
    "train --folder t": WITHOUT.format("t", "train", "t"),
    "train --rule bp --folder s": WITHOUT.format("s", "sweep", "s"),
    "sweep --learning-rates 0.1 --folder 'my runs'": WITHOUT.format("my runs", "compare", "'my runs'"),
    "train --folder new --resume t": "expected --folder or --resume, got both; a resumed run continues in .*",
    "train --resume s": ANOTHER.format("train", "s", "sweep", "s"),
    "compare --resume t": ANOTHER.format("compare", "t", "train", "t"),
    "sweep --resume 'my runs'": ANOTHER.format("sweep", "my runs", "compare", "'my runs'"),
    "train --resume r": ANOTHER.format("train", "r", "reproduce", "r"),
    "train --resume file": r"expected a folder at '.*file', got a file; choose another",
    "train --resume empty": "expected a run in empty, got no config.json there; name the folder of a run",
    "train --resume t --rule bp": "expected no settings but .* beside --resume, got others; a resumed run .*",
    "reproduce --resume t": ANOTHER.format("reproduce", "t", "train", "t"),
    "reproduce --judge nowhere.json": "expected to read or write 'nowhere.json', got: No such file or directory",
    # files
    "draw --file graph.png": "expected a file that ends in .svg, got 'graph.png'",
    "draw --file file/graph.svg": "expected a folder at 'file', got a file; choose another",
    "data verify nowhere.csv": "expected a table at nowhere.csv, found none; check the path.",
    "data verify bad.npz": r"expected an intact npz file of plain arrays at bad.npz, got: .*",
    "data verify odd.npz": r"odd.npz: expected the arrays x_train, y_train, x_test, y_test, got a; add .*",
    "data verify empty.csv": "expected a table at empty.csv, got: No columns to parse from file",
    "train --data text.txt": DATA + "'text.txt', and there is no .*text.txt.npz; check the spelling, or set .*",
    "train --data empty": r"empty: expected a folder of images for each class, at least two (.*), got 0 folders.",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("bad")
    for name in ("file", "text.txt", "bad.npz"):
        (place / name).write_text("x")
    (place / "empty.csv").touch()
    (place / "results.json").write_text("{}")
    np.savez(place / "odd.npz", a=np.ones(3))
    experiment = {"experiment": "il-theory/stability", "quick": True, "seeds": 1, "large": False}
    runs = {"t": TrainSettings(), "s": SweepSettings(), "my runs": CompareSettings(), "r": experiment, "empty": None}
    for name, own in runs.items():
        (place / name).mkdir()
        plain = dataclasses.asdict(own) if dataclasses.is_dataclass(own) else own
        if plain is not None:
            (place / name / "config.json").write_text(json.dumps(plain))
    return place


def content_of(place):
    return {path: path.read_bytes() if path.is_file() else None for path in place.rglob("*")}


def test_there_are_many_lines():
    assert len(LINES) >= 80


@pytest.mark.parametrize("line", LINES)
def test_a_bad_line(line, place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    before = content_of(place)
    with pytest.raises(SystemExit) as end:
        main(shlex.split(line))
    printed = capsys.readouterr()
    pattern = ".*".join(map(re.escape, LINES[line].split(".*")))
    assert re.fullmatch(f"vicinal: {pattern}\n", printed.err), printed.err
    assert (end.value.code, printed.out) == (2, "")
    assert content_of(place) == before
