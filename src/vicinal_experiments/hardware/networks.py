"""Networks on arrays of memory cells: rules by label, their learning rates, and grids of hardware as one sweep.

A rule is that of a recipe, on the same network as the others. Its step is gradient descent, which needs no digital
memory beside the cells: they get pulses for it, or are programmed exactly.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree

from vicinal import hardware
from vicinal.data import Dataset
from vicinal.feedback import optimizers
from vicinal.hardware import Device, Periphery
from vicinal.hardware_settings import hardware_key
from vicinal.recipes import recipe, with_route
from vicinal.reproduce import Measure, Problem, Run, Variant, rows
from vicinal.rules import Rule
from vicinal.task import Task
from vicinal.train import TrainingState
from vicinal_experiments.tasks import task_of

RULES = {
    "BP": "bp",
    "FA": "fa",
    "DFA": "dfa",
    "KP": "kolen-pollack",
    "IL": "il",
    "SeqIL": "seqil",
    "iPC": "ipc",
    "AR": "ar",
}
"""The recipe of each rule, of which it takes rule and feedback but not the optimiser."""

RATES = {
    "BP": (0.03, 0.1, 0.3, 1.0),
    "FA": (0.1, 0.3, 1.0, 3.0),
    "DFA": (0.1, 0.3, 1.0, 3.0),
    "KP": (0.03, 0.1, 0.3, 1.0),
    "IL": (0.3, 1.0, 3.0, 10.0),
    "SeqIL": (0.3, 1.0, 3.0, 10.0),
    "iPC": (0.03, 0.1, 0.3, 1.0),
    "AR": (0.03, 0.1, 0.3, 1.0),
}
"""The learning rates that are tried for each rule."""

_FORWARD, _BACKWARD = "forward.", "backward."
_HELD_OUT = 6  # one of so many training examples is held out


def network(data: str) -> Task:
    """784-128-64-10 on MNIST, 64-64-32-10 on the digits: tanh, vertices at potentials."""
    sizes = (64, 64, 32, 10) if data == "digits" else (784, 128, 64, 10)
    return task_of(data, kind="mlp", sizes=sizes, activation="tanh")


@dataclasses.dataclass(frozen=True)
class Arrays:
    """What the weights of a network lie on.

    Attributes:
        device: The cells; None for cells that take any weight.
        forward: Converters and noise of forward reads.
        backward: Those of reads that carry errors back.
        step: How cells get what gradient descent asks for: `pulsed`, `transfer` (its fast arrays have the same cells)
            or `thresholded`. Without a device weights are programmed exactly.

    Its numbers, which a grid varies, are those of the device by their names (`soft`), and those of the peripheries by
    theirs (`forward.adc`, `backward.read_noise`).
    """

    device: Device | None = None
    forward: Periphery = dataclasses.field(default_factory=lambda: Periphery.preset("ideal"))
    backward: Periphery = dataclasses.field(default_factory=lambda: Periphery.preset("ideal"))
    step: str = "pulsed"

    def number(self, name: str) -> float:
        """One of its numbers; a part that is left out has none."""
        return float(getattr(self._part(name), name.rpartition(".")[2]))

    def varied(self, numbers: Mapping[str, Any]) -> "Arrays":
        """The same with other numbers, which may be traced."""

        def of(prefix: str) -> dict[str, Any]:
            return {name.removeprefix(prefix): value for name, value in numbers.items() if name.startswith(prefix)}

        cells = {name: value for name, value in numbers.items() if "." not in name}
        return dataclasses.replace(
            self,
            device=dataclasses.replace(self.device, **cells) if self.device is not None else None,
            forward=dataclasses.replace(self.forward, **of(_FORWARD)),
            backward=dataclasses.replace(self.backward, **of(_BACKWARD)),
        )

    def placed(self, model: PyTree, key: PRNGKeyArray) -> PyTree:
        """The model on these arrays; `key` may be that of its weights."""
        return hardware.place(model, self.device, forward=self.forward, backward=self.backward, key=hardware_key(key))

    def delivered(self, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
        """The optimiser for the cells, whose changes are those of another one."""
        return optimizer if self.device is None else on_cells(self.step, optimizer, self.device)

    def _part(self, name: str) -> Any:
        if name.startswith(_FORWARD):
            return self.forward
        return self.backward if name.startswith(_BACKWARD) else self.device


def on_cells(step: str, asked: Any, device: Device, **fast: Any) -> optax.GradientTransformationExtraArgs:
    """How cells get a change that is asked for, by name; `fast` are options of `transfer`, on the same device."""
    if step == "transfer":
        return hardware.transfer(asked, device, **fast)
    return {"pulsed": hardware.pulsed, "thresholded": hardware.thresholded}[step](asked)


def rule_of(label: str, change: Mapping[str, Any] | None = None) -> Rule:
    """A rule by its label, perhaps with other numbers of it, by their paths."""
    return recipe(RULES[label]).make(**(change or {}))[0]


def step_of(label: str, learning_rate: Any) -> optax.GradientTransformation:
    """Gradient descent of a rule's weights; feedback that learns gets the same."""
    return optimizers(optax.sgd(learning_rate)) if recipe(RULES[label]).feedback else optax.sgd(learning_rate)


