"""Checks of the arguments that `fit` and `sweep` share: rule, optimiser, model and graph."""

from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import PyTree

from vicinal._foreign import is_a
from vicinal._given import check_module
from vicinal.graph import Graph, capture
from vicinal.roles import Where
from vicinal.rules import Rule


def check_rule(rule: Any) -> None:
    """Raises TypeError if this is not a rule."""
    if isinstance(rule, Rule):
        return
    if isinstance(rule, str):
        advice = f"the string {rule!r}; write rule, optimizer = vc.recipes.recipe({rule!r}).make()"
    elif isinstance(rule, type) and issubclass(rule, Rule):
        advice = f"the class {rule.__name__}; write {rule.__name__}()"
    elif _is_optimizer(rule):
        advice = "an optimiser; the order is rule, model, optimizer"
    else:
        advice = f"{_name(rule)}; take one from vicinal.rules, and mind the order: rule, model, optimizer"
    raise TypeError(f"expected a rule, got {advice}")


def check_optimizer(optimizer: Any) -> None:
    """Raises TypeError if this is not an Optax optimiser."""
    if _is_optimizer(optimizer):
        return
    if isinstance(optimizer, str):
        advice = f"the string {optimizer!r}; write optax.{optimizer}(learning_rate)"
    elif isinstance(optimizer, int | float | np.generic | jax.Array):
        advice = f"the number {optimizer!r}; write optax.adam({optimizer!r}), or another optimiser with this rate"
    elif isinstance(optimizer, Rule):
        advice = "a rule; the order is rule, model, optimizer"
    elif is_a(optimizer, "torch.Optimizer"):
        advice = f"PyTorch's {_name(optimizer)}; take the one of optax"
    elif callable(optimizer) and str(getattr(optimizer, "__module__", "")).startswith("optax"):
        advice = f"the function {getattr(optimizer, '__name__', '')}; call it with a learning rate"
    else:
        advice = f"{_name(optimizer)}; write optax.adam(1e-3), for one"
    raise TypeError(f"expected an optax optimiser, got {advice}")


def check_model(model: Any) -> None:
    """Raises TypeError if this is not a callable pytree of JAX arrays."""
    check_module(model)
    if isinstance(model, Rule | optax.GradientTransformation | optax.MultiSteps):
        kind = "a rule" if isinstance(model, Rule) else "an optimiser"
        raise TypeError(f"expected a model, got {kind}; the order is rule, model, optimizer")
    for path, leaf in jax.tree_util.tree_flatten_with_path(model)[0]:
        if is_a(leaf, "torch.Tensor"):
            where = jax.tree_util.keystr(path) or "model"
            raise TypeError(
                f"expected parameters as JAX arrays, got a PyTorch tensor at {where!r}; "
                "convert it with jnp.asarray(tensor.detach().numpy())"
            )


def graph_of(graph: Graph | None, fixed: Where | None, model: PyTree, example: PyTree, batch_size: int) -> Graph:
    """Returns the given graph, or captures the model; fails early if the model cannot be evaluated.

    Args:
        graph: As given to `fit` or `sweep`.
        fixed: As given to `fit` or `sweep`.
        model: The model.
        example: One input.
        batch_size: Examples in a batch.

    Raises:
        TypeError: If `graph` is not a graph.
        ValueError: If both `graph` and `fixed` are given, or the model cannot be evaluated.
    """
    if graph is None:
        graph = capture(model, example, fixed=fixed, batch_size=batch_size)
    elif not isinstance(graph, Graph):
        raise TypeError(f"expected a graph of vicinal.capture, got {type(graph).__name__}")
    elif fixed is not None:
        raise ValueError("expected `fixed` or a graph, got both; say what is fixed to vicinal.capture")
    graph.evaluation(model)
    return graph


def check_make(make: Any, numbers: dict[str, Any]) -> None:
    """Raises TypeError if `make(**numbers)` does not return a rule and an optimiser."""
    if not callable(make):
        raise TypeError(f"expected make as a function of the numbers, got {_name(make)}")
    made = make(**numbers)
    if _is_optimizer(made) or not isinstance(made, tuple | list) or len(made) != 2:  # an optimiser is a pair itself
        raise TypeError(f"expected make to return a pair (rule, optimizer), got {_name(made)}")
    if isinstance(made[1], Rule) and _is_optimizer(made[0]):
        raise TypeError("expected make to return (rule, optimizer), got the optimiser first; exchange them")
    check_rule(made[0])
    check_optimizer(made[1])


def _is_optimizer(value: Any) -> bool:
    """Whether this has the two functions of an optimiser; `MultiSteps` and users' optimisers need not be tuples."""
    functions = (getattr(value, name, None) for name in ("init", "update"))
    return not isinstance(value, type | Rule) and all(map(callable, functions))


def _name(value: PyTree) -> str:
    """A short name for the type of an object."""
    return value.__name__ if isinstance(value, type) else type(value).__name__
