"""What counts cost: conversions, energies, times and pulses, by hand."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ledger_builders import data, ledger_of, network

import vicinal as vc
import vicinal.hardware as hw
from vicinal._counting import Use
from vicinal.hardware import Constant, Constants, Ledger, ledger_study, undecided
from vicinal.hardware.costs import conversions
from vicinal.report import print_study, render_study
from vicinal.rules import Backprop, DirectFeedback, InferenceLearning

SIMPLE = Constants(
    name="simple",
    cells_per_weight=2,
    read_voltage=2,
    read_time=3,
    on_resistance=4,
    write_voltage=5,
    write_time=7,
    columns_per_adc=2,
    dac_bits=3,
    adc_bits=4,
    dac_energy=11,
    adc_energy=13,
    add_energy=17,
    multiply_energy=19,
    sram_energy=23,
    dram_energy=29,
)


def hand_made(*uses, digital=0.0, constants=SIMPLE, array=(4, 4), depth=5, name="rule", **options):
    settings = {"batch": 1, "forward_macs": 1, "bit_serial": False, "programmed": None, "left_out": ("",)} | options
    return Ledger(name=name, uses=uses, depth=depth, digital=digital, array=array, constants=constants, **settings)


USE = Use("w", (), inputs=9, outputs=6, forward=10, transposed=1, outer=1)  # 3 x 2 arrays of 4 x 4


def test_a_matrix_takes_several_arrays():
    found = conversions([USE], (4, 4))
    assert found.activations == 11 * 6
    assert found.cells == 11 * 54
    assert found.dac == 10 * 9 * 2 + 1 * 6 * 3
    assert found.adc == 10 * 6 * 3 + 1 * 9 * 2
    assert found.additions == 10 * 6 * (3 - 1) + 1 * 9 * (2 - 1)
    one = conversions([USE], (9, 6))
    assert (one.activations, one.dac, one.adc, one.additions) == (11, 96, 69, 0)


def test_energy_is_the_sum_of_counts_times_constants():
    found = hand_made(USE, digital=2)
    assert found.energies == {
        "cells": 11 * 54 * 2 * (2**2 / 4 * 3),
        "DAC": 198 * 11 * 2**3,
        "ADC": 198 * 13 * 2**4,
        "additions": 129 * 17,
        "digital products": 2 * (17 + 19),
    }
    assert found.energy == sum(found.energies.values())
    macs = 12 * 54 + 2
    assert found.processor == {"arithmetic": macs * 36, "SRAM": macs * 23, "DRAM": 54 * 29}


def test_inputs_bit_by_bit_are_as_many_reads_as_they_have_bits():
    whole, serial = hand_made(USE), hand_made(USE, bit_serial=True)
    assert serial.energies["cells"] == 3 * whole.energies["cells"]
    assert serial.energies["ADC"] == 3 * whole.energies["ADC"]
    assert serial.energies["DAC"] == 3 * 198 * 11 * 2**1  # one bit each
    assert serial.latency == 3 * whole.latency == 3 * 11 * 3


def test_area_counts_converters_at_the_sides_that_are_read():
    assert hand_made(USE).area == {"arrays": 6, "cells": 108, "DACs": 9 * 2 + 6 * 3, "ADCs": 3 * 3 + 5 * 2}
    forward = hand_made(dataclasses.replace(USE, transposed=0))
    assert forward.area == {"arrays": 6, "cells": 108, "DACs": 18, "ADCs": 9}


def test_time_is_at_least_that_of_the_chain():
    assert hand_made(USE, depth=20).latency == 20 * 3


@pytest.mark.parametrize("rows", [2, 8])
def test_pulses_are_those_of_a_replay(rows):
    """Stochastic rounding of a gradient, replayed in NumPy; a row takes as long as its cell with the most pulses."""
    rng, model = np.random.default_rng(0), network(2)
    graph = vc.capture(model, jnp.ones(9))
    changes = jax.tree.map(lambda w: np.asarray(rng.normal(size=w.shape)), graph.trainable(model))
    pulses = jax.tree.map(lambda c: np.sign(c) * np.floor(np.abs(c) + rng.random(c.shape)), changes)
    found = vc.hardware.ledger(Backprop(), model, *data(), pulses=pulses, array=(rows, 128)).programmed
    matrices = [layer.weight for layer in pulses.layers]
    assert found.pulses == sum(abs(int(n)) for matrix in matrices for n in matrix.ravel())
    assert found.cells == sum(int(n) != 0 for matrix in matrices for n in matrix.ravel())
    longest = 0
    for matrix in matrices:
        for start in range(0, matrix.shape[1], rows):
            own = range(start, min(start + rows, matrix.shape[1]))
            longest = max(longest, sum(max(abs(int(n)) for n in matrix[:, column]) for column in own))
    assert found.slots == longest


def test_the_state_of_a_step_for_cells_tells_its_pulses():
    """Cells with one exact step: the weights' changes say how many pulses each got."""
    device = hw.Device(step=0.01)
    model = hw.place(network(2), device, key=jax.random.key(1))
    graph, rule, optimizer = vc.capture(model, jnp.ones(9)), Backprop(), hw.pulsed(0.5)
    x, y = jnp.linspace(-1, 1, 9)[None], jnp.zeros(1, int)
    state = optimizer.init(graph.trainable(model))
    new, state, *_ = eqx.filter_jit(rule.step)(graph, optimizer, model, state, (), x, y)
    found = hw.ledger(rule, model, x, y, pulses=state)
    counts = []
    for before, after in zip(model.layers, new.layers, strict=True):
        step = np.asarray(before.crossbar.scale * before.crossbar.cells.step)
        counts.append(np.rint((np.asarray(after.layer.weight) - np.asarray(before.layer.weight)) / step))
    assert found.programmed.pulses == sum(np.abs(n).sum() for n in counts) > 0
    assert found.programmed.cells == sum(np.count_nonzero(n) for n in counts)
    assert found.energies["pulses"] > 0
    assert found.latency == vc.hardware.ledger(rule, model, x, y).latency
    assert any("Which cells got pulses is not known" in said for said in found.left_out)


