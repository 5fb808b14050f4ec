"""The start of the command line: imports, messages for wrong arguments, aliases."""

import importlib
import inspect
import json
import re
import subprocess
import sys

import pytest
from matrix import full

from vicinal.cli import main
from vicinal.cli.main import COMMANDS
from vicinal.cli.parsing import options_of, spread
from vicinal.recipes import ALIASES, RECIPES, audits, recipe
from vicinal.sweeping import SweepSettings

SLOW = ("jax", "numpy", "equinox", "optax", "tyro", "rich", "scipy", "matplotlib", "jinja2", "pooch", "requests")


def said(capsys, *arguments):
    """The printed text, or the message of an error."""
    code = 0
    try:
        main(list(arguments))
    except SystemExit as end:
        code = end.code or 0
    printed = capsys.readouterr()
    if code == 0:
        return printed.out
    assert (code, printed.err[:18], printed.err.count("\n")) == (2, "vicinal: expected ", 1)
    return printed.err


def imported_by(*arguments):
    code = f"import sys\nfrom vicinal.cli import main\ntry: main({list(arguments)!r})\nexcept SystemExit: pass\n"
    code += "print(' '.join(sys.modules), file=sys.stderr)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(finished.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], SLOW),
        ([], SLOW),
        (["data"], SLOW),
        (["trian"], SLOW),
        (["--version"], SLOW),
        (["cite", "pc"], ("scipy", "matplotlib", "jinja2", "pooch", "requests", "rich.progress")),
        (["data", "list"], ("scipy", "matplotlib", "jinja2", "optax", "vicinal.rules")),
        (["results", "--help"], ("jax", "numpy", "scipy", "matplotlib", "equinox", "vicinal_experiments")),
        (["train", "--help"], ("scipy", "matplotlib", "vicinal_experiments")),
    ],
)
def test_a_command_imports_what_it_needs(arguments, absent):
    assert imported_by(*arguments).isdisjoint(absent)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_they_say(capsys, name):
    command = COMMANDS[name]
    function = getattr(importlib.import_module(command.module), command.function)
    assert inspect.getdoc(function).splitlines()[0] == command.summary
    assert command.summary in said(capsys, "--help")
    shown = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", re.sub(r"`[^`]*`", "", said(capsys, *name.split(), "--help"))))
    assert shown - {"--help"} <= set(options_of(function))  # so that no option there is refused as unknown


def test_lists_may_have_commas():
    lists = {"--rules", "--learning-rates", "--model.sizes"}
    assert spread(["--rules", "bp,il", "--epochs", "2"], lists) == ["--rules", "bp", "il", "--epochs", "2"]
    assert spread(["--model.sizes=784,256,", "10"], lists) == ["--model.sizes", "784", "256", "10"]
    assert spread(["--learning_rates", "0.1,1", "10"], lists) == ["--learning_rates", "0.1", "1", "10"]
    assert spread(["--data", "a,b.npz"], lists) == ["--data", "a,b.npz"]
    from vicinal.cli.commands import compare, sweep

    assert [name for name, is_list in options_of(sweep).items() if is_list and "-rates" in name] == ["--learning-rates"]
    assert not options_of(sweep)["--vary"]  # a comma there is between values of one number
    assert options_of(compare)["--rules"]


def test_a_comparison_with_commas_and_another_name_for_a_rule(capsys, tmp_path):
    folder = tmp_path / "c"
    arguments = ["--rules", "backprop,PC", "--model.sizes", "64,8,10", "--epochs", "1", "--seeds", "1"]
    said(capsys, "compare", *arguments, "--folder", str(folder))
    kept = json.loads((folder / "config.json").read_text())
    assert kept["rules"] == ["bp", "il"]
    assert kept["model"]["sizes"] == [64, 8, 10]
    assert (folder / "il-seed0" / "metrics.jsonl").exists()
    assert "expected different rules" in said(capsys, "compare", "--rules", "il,pc")


def test_the_field_has_other_names_for_recipes(capsys):
    assert set(ALIASES.values()) <= set(RECIPES)
    assert not set(ALIASES) & set(RECIPES)
    assert recipe("pc") is recipe("predictive-coding") is recipe("Predictive Coding") is RECIPES["il"]
    assert recipe("backprop") is recipe("backpropagation") is RECIPES["bp"]
    assert said(capsys, "cite", "pc") == said(capsys, "cite", "il")
    with pytest.raises(TypeError, match="expected the name of a recipe, like 'il', got 3"):
        recipe(3)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("trian", "a command of compare, .*, got 'trian'; did you mean 'train'"),
        ("data lst", "got 'data lst'; did you mean 'data list'"),
        ("--rule il", "a command of"),
        ("train --rul il", "got --rul; did you mean '--rule'"),
        ("train --rules il", "did you mean '--rule'"),
        ("train --lr 0.1", "did you mean '--learning-rate'"),
        ("train --sizes 64 10", "did you mean '--model.sizes'"),
        ("train -o there", "did you mean '--folder'"),
        ("train -x", "got -x; `vicinal train --help` lists them"),
        ("reproduce --quik", "did you mean '--quick'"),
        ("reproduce il-theory/stabilty", "did you mean 'il-theory/stability'"),
        ("train --epochs x", "a whole number for --epochs, got 'x'"),
        ("train --epochs 1.5", "a whole number for --epochs, got '1.5'"),
        ("train --epochs", "a value for --epochs, got none"),
        ("train --learning-rate fast", "a number for --learning-rate, got 'fast'"),
        ("train --learning-rate 0.1 0.2", "one value of --learning-rate, got '0.2' too"),
        ("train --model.sizes 64 a 10", "numbers for --model.sizes, got '64', 'a', '10'"),
        ("train --model.kind mpl", "--model.kind as one of .*, got 'mpl'; did you mean 'mlp'"),
        ("train --model.activation rleu", "got 'rleu'; did you mean 'relu'"),
        ("train --model.preset mnist-mpl", "got 'mnist-mpl'; did you mean 'mnist-mlp'"),
        ("train --model.sizes 784,256,10", r"the examples of digits have shape \[64\]"),
        ("train --loss mse", "--loss as one of sigmoid_cross_entropy, .*squared_error, got 'mse'"),
        ("train --rule feedback-alignmnt", "did you mean 'feedback-alignment'"),
        ("train --rule ill", "did you mean 'il'"),
        ("train --set lr=1", "got 'lr'; did you mean 'learning_rate'"),
        ("train --set step_size=1", "did you mean 'inference.step_size'"),
        ("train il", "only options, which begin with --, after `vicinal train`, got 'il'"),
        ("cite", "a name after `vicinal cite`, got none"),
        ("cite il bp", "got 'bp'"),
        ("rules il", "got 'il'"),
        ("data fetch mnst", "got 'mnst'; did you mean 'mnist'"),
    ],
)
def test_a_clumsy_user_is_told_what_to_do(capsys, words, expected):
    assert re.search(f"vicinal: expected .*{expected}", said(capsys, *words.split()))


@pytest.mark.parametrize("names", [("bp", "il", "fa", "dfa", "pal"), full(tuple(RECIPES))], ids=len)
def test_findings_of_the_audit_are_those_of_a_new_one(capsys, monkeypatch, names):
    assert audits.known().keys() == RECIPES.keys()
    monkeypatch.setattr("vicinal.cli.recipes.RECIPES", {name: RECIPES[name] for name in names})
    printed = said(capsys, "rules", "--check")
    assert "audited again: all as shipped" in printed


def test_a_finding_that_differs_is_said(capsys, monkeypatch):
    monkeypatch.setattr(audits, "known", lambda: dict.fromkeys(RECIPES))
    monkeypatch.setattr("vicinal.cli.recipes.RECIPES", {name: RECIPES[name] for name in ("bp", "il")})
    monkeypatch.setattr(audits, "audit_of", lambda name, done: "a dependence" if name == "il" else None)
    with pytest.raises(SystemExit) as end:
        main(["rules", "--check"])
    assert end.value.code == 1
    assert "audited again: differs for il" in capsys.readouterr().out


def test_a_reader_may_close_the_pipe():
    command = f"{sys.executable} -m vicinal rules | head -n 1"
    finished = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert finished.stdout.startswith("bp")
    assert not finished.stderr


def test_a_sweep_over_rules_and_counts_keeps_words_and_whole_numbers(capsys, tmp_path):
    folder = tmp_path / "s"
    arguments = ["--rules", "bp-sgd,fa", "--learning-rates", "0.1", "--model.sizes", "64,4,10", "--epochs", "1"]
    printed = said(capsys, "sweep", *arguments, "--seeds", "1", "--group-size", "1", "--folder", str(folder))
    assert "2 combinations of rule, learning_rate, 1 seed each." in " ".join(printed.split())
    members = json.loads((folder / "results.json").read_text())["numbers"]["members"]
    assert [member["numbers"] for member in members] == [
        {"rule": "bp-sgd", "learning_rate": 0.1},
        {"rule": "fa", "learning_rate": 0.1},
    ]
    settings = SweepSettings(vary=("inference.steps=5,10", "inference.decay=true,false", "rule=pc"))
    assert settings.grid() == {"inference.steps": [5, 10], "inference.decay": [True, False], "rule": ["il"]}
    assert [type(value) for value in settings.grid()["inference.steps"]] == [int, int]
    for words, expected in (
        ("--rules bp il --rule fa --learning-rates 1", "either one rule or several"),
        ("--rules bp il --vary eps=1", "a number of bp among learning_rate, b1, b2, got 'eps'"),
        ("--vary inference.steps=a", "a whole number for inference.steps, got 'a'"),
        ("--vary b1=high", "a number for b1, got 'high'"),
    ):
        assert expected in said(capsys, "sweep", *words.split())
