"""What an update of each rule asks of arrays: on depth, on steps of inference, and beside the accuracy it buys."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vicinal import hardware, nn
from vicinal.hardware import Device, Ledger, Periphery
from vicinal.recipes import recipe, with_route
from vicinal.reproduce import Experiment, Run, Size
from vicinal.rules import Rule
from vicinal.task import Task
from vicinal.train import keys_of
from vicinal_experiments.hardware import ledger_judge as judge
from vicinal_experiments.hardware.networks import RULES, Arrays, Build, Points, choose_rates, network, rule_of, trained
from vicinal_experiments.papers import NEUROMORPHIC

COUNTED = RULES | {
    "Z-IL": "z-il",
    "fixed prediction": "fixed-prediction",
    "errors as variables": "epc",
    "relaxed PC": "relaxed-pc",
    "constrained PC": "constrained-pc",
}
"""The recipe of each rule that is counted, with its own number of steps."""

STEPS = {
    "IL": "inference.steps",
    "SeqIL": "inference.steps",
    "iPC": "steps",
    "AR": "steps",
    "errors as variables": "inference.steps",
}
"""The number of steps of each rule that settles, by its path."""

NOMINAL = Arrays(Device(step=0.0016, cycle=0.3, spread=0.3), Periphery(adc=10.0, bound=80.0), Periphery())
"""1250 states, as Gokmen and Vlasov have them; the default periphery, but forward a range that 784 inputs do not leave,
with a bit more."""

_INPUTS, _CLASSES = 784, 10
_LAYERS = 3  # of the network on which the steps are counted


@dataclasses.dataclass(frozen=True, kw_only=True)
class LedgerSize(Size):
    """Networks to count on, and a training run beside them.

    Attributes:
        depths: Numbers of weight matrices.
        width: Units of a hidden layer.
        steps: Numbers of steps of the rules that settle.
        batches: Examples in a batch, for the counts.
        rules: The rules that are trained.
        updates: Updates of a run.
        rate_updates: Updates of the runs that choose learning rates.
        evaluations: Evaluations along a run.
        batch_size: Examples in a batch, for the runs.
        level: The test accuracy up to which joules and seconds are counted.
    """

    depths: tuple[int, ...] = tuple(range(2, 11))
    width: int = 256
    steps: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100)
    batches: tuple[int, ...] = (1, 64)
    rules: tuple[str, ...] = tuple(RULES)
    updates: int
    rate_updates: int
    evaluations: int
    batch_size: int = 32
    level: float


# ---------------------------------------------------------------------------------------------------- measurement


def _measure(run: Run[LedgerSize]) -> dict[str, Any]:
    size = run.size
    run.say(f"counts of {len(COUNTED)} rules on {size.depths[0]} to {size.depths[-1]} layers")
    made = {
        label: {depth: {batch: _counted(label, depth, batch, size) for batch in size.batches} for depth in size.depths}
        for label in COUNTED
    }
    settling = {
        label: {steps: plain(_counted(label, _LAYERS, 1, size, {path: steps})) for steps in size.steps}
        for label, path in STEPS.items()
    }
    deepest, first = size.depths[-1], size.batches[0]
    return {
        "depth": {
            label: {depth: {batch: plain(item) for batch, item in each.items()} for depth, each in depths.items()}
            for label, depths in made.items()
        },
        "steps": settling,
        "undecided": {
            depth: hardware.undecided([each[depth][first] for each in made.values()])
            for depth in dict.fromkeys((size.depths[0], deepest))
        },
        **_training(run),
    }


def _counted(label: str, depth: int, batch: int, size: LedgerSize, numbers: dict[str, int] | None = None) -> Ledger:
    """The ledger of a rule on a network of `depth` weight matrices with images of 28 x 28 for inputs."""
    chosen, key = recipe(COUNTED[label]), keys_of(0)[0]
    sizes = (_INPUTS, *[size.width] * (depth - 1), _CLASSES)
    model = with_route(nn.MLP(sizes, vertex_at="pre", key=key), chosen.feedback, key=key)
    rule: Rule = chosen.make(**dict[str, Any](numbers or {}))[0]
    return _ledger(label, rule, model, (_INPUTS,), batch)


def _ledger(label: str, rule: Rule, model: Any, shape: Sequence[int], batch: int) -> Ledger:
    x = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
    return hardware.ledger(rule, model, x, jax.ShapeDtypeStruct((batch,), jnp.int32), name=label)


def plain(item: Ledger) -> dict[str, Any]:
    """The numbers of a ledger that are judged: reads for each example, energy (J) and least time (s) of an update."""
    return item.array_counts | {"energies": item.energies, "time": item.latency}


def _training(run: Run[LedgerSize]) -> dict[str, Any]:
    """Trains every rule on the same arrays, at its own learning rate, with what an update asks of them."""
    size, task = run.size, network(run.size.data[0])
    rates = choose_rates(run, task, NOMINAL, size.rules, updates=size.rate_updates, batch_size=size.batch_size)
    every = size.updates // size.evaluations
    how = {"steps": size.updates, "evaluate_every": every, "batch_size": size.batch_size}
    runs = {
        label: trained(run, label, task, Points(NOMINAL, rates[label]["chosen"]), part="on arrays", **how)
        for label in size.rules
    }
    constants = hardware.Constants()
    return {
        "rates": rates,
        "runs": {label: members for label, found in runs.items() for members in found.values()},
        "update": {label: plain(_of_task(label, task, size.batch_size)) for label in size.rules},
        "pulse": constants["write_voltage"] ** 2 / constants["on_resistance"] * constants["write_time"],
    }


def _of_task(label: str, task: Task, batch: int) -> Ledger:
    model = Build(label, task, NOMINAL, ())(keys_of(0)[0])
    return _ledger(label, rule_of(label), model, task.data.x_train.shape[1:], batch)


LEDGER = Experiment(
    name="hardware/ledger",
    title="What an update costs on arrays, rule by rule",
    topic="reads, depth, energy and least time of every rule on arrays of memory cells, and the accuracy they buy",
    paper=NEUROMORPHIC,
    sizes={
        "quick": LedgerSize(
            data=("digits",),
            depths=(2, 4),
            width=32,
            steps=(1, 4),
            rules=("BP", "DFA", "IL"),
            updates=200,
            rate_updates=50,
            evaluations=4,
            level=0.6,
        ),
        "full": LedgerSize(data=("mnist",), updates=1000, rate_updates=300, evaluations=20, level=0.85),
        "large": LedgerSize(data=("mnist",), updates=10_000, rate_updates=1000, evaluations=50, level=0.9),
    },
    time={"full": "a quarter of an hour", "large": "three hours on a CPU"},
    measure=_measure,
    summary=judge.summary,
    claims=[
        judge.direct_feedback_is_faster,
        judge.direct_feedback_is_cheaper,
        judge.settling_is_dearer,
        judge.order_is_decided,
    ],
    sections=judge.sections,
    differences=judge.differences,
)
"""Every rule on 2 to 10 layers, with 1 to 100 steps of inference, and trained on 784-128-64-10."""
