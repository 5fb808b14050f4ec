"""Several checkpoints: the newest one, and earlier ones to go back to when it is damaged."""

import contextlib
import errno
import os
import re

import numpy as np
import optax
import pytest
from fit_builders import BACKPROP, GRAPH, LEARNING, MODEL, X, Y, bits, contents, train, untimed

import vicinal as vc
from vicinal.cli import main
from vicinal.train import CheckpointError, checkpoint, checkpoint_file, load_model
from vicinal.train.checkpoints import EARLIER
from vicinal.train.files import CHECKPOINT, METRICS
from vicinal.train.hooks import EarlyStopping
from vicinal.train.log import read

OFTEN = {"checkpoint_seconds": 0.0, "evaluate_every": 2, "test": (X, Y)}


@pytest.fixture(autouse=True)
def step_by_step(cut):
    """A checkpoint after each step, when there are no seconds between them."""
    cut(1)


def earlier(folder):
    return sorted(path.name for path in (folder / EARLIER).glob("*"))


def step_of(path):
    return int(checkpoint.load(path, np.int32(0), part=".step")[0])


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@contextlib.contextmanager
def warned(newest, used):
    with pytest.warns(UserWarning, match="; the run resumes from") as said:
        yield
    assert [str(warning.message) for warning in said] == [
        f"the checkpoint {str(newest)!r} is damaged; the run resumes from {str(used)!r}"
    ]


def swept(steps, **settings):
    make, build = (lambda learning_rate: (BACKPROP, optax.sgd(learning_rate))), lambda key: MODEL
    numbers = {"learning_rate": [0.1, 0.2]}
    settings |= {"batch_size": 8, "graph": GRAPH, "group_size": 1, "steps": steps, "progress": False}
    return vc.train.sweep(make, build, (X, Y), numbers, **OFTEN, **settings)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_as_many_as_asked_are_kept(tmp_path, keep):
    run = train(steps=6, folder=tmp_path, keep=keep, **OFTEN)
    assert step_of(tmp_path / CHECKPOINT) == 6
    names = [f"checkpoint-{step}.npz" for step in (4, 5)]
    assert earlier(tmp_path) == names[len(names) - keep + 1 :]
    assert (tmp_path / EARLIER).exists() == (keep > 1)
    for name in earlier(tmp_path):
        path = tmp_path / EARLIER / name
        assert step_of(path) == int(re.findall(r"\d+", name)[0])
        assert bits(load_model(path, MODEL)) == bits(train(steps=step_of(path)).model)
    assert bits(load_model(tmp_path, MODEL)) == bits(run.model)


@pytest.mark.parametrize("keep", [0, -1, 1.5, True])
def test_at_least_one_is_kept(tmp_path, keep):
    with pytest.raises((ValueError, TypeError), match="expected keep as an integer of at least 1, got"):
        train(steps=6, folder=tmp_path / "run", keep=keep)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("spoilt", [1, 2])
@pytest.mark.parametrize("end", [6, 9], ids=["ended", "goes on"])
def test_a_run_goes_on_from_the_newest_whole_one(tmp_path, spoilt, end):
    train(LEARNING, steps=6, folder=tmp_path, keep=3, **OFTEN)
    newest, *others = (tmp_path / CHECKPOINT, *(tmp_path / EARLIER / name for name in reversed(earlier(tmp_path))))
    for path in [newest, *others][:spoilt]:
        damage(path)
    with warned(newest, others[spoilt - 1]):
        resumed = train(LEARNING, steps=end, folder=tmp_path, keep=3, resume=True, **OFTEN)
    whole = train(LEARNING, steps=end, folder=tmp_path / "whole", **OFTEN)
    assert bits(resumed.state) == bits(whole.state)
    assert untimed(read(tmp_path / METRICS)) == untimed(resumed.records) == untimed(whole.records)
    assert earlier(tmp_path) == [f"checkpoint-{step}.npz" for step in (end - 2, end - 1)]
    assert [step_of(tmp_path / EARLIER / name) for name in earlier(tmp_path)] == [end - 2, end - 1]  # all are whole
    assert (tmp_path / CHECKPOINT).read_bytes() == (tmp_path / "whole" / CHECKPOINT).read_bytes()


def test_a_missing_newest_one_is_replaced_too(tmp_path):
    train(steps=6, folder=tmp_path, keep=2, **OFTEN)
    (tmp_path / CHECKPOINT).unlink()
    with pytest.raises(ValueError, match="expected a folder without a run"):
        train(steps=6, folder=tmp_path, **OFTEN)
    with pytest.warns(UserWarning, match=r"checkpoint\.npz' is missing; the run resumes from .*checkpoint-5\.npz'"):
        assert bits(train(steps=6, folder=tmp_path, resume=True, **OFTEN).state) == bits(train(steps=6).state)


def test_one_that_cannot_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    train(steps=6, folder=tmp_path, keep=2, **OFTEN)

    def read(path):
        if path == tmp_path / CHECKPOINT:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return path.read_bytes()

    monkeypatch.setattr(checkpoint_file, "read_bytes", read)
    with pytest.warns(UserWarning, match=r"checkpoint\.npz' is unreadable \(Permission denied\); the run resumes from"):
        train(steps=6, folder=tmp_path, keep=2, resume=True, **OFTEN)


def test_a_file_in_the_place_of_earlier_ones_is_named_before_training(tmp_path):
    (tmp_path / EARLIER).write_text("mine")
    with pytest.raises(NotADirectoryError) as error:
        train(steps=6, folder=tmp_path, keep=2)
    assert error.value.filename == str(tmp_path / EARLIER)
    train(steps=6, folder=tmp_path, keep=1)
    assert (tmp_path / EARLIER).read_text() == "mine"


