"""What a run refuses before it writes anything, and a disk that is full."""

import jax
import jax.numpy as jnp
import optax
import pytest
from fit_builders import BACKPROP, GRAPH, MODEL, MOMENTUM, X, Y, batch_list, bits, contents, train, untimed

import vicinal as vc
from vicinal.train import checkpoint, sweep
from vicinal.train.files import CHECKPOINT, METRICS
from vicinal.train.log import read

# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({}, ValueError, "expected either epochs or steps, got epochs=None and steps=None"),
        ({"steps": 3, "epochs": 1}, ValueError, "expected either epochs or steps, got epochs=1 and steps=3"),
        ({"steps": 0}, ValueError, "expected steps as an integer of at least 1, got 0"),
        ({"epochs": -1}, ValueError, "expected epochs as an integer of at least 1, got -1"),
        ({"steps": 1e3}, TypeError, r"expected steps as an integer of at least 1, got 1000\.0"),
        ({"epochs": 0.5}, TypeError, r"expected epochs as an integer, got 0\.5"),
        ({"steps": 3, "evaluate_every": 0}, ValueError, "expected evaluate_every as an integer of at least 1, got 0"),
        ({"steps": 3, "evaluate_every": 2.5}, TypeError, r"evaluate_every as an integer of at least 1, got 2\.5"),
        ({"steps": 3, "batch_size": 51}, ValueError, "expected a batch size from 1 to 50"),
        ({"steps": 3, "batch_size": 0}, ValueError, "expected batch_size as an integer of at least 1, got 0"),
        ({"steps": 3, "data": (X, Y[:-1])}, ValueError, "as many targets as inputs, got 49 and 50 examples"),
        ({"steps": 3, "test": (X, Y[:-1])}, ValueError, "as many targets as inputs, got 49 and 50 examples"),
        ({"steps": 3, "test": X}, TypeError, "expected test as a pair of arrays"),
        ({"steps": 3, "test": (X[:0], Y[:0])}, ValueError, "expected at least one example, got none"),
        (
            {"epochs": 3, "data": iter(batch_list([8]))},
            ValueError,
            "iterable of batches that has no length, got epochs",
        ),
        ({"steps": 3, "data": []}, ValueError, "expected at least one batch, got an empty iterable"),
        ({"steps": 3, "data": 7}, TypeError, "expected data as a Dataset"),
        ({"steps": 3, "data": lambda: None}, TypeError, "got function; call it"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_refused_before_anything_is_written(tmp_path, settings, error, sentence):
    with pytest.raises(error, match=sentence):
        train(**settings, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_resuming_needs_a_folder():
    with pytest.raises(ValueError, match="expected the folder of the run to resume, got folder=None"):
        train(steps=3, resume=True)


OTHER = vc.nn.MLP((4, 7, 3), key=jax.random.key(0))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"resume": False}, "expected a folder without a run"),
        ({"batch_size": 7}, "expected the batch size of the run in .*, 8, got 7; resume with it"),
        ({"data": (X[:40], Y[:40])}, "expected the steps per epoch of the run in .*, 6, got 5; resume with it"),
        ({"data": batch_list([8])}, "expected the batch size of the run in .*, 8, got None"),
        ({"key": jax.random.key(6)}, "expected the key of the run"),
        ({"steps": 8}, "expected at least the 9 steps that the run in .* has taken, got 8"),
        ({"model": OTHER, "graph": None}, "expected the model of the run in .*, got another"),
        ({"optimizer": MOMENTUM}, "expected the optimiser of the run in .*, got another"),
        ({"key": jax.random.key(5, impl="rbg")}, "expected the key of the run"),
    ],
    ids=[
        "not resumed",
        "batch size",
        "size of data",
        "kind of data",
        "key",
        "fewer steps",
        "model",
        "optimiser",
        "rng",
    ],
)
def test_a_folder_with_another_run_is_refused_and_left_alone(tmp_path, settings, sentence):
    train(steps=9, folder=tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=sentence) as refused:
        train(**{"steps": 12, "resume": True, "folder": tmp_path} | settings)
    assert "\n" not in str(refused.value)
    assert contents(tmp_path) == before