class Points:
    """Learning rates and numbers of arrays, by names of their own.

    Args:
        arrays: What the weights lie on; None for bare networks.
        rates: The learning rate of all points, or some, each a point named after it.
        grid: For each point what differs there from `arrays`; by default one point, `nominal`.

    Attributes:
        arrays: As given.
        names: The names of the numbers of the arrays that vary.
        numbers: All numbers of each point.

    Raises:
        ValueError: If there is a grid without arrays, or of several learning rates.
    """

    def __init__(
        self,
        arrays: Arrays | None,
        rates: float | Sequence[float],
        grid: Mapping[str, Mapping[str, float]] | None = None,
    ):
        self.arrays = arrays
        points = {"nominal": {}} if grid is None else grid
        self.names = tuple(dict.fromkeys(name for point in points.values() for name in point))
        if grid is not None and (arrays is None or not isinstance(rates, float)):
            raise ValueError("expected arrays and one learning rate for a grid of arrays, got none or several")
        if not isinstance(rates, float):
            self.numbers = {f"{rate:g}": {"learning_rate": rate} for rate in rates}
            return
        normal = {name: arrays.number(name) for name in self.names} if arrays else {}
        self.numbers = {name: {"learning_rate": rates, **normal, **point} for name, point in points.items()}


class Build:
    """From a key and numbers of the arrays to the model of a rule; without arrays it is bare."""

    def __init__(self, label: str, task: Task, arrays: Arrays | None, numbers: Sequence[str]):
        self._task, self._arrays, self._route = task, arrays, recipe(RULES[label]).feedback
        self.numbers = tuple(numbers)
        """The names of the numbers that vary."""

    def __call__(self, key: PRNGKeyArray, **numbers: Any) -> PyTree:
        model = with_route(self._task.build(key), self._route, key=key)
        return model if self._arrays is None else self._arrays.varied(numbers).placed(model, key)


# ---------------------------------------------------------------------------------------------------------- training


