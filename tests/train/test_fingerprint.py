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


def test_equal_things_built_again_are_the_same(tmp_path):
    run(tmp_path, steps=2)
    anew = {"rule": learning(), "optimizer": optax.adam(1e-2), "data": (X.copy(), Y.copy())}
    assert int(run(tmp_path, resume=True, steps=6, checkpoint_seconds=0.0, **anew).state.step) == 6


def test_custom_functions_are_known_by_their_code(tmp_path):
    def scaled(factor):
        return lambda output, target: factor * vc.losses.softmax_cross_entropy(output, target)

    run(tmp_path, steps=2, rule=learning(loss=scaled(2.0)))
    run(tmp_path, resume=True, steps=3, rule=learning(loss=scaled(2.0)))
    for loss in (scaled(3.0), other_loss, lambda output, target: vc.losses.softmax_cross_entropy(output, target)):
        with pytest.raises(ValueError, match="expected the rule of the run"):
            run(tmp_path, resume=True, rule=learning(loss=loss))


SCALE = 1.0


def scaled_by_global(output, target):
    return SCALE * vc.losses.softmax_cross_entropy(output, target)


def through_helper(output, target):
    return scaled_by_global(output, target)


class Scaled:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, output, target):
        return self.factor * vc.losses.softmax_cross_entropy(output, target)


def scaled_by_list(factor):
    factors = [factor]
    return lambda output, target: factors[0] * vc.losses.softmax_cross_entropy(output, target)


def with_slope(factor):
    """A loss whose gradient alone holds the factor."""
    held = [factor]

    @jax.custom_vjp
    def loss(output, target):
        return vc.losses.softmax_cross_entropy(output, target)

    loss.defvjp(
        lambda output, target: (loss(output, target), output), lambda output, bar: (held[0] * bar * output, None)
    )
    return loss


def of_global(factor, monkeypatch, loss):
    monkeypatch.setattr(sys.modules[__name__], "SCALE", factor)
    return jax.jit(lambda output, target: loss(output, target))  # anew: a compiled function never reads a global again


LOSSES = {
    "a global": lambda factor, monkeypatch: of_global(factor, monkeypatch, scaled_by_global),
    "a global of a helper": lambda factor, monkeypatch: of_global(factor, monkeypatch, through_helper),
    "a list in a closure": lambda factor, monkeypatch: scaled_by_list(factor),
    "an attribute": lambda factor, monkeypatch: Scaled(factor),
    "a gradient": lambda factor, monkeypatch: with_slope(factor),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_known_by_what_it_computes(name, monkeypatch):
    def of(factor):
        return printed(loss=LOSSES[name](factor, monkeypatch))

    first = of(1.0)
    assert prints.difference(first, of(1.0)) == (None, None)
    assert prints.difference(first, of(50.0)) == ("loss", None)


def of_array(array):
    """A model whose program holds an array that is no parameter."""
    fixed = jnp.asarray(array)
    return jax.tree_util.Partial(
        lambda weight, x: weight @ vc.vertex(jnp.tanh(fixed @ x), "hidden"), jnp.ones((3, 500))
    )


def test_a_model_is_known_by_its_program_and_its_constants():
    def of(array):
        model = of_array(array)
        return printed(model=model, graph=vc.capture(model, X[0]))

    first, changed = np.ones((500, 4), np.float32), np.ones((500, 4), np.float32)
    changed[250, 2] = 7.0  # in the middle of what would be printed as dots
    assert prints.difference(of(first), of(first.copy())) == (None, None)
    assert prints.difference(of(first), of(changed)) == ("model's program", None)


def test_a_model_is_known_by_its_gradient():
    def of(slope):
        held = [slope]
        spike = jax.custom_jvp(lambda z: jnp.sign(z))
        spike.defjvp(lambda z, change: (spike(z[0]), change[0] / (1 + held[0] * jnp.abs(z[0]))))
        model = jax.tree_util.Partial(lambda w, x: w[0] @ vc.vertex(spike(w[1] @ x), "hidden"), (X[:3, :2], X[:2]))
        model = jax.tree.map(jnp.asarray, model)
        return printed(model=model, graph=vc.capture(model, X[0]))

    first = of(1.0)
    assert prints.difference(first, of(1.0)) == (None, None)
    assert prints.difference(first, of(50.0)) == ("model's gradient", None)


def test_runs_and_sweeps_do_not_resume_when_what_a_function_reads_has_changed(tmp_path, monkeypatch):
    def swept(resume=False, steps=3):
        settings = {"group_size": 1, "graph": GRAPH, "progress": False, "batch_size": 8, "folder": tmp_path / "sweep"}
        make = lambda rate: (rule(), optax.sgd(rate))  # noqa: E731
        return sweep(make, lambda key: MODEL, (X, Y), {"rate": [0.1]}, steps=steps, resume=resume, **settings)

    rule = lambda: learning(loss=scaled_by_global)  # noqa: E731
    run(tmp_path / "run", steps=2, rule=rule())
    swept(steps=2)
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 50.0)
    with pytest.raises(ValueError, match="expected the loss of the run in"):
        run(tmp_path / "run", resume=True, rule=rule())
    with pytest.raises(ValueError, match="expected the loss of the sweep in"):
        swept(resume=True)
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 1.0)
    run(tmp_path / "run", resume=True, steps=3, rule=rule())
    swept(resume=True)


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
    with pytest.warns(UserWarning, match=r"was started with jax 0\.7\.2 \(now .*its optimiser cannot be compared"):
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
    with pytest.raises(ValueError, match="expected the model of the run"):
        run(tmp_path, resume=True, model=vc.nn.MLP((4, 6, 3), key=jax.random.key(0)), graph=None)


def test_a_checkpoint_from_before_sums_were_exact(tmp_path):
    run(tmp_path, steps=2)

    def old(state, metadata):
        plain = {name: jnp.zeros(()) for name in ("steps", "examples", "loss", "inference_failures")}
        return eqx.tree_at(lambda s: s.sums, state, plain | {"metrics": {}})

    rewritten(tmp_path, old)
    assert eqx.tree_equal(run(tmp_path, resume=True).state, run(None, steps=4).state)
    with pytest.raises(ValueError, match="expected the model of the run"):
        run(tmp_path, resume=True, model=vc.nn.MLP((4, 6, 3), key=jax.random.key(0)), graph=None)


def printed(loss=other_loss, model=MODEL, graph=GRAPH):
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(0.1, 50)))
    state = optimizer.init(graph.trainable(model))
    data = {"training data": ({"b": X, "a": X}, Y)}
    return prints.fingerprint(learning(loss=loss), graph, optimizer, model, state, data)


def printed_of_functions():
    """Of a loss and a model with all that might differ between processes: compiled parts, objects, closures."""
    model = of_array(np.ones((500, 4), np.float32))
    return printed(jax.jit(Scaled(2.0)), model, vc.capture(model, X[0]))


def test_it_is_the_same_in_every_process():
    command = (
        "import sys, json; sys.path[0] = sys.argv[1]; import test_fingerprint as t; "
        "print(json.dumps([t.printed(), t.printed_of_functions()])); t.jax.clear_caches(); "
        "print(json.dumps([t.printed(), t.printed_of_functions()]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", command, os.path.dirname(__file__)],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert [json.loads(line) for line in found.splitlines()] == 2 * [[printed(), printed_of_functions()]]
    assert not re.search("0x", found)
