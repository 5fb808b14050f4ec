"""Tiles in training: resumed runs, grids of devices in one program, every rule and step together."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matrix import full
from once import once

import vicinal as vc
from vicinal import hardware as hw
from vicinal.inference import Sequential, Simultaneous
from vicinal.train import fit, keys_of, loop, sweep
from vicinal.train.progress import TrainingProgress

SETTINGS = {"steps": 11, "batch_size": 8, "evaluate_every": 3, "progress": False}
RERAM = hw.Device(step=0.01, soft=0.5, cycle=1.0, spread=0.3, write_noise=2.0, stuck=0.05)
STEPS = {
    "pulsed": hw.pulsed(0.1),
    "adam": hw.pulsed(optax.adam(1e-3)),
    "coincident": hw.coincident(0.1),
    "transfer": hw.transfer(0.1, "capacitor"),
    "thresholded": hw.thresholded(0.1),
}


@once
def digits():
    return vc.data.load("digits").flattened()


def train(optimizer, **settings):
    model = hw.place(vc.nn.Linear(64, 10, key=jax.random.key(0)), RERAM, key=jax.random.key(2))
    return fit(vc.rules.Backprop(), model, optimizer, digits(), key=jax.random.key(1), **SETTINGS | settings)


def bits(state):
    held = [leaf for leaf in jax.tree.leaves(state) if eqx.is_array(leaf)]
    plain = [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in held]
    return [np.asarray(leaf).tobytes() for leaf in plain]


@pytest.mark.parametrize("step", ["transfer", full("pulsed"), full("adam"), full("coincident"), full("thresholded")])
def test_resumes_bit_for_bit(tmp_path, monkeypatch, step):
    whole = train(STEPS[step])

    def update(self, done, *_):
        if done >= 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_LONGEST_CHUNK", 2)
        patch.setattr(TrainingProgress, "update", update)
        with pytest.raises(KeyboardInterrupt):
            train(STEPS[step], folder=tmp_path)
    resumed = train(STEPS[step], folder=tmp_path, resume=True)
    assert bits(resumed.state) == bits(whole.state)


def quiet(key, soft, step):
    """Cells without read noise, whose draw would depend on the last digit of what is read."""
    model = vc.nn.Linear(64, 10, key=key)
    nothing = hw.Periphery(dac=None, adc=None, bound=None, read_noise=None, weight_noise=None)
    device = hw.Device(step=step, soft=soft, spread=0.2)
    return hw.place(model, device, forward=nothing, backward=nothing, key=jax.random.fold_in(key, 1))


def make(learning_rate):
    return vc.rules.Backprop(), hw.pulsed(learning_rate)


GRID = {"soft": [0.0, 0.2, 0.5, 0.8, 1.0], "step": [0.002, 0.01, 0.05], "learning_rate": [0.03, 0.1]}


def test_a_grid_of_thirty_devices_is_one_program_whose_members_are_runs_of_their_own(x64):
    short = SETTINGS | {"steps": 3}
    done = sweep(make, quiet, digits(), GRID, seeds=1, group_size=15, **short)
    assert (len(done.members), done.parts, done.compilations) == (30, 1, 1)
    for member in done.members[7:8]:
        numbers = dict(member.numbers)
        rate = numbers.pop("learning_rate")
        model_key, train_key = keys_of(member.seed)
        run = fit(*make(rate)[:1], quiet(model_key, **numbers), make(rate)[1], digits(), key=train_key, **short)
        for ours, theirs in zip(jax.tree.leaves(member.model), jax.tree.leaves(run.model), strict=True):
            if eqx.is_inexact_array(ours):
                np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)


def test_what_is_left_out_of_a_periphery_makes_a_program_of_its_own():
    def converted(key, bits):
        model = vc.nn.Linear(64, 10, key=key)
        forward = hw.Periphery(adc=bits, read_noise=None)
        return hw.place(model, hw.Device(step=0.01), forward=forward, backward="ideal", key=key)

    grid = {"learning_rate": [0.1], "bits": [None, 6, 8]}
    done = sweep(make, converted, digits(), grid, seeds=1, group_size=1, steps=1, batch_size=4, progress=False)
    assert done.parts == 2
    assert [member.model.forward.adc for member in done.members] == [None, 6.0, 8.0]


def test_seeds_have_cells_and_fast_arrays_of_their_own():
    optimizer = hw.transfer(0.1, RERAM)

    @jax.jit
    def cells_of(key):
        model = hw.place(vc.nn.Linear(64, 10, key=key), RERAM, key=jax.random.fold_in(key, 1))
        state = optimizer.init(vc.capture(model, jnp.ones(64)).trainable(model))
        return model.crossbar.cells.up, state.arrays[".layer.weight"].cells.up

    cells, fast = zip(*[map(np.asarray, cells_of(keys_of(seed)[0])) for seed in (0, 1)], strict=True)
    for one, other in (cells, fast, (cells[0], fast[0])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.3


RULES = {
    "backpropagation": vc.rules.Backprop(),
    "inference learning": vc.rules.InferenceLearning(inference=Simultaneous(steps=5)),
    "sequential": vc.rules.InferenceLearning(inference=Sequential()),
    "incremental": vc.rules.IncrementalPC(steps=3),
    "activation relaxation": vc.rules.ActivationRelaxation(steps=20, step_size=0.5),
    "direct feedback": vc.rules.DirectFeedback(),
}
# Each rule reads tiles in `test_tiles.py`, too.
ALWAYS = {("backpropagation", "transfer"), ("inference learning", "adam"), ("direct feedback", "thresholded")}
PAIRS = [(rule, step) for rule in RULES for step in STEPS if step != "coincident"]


@pytest.mark.parametrize(("rule", "step"), [pair if pair in ALWAYS else full(*pair) for pair in PAIRS])
def test_every_rule_learns_through_noise_and_pulses(rule, step):
    model = vc.nn.MLP((64, 24, 10), key=jax.random.key(0))
    model = hw.place(model, "idealized", key=jax.random.key(1))
    optimizer = {"transfer": hw.transfer(0.3, "idealized", gamma=0.3)}.get(step, STEPS[step])
    run = fit(RULES[rule], model, optimizer, digits(), key=jax.random.key(2), steps=250, progress=False)
    assert run.stopped is None
    assert run.records[-1]["test_accuracy"] > 0.5  # chance is .1


@pytest.mark.parametrize("feedback", [False, True])
def test_the_reads_of_tiles_are_counted_as_those_of_the_bare_layers(feedback):
    """The prediction of the first layer, constant while the input is clamped, stays one read."""
    model = vc.nn.MLP((5, 6, 4, 3), vertex_at="pre", key=jax.random.key(0))
    model = vc.feedback.attach(model, vc.feedback.random(), key=jax.random.key(1)) if feedback else model
    model = hw.place(model, "capacitor", key=jax.random.key(1))
    rule = vc.rules.InferenceLearning(inference=Simultaneous(steps=7))
    uses = hw.ledger(rule, model, jnp.ones((1, 5)), jnp.zeros(1, int)).uses
    found = {use.name: use for use in uses}
    layers = [f".layers[{i}].layer.{'layer.' if feedback else ''}weight" for i in range(3)]
    assert [found[name].forward for name in layers] == [1, 8, 8]
    back = [name.replace(".layer.weight", ".path.feedback") if feedback else name for name in layers[1:]]
    assert [found[name].transposed for name in back] == [7, 7]
