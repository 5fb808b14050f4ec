"""A run that meets a number that is not finite, or no more data, stops at the last good state and says why."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fit_builders import (
    ADAM,
    BACKPROP,
    KEY,
    MODEL,
    SETTLING,
    SGD,
    X,
    Y,
    batch_list,
    bits,
    by_hand,
    is_finite,
    shuffled,
    train,
    untimed,
)
from matrix import diagonal

import vicinal as vc
from vicinal.train import checkpoint, fit
from vicinal.train.files import CHECKPOINT
from vicinal.train.log import read

# --------------------------------------------------------------------------------------- stopped at the last good state


def assert_stopped_well(run, sentence, rule, optimizer, data, **settings):
    """All is finite, the sentence fits, and a run of just that many steps has the same bits."""
    assert run.stopped is not None
    step = int(run.state.step)
    assert run.stopped.startswith(f"stopped at step {step}, the last good state: ")
    assert sentence in run.stopped
    assert is_finite(run.state.model)
    assert is_finite(run.state.optimizer_state)
    assert is_finite(run.state.rule_state)
    assert not any("stopped" in record for record in run.records)
    if step:
        clean = train(rule, optimizer, data, **settings | {"steps": step})
        assert clean.stopped is None
        assert bits(clean.state.model) == bits(run.model)
        assert bits(clean.state.optimizer_state) == bits(run.state.optimizer_state)


SQUARED = vc.losses.squared_error
REGARDLESS = optax.sgd(100.0, momentum=0.9)


DIVERGING = {
    "backpropagation": vc.rules.Backprop(loss=SQUARED),
    "inference learning": vc.rules.InferenceLearning(SETTLING, loss=SQUARED),
}


@pytest.mark.parametrize(("name", "longest"), diagonal(DIVERGING, [5000, 3]))
def test_a_learning_rate_that_blows_up(tmp_path, cut, name, longest):
    cut(longest)
    rule, optimizer = DIVERGING[name], REGARDLESS
    run = train(rule, optimizer, steps=200, folder=tmp_path)
    assert 0 < int(run.state.step) < 200
    assert_stopped_well(run, "meets a non-finite loss at the output: outputs have grown to", rule, optimizer, (X, Y))
    assert run.stopped.endswith("training diverges; lower the learning rate")
    # By hand, the step that was not taken breaks something, and the one before does not.
    states, losses = by_hand(rule, optimizer, int(run.state.step) + 1, shuffled())
    assert not (is_finite(states[-1][:2]) and np.isfinite(losses[-1]))
    assert is_finite(states[-2][:2])
    # What is on the disk is the good state; resumed, it meets the same end.
    saved, _ = checkpoint.load(tmp_path / CHECKPOINT, run.state)
    assert bits(saved) == bits(run.state)
    again = train(rule, optimizer, steps=200, folder=tmp_path, resume=True)
    assert again.stopped == run.stopped
    assert untimed(again.records) == untimed(run.records)


def test_a_step_size_of_the_activities_that_blows_up():
    rule = vc.rules.InferenceLearning(vc.inference.Simultaneous(steps=100, step_size=50.0), loss=SQUARED)
    run = train(rule, SGD, steps=20)
    assert int(run.state.step) == 0
    assert bits(run.model) == bits(MODEL)
    sentence = "meets a non-finite value at vertex 'hidden1': inference diverges; lower the step size of the activities"
    assert_stopped_well(run, sentence, rule, SGD, (X, Y))


@pytest.mark.parametrize(("part", "wrong"), diagonal(["input", "target"], [np.nan, np.inf]))
def test_a_batch_that_is_not_finite(part, wrong):
    batches = [(x.copy(), x.copy()) for x, _ in batch_list([8] * 6)]
    batches[4][["input", "target"].index(part)][3, 2] = wrong
    rule, model = vc.rules.Backprop(loss=SQUARED), vc.nn.MLP((4, 3, 4), key=jax.random.key(0))
    settings = {"model": model, "graph": vc.capture(model, X[0])}
    run = train(rule, ADAM, batches, steps=20, **settings)
    assert int(run.state.step) == 4
    sentence = f"the next batch holds an infinite or undefined {part}; check the data"
    assert_stopped_well(run, sentence, rule, ADAM, batches, **settings)


def test_an_example_that_is_not_finite_among_arrays():
    x = X.copy()
    x[17, 0] = np.nan
    for name, data, test in (("training", (x, Y), None), ("test", (X, Y), (x, Y))):
        with pytest.raises(ValueError, match=f"infinite or undefined one in example 17 of the {name} set"):
            train(BACKPROP, SGD, data, steps=100, test=test)


def test_a_loss_that_overflows_while_all_else_is_finite():
    model = jax.tree_util.Partial(lambda bias, x: vc.vertex(x, "hidden") + bias, jnp.zeros(4))
    batches = [(X[:8], np.full((8, 4), 1e20 if i == 3 else 0.0, np.float32)) for i in range(5)]
    rule, optimizer = vc.rules.Backprop(loss=SQUARED), optax.sgd(1e-3)
    settings = {"model": model, "graph": vc.capture(model, X[0])}
    run = train(rule, optimizer, batches, steps=9, **settings)
    assert int(run.state.step) == 3  # 1/2 (1e20)^2 is beyond float32, its slope 1e20 is not
    sentence = "meets a non-finite loss at the output: targets are as large as 1e+20; scale them"
    assert_stopped_well(run, sentence, rule, optimizer, batches, **settings)


def test_an_optimiser_that_overflows_is_named():
    optimizer = optax.chain(optax.scale(1e30), optax.trace(0.9), optax.set_to_zero())
    batches = [((X[:8] * np.float32(scale)), Y[:8]) for scale in (1, 1, 1e12)]
    model = vc.nn.MLP((4, 3), key=jax.random.key(0))
    settings = {"model": model, "graph": vc.capture(model, X[0])}
    run = train(BACKPROP, optimizer, batches, steps=9, **settings)
    assert int(run.state.step) == 2
    sentence = "makes optimizer_state[1].trace.layers[0].weight non-finite, though every vertex is finite"
    assert_stopped_well(run, sentence, BACKPROP, optimizer, batches, **settings)


def test_failures_that_the_optimiser_masks_are_recorded():
    rule = vc.rules.InferenceLearning(vc.inference.Simultaneous(steps=100, step_size=50.0), loss=SQUARED)
    run = train(rule, optax.apply_if_finite(SGD, 1000), steps=12)
    assert run.stopped is None
    assert bits(run.model) == bits(MODEL)  # no update was ever taken
    assert [record["inference_failures"] for record in run.records] == [1.0, 1.0]
    assert all(np.isfinite(record["train_loss"]) for record in run.records)


def test_a_rule_that_throws_does(tmp_path):
    batches = batch_list([8] * 3)
    batches.append((np.full((8, 4), 3e38, np.float32), batches[0][1]))
    rule = vc.rules.InferenceLearning(vc.inference.Simultaneous(steps=30, step_size=0.1), loss=SQUARED, throw=True)
    identity = jax.tree_util.Partial(lambda w, x: w @ vc.vertex(w @ x, "hidden"), jnp.full((4, 4), 2.0))
    with pytest.raises(RuntimeError, match=r"inference reached an infinite or undefined activity|inference diverged"):
        fit(rule, identity, optax.sgd(0.0), batches, key=KEY, steps=9, progress=False, folder=tmp_path)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_model_that_is_not_finite_is_refused(tmp_path, wrong):
    model = eqx.tree_at(lambda m: m.layers[1].bias, MODEL, MODEL.layers[1].bias.at[2].set(wrong))
    with pytest.raises(ValueError, match=r"expected finite numbers to start from, .* model\.layers\[1\]\.bias"):
        train(model=model, steps=3, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --------------------------------------------------------------------------------------------------------- iterables


@pytest.mark.parametrize("every", [5, 12], ids=["at a record", "between records"])
def test_a_generator_that_ends_early(tmp_path, every):
    given, settings = batch_list([8] * 5), {"steps": 12, "evaluate_every": every}
    run = train(data=iter(given), folder=tmp_path, **settings)
    assert run.stopped == "the data ended after 5 of 12 steps; give an iterable that can start again"
    assert not any("stopped" in record for record in run.records)
    assert read(tmp_path / "metrics.jsonl")[-1] == {"step": 5, "stopped": run.stopped}
    assert int(run.state.step) == 5
    clean = train(data=given, steps=5)
    assert bits(clean.model) == bits(run.model)
    # The checkpoint is whole: with data that can start again the run goes on, and forgets that it stopped.
    resumed = train(data=given, folder=tmp_path, resume=True, **settings)
    whole = train(data=given, **settings)
    assert bits(resumed.state) == bits(whole.state)
    assert untimed(resumed.records) == untimed(whole.records)


def test_data_that_fail_leave_a_checkpoint(tmp_path, cut):
    def failing():
        yield from batch_list([8] * 3)
        raise OSError("the disk is gone")

    cut(2)
    with pytest.raises(OSError, match="the disk is gone"):
        train(data=failing(), steps=12, folder=tmp_path)
    saved, _ = checkpoint.load(tmp_path / CHECKPOINT, train(steps=1).state)
    clean = train(data=batch_list([8] * 3), steps=int(saved.step))
    assert bits(saved.model) == bits(clean.model)
