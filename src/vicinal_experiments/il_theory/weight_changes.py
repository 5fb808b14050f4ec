"""What one update of each rule does to output and loss, for single examples and from the same weights."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from vicinal.analysis import CONCATENATED, descent_alignment, function_change, norms, update
from vicinal.losses import softmax_cross_entropy
from vicinal.rules import ImplicitSGD
from vicinal.task import Task
from vicinal_experiments.recipes import Recipe, recipe_variant

EQUAL_NORM = 0.01  # that updates are scaled to
_IMPLICIT = 5.0  # the learning rate of implicit SGD

Changes = dict[str, dict[str, list[float]]]
"""Of each rule, each quantity of one update for one example, for every example."""


def measure_changes(task: Task, model: PyTree, recipes: Mapping[str, Recipe], examples: int) -> Changes:
    """For each rule and each example: output and loss ratio, and alignment; as taken, and at equal norms."""
    rows = jax.random.permutation(jax.random.key(5), len(task.data.x_train))[:examples]
    x, y = jnp.asarray(task.data.x_train)[rows], jnp.asarray(task.data.y_train)[rows]
    rules = {
        label: recipe_variant(label, task, chosen.name, [chosen.learning_rate], chosen.numbers).make(
            learning_rate=chosen.learning_rate
        )
        for label, chosen in recipes.items()
    }
    rules["implicit SGD"] = (ImplicitSGD(learning_rate=_IMPLICIT, loss=softmax_cross_entropy), optax.sgd(_IMPLICIT))
    found = {}
    for label, (rule, optimizer) in rules.items():
        measured = _change(task, model, x, y, rule, optimizer)
        found[label] = {quantity: np.asarray(values, float).tolist() for quantity, values in measured.items()}
    return found


@eqx.filter_jit
def _change(task: Any, model: PyTree, x: Array, y: Array, rule: Any, optimizer: Any) -> dict[str, Array]:
    loss = softmax_cross_entropy

    def one(example: tuple[Array, Array]) -> dict[str, Array]:
        x, y = example[0][None], example[1][None]
        step = update(rule, optimizer, task.graph, model, x, y)
        size = norms(step)[CONCATENATED]
        scaled = jax.tree.map(lambda leaf: leaf * (EQUAL_NORM / size), step)
        found = {"norm": size}
        for name, taken in (("as taken", step), ("scaled", scaled)):
            change = function_change(task.graph, model, taken, x, y, loss=loss)
            cosine = descent_alignment(task.graph, model, taken, x, y, loss=loss)[0]
            found[f"output, {name}"], found[f"loss, {name}"] = change.output_ratio, change.loss_ratio
            found[f"angle, {name}"] = jnp.rad2deg(jnp.arccos(jnp.clip(cosine, -1.0, 1.0)))
        return found

    return jax.lax.map(one, (x, y))
