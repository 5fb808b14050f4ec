"""Metrics: numbers of a whole set of examples, each computed at the end from sums.

A metric is never a mean of means: its sums are added over examples, batches and training steps, and the metric is
computed once, at the end. The loss determines which metrics a task has.
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from vicinal._numbers import wide
from vicinal.losses import Kind, Loss, kind_of, pair_of_weights, without_weights
from vicinal.train.totals import Spread, Total, spread, total

Sums = dict[str, Total | Spread]
"""What a metric adds up, by name."""

Metrics = dict[str, "Metric"]
"""Metrics by name."""

OWN = ("loss", "accuracy", "rmse", "r2")
"""Names that custom metrics cannot have."""

_LOOKED_AT = 64  # examples that decide whether targets are the inputs


class Metric(eqx.Module):
    """A number of a whole set of examples, from sums over them."""

    def sums(self, output: PyTree, y: PyTree) -> Sums:
        """What a batch adds to each sum; `output` and `y` are `[batch, ...]`."""
        raise NotImplementedError

    def value(self, sums: dict[str, Any]) -> float:
        """The metric from the sums over all examples, arrays in float64; NaN if it does not exist."""
        raise NotImplementedError


class Accuracy(Metric):
    """The share of labels that the largest output predicts, or for one unit the output's sign.

    Labels are class indices, of which those below 0 do not count; or of the output's shape, and then each row (along
    the last axis) has a single 1, or one unit that is 0 or 1. If a row has another form, these are not labels, and
    there is no accuracy.
    """

    def sums(self, output: Array, y: Array) -> Sums:
        right, counted, rows = _right(output, y)
        dtype = wide(output.dtype)
        return {
            name: total(jnp.sum(_flat(held), axis=1, dtype=jnp.int32), dtype)
            for name, held in (("right", right), ("counted", counted), ("rows", rows))
        }

    def value(self, sums: dict[str, np.ndarray]) -> float:
        return _ratio(sums["right"], sums["counted"]) if sums["counted"] == sums["rows"] else np.nan


class RootMeanSquare(Metric):
    """The root of the mean squared difference of output and target, over all units that count: RMSE.

    A unit whose target is NaN does not count if `ignores` is true.
    """

    ignores: bool = eqx.field(static=True, default=False)

    def sums(self, output: Array, y: Array) -> Sums:
        error, _, counted = _numbers(output, y, self.ignores)
        return {
            "square": total(jnp.sum(error**2, axis=(1, 2))),
            "count": total(jnp.sum(counted, axis=(1, 2)), error.dtype),
        }

    def value(self, sums: dict[str, np.ndarray]) -> float:
        return float(np.sqrt(_ratio(sums["square"], sums["count"])))


class RSquared(Metric):
    """The share of the targets' variance that the output explains, R2: the mean over units, each weighted alike.

        R2 = mean over units of 1 - sum (y - output)^2 / sum (y - mean y)^2

    with the sums over all examples, and over all axes but the last, along which units lie. A unit whose targets are
    all the same has none and is left out.

    Args:
        ignores: Whether a unit whose target is NaN does not count.
    """

    ignores: bool = eqx.field(static=True, default=False)

    def sums(self, output: Array, y: Array) -> Sums:
        error, y, counted = _numbers(output, y, self.ignores)
        y, counted = (held.reshape(-1, held.shape[-1]) for held in (y, counted))
        targets = spread(y, counted if self.ignores else None)
        return {"error": total(jnp.sum(error**2, axis=1)), "targets": targets}

    def value(self, sums: dict[str, Any]) -> float:
        targets = sums["targets"]
        variation = targets.second - targets.first**2 / np.maximum(targets.count, 1)
        varies = ~(variation <= 0)
        return float(np.mean(1 - sums["error"][varies] / variation[varies])) if np.any(varies) else np.nan


class Own(Metric):
    """A custom metric: the mean of `function(output, target)` over the examples.

    Args:
        function: Of one example, a scalar; or `(value, weight)`, for the mean with weights,
            `sum weight * value / sum weight`.
    """

    function: Callable[[PyTree, PyTree], Any] = eqx.field(static=True)

    def sums(self, output: PyTree, y: PyTree) -> Sums:
        found = jax.vmap(self.function)(output, y)
        value, weight = found if isinstance(found, tuple) else (found, jnp.ones_like(found))
        dtype = jnp.promote_types(wide(value.dtype), wide(weight.dtype))
        value, weight = value.astype(dtype), weight.astype(dtype)
        # Values that do not count may be undefined, such as 0 / 0.
        return {"value": total(jnp.where(weight == 0, 0 * weight, value * weight)), "weight": total(weight)}

    def value(self, sums: dict[str, np.ndarray]) -> float:
        return _ratio(sums["value"], sums["weight"])


class Unweighted(Metric):
    """A metric that ignores the weights of examples that come with the targets."""

    metric: Metric

    def sums(self, output: PyTree, y: PyTree) -> Sums:
        return self.metric.sums(output, y[0])

    def value(self, sums: dict[str, np.ndarray]) -> float:
        return self.metric.value(sums)


def metrics_of(loss: Loss, output: PyTree, x: PyTree, y: PyTree, own: Mapping[str, Callable] | None = None) -> Metrics:
    """The metrics of a task.

    Args:
        loss: The loss, which says what targets are (`vicinal.losses.kind_of`).
        output: The output of one example, or its shape and dtype.
        x: Some inputs, `[examples, ...]`: with `y` they tell whether a target is the input, to be reconstructed.
        y: Their targets, `[examples, ...]`.
        own: Custom metrics: for each name a function of `(output, target)`, see `Own`.

    Returns:
        By name; `"accuracy"` for labels, `"rmse"` and `"r2"` for numbers that are not the input itself.

    Raises:
        TypeError: If a metric is not a function.
        ValueError: If a custom metric has a name that is taken, or gives no scalar.

    Example:
        >>> import vicinal as vc
        >>> list(metrics_of(vc.losses.squared_error, jnp.zeros(2), jnp.ones((5, 3)), jnp.ones((5, 2))))
        ['accuracy', 'rmse', 'r2']
        >>> list(metrics_of(vc.losses.squared_error, jnp.zeros(2), jnp.ones((5, 3)), jnp.ones(5, int)))
        ['accuracy']
    """
    plain = without_weights(loss)
    if plain is not None:
        y, _ = pair_of_weights(y)
        return {name: Unweighted(metric) for name, metric in metrics_of(plain, output, x, y, own).items()}
    kind, found = kind_of(loss), {}
    if kind is not None and all(hasattr(tree, "shape") for tree in (output, y)):
        found = _of_kind(kind, output, x, y)
    for name, function in {} if own is None else _checked_own(own).items():
        found[name] = Own(function)
        _check_scalars(name, function, output, y)
    return found


def _of_kind(kind: Kind, output: Any, x: PyTree, y: Any) -> Metrics:
    if are_indices(output.shape, y.shape[1:], y.dtype):
        return {"accuracy": Accuracy()} if kind.labels else {}
    if y.shape[1:] != output.shape:
        return {}
    found: Metrics = {}
    if kind.labels and not (kind.numbers and _units(output.shape) == 1):
        found["accuracy"] = Accuracy()
    if kind.numbers and not _is_input(x, y):
        found["rmse"] = RootMeanSquare(kind.ignores)
        found["r2"] = RSquared(kind.ignores)
    return found


def values_of(metrics: Metrics, sums: Mapping[str, dict[str, Any]]) -> dict[str, float]:
    """Computes the metrics from their sums on the host; leaves out metrics that do not exist.

    Targets that all are labels have an accuracy, and then no RMSE and R2.
    """
    found = {name: metric.value(sums[name]) for name, metric in metrics.items()}
    if not np.isnan(found.get("accuracy", np.nan)):
        found = {name: value for name, value in found.items() if name not in ("rmse", "r2")}
    return {name: value for name, value in found.items() if not np.isnan(value) or name not in OWN}


# ----------------------------------------------------------------------------------------------------------- parts


def _right(output: Array, y: Array) -> tuple[Array, Array, Array]:
    """Which labels are correct, which count, and which should count."""
    if are_indices(output.shape[1:], y.shape[1:], y.dtype):
        chosen, counted = jnp.argmax(output, axis=-1), y >= 0
        return (chosen == y.astype(chosen.dtype)) & counted, counted, counted
    y = y.astype(jnp.int32) if y.dtype == bool else y
    if _units(output.shape[1:]) == 1:
        counted = (y == 0) | (y == 1)
        return ((output > 0) == (y == 1)) & counted, counted, jnp.ones_like(counted)
    counted = jnp.all((y == 0) | (y == 1), axis=-1) & (jnp.sum(y == 1, axis=-1, dtype=jnp.int32) == 1)
    return (jnp.argmax(output, axis=-1) == jnp.argmax(y, axis=-1)) & counted, counted, jnp.ones_like(counted)


def _numbers(output: Array, y: Array, ignores: bool) -> tuple[Array, Array, Array]:
    """Targets minus outputs (0 where nothing counts), targets, and what counts: `[batch, rows, units]`."""
    shape = (output.shape[0], -1, _units(output.shape[1:]))
    output, y = (array.astype(wide(output.dtype)).reshape(shape) for array in (output, y))
    counted = ~jnp.isnan(y) if ignores else jnp.ones_like(y, bool)
    return jnp.where(counted, y - output, 0), y, counted


def are_indices(output: tuple[int, ...], target: tuple[int, ...], dtype: Any) -> bool:
    """Whether targets are class indices, from the shapes of one example: one for each row of more than one output."""
    return jnp.issubdtype(dtype, jnp.integer) and len(output) > 0 and target == output[:-1] and output[-1] > 1


def _units(shape: tuple[int, ...]) -> int:
    return shape[-1] if shape else 1


def _is_input(x: PyTree, y: Array) -> bool:
    """Whether the targets are the inputs."""
    if not hasattr(x, "shape") or x.shape != y.shape:
        return False
    return x is y or np.array_equal(np.asarray(x[:_LOOKED_AT]), np.asarray(y[:_LOOKED_AT]), equal_nan=True)


def _flat(held: Array) -> Array:
    return held.reshape(held.shape[0], -1)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> float:
    return float(numerator / denominator) if denominator != 0 else np.nan


def _checked_own(own: Any) -> Mapping[str, Callable]:
    if not isinstance(own, Mapping) or not all(isinstance(name, str) and callable(own[name]) for name in own):
        raise TypeError(f"expected metrics as functions of (output, target) by name, got {own!r}")
    taken = [name for name in own if name in OWN]
    if taken:
        raise ValueError(f"expected metrics under names of their own, got {taken[0]!r}, which is taken; choose another")
    return own


def _check_scalars(name: str, function: Callable, output: PyTree, y: PyTree) -> None:
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], jnp.asarray(leaf[:0]).dtype), y)
    found = jax.eval_shape(function, output, one)
    parts = found if isinstance(found, tuple) else (found,)
    shapes = [getattr(part, "shape", None) for part in parts]
    if len(parts) > 2 or any(shape != () for shape in shapes):
        got = " and ".join("no array" if shape is None else f"shape {list(shape)}" for shape in shapes)
        raise ValueError(
            f"expected the metric {name!r} to give a scalar for one example, or (value, weight), got {got}; "
            "take a mean over its units"
        )
