"""A disk that is full or read-only, and a folder that goes away: what was written stays whole, and a run goes on."""

import contextlib
import errno
import os
import re
import shutil

import optax
import pytest
from disks import disk_at, filled, no_file_above
from fit_builders import BACKPROP, GRAPH, MODEL, X, Y, bits, contents, train, untimed
from matrix import full

import vicinal as vc
from vicinal import files
from vicinal.cli import main
from vicinal.report import Comparison
from vicinal.train.files import CHECKPOINT, METRICS
from vicinal.train.hooks import CSVLog, TensorBoard
from vicinal.train.log import JSONLog, read
from vicinal.train.progress import TrainingProgress

OFTEN = {"evaluate_every": 1, "test": (X, Y)}


@contextlib.contextmanager
def quota(folder):
    """A record is cut in the middle."""
    with no_file_above((folder / METRICS).stat().st_size + 450):
        yield


@contextlib.contextmanager
def disk(folder, kind):
    if kind == "quota":
        yield quota
    else:
        with disk_at(folder):
            yield filled


@pytest.mark.parametrize("kind", ["quota", "disk"])
def test_a_full_disk_leaves_whole_records_and_the_run_goes_on(tmp_path, kind):
    whole = train(steps=60, **OFTEN)
    with disk(tmp_path, kind) as full_disk:
        train(steps=4, folder=tmp_path, **OFTEN)
        before = (tmp_path / CHECKPOINT).read_bytes()
        with full_disk(tmp_path), pytest.raises(OSError, match="could not write the record of step") as error:
            train(steps=60, folder=tmp_path, resume=True, **OFTEN)
        step = int(re.search(r"record of step (\d+) \(.*\); the records before it are whole$", error.value.strerror)[1])
        assert error.value.filename == str(tmp_path / METRICS)
        assert error.value.__notes__ == [
            f"training stopped after step {step - 1} of 60; could not write the checkpoint "
            f"({error.value.__cause__.strerror}); the one before it is intact; make room, then resume with resume=True"
        ]
        assert (tmp_path / METRICS).read_bytes().endswith(b"}\n")
        assert [record["step"] for record in read(tmp_path / METRICS)] == list(range(1, step))
        assert (tmp_path / CHECKPOINT).read_bytes() == before
        assert sorted(contents(tmp_path)) == [CHECKPOINT, METRICS]
        resumed = train(steps=60, folder=tmp_path, resume=True, **OFTEN)
        assert bits(resumed.state) == bits(whole.state)
        assert untimed(read(tmp_path / METRICS)) == untimed(resumed.records) == untimed(whole.records)


def test_a_full_disk_at_a_checkpoint(tmp_path, cut):
    cut(1)
    train(steps=4, folder=tmp_path)
    before = contents(tmp_path)
    with no_file_above(2000), pytest.raises(OSError, match="could not write the checkpoint") as error:
        train(steps=9, folder=tmp_path, resume=True, checkpoint_seconds=0.0)
    assert error.value.strerror == (
        "could not write the checkpoint (File too large); the one before it is intact; make room, then resume with "
        "resume=True"
    )
    assert error.value.filename == str(tmp_path / CHECKPOINT)
    assert error.value.__notes__ == ["training stopped after step 5 of 9"]  # and says no more what is said before
    assert contents(tmp_path)[CHECKPOINT] == before[CHECKPOINT]
    assert bits(train(steps=9, folder=tmp_path, resume=True).state) == bits(train(steps=9).state)


def test_a_full_disk_before_the_first_checkpoint(tmp_path):
    with no_file_above(2000), pytest.raises(OSError, match="there is none before it; make room, then resume"):
        train(steps=9, folder=tmp_path)
    assert bits(train(steps=9, folder=tmp_path, resume=True).state) == bits(train(steps=9).state)


def test_a_log_ends_with_its_last_whole_record(tmp_path):
    path = tmp_path / "log"
    with JSONLog(path) as log:
        log.write({"step": 1})
        before = path.read_bytes()
        with no_file_above(20), pytest.raises(OSError, match="the record of step 2") as error:
            log.write({"step": 2, "long": "x" * 30})
        assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(path))
        assert path.read_bytes() == before
        log.write({"step": 2})
    assert log.records == read(path) == [{"step": 1}, {"step": 2}]


def test_a_table_has_no_half_rows(tmp_path):
    path = tmp_path / "table.csv"
    with pytest.raises(OSError, match="File too large"), no_file_above(250):
        train(steps=9, folder=tmp_path, hooks=[CSVLog(path)], **OFTEN)
    rows = path.read_text().splitlines()
    assert path.read_text().endswith("\n")
    assert len({row.count(",") for row in rows}) == 1
    assert len(rows) > 1


def test_curves_for_tensorboard_name_their_folder():
    class Writer:
        def add_scalar(self, *point):
            pass

        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

        close = flush

    hook = TensorBoard("curves")
    hook._writer = Writer()
    with pytest.raises(
        OSError, match=r"could not write the curves for TensorBoard \(No space left on device\)"
    ) as error:
        hook({"step": 1, "loss": 0.5}, None)
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, "curves")
    hook.end()  # and does not hide why the run ended


