"""What `fit` and `sweep` are asked for, checked."""

import operator
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from vicinal.rules import Rule


def at_least_one(name: str, value: Any) -> int:
    """The value as an integer; TypeError or ValueError if it is none, or below 1."""
    try:
        whole = operator.index(value)
    except TypeError:
        raise TypeError(f"expected {name} as an integer, got {value!r}") from None
    if whole < 1:
        raise ValueError(f"expected {name} of at least 1, got {whole}")
    return whole


def total_steps(epochs: int | None, steps: int | None, steps_per_epoch: int | None) -> int:
    """Updates in all, from whichever of epochs and steps is given."""
    if (epochs is None) == (steps is None):
        raise ValueError(f"expected either epochs or steps, got epochs={epochs} and steps={steps}")
    if steps is not None:
        return at_least_one("steps", steps)
    if isinstance(epochs, float):
        raise TypeError(f"expected epochs as an integer, got {epochs!r}; give steps= for a part of an epoch")
    if steps_per_epoch is None:
        raise ValueError(
            "expected steps with an iterable of batches that has no length, got epochs; say how many steps to take"
        )
    return at_least_one("epochs", epochs) * steps_per_epoch


# ------------------------------------------------------------------------- rule, model, optimiser and key of a run


def check_rule(rule: Any) -> None:
    """TypeError if it is no rule."""
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
    """TypeError if it is no optimiser of optax."""
    if _is_optimizer(optimizer):
        return
    if isinstance(optimizer, str):
        advice = f"the string {optimizer!r}; write optax.{optimizer}(learning_rate)"
    elif isinstance(optimizer, int | float | np.generic | jax.Array):
        advice = f"the number {optimizer!r}; write optax.adam({optimizer!r}), or another optimiser with this rate"
    elif isinstance(optimizer, Rule):
        advice = "a rule; the order is rule, model, optimizer"
    elif _is_of("torch", "optim.Optimizer", optimizer):
        advice = f"PyTorch's {_name(optimizer)}; take the one of optax"
    elif callable(optimizer) and str(getattr(optimizer, "__module__", "")).startswith("optax"):
        advice = f"the function {getattr(optimizer, '__name__', '')}; call it with a learning rate"
    else:
        advice = f"{_name(optimizer)}; write optax.adam(1e-3), for one"
    raise TypeError(f"expected an optax optimiser, got {advice}")


def check_model(model: Any) -> None:
    """TypeError if it is no callable pytree of JAX arrays."""
    if _is_of("torch", "nn.Module", model):
        raise TypeError(
            f"expected a model of JAX arrays, got PyTorch's {_name(model)}; build it of layers from vicinal.nn or "
            "Equinox, and take its parameters over with vc.interchange.from_state_dict"
        )
    if isinstance(model, type):
        raise TypeError(f"expected a model, got the class {model.__name__}; make one with {model.__name__}(...)")
    if isinstance(model, Rule | optax.GradientTransformation | optax.MultiSteps):
        kind = "a rule" if isinstance(model, Rule) else "an optimiser"
        raise TypeError(f"expected a model, got {kind}; the order is rule, model, optimizer")
    for path, leaf in jax.tree_util.tree_flatten_with_path(model)[0]:
        if _is_of("torch", "Tensor", leaf):
            where = jax.tree_util.keystr(path) or "model"
            raise TypeError(
                f"expected parameters as JAX arrays, got a PyTorch tensor at {where!r}; "
                "convert it with jnp.asarray(tensor.detach().numpy())"
            )


def check_key(key: Any) -> None:
    """TypeError if it is no random key: one of `jax.random.key`, or two or four old-style numbers."""
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        raise TypeError(f"expected key as a random key, got the integer {key}; write key=jax.random.key({key})")
    if not isinstance(key, jax.Array | np.ndarray) or not (_is_typed(key) or key.dtype == np.uint32):
        raise TypeError(f"expected key as a random key, got {_name(key)}; write key=jax.random.key(0)")
    if key.ndim != (0 if _is_typed(key) else 1):
        raise TypeError(f"expected one random key, got an array of shape {list(key.shape)}; take one of them")


def _is_typed(key: jax.Array | np.ndarray) -> bool:
    return jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def check_make(make: Any, numbers: dict[str, Any]) -> None:
    """TypeError if `make(**numbers)` does not return a rule and an optimiser."""
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
    """Whether it has the two functions of an optimiser: `MultiSteps`, or a user's own, is no tuple as optax's are."""
    functions = (getattr(value, name, None) for name in ("init", "update"))
    return not isinstance(value, type | Rule) and all(map(callable, functions))


def _is_of(package: str, name: str, value: Any) -> bool:
    """Whether a value is of a class of a package, which need not be there: then nothing is of it."""
    found: Any = sys.modules.get(package)
    for part in name.split("."):
        found = None if found is None else getattr(found, part, None)
    return isinstance(found, type) and isinstance(value, found)


def _name(value: PyTree) -> str:
    """What it is, in a word or two."""
    return value.__name__ if isinstance(value, type) else type(value).__name__
