"""Signals that ask a process to end: the run is saved, and a sentence says so."""

import os
import re
import signal
import subprocess
import sys
import threading

import optax
import pytest
from fit_builders import ADAM, LEARNING, X, Y, bits, train, untimed

import vicinal as vc
from vicinal import compare
from vicinal.cli import main
from vicinal.settings import TaskSettings
from vicinal.train import checkpoint
from vicinal.train.files import CHECKPOINT
from vicinal.train.log import JSONLog, read

NUMBERS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}  # exit codes: 128 and the number of the signal
SETTINGS = {"steps": 12, "evaluate_every": 3}


def handlers():
    return [signal.getsignal(getattr(signal, name)) for name in NUMBERS]


@pytest.fixture(autouse=True)
def same_handlers(cut):
    """Whatever happens in a test, the program's handlers are there after it; a compiled call takes one step."""
    cut(1)
    before = handlers()
    yield
    assert handlers() == before


def sends(name, step, times=1):
    """An `on_record` that sends signals to this process, from a step on."""

    def on_record(record, state):
        for _ in range(times if record["step"] == step else 0):
            signal.raise_signal(getattr(signal, name))

    return on_record


@pytest.mark.parametrize("name", NUMBERS)
def test_a_signal_saves_the_run(tmp_path, capsys, name):
    with pytest.raises(KeyboardInterrupt if name == "SIGINT" else SystemExit) as error:
        train(LEARNING, ADAM, folder=tmp_path, on_record=sends(name, 6), **SETTINGS)
    words = f"stopped after step 5 of 12; its checkpoint in {str(tmp_path)!r} is written; resume with resume=True"
    words = f"training {words}"
    assert error.value.__notes__ == [words]
    if name != "SIGINT":  # of which Python shows the notes
        assert error.value.code == NUMBERS[name]
        assert capsys.readouterr().err == f"vicinal: ended by {name}: {words}\n"
    resumed = train(LEARNING, ADAM, folder=tmp_path, resume=True, **SETTINGS)
    whole = train(LEARNING, ADAM, **SETTINGS)
    assert bits(resumed.state) == bits(whole.state)
    assert untimed(resumed.records) == untimed(whole.records)


def test_a_signal_before_the_first_record_loses_nothing(tmp_path, capsys):
    with pytest.raises(SystemExit):
        train(folder=tmp_path, on_record=sends("SIGTERM", 1), steps=1)
    assert f"after step 0 of 1; nothing is lost, and resume=True begins in {str(tmp_path)!r}" in capsys.readouterr().err
    assert train(folder=tmp_path, resume=True, steps=1).records[-1]["step"] == 1


@pytest.mark.parametrize("second", NUMBERS)
def test_further_signals_wait_until_the_checkpoint_is_written(tmp_path, monkeypatch, second):
    save = checkpoint.save

    def slow(path, state, **options):
        signal.raise_signal(getattr(signal, second))
        save(path, state, **options)
        signal.raise_signal(getattr(signal, second))

    def on_record(record, state):
        if record["step"] == 6:
            monkeypatch.setattr(checkpoint, "save", slow)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises((SystemExit, KeyboardInterrupt)) as error:
        train(LEARNING, ADAM, folder=tmp_path, on_record=on_record, **SETTINGS)
    assert isinstance(error.value, SystemExit)
    assert error.value.code == 143
    assert int(checkpoint.load(tmp_path / CHECKPOINT, train(LEARNING, ADAM, steps=1).state)[0].step) == 5


def test_a_signal_that_somebody_catches_still_ends_the_run(tmp_path):
    def on_record(record, state):
        try:
            if record["step"] == 6:
                signal.raise_signal(signal.SIGTERM)
        except SystemExit:
            pass

    with pytest.raises(SystemExit) as error:
        train(folder=tmp_path, on_record=on_record, **SETTINGS)
    assert "after step 6 of 12" in error.value.__notes__[0]
    assert train(folder=tmp_path, resume=True, **SETTINGS).records[-1]["step"] == 12  # and this one goes on


def test_handlers_of_the_program_are_left_alone(tmp_path):
    seen = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        run = train(folder=tmp_path, on_record=sends("SIGTERM", 6, times=2), **SETTINGS)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert seen == [signal.SIGTERM] * 2
    assert run.stopped is None


def test_without_a_folder_signals_do_what_they_did():
    found = []
    train(on_record=lambda record, state: found.append(handlers()), **SETTINGS)
    assert found == [handlers()] * 4