def trained(
    run: Run[Any],
    label: str,
    task: Task,
    points: Points,
    *,
    part: str,
    data: Dataset | None = None,
    change: Mapping[str, Any] | None = None,
    **how: Any,
) -> dict[str, list[dict[str, Any]]]:
    """Trains a rule at some points of hardware or learning rates, with every seed, in one compiled sweep.

    Args:
        run: The run.
        label: The rule, in `RULES`.
        task: The network and its data.
        points: The points.
        part: A name for this part of the experiment.
        data: Other data than the task's.
        change: Other numbers of the rule, by their paths.
        **how: `steps`, `batch_size` and `evaluate_every`, as for `Run.train`.

    Returns:
        The members of each point as rows. On cells their records have `pulses`, for each example so far.
    """
    arrays = points.arrays
    has_cells = arrays is not None and arrays.device is not None
    measure = _pulses_for_each_example(how["batch_size"]) if has_cells else None
    chosen = variant(label, task, points, change, measure)
    done = run.train(chosen, task if data is None else Problem(data, task.build), part=part, **how)
    found = iter(rows(done.members))  # the seeds of one point after another
    return {name: [next(found) for _ in range(run.seeds)] for name in points.numbers}


def variant(
    label: str,
    task: Task,
    points: Points,
    change: Mapping[str, Any] | None = None,
    measure: Measure | None = None,
) -> Variant:
    """A rule at some points, as `Run.train` trains it."""
    arrays = points.arrays

    def make(learning_rate: Any, **numbers: Any) -> tuple[Rule, optax.GradientTransformation]:
        step = step_of(label, learning_rate)
        return rule_of(label, change), step if arrays is None else arrays.varied(numbers).delivered(step)

    build = Build(label, task, arrays, points.names)
    return Variant(label, make, list(points.numbers.values()), build, measure)


def _pulses_for_each_example(batch_size: int) -> Measure:
    def measure(record: dict[str, Any], state: TrainingState) -> None:
        counts = hardware.pulse_counts(state).values()
        record["pulses"] = sum(map(int, counts)) / max(1, int(state.step) * batch_size)

    return measure


# --------------------------------------------------------------------------------------------------- learning rates


def held_out(data: Dataset) -> Dataset:
    """Training examples alone: every sixth stands in for the test examples, which are not in it.

    Not the last ones, since some sets are sorted by class.
    """
    out = np.arange(len(data.x_train)) % _HELD_OUT == _HELD_OUT - 1
    x, y = data.x_train, data.y_train
    return dataclasses.replace(data, x_train=x[~out], y_train=y[~out], x_test=x[out], y_test=y[out])


def choose_rates(
    run: Run[Any],
    task: Task,
    arrays: Arrays | None,
    labels: Sequence[str] = tuple(RULES),
    *,
    updates: int,
    batch_size: int,
    seeds: int = 2,
    change: Mapping[str, Any] | None = None,
    part: str = "choice of the rate",
) -> dict[str, dict[str, Any]]:
    """Chooses the learning rate of each rule on held-out training examples, of those in `RATES`.

    Args:
        run: The run.
        task: The network and its data.
        arrays: What the weights lie on, the same for all rules.
        labels: The rules.
        updates: Updates of a run, which is evaluated at its end.
        batch_size: Examples in a batch.
        seeds: How many seeds, from 0.
        change: Other numbers of the rules, by their paths.
        part: A name for this part of the experiment, one for each choice.

    Returns:
        For each rule the mean accuracy at each rate, a diverged member counted as 0, and the one that is `chosen`.
    """
    few = dataclasses.replace(run, seeds=min(seeds, run.seeds))
    data, found = held_out(task.data), {}
    how = {"steps": updates, "evaluate_every": updates, "batch_size": batch_size}
    for label in labels:
        points = Points(arrays, RATES[label])
        ends = trained(few, label, task, points, part=part, data=data, change=change, **how)
        accuracies = [accuracy_of(members) for members in ends.values()]
        found[label] = {
            "accuracy": accuracies,
            "rates": RATES[label],
            "chosen": RATES[label][int(np.argmax(accuracies))],
        }
    return found


def accuracy_of(members: Sequence[Mapping[str, Any]]) -> float:
    """The mean accuracy of rows at the end, a diverged member counted as 0."""
    ends = [m["records"][-1]["test_accuracy"] if m["records"] and m["stopped"] is None else 0.0 for m in members]
    return float(np.mean(np.nan_to_num(np.array(ends, float))))
