"""A task from settings, with its data loaded and its graph captured."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from vicinal._counted import counted
from vicinal.graph import Graph, capture
from vicinal.recipes import recipe
from vicinal.settings import TaskSettings
from vicinal.train import keys_of
from vicinal.train.needs import check_build


class Task:
    """The data, model and graph of a task. All runs share the graph, and so their compiled programs.

    Args:
        settings: The settings of the task.
        seed: The seed of the captured model; the models of all seeds have the same structure.
        trains: Whether the model is trained, which takes the memory of two.

    Attributes:
        settings: The given settings, with the loss that fits the data.
        data: The data set in the shape that the model reads.
        graph: The captured graph.

    Raises:
        ValueError: If the model does not fit the data, or the seed is out of range.
        MemoryError: If the models certainly do not fit into memory.
    """

    def __init__(self, settings: TaskSettings, seed: int = 0, trains: bool = True):
        self.data = settings.load()
        self.settings = settings.resolved(self.data)
        self._trains, self._fitting = trains, set[str | None]()
        model = self.build(keys_of(seed)[0])
        try:
            self.graph = capture(model, jnp.asarray(self.data.x_train[0]))
        except (ValueError, TypeError) as error:
            own, shape = str(error).startswith("expected"), list(self.data.shape)
            what = str(error) if own else "expected a model that fits the data, got one that does not"
            raise ValueError(
                f"{what}; the examples of {self.data.name} have shape {shape}: choose a model that reads them"
            ) from error
        classes, output = self.data.classes, jax.eval_shape(model, jax.ShapeDtypeStruct(self.data.shape, jnp.float32))
        if classes is not None and output.shape[-1] < classes:
            raise ValueError(f"expected at least {classes} outputs, one for each class, got {output.shape[-1]}")
        if classes is None and output.shape != self.data.y_train.shape[1:]:
            wanted, got = self.data.outputs, math.prod(output.shape)
            raise ValueError(f"expected {counted(wanted, 'output')}, one for each number of a target, got {got}")

    def build(self, key: PRNGKeyArray, rule: str | None = None, **numbers: Any) -> PyTree:
        """The initial model for a key, with the recipe's feedback unless the settings choose another.

        `numbers` are those of the hardware, `vicinal.hardware_settings.hardware_numbers`.
        """
        route = None if rule is None else recipe(rule).feedback
        build = functools.partial(self.settings.model.varied(numbers).build, self.data, route)
        if rule not in self._fitting:
            count, what = (2, "the model and the next one") if self._trains else (1, "the model")
            check_build(lambda key: build(key=key), count, what)
            self._fitting.add(rule)
        return build(key=key)

    def graph_for(self, rule: str) -> Graph:
        """The graph of the model that a recipe trains."""
        if recipe(rule).feedback is None or self.settings.model.feedback is not None:
            return self.graph
        return capture(self.build(keys_of(0)[0], rule), jnp.asarray(self.data.x_train[0]))
