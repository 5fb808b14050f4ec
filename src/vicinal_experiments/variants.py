"""Rules as variants of an experiment, and what measurements of their feedback need."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from vicinal.data import Dataset
from vicinal.feedback import Route
from vicinal.recipes import with_route
from vicinal.reproduce import Measure, Variant
from vicinal.rules import Rule

Build = Callable[[PRNGKeyArray], PyTree]
Optimizer = Callable[[Any], optax.GradientTransformation]


def rule_variant(
    label: str,
    rule: Rule,
    learning_rate: float,
    *,
    optimizer: Optimizer = optax.sgd,
    build: Build | None = None,
    measure: Measure | None = None,
) -> Variant:
    """A rule at one learning rate; `optimizer` makes its optimiser from that rate."""
    return Variant(
        label,
        lambda learning_rate: (rule, optimizer(learning_rate)),
        {"learning_rate": [learning_rate]},
        build,
        measure,
    )


def build_with_route(build: Build, route: Route) -> Build:
    """From a key to a model with a route of feedback."""
    return functools.partial(_with_route, build, route)


def _with_route(build: Build, route: Route, key: PRNGKeyArray) -> PyTree:
    return with_route(build(key), route, key=key)


def on_first_device(model: PyTree) -> PyTree:
    """The model on the first device, so that members on other devices share one compiled measurement."""
    arrays, static = eqx.partition(model, eqx.is_array)
    return eqx.combine(jax.device_put(arrays, jax.devices()[0]), static)


def first_examples(data: Dataset, count: int) -> tuple[Array, Array]:
    """The first inputs and targets of training, on which angles are measured."""
    return jnp.asarray(data.x_train[:count]), jnp.asarray(data.y_train[:count])
