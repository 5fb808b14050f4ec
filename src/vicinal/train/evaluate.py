"""Loss and accuracy of a model on a data set."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from vicinal.graph import Graph
from vicinal.losses import Loss


def correct(output: PyTree, y: PyTree) -> Float[Array, " batch"] | None:
    """For each example the share of labels (class indices) that the largest output meets; None without labels.

    Args:
        output: `[batch, ..., classes]`.
        y: Class indices, `[batch, ...]`; other targets have no accuracy.
    """
    labelled = isinstance(y, jax.Array) and jnp.issubdtype(y.dtype, jnp.integer) and isinstance(output, jax.Array)
    if not labelled or y.ndim != output.ndim - 1:
        return None
    right = (jnp.argmax(output, axis=-1) == y).astype(output.dtype)
    return jnp.mean(right.reshape(right.shape[0], -1), axis=1)


@eqx.filter_jit
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
    """
    examples = jax.tree.leaves(x)[0].shape[0]

    def measure(batch: PyTree) -> dict[str, Array]:
        x, y = batch
        output, _ = graph.feedforward(model, x)
        right = correct(output, y)
        sums = {"loss": jnp.sum(jax.vmap(loss)(output, y))}
        return sums if right is None else sums | {"accuracy": jnp.sum(right)}

    whole = examples - examples % batch_size
    parts = []
    if whole:
        stacked = jax.tree.map(lambda a: a[:whole].reshape(-1, batch_size, *a.shape[1:]), (x, y))
        parts.append(jax.tree.map(lambda sums: jnp.sum(sums, axis=0), jax.lax.map(measure, stacked)))
    if whole < examples:
        parts.append(measure(jax.tree.map(lambda a: a[whole:], (x, y))))
    return jax.tree.map(lambda *sums: sum(sums) / jnp.asarray(examples, sums[0].dtype), *parts)
