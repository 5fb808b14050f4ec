"""Reads and pulses against the IBM Analog Hardware Acceleration Kit, which is written independently, in C++."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vicinal.hardware import Device, Periphery

pytest.importorskip("aihwkit", reason="needs aihwkit: pip install 'vicinal[hardware-check]'", exc_type=ImportError)
import torch
from aihwkit.simulator.configs import SingleRPUConfig
from aihwkit.simulator.configs.devices import ConstantStepDevice
from aihwkit.simulator.parameters import UpdateParameters
from aihwkit.simulator.parameters.enums import BoundManagementType, WeightNoiseType
from aihwkit.simulator.presets import devices
from aihwkit.simulator.tiles import AnalogTile

PRESETS = {
    "gokmen-vlasov": devices.GokmenVlasovPresetDevice,
    "idealized": devices.IdealizedPresetDevice,
    "capacitor": devices.CapacitorPresetDevice,
    "ecram": devices.EcRamPresetDevice,
    "reram-sb": devices.ReRamSBPresetDevice,
}
PULSES = 150


@pytest.mark.parametrize("weight_noise", [0.0, 0.02])
def test_reads_have_the_same_mean_and_deviation(weight_noise):
    generator = np.random.default_rng(0)
    weight = generator.uniform(-0.5, 0.5, (6, 20)).astype(np.float32)
    x = generator.normal(size=20).astype(np.float32)
    config = SingleRPUConfig(device=ConstantStepDevice())
    config.forward.bound_management = BoundManagementType.NONE
    if weight_noise:
        config.forward.w_noise = weight_noise
        config.forward.w_noise_type = WeightNoiseType.ADDITIVE_CONSTANT
    tile = AnalogTile(6, 20, config)
    tile.set_weights(torch.tensor(weight))
    stored = tile.get_weights()[0].numpy()
    theirs = tile.forward(torch.tensor(np.tile(x, (10_000, 1)))).detach().numpy()
    periphery = Periphery(weight_noise=weight_noise or None)
    read = jax.jit(jax.vmap(lambda key: periphery.read(jnp.asarray(stored), jnp.asarray(x), key=key)))
    ours = np.asarray(read(jax.random.split(jax.random.key(0), 10_000)))
    deviation = ours.std(0)
    np.testing.assert_allclose(theirs.mean(0), ours.mean(0), atol=6 * deviation.max() / 100)
    np.testing.assert_allclose(theirs.std(0), deviation, rtol=0.04)


@pytest.mark.parametrize("name", PRESETS)
def test_pulses_have_the_same_mean_response(name):
    """Pulses up, then as many down, on cells that differ: the mean over the array."""
    update = UpdateParameters(desired_bl=1, update_bl_management=False, update_management=False)
    tile = AnalogTile(40, 50, SingleRPUConfig(device=PRESETS[name](), update=update))
    tile.set_weights(torch.zeros(40, 50))
    tile.set_learning_rate(1.0)
    device = Device.preset(name)
    cells = device.draw((40, 50), key=jax.random.key(0))
    one, keys = jnp.ones((40, 50)), jax.random.split(jax.random.key(1), 2 * PULSES)
    pulse = jax.jit(lambda w, sign, key: cells.pulsed(w, sign * one, key))
    w, theirs, ours = jnp.zeros((40, 50)), [], []
    for i in range(2 * PULSES):
        sign = 1.0 if i < PULSES else -1.0
        tile.update(torch.ones(50), -sign * torch.ones(40))
        w = pulse(w, sign, keys[i])
        theirs.append(float(tile.get_weights()[0].mean()))
        ours.append(float(jnp.mean(w)))
    written = 0.0 if device.write_noise is None else float(device.write_noise * device.step) / 2000**0.5
    np.testing.assert_allclose(theirs, ours, atol=0.02 * max(ours) + 4 * written)
