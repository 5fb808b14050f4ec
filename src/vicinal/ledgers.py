"""Ledgers of recipes from settings, without the data: their shapes are enough."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vicinal._numbers import check_count
from vicinal.data import Dataset
from vicinal.data.sources import SOURCES
from vicinal.data.targets import TaskKind
from vicinal.graph import Graph
from vicinal.hardware import Constants, Ledger, SynapticOperations, UnknownTurns, ledger, synaptic_operations
from vicinal.recipes.lookup import canonical
from vicinal.rules import Rule
from vicinal.settings import EventSettings, InferenceSettings, LossName, ModelSettings, TaskSettings
from vicinal.task import Task
from vicinal.train import keys_of, load_model

__all__ = ["LedgerSettings", "array_counts_of", "ledger_of", "ledgers"]

_MODEL, _INFERENCE, _EVENTS = ModelSettings(), InferenceSettings(), EventSettings()


@dataclasses.dataclass(frozen=True)
class LedgerSettings:
    """The network, its data, and the machine."""

    data: str = "digits"
    """A data set, as for train. Of mnist, fashion_mnist and cifar10 the shape is known, and nothing is loaded."""
    target: str | None = None
    """Column of a table to predict; by default one called target, label, y or class, otherwise the last."""
    task: TaskKind | None = None
    """Whether ambiguous targets are labels or numbers to predict; by default integers from 0 are labels."""
    model: ModelSettings = _MODEL
    loss: LossName | None = None
    """Loss; by default the one that fits the targets."""
    inference: InferenceSettings = _INFERENCE
    events: EventSettings = _EVENTS
    set: tuple[str, ...] = ()
    """Other hyper-parameters of the recipes, each NAME=VALUE."""
    batch_size: int = 1
    """Examples in a batch."""
    array: tuple[int, int] = (128, 128)
    """Rows and columns of an array of cells."""
    turns: int | None = None
    """Turns that a loop of unknown length takes, as inference with a tolerance and the recipe di have."""
    bit_serial: bool = False
    """Whether inputs are read bit by bit."""
    constants: Path | None = None
    """A TOML file with the constants of a machine, in place of the defaults."""
    measured: int | None = None
    """Training examples on which synaptic operations of rules with events are measured, 0 for none; by default 64, and
    none of a published data set that is not loaded."""
    run: Path | None = None
    """The folder of a run, whose trained weights they are measured with; by default the first weights of seed 0."""

    @property
    def examples(self) -> int:
        """Examples to measure on."""
        if self.measured is not None:
            return check_count("measured", self.measured, 0)
        return 0 if self.data in SOURCES and self.run is None else 64


@dataclasses.dataclass(frozen=True)
class _Shapes(TaskSettings):
    """The settings of a task whose data are of the published shape, where there is one, and all 0."""

    def load(self) -> Dataset:
        if self.data not in SOURCES:
            return super().load()
        self.check()
        source = SOURCES[self.data]
        x, y = np.zeros((1, *source.shape), np.float32), np.zeros(1, np.int32)
        return self.model.shaped(Dataset(self.data, x, y, x, y, classes=source.classes))


def ledgers(names: Sequence[str], settings: LedgerSettings | None = None) -> list[Ledger]:
    """Makes the ledger of each recipe.

    Args:
        names: Recipes.
        settings: The network, its data, and the machine.

    Returns:
        A ledger each, by the name of its recipe.

    Raises:
        ValueError: If a recipe is unknown, the settings do not fit, or a loop has an unknown number of turns.

    Example:
        >>> [(item.name, item.depth) for item in ledgers(["bp", "dfa"])]
        [('bp', 5), ('dfa', 4)]
    """
    settings = LedgerSettings() if settings is None else settings
    names = canonical(tuple(names))
    given: Any = {name: getattr(settings, name) for name in _TASK}
    examples = settings.examples
    task = Task((TaskSettings if examples else _Shapes)(**given))
    constants = None if settings.constants is None else Constants.read(settings.constants)
    machine = {"array": settings.array, "turns": settings.turns, "bit_serial": settings.bit_serial}
    made = task.settings.make(*names)
    found = [ledger_of(task, name, made[name][0], constants=constants, **machine) for name in names]
    if not examples:
        return found
    rules = {name: made[name][0] for name in names}
    return [
        dataclasses.replace(item, synaptic=_measured(task, name, rules[name], examples, settings.run))
        for name, item in zip(names, found, strict=True)
    ]


def ledger_of(
    task: Task,
    name: str,
    rule: Rule,
    graph: Graph | None = None,
    numbers: Mapping[str, Any] | None = None,
    **options: Any,
) -> Ledger:
    """Makes the ledger of a recipe's rule on the network, the data and the batches of a task.

    Args:
        task: The task.
        name: The recipe.
        rule: Its rule.
        graph: The graph of the model that the recipe trains; by default captured here.
        numbers: Those of the hardware that differ from the task's, by their names in `hardware_numbers`.
        options: Further arguments of `vicinal.hardware.ledger`.
    """
    batch = task.settings.batch_size

    def shape(examples: np.ndarray) -> jax.ShapeDtypeStruct:
        one = jax.eval_shape(jnp.asarray, examples[:1])
        return jax.ShapeDtypeStruct((batch, *one.shape[1:]), one.dtype)

    x, y = shape(task.data.x_train), shape(task.data.y_train)
    model = task.build(keys_of(0)[0], name, **(numbers or {}))
    graph = task.graph_for(name) if graph is None and not numbers else graph
    return ledger(rule, model, x, y, graph=graph, name=name, **options)


def _measured(task: Task, name: str, rule: Rule, examples: int, run: Path | None) -> SynapticOperations | None:
    """Measures synaptic operations on the first training examples, in evaluation mode; None if no events are sent."""
    if not rule.sends_events or not hasattr(rule, "record"):
        return None
    model = task.build(keys_of(0)[0], name)
    model = model if run is None else load_model(run, like=model)
    graph, model = task.graph_for(name).evaluation(model)
    x, y = (jnp.asarray(arrays[:examples]) for arrays in (task.data.x_train, task.data.y_train))
    state = rule.init(graph, model, key=jax.random.key(0))
    found = synaptic_operations(rule, graph, model, state, x, y)
    weights = "with first weights of seed 0, untrained" if run is None else f"with the trained weights of {run}"
    return dataclasses.replace(found, on=f"{len(x)} training examples of {task.data.name}, {weights}")


def array_counts_of(*which: Any, **options: Any) -> dict[str, float]:
    """Counts by the arguments of `ledger_of`; none where a loop stops when its values say so."""
    try:
        return ledger_of(*which, **options).array_counts
    except UnknownTurns:
        return {}


_TASK = ("data", "target", "task", "model", "loss", "inference", "events", "set", "batch_size")
