"""A run writes into its own folder and log alone, whatever is moved, removed or edited while it trains."""

import shutil
from pathlib import Path

import pytest
from fit_builders import bits, contents, train

from vicinal.train.files import METRICS
from vicinal.train.progress import TrainingProgress

LOST = "the records were removed, moved or changed while the run wrote them; put them back and resume"


def remove(log):
    log.unlink()


def move(log):
    log.rename(log.with_name("old.jsonl"))


def empty(log):
    log.write_bytes(b"")


def extend(log):
    with log.open("a") as stream:
        stream.write('{"step": 9}\n')


def copy_over(log):
    shutil.copy(log, log.with_name("copy"))
    log.with_name("copy").replace(log)


@pytest.mark.parametrize("seconds", [0.0, 60.0])
@pytest.mark.parametrize("change", [remove, move, empty, extend, copy_over])
def test_a_log_that_is_not_its_own_any_more_is_noticed_at_the_next_record(tmp_path, change, seconds):
    steps = []

    def watch(record, state):
        steps.append(record["step"])
        if record["step"] == 2:
            change(tmp_path / METRICS)

    with pytest.raises(FileNotFoundError, match=LOST) as error:
        train(steps=3, evaluate_every=1, folder=tmp_path, on_record=watch, checkpoint_seconds=seconds)
    assert error.value.filename == str(tmp_path / METRICS)
    assert error.value.__notes__ == ["training stopped after step 1 of 3"]  # it cannot be resumed as it is
    assert steps == [1, 2]


def test_no_checkpoint_is_written_without_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingProgress, "update", lambda self, step, *_: move(tmp_path / METRICS))
    with pytest.raises(FileNotFoundError, match=LOST):
        train(steps=2, folder=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"old.jsonl"}


def test_a_hook_that_changes_the_directory_moves_nothing(tmp_path, monkeypatch):
    """A folder of the same name there, maybe of another run, is left alone."""
    for name in ("here/run", "there/run", "plain"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")

    def leave(record, state):
        monkeypatch.chdir(tmp_path / "there")

    settings = {"steps": 6, "evaluate_every": 2, "keep": 2, "checkpoint_seconds": 0}
    run = train(folder="run", on_record=leave, **settings)
    assert contents(Path("run")) == {}
    assert {path.name for path in (tmp_path / "here/run").iterdir()} == {METRICS, "checkpoint.npz", "earlier"}
    monkeypatch.chdir(tmp_path / "here")
    again = train(folder="run", resume=True, **settings)
    assert bits(again.model) == bits(run.model) == bits(train(**settings | {"folder": tmp_path / "plain"}).model)
