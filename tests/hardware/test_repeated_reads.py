"""Reads of the same input whose outputs are averaged: their noise, their rounding, and their counts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vicinal as vc
from vicinal.hardware import Device, Periphery, ledger, place, quantised
from vicinal.hardware.periphery import read_along
from vicinal.inference import Simultaneous

KEY = jax.random.key(0)


def operands(dtype=jnp.float64):
    return jax.random.normal(KEY, (5, 8), dtype), jax.random.normal(jax.random.key(1), (8,), dtype)


def reads(periphery, count=10_000):
    weight, x = operands()
    read = jax.jit(jax.vmap(lambda key: periphery.read(weight, x, scale=3.0, key=key)))
    return np.asarray(read(jax.random.split(jax.random.key(2), count)))


@pytest.mark.parametrize("repeats", [1, 2, 8])
def test_the_variance_of_the_noise_falls_with_the_repeats(x64, repeats):
    weight, x = operands()
    periphery = Periphery(dac=None, adc=None, bound=None, read_noise=0.2, weight_noise=0.1, repeats=repeats)
    found, largest = reads(periphery), float(jnp.max(jnp.abs(x)))
    one = (0.2**2 + 0.1**2 * float(jnp.sum(jnp.square(x / largest)))) ** 0.5 * largest * 3.0
    np.testing.assert_allclose(found.std(0), one / repeats**0.5, rtol=0.03)
    np.testing.assert_allclose(found.mean(0), weight @ x, atol=4 * one / repeats**0.5 / 100)


def test_each_repeat_is_rounded_by_itself(x64):
    """With noise of a step or more, the mean of rounded outputs is finer than a step."""
    periphery = Periphery(dac=None, adc=4, bound=2.0, read_noise=0.3, repeats=16)
    unit = float(jnp.max(jnp.abs(operands()[1]))) * 3.0
    step = 2 * 2.0 / (2**4 - 2)
    found = reads(periphery, 500) / unit / (step / 16)
    np.testing.assert_allclose(found, np.round(found), atol=1e-9)
    assert np.any(np.abs(found / 16 - np.round(found / 16)) > 0.01)


def test_one_read_is_a_read_without_the_setting(x64):
    """The equation by hand, with the draws of one read."""
    from vicinal.hardware._noise import normal

    weight, x = operands()
    periphery, scale = Periphery(repeats=1), 3.0
    alpha = jnp.max(jnp.abs(x))
    z = jax.lax.dot_general(quantised(x / alpha, periphery.dac, jnp.ones(())), weight, (((0,), (1,)), ((), ()))) / scale
    noise = jnp.sqrt(jnp.square(periphery.read_noise)) * normal(KEY, z.shape, z.dtype)
    expected = alpha * scale * quantised(z + noise, periphery.adc, periphery.bound)
    assert np.array_equal(periphery.read(weight, x, scale=scale, key=KEY), expected)


def test_repeats_of_one_read_have_draws_of_their_own_and_the_next_read_has_others(x64):
    periphery = Periphery(dac=None, adc=None, bound=None, read_noise=1.0, repeats=2)
    nothing, x = jnp.zeros((1000, 3)), jnp.ones(3)
    found = [np.asarray(periphery.read(nothing, x, key=jax.random.key(i))) for i in range(2)]
    assert abs(np.corrcoef(found)[0, 1]) < 4 / 1000**0.5
    np.testing.assert_allclose(np.std(found), 0.5**0.5, rtol=0.05)  # with the same draw twice it would be 1


def test_a_saturated_read_is_repeated_with_half_the_input_in_all_its_repeats(x64):
    weight, x = jnp.array([[3.0, 3.0, 3.0]]), jnp.ones(3)
    managed = Periphery(dac=None, adc=None, bound=4.0, read_noise=1e-9, bound_management=True, repeats=3)
    found = read_along(managed, weight, x, jnp.ones(()), KEY, 1, managed=True)
    np.testing.assert_allclose(found, [9.0], rtol=1e-6)


@pytest.mark.parametrize("rule", ["bp", "il"])
@pytest.mark.parametrize(("forward", "backward"), [(3, 1), (1, 2), (3, 2)])
def test_the_ledger_counts_each_repeat(rule, forward, backward):
    made = {
        "bp": vc.rules.Backprop(),
        "il": vc.rules.InferenceLearning(inference=Simultaneous(steps=4)),
    }[rule]
    model = vc.nn.MLP((12, 8, 8, 4), vertex_at="pre", key=KEY)
    x, y = jax.ShapeDtypeStruct((5, 12), jnp.float32), jax.ShapeDtypeStruct((5,), jnp.int32)

    def counted(forward, backward):
        sides = {"forward": Periphery(repeats=forward), "backward": Periphery(repeats=backward)}
        return ledger(made, place(model, Device(step=0.001), **sides, key=KEY), x, y)

    plain, found = counted(1, 1), counted(forward, backward)
    for one, use in zip(plain.uses, found.uses, strict=True):
        assert (use.forward, use.transposed) == (forward * one.forward, backward * one.transposed)
        assert use.outer == one.outer
    # Each matrix fits one array: a forward read converts its outputs once, a transposed one its inputs.
    assert found.conversions.adc == sum(use.forward * use.outputs + use.transposed * use.inputs for use in found.uses)
    assert found.busiest == max(use.forward + use.transposed for use in found.uses) / 5
    if rule == "bp":
        assert found.depth == 3 * forward + 2 * backward  # up through three arrays, down through two


def test_a_ledger_of_repeats_in_a_loop_is_that_of_the_turns():
    model = place(vc.nn.MLP((4, 3, 2), key=KEY), forward=Periphery(repeats=2), key=KEY)
    x, y = jnp.ones((1, 4)), jnp.zeros(1, int)
    one, nine = (
        ledger(vc.rules.InferenceLearning(inference=Simultaneous(steps=steps)), model, x, y) for steps in (5, 13)
    )
    assert nine.forward - one.forward == 8 * 2 * 1  # the last array alone: the first has the input, which stays


def test_repeats_of_a_tile_are_those_of_its_sides():
    """The mean of ten thousand outputs of a tile, read with different inputs, has the noise of the repeats."""
    sides = [Periphery(dac=None, adc=None, bound=None, read_noise=0.5, repeats=repeats) for repeats in (1, 4)]
    layer = vc.nn.Linear(3, 2, key=KEY)
    x = jax.random.uniform(KEY, (5000, 3)).at[:, 0].set(1.0)
    deviations = []
    for side in sides:
        tile = place(layer, forward=side, backward="ideal", key=KEY)
        found = jax.jit(jax.vmap(tile))(x) - jax.vmap(layer)(x)
        deviations.append(float(jnp.std(found / tile.crossbar.scale)))
    np.testing.assert_allclose(deviations, [0.5, 0.25], rtol=0.04)


def test_repeats_without_noise_and_wrong_counts_are_refused():
    with pytest.raises(ValueError, match="expected noise that 3 reads of the same input average out, got none"):
        dataclasses.replace(Periphery.preset("ideal"), repeats=3)
    with pytest.raises(ValueError, match="expected repeats as an integer of at least 1, got 0"):
        Periphery(repeats=0)
    with pytest.raises(TypeError, match="expected repeats as an integer"):
        Periphery(repeats=2.5)
