"""Views of an update: its arrays by name, its weight matrices, and all of its numbers in one vector."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from vicinal.graph import Graph
from vicinal.losses import Loss, loss_and_error


def arrays(tree: PyTree) -> dict[str, Array]:
    """The floating-point arrays of a tree by path, `layers[0].weight`."""
    flat = jax.tree_util.tree_flatten_with_path(eqx.filter(tree, eqx.is_inexact_array))[0]
    return {jax.tree_util.keystr(path).lstrip("."): leaf for path, leaf in flat}


def matrices(tree: PyTree) -> dict[str, Array]:
    """The weight matrices: arrays of at least two axes, except biases, under the names that `angles` uses."""
    return {name: leaf for name, leaf in arrays(tree).items() if leaf.ndim >= 2 and not name.endswith("bias")}


def whole(tree: PyTree) -> Float[Array, " n"]:
    """All floating-point arrays in one vector, in the widest of their dtypes."""
    leaves = list(arrays(tree).values())
    if not leaves:
        raise ValueError("expected a tree with floating-point arrays, got none; give a model's update or parameters")
    widest = max((leaf.dtype for leaf in leaves), key=lambda dtype: dtype.itemsize)
    return jnp.concatenate([jnp.asarray(leaf, widest).reshape(-1) for leaf in leaves])


def norm(array: Float[Array, "..."]) -> Float[Array, ""]:
    """The Euclidean norm, in single precision or more; safe where squares of the numbers underflow or overflow."""
    array = array.reshape(-1).astype(array.dtype if array.itemsize >= 4 else np.float32)
    largest = jnp.max(jnp.abs(array), initial=0.0)
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1.0)
    return scale * jnp.linalg.norm(array / scale)


def check_structure(graph: Graph, model: PyTree, update: PyTree) -> None:
    """Raises ValueError unless the update has an array of the right shape for each parameter, and no others."""
    both = update, graph.trainable(model)
    ours, theirs = ({name: leaf.shape for name, leaf in arrays(tree).items()} for tree in both)
    if ours != theirs:
        name = next(name for name in (theirs | ours) if ours.get(name) != theirs.get(name))
        found = f"shape {list(ours[name])}" if name in ours else "nothing"
        wanted = f"shape {list(theirs[name])}" if name in theirs else "no such parameter"
        raise ValueError(
            f"expected an update in a tree like the model's, with {wanted} at {name!r}, got {found}; "
            "use analysis.update or a gradient of the same model"
        )


def moved(graph: Graph, model: PyTree, update: PyTree) -> PyTree:
    """The model with an update added to its parameters.

    Raises:
        ValueError: If the update does not have the model's structure.
    """
    check_structure(graph, model, update)
    return eqx.apply_updates(model, eqx.filter(update, eqx.is_inexact_array))


def mean_loss(graph: Graph, model: PyTree, x: PyTree, y: PyTree, loss: Loss) -> Float[Array, ""]:
    """The loss of the feedforward output, the mean over the batch."""
    output, _ = graph.feedforward(model, x)
    return jnp.mean(loss_and_error(loss, output, y)[0])


def output_change(graph: Graph, model: PyTree, update: PyTree, x: PyTree) -> Float[Array, "batch n"]:
    """What an update adds to the output of each example."""
    before, after = (graph.feedforward(m, x)[0] for m in (model, moved(graph, model, update)))
    return rows(after) - rows(before)


def rows(tree: PyTree) -> Float[Array, "batch n"]:
    """The floating-point arrays of each example, in one row."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=1)
