"""Checks examples before training: labels must fit the outputs, and numbers must be finite."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from vicinal.graph import OUTPUT, Graph
from vicinal.losses import Kind, Loss, kind_of, pair_of_weights, without_weights
from vicinal.train.metrics import are_indices

Shapes = Any
"""The shape of the output of one example, as `jax.ShapeDtypeStruct`, or a tree of them."""


def check_examples(graph: Graph, loss: Loss, model: PyTree, data: tuple[PyTree, PyTree], where: str) -> None:
    """Checks a set of examples.

    Args:
        graph: The captured graph.
        loss: The loss, which says what targets are.
        model: The model; a non-finite input is accepted if the model's output for it is finite.
        data: Inputs and targets, `[examples, ...]`.
        where: The name of the set, for the sentence.

    Raises:
        ValueError: If a label has no output, or a number is infinite or undefined.
    """
    x, y = data
    check_targets(graph.shapes[OUTPUT], loss, y, where)
    row = first_bad_row(x)
    if row is None:
        return
    graph, model = graph.evaluation(model)
    output, _ = graph.feedforward(model, jax.tree.map(lambda leaf: jnp.asarray(leaf[row : row + 1]), x))
    if first_bad_row(output) is not None:
        raise ValueError(
            f"expected finite inputs, got an infinite or undefined one in example {row} of {where}; "
            "leave it out, or replace it"
        )


def check_targets(output: Shapes, loss: Loss, y: PyTree, where: str) -> None:
    """Checks targets; those of a custom loss that declares nothing pass.

    Args:
        output: The shape of the output of one example.
        loss: The loss.
        y: Targets, `[examples, ...]`.
        where: The name of the set, for the sentence.

    Raises:
        ValueError: If a label has no output, a probability is out of range, or a number is infinite or undefined.

    Example:
        >>> import vicinal as vc
        >>> check_targets(jnp.zeros(3), vc.losses.softmax_cross_entropy, np.array([1, 2, 3]), "the test set")
        Traceback (most recent call last):
        ValueError: expected labels from 0 to 2 for 3 outputs, got 1 to 3 (in the test set); count classes from 0
    """
    plain = without_weights(loss)
    if plain is not None:
        y, weights = pair_of_weights(y)
        _check_weights(weights, where)
    kind = kind_of(loss)
    row = None if kind is None else first_bad_row(y, undefined=not (kind.numbers and kind.ignores))
    if row is not None:
        raise ValueError(
            f"expected finite targets, got an infinite or undefined one in example {row} of {where}; leave it out, "
            "or take vicinal.losses.masked_squared_error, which ignores those that are NaN"
        )
    check_labels(output, loss if plain is None else plain, y, where)


def check_labels(output: Shapes, loss: Loss, y: PyTree, where: str) -> None:
    """Checks that labels have an output and probabilities their range; arguments and errors as for `check_targets`."""
    if without_weights(loss) is not None:
        y, _ = pair_of_weights(y)
    kind = kind_of(loss)
    if kind is None or not all(hasattr(tree, "shape") for tree in (output, y)) or 0 in y.shape:
        return
    if kind.labels and are_indices(output.shape, y.shape[1:], y.dtype):
        _check_indices(output.shape[-1], kind, y, where)
    elif kind.shares and y.shape[1:] == output.shape and y.dtype != bool:
        least, most = (float(found) for found in (y.min(), y.max()))
        if least < 0 or most > 1:
            raise ValueError(
                f"expected targets from 0 to 1, which the loss reads as probabilities, got {least:.6g} to {most:.6g} "
                f"(in {where}); scale them, or take another loss"
            )


def _check_weights(weights: Any, where: str) -> None:
    wrong = np.flatnonzero(~(np.asarray(weights, np.float64) >= 0) | np.isinf(np.asarray(weights, np.float64)))
    if wrong.size:
        raise ValueError(
            f"expected weights of at least 0, got {float(weights[wrong[0]])} for example {wrong[0]} of {where}"
        )


def _check_indices(outputs: int, kind: Kind, y: Any, where: str) -> None:
    least, most = int(y.min()), int(y.max())
    if most < outputs and (least >= 0 or kind.ignores):
        return
    if least < 0 and most < outputs:
        advice = "only vicinal.losses.masked_softmax_cross_entropy ignores labels below 0"
    elif least == 1 and most == outputs:
        advice = "count classes from 0"
    else:
        advice = f"number the classes from 0 on, or give the model {most + 1} outputs"
    raise ValueError(
        f"expected labels from 0 to {outputs - 1} for {outputs} outputs, got {least} to {most} (in {where}); {advice}"
    )


def first_bad_row(tree: PyTree, undefined: bool = True) -> int | None:
    """The first example, of `[examples, ...]`, with a number that is infinite, or with `undefined` NaN; or None."""
    rows = [_first(leaf, undefined) for leaf in jax.tree.leaves(tree)]
    found = [row for row in rows if row is not None]
    return min(found) if found else None


def _first(leaf: Any, undefined: bool) -> int | None:
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return None
    library = jnp if isinstance(leaf, jax.Array) else np  # where the array is: nothing is moved to be looked at
    # A sum is finite only if all terms are: one pass without a mask as large as the data.
    with np.errstate(all="ignore"):
        if undefined and bool(library.isfinite(library.sum(leaf, dtype=_sums(leaf)))):
            return None
    wrong = ~library.isfinite(leaf) if undefined else library.isinf(leaf)
    rows = np.asarray(wrong.reshape(leaf.shape[0], -1).any(axis=1))
    return int(rows.argmax()) if rows.any() else None


def _sums(leaf: Any) -> Any:
    """A dtype in which the sum of finite numbers stays finite, where there is one."""
    return np.float64 if isinstance(leaf, np.ndarray) and leaf.dtype != np.float64 else None
