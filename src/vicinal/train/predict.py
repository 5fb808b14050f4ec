"""The outputs of a model, batch by batch."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from vicinal._numbers import check_count
from vicinal.graph import Graph
from vicinal.train.batches import count_examples


def predict(graph: Graph, model: PyTree, x: PyTree, batch_size: int = 1000) -> PyTree:
    """The output of a model for each example, in evaluation mode: without dropout, and with running averages.

    Args:
        graph: The captured graph.
        model: The model.
        x: Inputs, `[examples, ...]`: an array, or a tree (tuple, dictionary) of them as the model takes it.
        batch_size: Examples at a time; it changes the memory needed, not the result.

    Returns:
        The outputs as NumPy arrays, `[examples, ...]`, in the structure that the model returns.

    Raises:
        TypeError: If `x` is a list, or contains anything but arrays.
        ValueError: If there is no example, their number differs within `x`, they do not fit the model, or the batch
            size is below 1.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> graph = vc.capture(jnp.sin, jnp.ones(3))
        >>> predict(graph, jnp.sin, jnp.zeros((2500, 3))).shape
        (2500, 3)
    """
    if isinstance(x, list):
        raise TypeError("expected inputs as an array, or a tuple or dictionary of arrays, got a list; use numpy.stack")
    examples = count_examples(x, ())
    size = min(check_count("batch_size", batch_size), examples)
    found = []
    for start in range(0, examples, size):
        batch = jax.tree.map(lambda a, start=start: _padded(a[start : start + size], size), x)
        found.append(jax.tree.map(np.asarray, _outputs(graph, model, batch)))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:examples], *found)


@eqx.filter_jit
def _outputs(graph: Graph, model: PyTree, x: PyTree) -> PyTree:
    graph, model = graph.evaluation(model)
    return graph.feedforward(model, x)[0]


def _padded(batch: Any, size: int) -> Any:
    """Pads a batch with copies of its first example, so that the last batch does not compile again."""
    rows = np.arange(size)
    return jnp.asarray(batch if len(batch) == size else batch[np.where(rows < len(batch), rows, 0)])
