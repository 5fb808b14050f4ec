"""Steps for cells with asymmetric answers: plain pulses, transfer from a fast array, and changes added up digitally."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from vicinal import hardware, nn
from vicinal.graph import capture
from vicinal.hardware import Device
from vicinal.reproduce import Experiment, Run, Size
from vicinal.rules import Backprop
from vicinal.task import Task
from vicinal.train import keys_of
from vicinal_experiments.hardware import ledger, transfer_judge as judge
from vicinal_experiments.hardware.networks import (
    RULES,
    Build,
    Points,
    choose_rates,
    network,
    on_cells,
    step_of,
    trained,
)
from vicinal_experiments.papers import TIKI_TAKA

STEPS = ("pulsed", "transfer", "thresholded")

NOMINAL = dataclasses.replace(ledger.NOMINAL, device=Device(step=0.0016, soft=0.5, cycle=0.3, spread=0.3))
"""The arrays for which rates are chosen: those of `hardware/ledger`, with half the asymmetry of soft bounds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferSize(Size):
    """One number with a noisy gradient, and networks.

    Attributes:
        asymmetries: How much steps shrink towards the bounds, `g`.
        target: Where the one number should settle.
        noises: Standard deviations of the noise of its gradient.
        cells: Cells with a number each.
        rate: Learning rate of the number, on the array and on the fast one.
        gamma: The part of the fast array that is transferred, for the number.
        cell_updates: Updates of the number; the last quarter is its rest.
        rules: The rules that train networks.
        updates: Updates of a run.
        rate_updates: Updates of the runs that choose learning rates.
        evaluations: Evaluations along a run.
        batch_size: Examples in a batch.
    """

    asymmetries: tuple[float, ...] = (0.0, 0.5, 1.0)
    target: float = 0.4
    noises: tuple[float, ...] = (0.2, 0.5, 1.0)
    cells: int = 400
    rate: float = 0.02
    gamma: float = 0.02
    cell_updates: int = 4000
    rules: tuple[str, ...] = ("BP", "FA", "DFA", "IL", "SeqIL")
    updates: int
    rate_updates: int
    evaluations: int = 4
    batch_size: int = 32


# ---------------------------------------------------------------------------------------------------- measurement


def _measure(run: Run[TransferSize]) -> dict[str, Any]:
    size, task = run.size, network(run.size.data[0])
    run.say("one number with a noisy gradient")
    grid = {f"{g:g}": {"soft": g} for g in size.asymmetries}
    numbers: dict[str, Any] = {"rest": {step: rests(step, size) for step in STEPS}, "rates": {}, "runs": {}}
    for step in STEPS:
        arrays = dataclasses.replace(NOMINAL, step=step)
        rates = choose_rates(
            run,
            task,
            arrays,
            size.rules,
            updates=size.rate_updates,
            batch_size=size.batch_size,
            part=f"{step}, choice of the rate",
        )
        numbers["rates"][step] = rates
        numbers["runs"][step] = {
            label: trained(
                run,
                label,
                task,
                Points(arrays, rates[label]["chosen"], grid),
                part=step,
                steps=size.updates,
                batch_size=size.batch_size,
                evaluate_every=size.updates // size.evaluations,
            )
            for label in size.rules
        }
    return numbers | {"columns": _columns(task, size.batch_size)}


def rests(step: str, size: TransferSize) -> dict[str, dict[str, float]]:
    """Where one number settles under a step, by asymmetry and noise: the mean over cells and the last quarter."""
    settle = _settling(step, size)
    return {
        f"{g:g}": {f"{noise:g}": float(settle(jnp.float32(g), jnp.float32(noise))) for noise in size.noises}
        for g in size.asymmetries
    }


def _settling(step: str, size: TransferSize) -> Callable[[Array, Array], Float[Array, ""]]:
    """`(asymmetry, noise) -> rest` of `w <- w - rate (w - target + noise xi)` on cells with a thousand steps a side."""
    bare = nn.Linear(1, size.cells, use_bias=False, key=jax.random.key(0))
    bare = eqx.tree_at(lambda layer: layer.weight, bare, jnp.zeros((size.cells, 1)))

    @eqx.filter_jit
    def settle(asymmetry: Array, noise: Array) -> Float[Array, ""]:
        device = Device(step=0.001, soft=asymmetry)
        # A weight that is 0 everywhere gets a scale of one deviation: 1.
        tile = hardware.place(bare, device, forward="ideal", backward="ideal", deviations=1, key=jax.random.key(1))
        first = capture(tile, jnp.ones(1)).trainable(tile)
        optimizer = on_cells(step, size.rate, device, gamma=size.gamma)

        def update(carry: Any, key: Array) -> Any:
            params, state = carry
            weight = params.layer.weight
            gradient = weight - size.target + noise * jax.random.normal(key, weight.shape)
            asked, model = eqx.tree_at(lambda p: p.layer.weight, params, gradient), eqx.combine(params, tile)
            change, state = optimizer.update(asked, state, params, model_fn=lambda: model)
            return (optax.apply_updates(params, change), state), jnp.mean(weight)

        keys = jax.random.split(jax.random.key(2), size.cell_updates)
        path = jax.lax.scan(update, (first, optimizer.init(first)), keys)[1]
        return jnp.mean(path[-(size.cell_updates // 4) :])

    return settle


def _columns(task: Task, batch: int) -> dict[str, float]:
    """What one update by backpropagation asks of the fast arrays: columns, their energy (J) and least time (s)."""
    arrays = dataclasses.replace(NOMINAL, step="transfer")
    rule, model = Backprop(), Build("BP", task, arrays, ())(keys_of(0)[0])
    x, y = jnp.asarray(task.data.x_train[:batch]), jnp.asarray(task.data.y_train[:batch])
    graph, optimizer = capture(model, x[0]), arrays.delivered(step_of("BP", 0.1))
    _, state, *_ = eqx.filter_jit(rule.step)(graph, optimizer, model, optimizer.init(graph.trainable(model)), (), x, y)
    bare, found = (hardware.ledger(rule, model, x, y, graph=graph, pulses=pulses) for pulses in (None, state))
    assert found.programmed is not None
    return {
        "read": sum(use.forward for use in found.programmed.fast),
        "energy": found.energy - found.energies["pulses"] - bare.energy,
        "time": found.latency - bare.latency,
        "update": bare.energy,
    }


TRANSFER = Experiment(
    name="hardware/transfer",
    title="Asymmetric cells: plain pulses, transfer and thresholds",
    topic="steps for cells whose answers up and down differ, on one number and on networks",
    paper=TIKI_TAKA,
    sizes={
        "quick": TransferSize(
            data=("digits",),
            asymmetries=(0.0, 1.0),
            noises=(0.5,),
            rules=("BP",),
            updates=100,
            rate_updates=30,
            evaluations=2,
        ),
        "full": TransferSize(data=("mnist",), updates=600, rate_updates=200),
        "large": TransferSize(data=("mnist",), rules=tuple(RULES), updates=10_000, rate_updates=1000, evaluations=20),
    },
    time={"full": "a quarter of an hour", "large": "half a day on a CPU"},
    measure=_measure,
    summary=judge.summary,
    claims=[
        judge.one_number,
        judge.asymmetry_costs,
        judge.transfer_wins,
        judge.transfer_loses_less,
        judge.thresholds_win,
    ],
    sections=judge.sections,
    differences=judge.differences,
)
"""Three steps over three asymmetries: one number, then networks by several rules."""
