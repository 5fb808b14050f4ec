"""A task as the settings describe it: data loaded, graph captured."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from vicinal.graph import Graph, capture
from vicinal.recipes import recipe
from vicinal.settings import TaskSettings
from vicinal.train import keys_of


class Task:
    """What is learned, ready to run; all runs share its graph, and so what is compiled.

    Args:
        settings: What to learn.
        seed: Whose model is captured; all have the same structure.

    Attributes:
        settings: As given, with the loss that belongs to the data.
        data: The data set in the shape that the network reads.
        graph: The captured graph.

    Raises:
        ValueError: If the model does not fit the data, or the seed its range.
    """

    def __init__(self, settings: TaskSettings, seed: int = 0):
        self.data = settings.load()
        self.settings = settings.resolved(self.data)
        model = self.build(keys_of(seed)[0])
        try:
            self.graph = capture(model, jnp.asarray(self.data.x_train[0]))
        except ValueError as error:
            shape = list(self.data.shape)
            raise ValueError(
                f"{error}; the examples of {self.data.name} have shape {shape}: choose a model that reads them"
            ) from error
        classes, output = self.data.classes, jax.eval_shape(model, jax.ShapeDtypeStruct(self.data.shape, jnp.float32))
        if classes is not None and output.shape[-1] < classes:
            raise ValueError(f"expected at least {classes} outputs, one for each class, got {output.shape[-1]}")
        if classes is None and output.shape != self.data.y_train.shape[1:]:
            wanted, got = self.data.outputs, math.prod(output.shape)
            raise ValueError(
                f"expected {wanted} output{'s' * (wanted != 1)}, one for each number of a target, got {got}"
            )

    def build(self, key: PRNGKeyArray, rule: str | None = None) -> PyTree:
        """The model with the weights of a key; with the feedback of a recipe, if the settings do not say another."""
        return self.settings.model.build(self.data, None if rule is None else recipe(rule).feedback, key=key)

    def graph_for(self, rule: str) -> Graph:
        """The graph of the model that a recipe trains."""
        if recipe(rule).feedback is None or self.settings.model.feedback is not None:
            return self.graph
        return capture(self.build(keys_of(0)[0], rule), jnp.asarray(self.data.x_train[0]))
