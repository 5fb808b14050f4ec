"""Memory that runs out on the way: the last good state is saved, and the sentence says what was done and what to do."""

import subprocess
import sys
import textwrap

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from fit_builders import BACKPROP, SGD, X, Y, train, untimed

import vicinal as vc
from vicinal.cli.main import main
from vicinal.train import log, single, sweep, wave

ERRORS = {
    "jax": lambda: jnp.ones(2**50).block_until_ready(),
    "numpy": lambda: np.ones(2**50),
    "python": lambda: [0] * 2**60,
}
ALL = {"steps": 12, "evaluate_every": 3, "test": (X, Y), "checkpoint_seconds": 0.0}


def fails_at(count, function, error):
    """`function`, but a call of this number runs out of memory."""
    calls = []

    def called(*args, **settings):
        calls.append(args)
        return ERRORS[error]() if len(calls) == count else function(*args, **settings)

    return called


def resumed_equals_unbroken(folder):
    resumed, plain = train(**ALL, folder=folder, resume=True), train(**ALL)
    assert eqx.tree_equal(resumed.state, plain.state)
    assert untimed(resumed.records) == untimed(plain.records)


@pytest.mark.parametrize("error", ERRORS)
def test_steps_that_run_out_of_memory_leave_the_last_good_state(tmp_path, monkeypatch, error):
    with monkeypatch.context() as patch:
        patch.setattr(single, "advance", fails_at(5, single.advance, error))
        with pytest.raises(
            MemoryError, match=r"^expected memory for steps \d+ to \d+, got none left.* free now; take a sm"
        ) as found:
            train(**ALL, folder=tmp_path)
    (note,) = found.value.__notes__
    assert note.startswith("training stopped after step")
    assert "is written; resume with " in note
    resumed_equals_unbroken(tmp_path)


@pytest.mark.parametrize("where", ["on_record", "hooks"])
def test_hooks_that_run_out_of_memory(tmp_path, where):
    fail = fails_at(2, lambda *args: None, "jax")
    given = fail if where == "on_record" else [lambda record, state: fail()]
    with pytest.raises(MemoryError, match=r"^expected memory for hooks and on_record after step 6, got") as found:
        train(**ALL, folder=tmp_path, **{where: given})
    assert "stopped after step" in found.value.__notes__[0]
    assert [record["step"] for record in log.read(tmp_path / "metrics.jsonl")] == [3]
    resumed_equals_unbroken(tmp_path)


def test_an_evaluation_that_runs_out_of_memory(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(single.Single, "evaluate", fails_at(3, single.Single.evaluate, "jax"))
        with pytest.raises(MemoryError, match=r"^expected memory for the evaluation after step 9, got none left"):
            train(**ALL, folder=tmp_path)
    resumed_equals_unbroken(tmp_path)


def test_memory_that_runs_out_while_the_state_is_saved_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(single.Single, "evaluate", fails_at(3, single.Single.evaluate, "jax"))
        patch.setattr(single.Single, "saved", fails_at(4, single.Single.saved, "numpy"))
        with pytest.raises(MemoryError) as found:
            train(**ALL, folder=tmp_path)
    assert "training stopped after step" in found.value.__notes__[0]
    resumed_equals_unbroken(tmp_path)


def test_a_sweep_that_runs_out_of_memory_resumes(tmp_path, monkeypatch):
    def run(**settings):
        build = lambda key: vc.nn.MLP((4, 6, 3), key=key)  # noqa: E731
        common = {"steps": 8, "evaluate_every": 2, "batch_size": 8, "group_size": 2, "progress": False}
        return sweep(lambda rate: (BACKPROP, SGD), build, (X, Y), {"rate": [1]}, seeds=2, **common, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(wave.Wave, "advance", fails_at(3, wave.Wave.advance, "jax"))
        with pytest.raises(MemoryError, match=r"^expected memory for steps .* group_size"):
            run(folder=tmp_path)
    resumed, plain = run(folder=tmp_path, resume=True), run()
    assert resumed.resumed
    for one, other in zip(resumed.members, plain.members, strict=True):
        assert eqx.tree_equal(one.model, other.model)
        assert one.records == other.records


def test_on_the_command_line_it_is_a_sentence_and_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = "train --rule bp --model.sizes 64,8,10 --epochs 2 --folder run --checkpoint-seconds 0"
    with monkeypatch.context() as patch:
        patch.setattr(single.Single, "evaluate", fails_at(2, single.Single.evaluate, "jax"))
        with pytest.raises(SystemExit) as end:
            main(line.split())
    said = capsys.readouterr().err.splitlines()[-1]
    assert end.value.code == 2
    assert said.startswith("vicinal: expected memory for the evaluation after step 88, got none left (Out of memory")
    assert "training stopped after step" in said
    assert "`vicinal train --resume run`" in said
    main(["train", "--resume", "run"])


@pytest.mark.parametrize("error", ERRORS)
def test_elsewhere_on_the_command_line_too(tmp_path, monkeypatch, capsys, error):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vicinal.cli.drawing.draw_graph", lambda graph: ERRORS[error]())
    with pytest.raises(SystemExit) as end:
        main(["draw"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("vicinal: expected memory for the command, got none left")
    assert list(tmp_path.iterdir()) == [], "no file with a traceback"


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_a_process_of_limited_memory(tmp_path):
    """A hook takes what the address space has left; the run is saved, and resumed in a process without the limit."""
    code = textwrap.dedent("""
        import resource, sys
        sys.path.insert(0, "PATH")
        import jax.numpy as jnp
        from fit_builders import train
        from vicinal._memory import free_host_bytes
        held = []

        def hook(record, state):
            if record["step"] == 6:
                taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (taken + 2**28, resource.getrlimit(resource.RLIMIT_AS)[1]))
                held.append(jnp.ones(2**28).block_until_ready())

        try:
            train(steps=12, evaluate_every=3, hooks=[hook], folder="FOLDER", checkpoint_seconds=0.0)
        except MemoryError as error:
            print(error, *error.__notes__)
    """)
    code = code.replace("PATH", str(__file__).rsplit("/", 1)[0]).replace("FOLDER", str(tmp_path))
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith(
        "expected memory for hooks and on_record after step 6, got none left (Out of memory allocating"
    )
    assert "training stopped after step" in said
    resumed, plain = (
        train(steps=12, evaluate_every=3, **extra) for extra in ({"folder": tmp_path, "resume": True}, {})
    )
    assert eqx.tree_equal(resumed.state, plain.state)