def failing(name, monkeypatch):
    """There is no room for a file of this name."""
    rename = os.replace

    def replace(source, target):
        if target.name == name:
            raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))
        rename(source, target)

    monkeypatch.setattr(files.os, "replace", replace)


@pytest.mark.parametrize("name", [full("config.json"), full("curves.csv"), "results.json", full("report.html")])
def test_each_file_is_named_when_there_is_no_room_for_it(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    small = ["train", "--rule", "bp", "--epochs", "2", "--batch-size", "500", "--model.sizes", "64", "10", "--folder"]
    with monkeypatch.context() as during:
        failing(name, during)
        with pytest.raises(SystemExit) as ended:
            main([*small, "mine"])
    assert ended.value.code == 2
    kept = "; training has ended, and is kept; `vicinal train --resume mine` writes this again, and trains no more"
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"vicinal: expected to read or write 'mine/{name}', got: No space left on device"
        + (kept if name != "config.json" else "")
    )
    if name == "config.json":
        assert list(tmp_path.iterdir()) == []
        return
    main(["train", "--resume", "mine"])
    main([*small, "whole"])
    ours, theirs = (Comparison.from_json((tmp_path / of / "results.json").read_text()) for of in ("mine", "whole"))
    assert ours.rules[0].curve == theirs.rules[0].curve
    assert sorted(contents(tmp_path / "mine")) == sorted(contents(tmp_path / "whole"))


# ------------------------------------------------------------------------------------------------ a folder goes away

LOST = "the folder of the run was removed or replaced while it ran, with what was in it; start it again"


def remove(folder):
    shutil.rmtree(folder)


def replace(folder):
    """Another run takes the place."""
    remove(folder)
    shutil.copytree(folder.with_name("other"), folder)


def swept(**settings):
    make, build = (lambda learning_rate: (BACKPROP, optax.sgd(learning_rate))), lambda key: MODEL
    settings |= {"batch_size": 8, "graph": GRAPH, "group_size": 1, "progress": False}
    return vc.train.sweep(make, build, (X, Y), {"learning_rate": [0.1]}, **settings)


@pytest.mark.parametrize("lose", [remove, replace])
@pytest.mark.parametrize("run", [train, swept])
def test_a_lost_folder_is_noticed_at_the_next_record(tmp_path, run, lose):
    folder, steps = tmp_path / "run", []
    run(steps=1, folder=tmp_path / "other")

    def watch(record, state):
        steps.append(record["step"])
        if record["step"] == 2:
            lose(folder)

    with pytest.raises(FileNotFoundError, match=LOST) as error:
        run(steps=9, folder=folder, on_record=watch, **OFTEN)
    assert error.value.filename == str(folder)
    assert error.value.__notes__ == ["training stopped after step 1 of 9"]
    assert steps == [1, 2]
    assert folder.exists() == (lose is replace)
    assert lose is remove or contents(folder) == contents(tmp_path / "other")


@pytest.mark.parametrize("seconds", [0.0, 60.0], ids=["at the next checkpoint", "at the next record"])
def test_a_lost_folder_is_noticed_at_the_next_write(tmp_path, monkeypatch, cut, seconds):
    folder, done = tmp_path / "run", []

    def update(self, step, *_):
        done.append(step)
        if step == 3:
            remove(folder)

    cut(1)
    monkeypatch.setattr(TrainingProgress, "update", update)
    with pytest.raises(FileNotFoundError, match=LOST):
        train(steps=9, evaluate_every=7, folder=folder, checkpoint_seconds=seconds)
    assert done[-1] == (3 if seconds == 0 else 6)
    assert not folder.exists()


# -------------------------------------------------------------------------------------------------- a read-only folder


def test_a_read_only_folder_is_refused_before_the_first_step_and_can_be_read(tmp_path, monkeypatch, capsys):
    whole = train(steps=3, folder=tmp_path / "run")
    (tmp_path / "disk").mkdir()
    with disk_at(tmp_path / "disk"):
        shutil.copytree(tmp_path / "run", tmp_path / "disk" / "run")
        os.system(f"mount -o remount,ro {tmp_path / 'disk'}")
        with pytest.raises(
            OSError, match=r"could not lock the folder \(Read-only file system\); choose a folder"
        ) as error:
            train(steps=9, folder=tmp_path / "disk" / "run", resume=True)
        assert error.value.filename == str(tmp_path / "disk" / "run")
        with pytest.raises(SystemExit) as ended:
            main(["train", "--folder", str(tmp_path / "disk" / "new")])
        assert ended.value.code == 2
        assert re.search("expected to read or write .*, got: Read-only file system\n$", capsys.readouterr().err)
        assert bits(vc.train.load_model(tmp_path / "disk" / "run", MODEL)) == bits(whole.model)
