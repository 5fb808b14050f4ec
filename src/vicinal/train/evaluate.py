"""Loss and accuracy: of a model on a data set, and of the updates since the last record."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from vicinal.credit import Info
from vicinal.graph import Graph
from vicinal.inference import Result
from vicinal.losses import Loss
from vicinal.train.batches import count_examples


def correct(output: PyTree, y: PyTree) -> Float[Array, " batch"] | None:
    """For each example the share of labels (class indices) that the largest output meets; None without labels.

    Labels below 0 do not count (`vicinal.losses.masked_softmax_cross_entropy`).

    Args:
        output: `[batch, ..., classes]`.
        y: Class indices, `[batch, ...]`; other targets have no accuracy.
    """
    arrays = isinstance(y, jax.Array | np.ndarray) and isinstance(output, jax.Array | np.ndarray)
    if not arrays or not jnp.issubdtype(y.dtype, jnp.integer) or y.ndim != output.ndim - 1:
        return None
    chosen = jnp.argmax(output, axis=-1)
    labels = jnp.asarray(y).astype(chosen.dtype)
    right, counted = (
        mask.reshape(len(mask), -1).astype(_wide(output.dtype)) for mask in (chosen == labels, labels >= 0)
    )
    return jnp.sum(right, axis=1) / jnp.maximum(jnp.sum(counted, axis=1), 1)


def evaluate(
    graph: Graph, model: PyTree, loss: Loss, x: PyTree, y: PyTree, batch_size: int = 1000
) -> dict[str, Float[Array, ""]]:
    """The mean loss, and the accuracy if the targets are class indices.

    Args:
        graph: The captured graph.
        model: The model.
        loss: Loss of one example.
        x: Inputs, `[examples, ...]`.
        y: Targets, `[examples, ...]`.
        batch_size: Examples at a time; it changes the memory needed, not the result.

    Returns:
        `{"loss": mean}` and, with labels, `"accuracy"` in [0, 1].

    Raises:
        ValueError: If there are not as many targets as inputs, no examples, or the batch size is below 1.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = lambda x: x  # three logits
        >>> graph = vc.capture(model, jnp.ones(3))
        >>> measured = evaluate(graph, model, vc.losses.softmax_cross_entropy, jnp.eye(3), jnp.array([0, 1, 0]))
        >>> round(float(measured["accuracy"]), 3)
        0.667
    """
    examples = count_examples(x, y)
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"expected a batch size of at least 1, got {batch_size!r}")
    return _evaluate(graph, model, loss, x, y, min(int(batch_size), examples))


@eqx.filter_jit
def _evaluate(graph: Graph, model: PyTree, loss: Loss, x: PyTree, y: PyTree, batch_size: int) -> dict[str, Array]:
    examples = jax.tree.leaves(x)[0].shape[0]

    def sums(batch: PyTree) -> dict[str, Array]:
        x, y = batch
        output, _ = graph.feedforward(model, x)
        found = {"loss": jax.vmap(loss)(output, y), "accuracy": correct(output, y)}
        return {name: jnp.sum(v.astype(_wide(v.dtype))) for name, v in found.items() if v is not None}

    whole = examples - examples % batch_size
    stacked = jax.tree.map(lambda a: a[:whole].reshape(-1, batch_size, *a.shape[1:]), (x, y))
    totals = jax.tree.map(jnp.sum, jax.lax.map(sums, stacked))
    if whole < examples:
        totals = jax.tree.map(jnp.add, totals, sums(jax.tree.map(lambda a: a[whole:], (x, y))))
    return jax.tree.map(lambda total: total / jnp.asarray(examples, total.dtype), totals)


def _wide(dtype: Any) -> Any:
    """At least float32: a sum over many examples needs it, whatever the model computes in."""
    return dtype if jnp.finfo(dtype).bits > 32 else jnp.float32


# ------------------------------------------------------------------------------------- measured while training

SUMS = ("steps", "loss", "accuracy", "inference_failures")
"""What is summed over the updates since the last record; NaN where a rule or a task has no such number."""


def measured(loss: Float[Array, ""], info: Info, y: PyTree) -> dict[str, Float[Array, ""]]:
    """What one update adds to each of `SUMS`."""
    right = correct(info.output, y)
    failed = None if info.result is None else (info.result >= Result.DIVERGED).astype(jnp.float32)
    return {
        "steps": jnp.ones(()),
        "loss": loss,
        "accuracy": jnp.asarray(jnp.nan) if right is None else jnp.mean(right),
        "inference_failures": jnp.asarray(jnp.nan) if failed is None else jnp.mean(failed),
    }


def means(sums: Mapping[str, Any]) -> dict[str, float]:
    """The means per update under the names that a record has for them; what does not exist is left out."""
    steps, loss, accuracy, failures = (float(sums[name]) for name in SUMS)
    named = {"train_loss": loss, "train_accuracy": accuracy, "inference_failures": failures}
    return {name: value / max(steps, 1.0) for name, value in named.items() if not np.isnan(value)}