def test_without_a_whole_one_the_run_is_refused_and_left_alone(tmp_path):
    train(steps=6, folder=tmp_path, keep=2, **OFTEN)
    damage(tmp_path / CHECKPOINT)
    damage(tmp_path / EARLIER / "checkpoint-5.npz")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    with pytest.raises(CheckpointError, match=r"/checkpoint\.npz.*cut short or altered; restore it from a copy or use"):
        train(steps=6, folder=tmp_path, keep=2, resume=True, **OFTEN)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_the_best_model_is_that_of_the_whole_run(tmp_path):
    """Also when the file of the best model is later than the checkpoint that the run goes back to."""
    hooks = [EarlyStopping("test_loss", patience=99)]
    train(steps=6, folder=tmp_path, keep=4, hooks=hooks, **OFTEN)
    assert checkpoint.read_metadata(tmp_path / "best.npz")["step"] == 6
    for path in (
        tmp_path / CHECKPOINT,
        tmp_path / EARLIER / "checkpoint-5.npz",
        tmp_path / EARLIER / "checkpoint-4.npz",
    ):
        damage(path)
    with warned(tmp_path / CHECKPOINT, tmp_path / EARLIER / "checkpoint-3.npz"):
        resumed = train(steps=8, folder=tmp_path, keep=4, hooks=hooks, resume=True, **OFTEN)
    whole = train(steps=8, folder=tmp_path / "whole", hooks=hooks, **OFTEN)
    assert bits(resumed.best) == bits(whole.best)
    assert (tmp_path / "best.npz").read_bytes() == (tmp_path / "whole" / "best.npz").read_bytes()


def test_members_of_a_sweep(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    swept(3, folder=ours, keep=2)
    whole = swept(5, folder=theirs, keep=4)
    assert (earlier(ours), earlier(theirs)) == (["wave-0-2.npz"], [f"wave-0-{step}.npz" for step in (2, 3, 4)])
    models = [load_model(folder / EARLIER / "wave-0-2.npz", MODEL, member=1) for folder in (ours, theirs)]
    assert bits(models[0]) == bits(models[1])
    damage(ours / "wave-0.npz")
    with warned(ours / "wave-0.npz", ours / EARLIER / "wave-0-2.npz"):
        resumed = swept(5, folder=ours, keep=2, resume=True)
    for one, other in zip(resumed.members, whole.members, strict=True):
        assert bits(one.model) == bits(other.model)
        assert one.records == other.records
    assert earlier(ours) == ["wave-0-4.npz"]


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_failed_write_leaves_all_of_them(tmp_path, monkeypatch, links):
    """The newest one is at no moment away."""
    train(steps=4, folder=tmp_path, keep=2, **OFTEN)
    newest = (tmp_path / CHECKPOINT).read_bytes()

    def fail(*names, **options):
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", fail)
        (tmp_path / EARLIER / ".0123456789abcdef.tmp").touch()  # of a copy that was killed
    with monkeypatch.context() as during:
        during.setattr(checkpoint, "save", fail)
        with pytest.raises(PermissionError, match="could not write the checkpoint"):
            train(steps=6, folder=tmp_path, keep=2, resume=True, **OFTEN)
    assert (tmp_path / CHECKPOINT).read_bytes() == newest
    assert {step_of(tmp_path / EARLIER / name) for name in earlier(tmp_path)} >= {3}
    resumed = train(steps=6, folder=tmp_path, keep=2, resume=True, **OFTEN)
    assert bits(resumed.state) == bits(train(steps=6).state)
    assert earlier(tmp_path) == ["checkpoint-5.npz"]
    assert (tmp_path / EARLIER / "checkpoint-5.npz").stat().st_nlink == 1


def test_keeping_fewer_removes_the_others_and_no_other_file(tmp_path):
    train(steps=6, folder=tmp_path, keep=4, **OFTEN)
    (tmp_path / EARLIER / "checkpoint-mine.npz").touch()
    train(steps=9, folder=tmp_path, keep=2, resume=True, **OFTEN)
    assert earlier(tmp_path) == ["checkpoint-8.npz", "checkpoint-mine.npz"]
    train(steps=10, folder=tmp_path, resume=True, **OFTEN)
    assert earlier(tmp_path) == ["checkpoint-mine.npz"]
    (tmp_path / EARLIER / "checkpoint-mine.npz").unlink()
    train(steps=11, folder=tmp_path, keep=2, resume=True, **OFTEN)
    train(steps=12, folder=tmp_path, resume=True, **OFTEN)
    assert sorted(contents(tmp_path)) == [CHECKPOINT, METRICS]


SMALL = ["--rule", "bp", "--epochs", "1", "--batch-size", "500", "--model.sizes", "64", "10"]


def test_the_command_line_keeps_as_many_as_asked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["train", *SMALL, "--checkpoint-seconds", "0", "--keep", "2", "--folder", "mine"])
    assert earlier(tmp_path / "mine") == ["checkpoint-1.npz"]
    with pytest.raises(SystemExit):
        main(["train", *SMALL, "--keep", "0"])
    assert capsys.readouterr().err.splitlines()[-1] == "vicinal: expected keep as an integer of at least 1, got 0"


@pytest.mark.full
def test_the_command_line_says_which_one_it_uses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["train", *SMALL, "--checkpoint-seconds", "0", "--keep", "2", "--folder", "mine"])
    damage(tmp_path / "mine" / CHECKPOINT)
    with warned(tmp_path / "mine" / CHECKPOINT, tmp_path / "mine" / EARLIER / "checkpoint-1.npz"):
        main(["train", "--resume", "mine", "--keep", "3"])
    assert step_of(tmp_path / "mine" / CHECKPOINT) == 2
    main(["train", "--resume", "mine"])  # any warning is an error
