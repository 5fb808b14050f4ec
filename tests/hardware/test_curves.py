"""Cells from labels and from measured conductances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vicinal.hardware import Device, life_of, measured, nonlinear, nonlinearity


@pytest.mark.parametrize(("label", "life"), [(1, 1.2517), (1.75, 0.7021), (5, 0.1924)])
def test_the_life_of_a_label(label, life):
    assert life_of(label) == pytest.approx(life, abs=2e-4)
    p = np.linspace(0, 1, 100_001)
    rise = np.max((1 - np.exp(-p / life)) / (1 - np.exp(-1 / life)) - p)
    assert nonlinearity(life) == pytest.approx(rise / 0.099, rel=1e-5)


@pytest.mark.parametrize("label", [0, 1.75, 5])
def test_labelled_cells_go_through_their_range_along_the_labelled_curve(x64, label):
    cells = nonlinear(32, label, label).draw((), key=jax.random.key(0))
    path = np.array([float(cells.pulsed(jnp.asarray(-1.0), jnp.asarray(float(n)))) for n in range(33)])
    f = (path + 1) / 2
    assert (f[0], f[-1]) == (0, pytest.approx(1, abs=1e-9))
    assert np.max(f - np.arange(33) / 32) / 0.099 == pytest.approx(label, rel=0.01, abs=1e-9)
    back = np.array([float(cells.pulsed(jnp.asarray(1.0), jnp.asarray(-float(n)))) for n in range(33)])
    np.testing.assert_allclose(back, -path, atol=1e-9)


def test_the_device_named_after_neurosim_is_made_of_its_labels():
    named, made = Device.preset("neurosim"), nonlinear(32, 1.75, 1.46, cycle=0.003 * 2 / 0.069718)
    for name in ("step", "up_down", "soft", "soft_down", "cycle"):
        assert float(getattr(named, name)) == pytest.approx(float(getattr(made, name)), rel=1e-4)


def written(tmp_path, device, noise=0.0, rounds=3, unit=2e-6, floor=1e-6):
    """Conductances of some rounds of pulses up and down, in siemens."""
    step, tilt = float(device.step), float(device.up_down)
    down_soft = float(device.soft if device.soft_down is None else device.soft_down)
    generator, w, rows = np.random.default_rng(0), -1.0, ["direction,conductance"]
    for _ in range(rounds):
        for sign, part, soft in ((1, 1 + tilt, float(device.soft)), (-1, 1 - tilt, down_soft)):
            for _ in range(120):
                change = step * part * (1 - sign * soft * w) + noise * step * generator.normal()
                w = float(np.clip(w + sign * change, -1, 1))
                rows.append(f"{'up' if sign > 0 else 'down'},{floor + unit * (w + 1):.9g}")
    path = tmp_path / "cells.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("numbers", [{}, {"soft": 0.6, "soft_down": 0.3, "up_down": 0.1}])
def test_a_fit_finds_the_cells_that_were_measured(tmp_path, numbers):
    device = Device(step=0.02, **numbers)
    found = measured(written(tmp_path, device), stuck=0.01)
    assert float(found.step) == pytest.approx(0.02, rel=0.03)
    for name in ("soft", "soft_down", "up_down"):
        expected = getattr(device, name)
        expected = device.soft if expected is None else expected
        assert float(getattr(found, name)) == pytest.approx(float(expected), abs=0.04)
    assert float(found.cycle) < 0.1
    assert float(found.stuck) == pytest.approx(0.01)


def test_a_fit_finds_the_noise_from_pulse_to_pulse(tmp_path):
    found = measured(written(tmp_path, Device(step=0.012, soft=0.5), noise=0.4))
    assert float(found.cycle) == pytest.approx(0.4, rel=0.2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pulse,conductance\n1,2\n", "expected columns direction and conductance in .*, got pulse, conductance"),
        ("direction,conductance\nup,1\nleft,2\n", "line 3 of .*, got 'left' and '2'"),
        ("direction,conductance\nup,1\nup,inf\n", "a finite conductance in line 3"),
        ("direction,conductance\nup,1\nup,2\n", "expected pulses in both directions in .*, got none down"),
        ("direction,conductance\nup,1\nup,1\ndown,1\ndown,1\n", "expected conductances that differ"),
        ("direction,conductance\n", "expected pulses in both directions"),
    ],
)
def test_other_tables_are_refused(tmp_path, text, words):
    path = tmp_path / "cells.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        measured(path)


def test_labels_out_of_range_are_refused():
    with pytest.raises(ValueError, match="expected up, a label of non-linearity, from 0 to 9, got 12"):
        nonlinear(32, 12)