def test_expected_pulses_are_linear_in_the_learning_rate():
    """A change of less than a step is a pulse with a probability in proportion to it."""
    model = hw.place(network(2), hw.Device(step=0.01), key=jax.random.key(1))
    graph, rates = vc.capture(model, jnp.ones(9)), [1e-4, 1e-3, 1e-2]
    parameters = graph.trainable(model)
    gradient = jax.tree.map(lambda w: jax.random.normal(jax.random.key(2), w.shape, w.dtype), parameters)

    def mean_pulses(rate):
        optimizer = hw.pulsed(rate)

        def update(state, _):
            state = optimizer.update(gradient, state, parameters, model_fn=lambda: model)[1]
            return state, sum(count.last for count in hw.pulse_counts(state).values())

        state, each = jax.lax.scan(update, optimizer.init(parameters), length=400)
        assert hw.ledger(Backprop(), model, *data(), pulses=state).programmed.pulses == each[-1]
        return float(each.mean())

    totals = [mean_pulses(rate) for rate in rates]
    slope = np.polyfit(np.log(rates), np.log(totals), 1)[0]
    assert slope == pytest.approx(1, abs=0.05)


def test_pulses_take_energy_and_time():
    done = vc.hardware.programming.Programmed(cells=8, slots=6, pulses=10)
    found = hand_made(USE, programmed=done)
    assert found.energies["pulses"] == 10 * (5**2 / 4 * 7)
    assert found.latency == 11 * 3 + 6 * 7


def test_changes_count_cells_and_leave_pulses_open():
    model = network(2)
    changes = jax.tree.map(jnp.zeros_like, vc.capture(model, jnp.ones(9)).trainable(model))
    weight = changes.layers[1].weight.at[1, 2].set(0.5).at[0, 2].set(-1)
    changes = jax.tree.map(lambda leaf: weight if leaf.shape == weight.shape else leaf, changes)
    found = vc.hardware.ledger(Backprop(), model, *data(), changes=changes)
    assert dataclasses.astuple(found.programmed) == (2, 1, None, ())
    assert "pulses" not in found.energies
    assert any("number of pulses is not known" in said for said in found.left_out)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"array": (0, 4)}, ValueError, r"two whole numbers above 0, got \(0, 4\)"),
        ({"array": (128,)}, ValueError, "rows and columns of an array"),
        ({"pulses": {"a": np.ones(2)}}, ValueError, "numbers for at least one array, got none"),
        ({"pulses": {}, "changes": {}}, ValueError, "pulses or changes, got both"),
        ({"constants": "chip.toml"}, TypeError, r"Constants, got 'chip.toml'; read a file by Constants.read"),
        ({"turns": 1.5}, TypeError, "turns as an integer of at least 0, got 1.5"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, error, sentence):
    with pytest.raises(error, match=f"expected .*{sentence}"):
        ledger_of(Backprop(), 2, **arguments)