def test_a_damaged_checkpoint_is_refused_and_left_alone(tmp_path):
    train(steps=9, folder=tmp_path)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-100])
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="cut short or altered"):
        train(steps=12, folder=tmp_path, resume=True)
    assert contents(tmp_path) == before


def test_records_without_a_checkpoint_are_a_run_too(tmp_path):
    (tmp_path / METRICS).write_text('{"step": 5}\n')
    with pytest.raises(ValueError, match="expected a folder without a run"):
        train(steps=3, folder=tmp_path)
    assert read(tmp_path / METRICS) == [{"step": 5}]


def test_a_run_that_fails_in_its_first_step_does_not_block_its_folder(tmp_path):
    with pytest.raises(ValueError, match="expected a target of the output's shape"):
        train(data=(X, jnp.ones((50, 7))), steps=3, folder=tmp_path)
    assert train(steps=3, folder=tmp_path).stopped is None


def test_runs_and_sweeps_refuse_each_others_folders(tmp_path):
    arguments = {"batch_size": 8, "graph": GRAPH, "steps": 2, "progress": False}

    def swept(folder, **settings):
        make, build = (lambda learning_rate: (BACKPROP, optax.sgd(learning_rate))), lambda key: MODEL
        return sweep(make, build, (X, Y), {"learning_rate": [0.1]}, folder=folder, **arguments | settings)

    train(folder=tmp_path / "run", steps=2)
    swept(tmp_path / "sweep")
    for resume, words in ((False, "expected a folder without a run"), (True, "expected a {} in .*, got a {}; choose")):
        with pytest.raises(ValueError, match=words.format("run", "sweep")):
            train(folder=tmp_path / "sweep", resume=resume, steps=2)
        with pytest.raises(ValueError, match=words.format("sweep", "run")):
            swept(tmp_path / "run", resume=resume)
    (tmp_path / "run" / METRICS).unlink()
    with pytest.raises(ValueError, match=r"expected the log of the run to resume, metrics\.jsonl in"):
        train(folder=tmp_path / "run", resume=True, steps=2)


# ---------------------------------------------------------------------------------------------------------- full disk


def full_disk(after=0):
    calls, save = [], checkpoint.save

    def call(path, *arguments, **options):
        calls.append(path)
        if len(calls) > after:
            raise OSError(28, "No space left on device")
        save(path, *arguments, **options)

    return call


def test_a_full_disk_ends_the_run_and_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "save", full_disk(after=2))
    with pytest.raises(
        OSError, match=r"could not write the checkpoint .No space left on device.; the one before"
    ) as error:
        train(steps=24, folder=tmp_path, checkpoint_seconds=0.0)
    assert error.value.errno == 28
    assert error.value.filename == str(tmp_path / CHECKPOINT)
    monkeypatch.undo()
    resumed, whole = train(steps=24, folder=tmp_path, resume=True), train(steps=24)
    assert bits(resumed.state) == bits(whole.state)
    assert untimed(resumed.records) == untimed(whole.records)


def test_a_full_disk_does_not_hide_why_the_run_was_interrupted(tmp_path, monkeypatch, interrupt):
    interrupt(3)
    monkeypatch.setattr(checkpoint, "save", full_disk())
    with pytest.raises(KeyboardInterrupt) as error:
        train(steps=24, folder=tmp_path)
    assert "could not write the checkpoint (No space left on device)" in error.value.__notes__[0]


def test_a_full_disk_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "save", full_disk())
    with pytest.raises(OSError, match="could not write the checkpoint"):
        train(steps=4, folder=tmp_path)


def test_checkpoints_are_written_as_often_as_asked(tmp_path, saved, cut):
    cut(1)
    train(steps=4, folder=tmp_path / "often", checkpoint_seconds=0.0)
    assert saved == [1, 2, 3, 4]
    saved.clear()
    train(steps=4, folder=tmp_path / "once")
    assert saved == [4]
