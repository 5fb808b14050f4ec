"""A resumed run must have the data, rule, model and optimiser of the one before; other things may change."""

import json
import os
import re
import subprocess
import sys
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vicinal as vc
from vicinal.train import checkpoint, fingerprint as prints, fit, sweep
from vicinal.train.files import CHECKPOINT

RANDOM = np.random.default_rng(4)
X = RANDOM.normal(size=(16, 4)).astype(np.float32)
Y = np.arange(16) % 3
MODEL = vc.nn.MLP((4, 5, 3), key=jax.random.key(0))
GRAPH = vc.capture(MODEL, X[0])


def learning(step_size=0.1, **settings):
    return vc.rules.InferenceLearning(vc.inference.Simultaneous(steps=2, step_size=step_size), **settings)


USUAL = {"rule": learning(), "model": MODEL, "optimizer": optax.adam(1e-2), "data": (X, Y), "test": (X[:5], Y[:5])}


def run(folder, resume=False, **changes):
    given = USUAL | {"steps": 4, "batch_size": 8, "progress": False, "graph": GRAPH} | changes
    first = [given.pop(name) for name in ("rule", "model", "optimizer", "data")]
    return fit(*first, key=jax.random.key(0), folder=folder, resume=resume, **given)


def other_loss(output, target):
    return 2 * vc.losses.softmax_cross_entropy(output, target)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    run(path, steps=2)
    return path


CHANGED = {
    "training data": {"data": (X + 1, Y)},
    "training data, one label": {"data": (X, np.where(np.arange(16) == 3, 1, Y))},
    "test set": {"test": (X[5:10], Y[:5])},
    "rule, a number": {"rule": learning(0.2)},
    "rule, a choice": {"rule": learning(start="random")},
    "rule, its loss": {"rule": learning(loss=vc.losses.squared_error)},
    "rule, another": {"rule": vc.rules.Backprop()},
    "model, a function": {"model": vc.nn.MLP((4, 5, 3), activation="relu", key=jax.random.key(0)), "graph": None},
    "optimiser, its rate": {"optimizer": optax.adam(2e-2)},
    "optimiser, a constant": {"optimizer": optax.adam(1e-2, b1=0.8)},
    "evaluate every": {"evaluate_every": 1},
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_run_goes_on_with_nothing_else(folder, name):
    before = (folder / CHECKPOINT).read_bytes()
    with pytest.raises(
        ValueError, match=f"expected the {name.split(',')[0]} of the run in .*; resume with it, or choose"
    ):
        run(folder, resume=True, **CHANGED[name])
    assert (folder / CHECKPOINT).read_bytes() == before


def test_equal_things_made_anew_are_the_same(tmp_path):
    run(tmp_path, steps=2)
    anew = {"rule": learning(), "optimizer": optax.adam(1e-2), "data": (X.copy(), Y.copy())}
    assert int(run(tmp_path, resume=True, steps=6, checkpoint_seconds=0.0, **anew).state.step) == 6


def test_functions_of_ones_own_are_known_by_their_code(tmp_path):
    def scaled(factor):
        return lambda output, target: factor * vc.losses.softmax_cross_entropy(output, target)

    run(tmp_path, steps=2, rule=learning(loss=scaled(2.0)))
    run(tmp_path, resume=True, steps=3, rule=learning(loss=scaled(2.0)))
    for loss in (scaled(3.0), other_loss, lambda output, target: vc.losses.softmax_cross_entropy(output, target)):
        with pytest.raises(ValueError, match="expected the rule of the run"):
            run(tmp_path, resume=True, rule=learning(loss=loss))


def test_batches_are_known_by_the_first(tmp_path):
    batches = [(X[:8], Y[:8]), (X[8:], Y[8:])]
    run(tmp_path, steps=1, data=batches)
    run(tmp_path, resume=True, steps=2, data=list(batches))
    with pytest.raises(ValueError, match="expected the training data of the run"):
        run(tmp_path, resume=True, data=batches[::-1])


def test_a_sweep_goes_on_with_nothing_else(tmp_path):
    def swept(resume=False, steps=3, rule=USUAL["rule"], optimizer=optax.sgd, data=(X, Y)):
        settings = {"group_size": 1, "graph": GRAPH, "progress": False, "batch_size": 8, "folder": tmp_path}
        make = lambda rate: (rule, optimizer(rate))  # noqa: E731
        return sweep(make, lambda key: MODEL, data, {"rate": [0.1]}, steps=steps, resume=resume, **settings)

    swept(steps=2)
    changes = {
        "training data": {"data": (X + 1, Y)},
        "rule": {"rule": learning(0.2)},
        "optimiser": {"optimizer": lambda rate: optax.sgd(2 * rate)},
    }
    for name, change in changes.items():
        with pytest.raises(ValueError, match=f"expected the {name} of the sweep in"):
            swept(resume=True, **change)
    assert swept(resume=True).members[0].steps == 3


def rewritten(path, edit):
    """The checkpoint with its metadata, and its state, edited."""
    state, metadata = checkpoint.load(path / CHECKPOINT, run(None, steps=2).state)
    state = edit(state, metadata)
    checkpoint.save(path / CHECKPOINT, state, metadata=metadata)


def test_other_versions_are_said(tmp_path):
    run(tmp_path, steps=2)

    def of_the_past(state, metadata):
        metadata["fingerprint"]["versions"]["jax"] = "0.7.2"
        return state

    rewritten(tmp_path, of_the_past)
    with pytest.warns(UserWarning, match=r"was begun with jax 0\.7\.2 \(now .*its optimiser cannot be compared"):
        run(tmp_path, resume=True, steps=3, optimizer=optax.adam(2e-2))
    rewritten(tmp_path, of_the_past)
    with pytest.raises(ValueError, match="expected the rule of the run"):  # this does not depend on versions
        run(tmp_path, resume=True, rule=learning(0.2))


def test_a_checkpoint_from_before_there_were_fingerprints(tmp_path):
    run(tmp_path, steps=2)
    whole = run(None, steps=4)

    def old(state, metadata):
        del metadata["fingerprint"], metadata["evaluate_every"]
        names = ("steps", "loss", "accuracy", "inference_failures")
        return eqx.tree_at(lambda s: s.sums, state, {name: jnp.zeros(()) for name in names})

    rewritten(tmp_path, old)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed = run(tmp_path, resume=True)
    assert eqx.tree_equal(resumed.state.model, whole.state.model)
    with pytest.raises(checkpoint.CheckpointError):
        run(tmp_path, resume=True, model=vc.nn.MLP((4, 6, 3), key=jax.random.key(0)), graph=None)


def printed():
    rule = learning(loss=other_loss)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(0.1, 50)))
    state = optimizer.init(eqx.filter(MODEL, eqx.is_inexact_array))
    return prints.fingerprint(rule, GRAPH, optimizer, MODEL, state, {"training data": ({"b": X, "a": X}, Y)})


def test_it_is_the_same_in_every_process():
    command = (
        "import sys, json; sys.path[0] = sys.argv[1]; import test_fingerprint as t; print(json.dumps(t.printed()))"
    )
    found = subprocess.run(
        [sys.executable, "-c", command, os.path.dirname(__file__)],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert json.loads(found) == printed()
    assert not re.search("0x", found)