def test_a_name_is_no_rule():
    with pytest.raises(TypeError, match=r"expected a rule, got 'bp'; that of a recipe is .*recipe\(name\)"):
        ledger_of("bp", 2)


def test_pulses_are_whole_numbers():
    model = network(2)
    halves = jax.tree.map(lambda w: 0.5 * np.ones(w.shape), vc.capture(model, jnp.ones(9)).trainable(model))
    with pytest.raises(TypeError, match="expected pulses as whole numbers"):
        vc.hardware.ledger(Backprop(), model, *data(), pulses=halves)


# ------------------------------------------------------------------------------------------------------------- outputs


def test_outputs_name_constants_and_mark_those_without_a_source():
    found = ledger_of(Backprop(), 3)
    assert "without a source: dac_energy, adc_energy, dram_energy" in repr(found)
    assert "model estimate by 'NeuroSim V2.1 and aihwkit defaults'" in repr(found)
    plain = json.loads(found.to_json())
    assert plain["model_estimate"]["unsourced"] == ["dac_energy", "adc_energy", "dram_energy"]
    assert plain["model_estimate"]["constants"]["adc_energy"] == {"value": 5e-14, "unit": "J", "source": None}
    assert [use["forward"] for use in plain["arrays"]] == [1, 1, 1]
    sourced = ledger_of(Backprop(), 3, constants=SIMPLE)
    assert "without a source" not in repr(sourced)
    assert "model estimate by 'simple'" in repr(sourced)


def test_ledgers_side_by_side(capsys):
    found = [ledger_of(rule, 3, name=name) for name, rule in (("bp", Backprop()), ("dfa", DirectFeedback()))]
    study = ledger_study(found, command="vicinal ledger bp dfa")
    assert study.sections[0].tables[0].rows[0][:4] == ["bp", 3, 2, 3]
    assert study.sections[0].panels[0].places == ["bp", "dfa"]
    print_study(study)
    printed = " ".join(capsys.readouterr().out.split())
    assert "* rests on constants without a source: dac_energy, adc_energy, dram_energy." in printed
    assert "Pulses are not known, and left out." in printed
    assert "unsourced" in render_study(study)
    with pytest.raises(ValueError, match="expected ledgers by different names, got bp, bp"):
        ledger_study([found[0], found[0]])
    with pytest.raises(ValueError, match="several of array"):
        ledger_study([found[0], ledger_of(Backprop(), 3, array=(2, 2))])
    with pytest.raises(ValueError, match="expected at least one ledger"):
        ledger_study([])


def test_an_unsourced_constant_that_decides_is_named():
    """One rule multiplies digitally, the other reads arrays; they take the same where 192 f + 700 = 4000."""
    constants = dataclasses.replace(SIMPLE, adc_energy=Constant(100, "J"), dac_energy=0.0, add_energy=0, read_voltage=0)
    use = dataclasses.replace(USE, forward=1, transposed=0)
    reads = hand_made(use, constants=constants, name="reads")
    adds = hand_made(constants=constants, digital=1000, name="adds")
    conversions = 6 * 3 * 2**4
    assert (reads.energy, adds.energy) == (conversions * 100, 19 * 1000)
    (said,) = undecided([reads, adds])
    assert f"adds takes less energy only above {19000 / conversions:.2g} J (assumed: 1e+02)" in said
    sourced = [dataclasses.replace(item, constants=SIMPLE) for item in (reads, adds)]
    assert undecided(sourced) == []


def test_a_constant_that_changes_no_order_is_not_named():
    """Twice the reads take more, whatever a conversion takes."""
    more = dataclasses.replace(USE, forward=20, transposed=2)
    constants = dataclasses.replace(SIMPLE, adc_energy=Constant(100, "J"))
    both = [hand_made(use, constants=constants, name=name) for use, name in ((USE, "one"), (more, "two"))]
    assert undecided(both) == []


def test_inference_learning_takes_more_than_backpropagation_by_its_passes():
    found = ledger_of(InferenceLearning(), 3)
    assert found.passes > 10
    assert found.passes == pytest.approx(found.macs / found.forward_macs - 1)  # outer products are one pass more
