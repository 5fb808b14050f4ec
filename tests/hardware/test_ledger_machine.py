"""What the model itself tells the ledger: the bits of its converters, and the reads of fast arrays. All by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from ledger_builders import SIZES, data, network

import vicinal as vc
import vicinal.hardware as hw
from vicinal.feedback import random, sign_symmetric
from vicinal.report import render_study
from vicinal.rules import Backprop, DirectFeedback

LEVEL = 5e-14  # J for each level of a conversion


def trained(step, updates, depth=2):
    """The state of a step after some updates on the same example, and its model."""
    model = hw.place(network(depth), hw.Device(step=0.01), key=jax.random.key(1))
    graph, rule, (x, y) = vc.capture(model, jnp.ones(SIZES[0])), Backprop(), (jnp.ones((1, 9)), jnp.zeros(1, int))
    state, advance = step.init(graph.trainable(model)), eqx.filter_jit(rule.step)
    for _ in range(updates):
        model, state, *_ = advance(graph, step, model, state, (), x, y)
    return model, state


def machine(state, model, rule=None, **options):
    return hw.ledger(Backprop() if rule is None else rule, model, *data(), pulses=state, **options)


@pytest.mark.parametrize(
    ("columns", "every", "updates", "expected"),
    [("all", 1, 1, [9, 8]), ("all", 2, 1, [0, 0]), ("all", 2, 2, [9, 8]), ("one", 1, 1, [1, 1]), ("one", 3, 2, [0, 0])],
)
def test_columns_of_the_fast_arrays_are_those_that_the_last_update_read(columns, every, updates, expected):
    """Weights of 8 x 9 and 7 x 8 have 9 and 8 columns."""
    step = hw.transfer(0.1, hw.Device(step=0.01, soft=0.5), columns=columns, every=every)
    model, state = trained(step, updates)
    assert [use.forward for use in machine(state, model).programmed.fast] == expected


def test_what_reads_of_columns_take_by_hand():
    """On arrays of 4 x 5 cells a column of 8 lies on two arrays, as one of 7 does; nine columns lie on 4, 4, 1 rows."""
    model, state = trained(hw.transfer(0.1, "idealized"), 1)
    bare = hw.ledger(Backprop(), model, *data(), array=(4, 5))
    found = machine(state, model, array=(4, 5))
    more = {name: getattr(found.conversions, name) - getattr(bare.conversions, name) for name in vars(bare.conversions)}
    reads = 9 * 2 + 8 * 2
    assert more == {"activations": reads, "cells": 9 * 8 + 8 * 7, "dac": reads, "adc": 9 * 8 + 8 * 7, "additions": 0}
    assert found.energies["DAC"] - bare.energies["DAC"] == pytest.approx(reads * LEVEL * 2**7)
    assert found.energies["ADC"] - bare.energies["ADC"] == pytest.approx((9 * 8 + 8 * 7) * LEVEL * 2**9)
    assert found.latency - bare.latency == pytest.approx(4 * 10e-9)  # an array has four rows
    assert {name: found.area[name] - bare.area[name] for name in found.area} == {
        "arrays": 3 * 2 + 2 * 2,
        "cells": 2 * (9 * 8 + 8 * 7),
        "DACs": 9 * 2 + 8 * 2,
        "ADCs": 1 * 3 + 1 * 2,  # a converter takes eight columns
    }
    assert found.depth == bare.depth
    assert found.busiest == bare.busiest


def test_fast_arrays_are_shown():
    model, state = trained(hw.transfer(0.1, "idealized"), 1)
    found = machine(state, model, name="transfer")
    assert "9 columns of fast(.layers[0].layer.weight) are read after the update" in repr(found)
    assert found.to_dict()["programmed"]["fast"][1]["forward"] == 8
    assert "columns of fast arrays read" in render_study(hw.ledger_study([found]))


@pytest.mark.parametrize("step", [hw.pulsed(0.1), hw.thresholded(0.1), hw.coincident(0.1)])
def test_other_steps_have_no_fast_arrays(step):
    model, state = trained(step, 1)
    assert all(count.columns is None for count in hw.pulse_counts(state).values())
    assert machine(state, model).programmed.fast == ()


def test_each_side_of_a_tile_converts_by_its_own_bits():
    """BP on 9-8-7: two forward reads, and a transposed one of the upper matrix."""
    sides = {"forward": hw.Periphery(dac=5, adc=6), "backward": hw.Periphery(dac=3, adc=4)}
    model = hw.place(network(2), **sides, key=jax.random.key(1))
    found = hw.ledger(Backprop(), model, *data())
    assert found.energies["DAC"] == pytest.approx(LEVEL * ((9 + 8) * 2**5 + 7 * 2**3))
    assert found.energies["ADC"] == pytest.approx(LEVEL * ((8 + 7) * 2**6 + 8 * 2**4))
    serial = hw.ledger(Backprop(), model, *data(), bit_serial=True)
    assert serial.energies["DAC"] == pytest.approx(LEVEL * ((9 + 8) * 5 * 2 + 7 * 3 * 2))
    assert serial.energies["ADC"] == pytest.approx(LEVEL * ((8 + 7) * 5 * 2**6 + 8 * 3 * 2**4))
    # The chain has three reads of at least three bits, the upper array one of five and one of three.
    assert serial.latency == pytest.approx(10e-9 * max(3 * 3, 5 + 3))


def test_a_side_without_converters_and_a_bare_layer_have_those_of_the_constants():
    ideal = hw.place(network(2), forward="ideal", backward=hw.Periphery(dac=3, adc=4), key=jax.random.key(1))
    found, bare = (hw.ledger(Backprop(), model, *data()) for model in (ideal, network(2)))
    assert found.energies["ADC"] == pytest.approx(LEVEL * ((8 + 7) * 2**9 + 8 * 2**4))
    assert bare.energies["ADC"] == pytest.approx(LEVEL * (8 + 7 + 8) * 2**9)
    assert bare.converters == {}


@pytest.mark.parametrize("path", [random(), sign_symmetric()])
def test_arrays_of_feedback_are_read_through_the_backward_side(path):
    """The signs of the upper matrix, or its own feedback, lie on an array that only errors enter."""
    sides = {"forward": hw.Periphery(dac=5, adc=6), "backward": hw.Periphery(dac=3, adc=4)}
    fed = vc.feedback.attach(network(2), path, key=jax.random.key(2))
    found = hw.ledger(Backprop(), hw.place(fed, **sides, key=jax.random.key(1)), *data())
    assert found.energies["DAC"] == pytest.approx(LEVEL * ((9 + 8) * 2**5 + 7 * 2**3))
    assert found.energies["ADC"] == pytest.approx(LEVEL * ((8 + 7) * 2**6 + 8 * 2**4))


def test_arrays_of_the_rule_itself_have_the_bits_of_the_constants():
    """Direct feedback holds one projection, from 7 outputs to 8 units, beside a placed network."""
    model = hw.place(network(2), forward=hw.Periphery(dac=5, adc=6), key=jax.random.key(1))
    found = hw.ledger(DirectFeedback(), model, *data())
    assert found.energies["ADC"] == pytest.approx(LEVEL * ((8 + 7) * 2**6 + 8 * 2**9))


def test_kernels_are_read_patch_by_patch_by_the_bits_of_their_tile():
    """Four patches of 3 x 3 x 1 for two channels, and three outputs of what they return."""
    model = eqx.nn.Sequential(
        [
            vc.nn.Conv2d(1, 2, 3, key=jax.random.key(0)),
            eqx.nn.Lambda(jnp.ravel),
            vc.nn.Linear(8, 3, key=jax.random.key(1)),
        ]
    )
    placed = hw.place(model, forward=hw.Periphery(dac=5, adc=6), backward="ideal", key=jax.random.key(2))
    x, y = jax.ShapeDtypeStruct((1, 1, 4, 4), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    found = hw.ledger(Backprop(), placed, x, y)
    assert found.energies["ADC"] == pytest.approx(LEVEL * ((4 * 2 + 3) * 2**6 + 8 * 2**9))
