"""Two runs never write into one folder: whatever starts second is refused, and leaves the first one alone."""

import subprocess
import sys
from pathlib import Path

import optax
import pytest
from fit_builders import BACKPROP, GRAPH, MODEL, X, Y, bits, contents, train, untimed
from lock_holders import held_elsewhere

import vicinal as vc
from vicinal.cli import main
from vicinal.cli.commands import own_folder
from vicinal.compare import CompareSettings, TrainSettings, compare, train as train_task
from vicinal.reproduce import reproduce
from vicinal.settings import ModelSettings
from vicinal.sweeping import SweepSettings, sweep_task

REFUSED = r"expected a folder that no other run writes to, got '.*', where one is running; wait for it to end, or"
TASK = {"model": ModelSettings(sizes=(64, 10)), "epochs": 1, "batch_size": 1000}
SMALL = ["--epochs", "1", "--batch-size", "1000", "--model.sizes", "64", "10"]


def swept(folder, **settings):
    make, build = (lambda learning_rate: (BACKPROP, optax.sgd(learning_rate))), lambda key: MODEL
    settings = {"batch_size": 8, "graph": GRAPH, "steps": 2, "progress": False} | settings
    return vc.train.sweep(make, build, (X, Y), {"learning_rate": [0.1]}, folder=folder, **settings)


LIBRARY = {
    "fit": lambda folder, resume: train(steps=2, folder=folder, resume=resume),
    "sweep": lambda folder, resume: swept(folder, resume=resume),
    "train": lambda folder, resume: train_task(TrainSettings(rule="bp", **TASK), folder, resume=resume),
    "compare": lambda folder, resume: compare(CompareSettings(rules=("bp",), seeds=1, **TASK), folder, resume=resume),
    "sweep_task": lambda folder, resume: sweep_task(
        SweepSettings(rule="bp", learning_rates=(0.1,), seeds=1, group_size=1, **TASK), folder, resume=resume
    ),
    "reproduce": lambda folder, resume: reproduce("il-theory/stability", folder, quick=True, resume=resume),
}


@pytest.mark.parametrize("resume", [False, True], ids=["new", "resume"])
@pytest.mark.parametrize("name", LIBRARY)
def test_a_folder_in_use_is_refused_and_left_alone(tmp_path, name, resume):
    if resume:
        train(steps=2, folder=tmp_path)
    with held_elsewhere(tmp_path):
        before = contents(tmp_path)
        with pytest.raises(ValueError, match=REFUSED):
            LIBRARY[name](tmp_path, resume)
        assert contents(tmp_path) == before


@pytest.mark.parametrize("inner", [train, swept])
@pytest.mark.parametrize("outer", [train, swept])
def test_a_run_in_a_hook_of_another_needs_a_folder_of_its_own(tmp_path, outer, inner):
    """Both are in one thread, which may enter the lock again."""

    def begin(record, state):
        inner(steps=2, folder=tmp_path / "run", resume=True)

    with pytest.raises(ValueError, match=REFUSED):
        outer(steps=2, folder=tmp_path / "run", on_record=begin)
    inner(steps=2, folder=tmp_path / "own")
    assert not (tmp_path / "run" / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    "words",
    [
        ["train", *SMALL, "--folder"],
        ["train", "--resume"],
        ["compare", *SMALL, "--folder"],
        ["sweep", *SMALL, "--learning-rates", "0.1", "--folder"],
        ["sweep", "--resume"],
        ["reproduce", "il-theory/stability", "--quick", "--folder"],
        ["reproduce", "--resume"],
    ],
    ids=lambda words: "-".join(word.lstrip("-") for word in (words[0], words[-1])),
)
def test_the_command_line_says_so_in_one_sentence(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    with held_elsewhere("mine"):
        before = contents(Path("mine"))
        with pytest.raises(SystemExit) as ended:
            main([*words, "mine"])
        assert contents(Path("mine")) == before
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("vicinal: expected a folder that no other run writes to, got 'mine', where one is running;")
    assert said.count("\n") == 1


def test_a_command_takes_the_next_free_folder(tmp_path, monkeypatch):
    """Also when another command has just made the one that seemed free."""
    monkeypatch.chdir(tmp_path)
    there = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.name not in ("train-001", "runs") and there(path))
    with held_elsewhere("runs/train-001"), own_folder(None, "train") as folder:
        assert folder == Path("runs/train-002")


def test_a_refused_command_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (["train", "--rule", "bb"], ["train", "--data", "no.csv"], ["sweep"], ["train", "--resume", "none"]):
        with pytest.raises(SystemExit):
            main(words)
        assert list(tmp_path.iterdir()) == []


def test_looking_needs_no_lock(tmp_path):
    train(steps=2, folder=tmp_path)
    with held_elsewhere(tmp_path):
        assert bits(vc.train.load_model(tmp_path, MODEL)) == bits(train(steps=2).model)
        assert [record["step"] for record in vc.train.log.read(tmp_path / "metrics.jsonl")] == [2]


def test_a_run_leaves_no_lock_and_no_leftovers(tmp_path):
    """A whole checkpoint is left behind when a write is killed."""
    train(steps=2, folder=tmp_path)
    (tmp_path / ".0123456789abcdef.tmp").write_bytes((tmp_path / "checkpoint.npz").read_bytes()[:-9])
    (tmp_path / ".lock").touch()  # so is the file of a lock when its process is killed
    resumed = train(steps=4, folder=tmp_path, resume=True)
    assert sorted(contents(tmp_path)) == ["checkpoint.npz", "metrics.jsonl"]
    whole = train(steps=4)
    assert bits(resumed.state) == bits(whole.state)


@pytest.mark.full
@pytest.mark.parametrize(
    "words",
    [
        ["train", "--rule", "bp", *SMALL],
        ["compare", "--rules", "bp", "--seeds", "1", *SMALL],
        ["sweep", "--rule", "bp", "--seeds", "1", "--learning-rates", "0.1", "--group-size", "1", *SMALL],
        ["reproduce", "il-theory/stability", "--quick", "--seeds", "1"],
    ],
    ids=lambda words: words[0],
)
def test_of_commands_that_start_at_once_one_runs(tmp_path, words):
    """Real processes, of which the last one to look finds either a run under way or one that has ended."""
    command = [sys.executable, "-m", "vicinal", *words, "--folder", "mine"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
    running = [subprocess.Popen(command, **pipes) for _ in range(2)]
    said = [process.communicate()[1] for process in running]
    codes = [process.returncode for process in running]
    assert sorted(codes) == [0, 2], said
    refused = [words for code, words in zip(codes, said, strict=True) if code == 2]
    assert all(words.count("vicinal: expected a folder") == words.count("\n") == 1 for words in refused), refused
    alone = subprocess.run([*command[:-1], "alone"], **pipes)
    assert alone.returncode == 0
    for path in (tmp_path / "alone").rglob("*"):
        twin = tmp_path / "mine" / path.relative_to(tmp_path / "alone")
        assert twin.exists(), twin
        if path.name == "metrics.jsonl":
            records = [untimed(vc.train.log.read(file)) for file in (path, twin)]
            assert records[0] == records[1]
    assert len(list((tmp_path / "alone").rglob("*"))) == len(list((tmp_path / "mine").rglob("*")))


@pytest.mark.full
def test_commands_without_a_folder_take_one_each(tmp_path):
    command = [sys.executable, "-m", "vicinal", "train", "--rule", "bp", *SMALL]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=tmp_path) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["train-001", "train-002"]