def test_a_member_of_a_sweep_is_saved_by_a_signal(tmp_path, capsys):
    def run(**settings):
        return vc.train.sweep(
            lambda learning_rate: (vc.rules.Backprop(), optax.sgd(learning_rate)),
            lambda key: vc.nn.MLP((4, 3, 3), key=key),
            (X, Y),
            {"learning_rate": [0.1, 0.2]},
            **{"batch_size": 8, "group_size": 1, "folder": tmp_path, "progress": False} | SETTINGS | settings,
        )

    with pytest.raises(SystemExit) as error:
        run(on_record=sends("SIGHUP", 6))
    assert error.value.code == 129
    assert "ended by SIGHUP: training stopped after step 5 of 12; its checkpoint" in capsys.readouterr().err
    resumed, whole = run(resume=True), run(folder=None)
    for ours, theirs in zip(resumed.members, whole.members, strict=True):
        assert ours.records == theirs.records
        assert bits(ours.model) == bits(theirs.model)


def test_a_full_disk_is_said_too(tmp_path, capsys, monkeypatch):
    def full(path, state, **options):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(SystemExit) as error:
        train(folder=tmp_path, on_record=sends("SIGTERM", 6), **SETTINGS)
    assert error.value.code == 143
    assert "after step 5 of 12; could not write the checkpoint (No space left on device)" in capsys.readouterr().err


# Threads and the command line.


def test_two_runs_in_threads_are_those_of_one_thread(tmp_path):
    runs, whole = {}, train(LEARNING, ADAM, **SETTINGS)

    def one(name):
        runs[name] = train(LEARNING, ADAM, folder=tmp_path / name, **SETTINGS)

    threads = [threading.Thread(target=one, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("a", "b"):
        assert bits(runs[name].state) == bits(whole.state)
        assert untimed(runs[name].records) == untimed(whole.records)
        assert untimed(read(tmp_path / name / "metrics.jsonl")) == untimed(whole.records)


QUICK = ["--rule", "bp", "--model.sizes", "64", "8", "10", "--epochs", "1", "--evaluate-every", "10"]


def ending(capsys, *arguments):
    """The exit code and the last line of a command."""
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return end.value.code, capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", NUMBERS)
def test_the_command_line_says_how_to_resume(capsys, tmp_path, monkeypatch, name):
    folder, write = str(tmp_path / "my run"), JSONLog.write

    def interrupted(log, record):
        write(log, record)
        if record["step"] == 20:
            signal.raise_signal(getattr(signal, name))

    with monkeypatch.context() as patch:
        patch.setattr(JSONLog, "write", interrupted)
        code, said = ending(capsys, "train", *QUICK, "--folder", folder)
    assert code == NUMBERS[name]
    cause = "interrupted" if name == "SIGINT" else f"ended by {name}"
    assert said == (
        f"vicinal: {cause}: training stopped after step 19 of 44; its checkpoint in {folder!r} is written; "
        f"resume with `vicinal train --resume '{folder}'`"
    )
    main(["train", "--resume", folder])
    assert [record["step"] for record in read(tmp_path / "my run" / "metrics.jsonl")] == [10, 20, 30, 40, 44]


def test_the_command_line_says_what_is_kept_outside_of_training(capsys, tmp_path, monkeypatch):
    folder = tmp_path / "run"

    def interrupted(*arguments, **options):
        signal.raise_signal(signal.SIGTERM)

    for place, name, words in (
        (TaskSettings, "load", "ended by SIGTERM: no run had begun, and nothing is lost"),
        (compare, "write_study", f"what was trained is kept in {str(folder)!r}; resume with `vicinal train"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, interrupted)
            code, said = ending(capsys, "train", *QUICK, "--folder", str(folder))
        assert code == 143
        assert words in said
    main(["train", "--resume", str(folder)])
    assert (folder / "report.html").exists()


SCRIPT = """
import os, signal, sys
sys.path[0] = sys.argv[1]
from fit_builders import train
def on_record(record, state):
    if record["step"] == 6:
        os.kill(os.getpid(), signal.SIGTERM)
try:
    train(steps=12, evaluate_every=3, folder=sys.argv[2], on_record=on_record)
finally:
    print("cleaned up")
"""


def test_a_script_cleans_up_and_ends_with_143(tmp_path):
    command = [sys.executable, "-c", SCRIPT, os.path.dirname(__file__), str(tmp_path / "run")]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout) == (143, "cleaned up\n")
    said = r"vicinal: ended by SIGTERM: training stopped after step [345] of 12; its checkpoint"
    assert re.match(said, finished.stderr.splitlines()[-1])


@pytest.mark.parametrize("name", NUMBERS)
def test_an_error_that_a_library_makes_of_a_signal_is_that_signal(capsys, monkeypatch, tmp_path, name):
    """As an extension module whose import is interrupted."""

    def fail(*_, **__):
        try:
            signal.raise_signal(getattr(signal, name))
        except BaseException as error:
            other = ImportError("could not initialise")
            other.add_note("what was kept")
            raise other from error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compare, "train", fail)
    with pytest.raises(SystemExit) as ended:
        main(["train", "--rule", "bp"])
    assert ended.value.code == NUMBERS[name]
    assert list(tmp_path.rglob("error-*")) == []
    assert capsys.readouterr().err.endswith(": what was kept\n")
