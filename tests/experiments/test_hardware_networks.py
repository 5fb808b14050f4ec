"""Networks of the experiments on hardware: one program for a grid, and a choice of rates without test examples."""

import dataclasses

import jax
import numpy as np
import pytest
from matrix import some
from once import once

from vicinal.hardware import Device, Periphery, remove
from vicinal.reproduce import Run, Size
from vicinal.train.combinations import combinations_of, runs_of, shared_programs
from vicinal_experiments.hardware import networks
from vicinal_experiments.hardware.networks import Arrays, Build, Points

HOW = {"steps": 4, "batch_size": 16, "evaluate_every": 4}
NOISY = Arrays(Device(step=0.01, cycle=0.3, spread=0.3), Periphery(), Periphery(bound=4.0))


@once
def digits():
    return networks.network("digits")


def trained(label, points, seeds=1, **options):
    run = Run(Size(), seeds, progress=False)
    return networks.trained(run, label, digits(), points, part="test", **(HOW | options))


def ends(rows):
    return [row["records"][-1] for row in rows]


@pytest.mark.parametrize("label", some(networks.RULES, "KP"))
def test_a_grid_of_arrays_is_one_program_and_each_point_is_what_it_is_alone(label):
    device = NOISY.device
    grid = {"coarse": {"step": 0.05}, "soft": {"soft": 1.0}, "few bits": {"forward.adc": 4.0, "backward.adc": 5.0}}
    assert len(_programs(label, Points(NOISY, 0.1, grid))) == 1
    del grid["few bits"]
    points = Points(Arrays(device), 0.1, grid)  # noise of reads depends on the last bit of what is read
    together = trained(label, points, seeds=2)
    assert list(together) == list(grid)
    assert all([row["seed"] for row in rows] == [0, 1] for rows in together.values())
    (alone,) = trained(label, Points(Arrays(dataclasses.replace(device, soft=1.0)), 0.1)).values()
    for quantity in ("test_loss", "pulses"):
        assert ends(together["soft"])[0][quantity] == pytest.approx(ends(alone)[0][quantity], rel=1e-2)
    assert ends(together["coarse"])[0]["pulses"] < ends(alone)[0]["pulses"] / 3  # 5 times as much with each


def _programs(label, points):
    chosen = networks.variant(label, digits(), points)
    return shared_programs(
        chosen.make, chosen.build, runs_of(combinations_of(chosen.make, chosen.build, chosen.numbers), range(2))
    )


@pytest.mark.parametrize("label", some(networks.RULES, "iPC"))
def test_exact_arrays_change_nothing(label):
    (bare,) = trained(label, Points(None, 0.1)).values()
    (placed,) = trained(label, Points(Arrays(), 0.1)).values()
    assert ends(placed)[0]["test_loss"] == pytest.approx(ends(bare)[0]["test_loss"], rel=1e-5)


@pytest.mark.parametrize("step", some(["pulsed", "transfer", "thresholded"], "transfer"))
def test_every_step_gives_pulses_and_cells_without_a_change_get_none(step):
    arrays = Arrays(NOISY.device, step=step)
    found = trained("BP", Points(arrays, (0.0, 1.0)))
    assert ends(found["0"])[0]["pulses"] == 0
    assert ends(found["1"])[0]["pulses"] > 1
    assert len(_programs("BP", Points(arrays, 0.1, {"nominal": {}, "soft": {"soft": 1.0}}))) == 1


def test_models_of_all_points_start_from_the_same_weights():
    build = Build("FA", digits(), Arrays(Device(step=0.01)), ("step", "soft"))
    bare = Build("FA", digits(), None, ())(jax.random.key(3))
    first, second = (remove(build(jax.random.key(3), step=step, soft=1.0)) for step in (0.01, 0.1))
    for ours, theirs, plain in zip(*map(jax.tree.leaves, (first, second, bare)), strict=True):
        assert np.array_equal(ours, theirs)
        # Cells reach three standard deviations of a weight; biases are digital.
        assert np.mean(np.asarray(ours) != np.asarray(plain)) < 0.02


def test_rates_are_chosen_on_training_examples_that_are_held_out(monkeypatch):
    data = digits().data
    held = networks.held_out(data)
    for name in "xy":
        kept, out = (getattr(held, f"{name}_{part}") for part in ("train", "test"))
        whole = getattr(data, f"{name}_train")
        assert np.array_equal(np.sort(np.concatenate([kept, out]), axis=0), np.sort(whole, axis=0))
    ordered = dataclasses.replace(data, y_train=np.sort(data.y_train))
    counts = [np.bincount(y) / len(y) for y in (ordered.y_train, networks.held_out(ordered).y_test)]
    np.testing.assert_allclose(*counts, atol=0.01)  # every class, though examples are sorted by class
    monkeypatch.setitem(networks.RATES, "BP", (1e-6, 0.3, 1e12))
    found = networks.choose_rates(Run(Size(), 2, progress=False), digits(), None, ["BP"], updates=40, batch_size=16)
    accuracy = found["BP"]["accuracy"]
    assert (found["BP"]["chosen"], found["BP"]["rates"]) == (0.3, (1e-6, 0.3, 1e12))
    assert accuracy[1] > max(accuracy[0], accuracy[2])


def test_a_grid_needs_arrays():
    with pytest.raises(ValueError, match="expected arrays and one learning rate for a grid"):
        Points(None, 0.1, {"coarse": {"step": 0.1}})
