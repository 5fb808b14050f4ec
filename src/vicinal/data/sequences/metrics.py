"""How much of what counts is said right, and where in the sequence."""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from vicinal.data.sequences.base import Sequences


def token_accuracy(predictions: Int[np.ndarray, "examples time"], data: Sequences) -> float:
    """The share of the counted steps whose prediction is the target.

    Args:
        predictions: A token for each step, such as `logits.argmax(-1)`.
        data: The examples.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: If there is not one prediction for each step, or no step counts.

    Example:
        >>> targets = np.array([[-1, 5, 6, 7, 8]])
        >>> data = Sequences(targets, targets, targets >= 0, value_tokens=2)
        >>> token_accuracy(np.array([[0, 5, 6, 7, 0]]), data), value_accuracy(np.array([[0, 5, 6, 7, 0]]), data)
        (0.75, 0.5)
    """
    return float(np.mean(_right(predictions, data)))


def value_accuracy(predictions: Int[np.ndarray, "examples time"], data: Sequences) -> float:
    """The share of values with all tokens predicted correctly.

    Args:
        predictions: The predicted tokens, as for `token_accuracy`.
        data: The examples.

    Returns:
        The share.

    Raises:
        ValueError: If there is not one prediction for each step, or no step counts.
    """
    return float(np.mean(np.all(_right(predictions, data).reshape(-1, data.value_tokens), axis=1)))


def _right(predictions: np.ndarray, data: Sequences) -> np.ndarray:
    """For each counted step, in order."""
    predictions = np.asarray(predictions)
    if predictions.shape != data.targets.shape:
        raise ValueError(
            f"expected a prediction for each step, {data.targets.shape}, got {predictions.shape}; "
            "take logits.argmax(-1)"
        )
    if not np.any(data.mask):
        raise ValueError("expected a step that counts, got none")
    return predictions[data.mask] == data.targets[data.mask]


def loss_by_position(
    losses: Float[np.ndarray, "examples time"],
    edges: Sequence[int] | Int[np.ndarray, " edges"],
    mask: Bool[np.ndarray, "examples time"] | None = None,
) -> Float[np.ndarray, " buckets"]:
    """The mean loss in each range of positions, `edges[i] <= position < edges[i + 1]`.

    Args:
        losses: The loss at each step, such as `vicinal.losses.token_cross_entropy` gives.
        edges: Increasing positions, two or more, from 0 up to the number of steps.
        mask: Which steps count; by default all.

    Returns:
        The mean for each range; NaN where nothing counts.

    Raises:
        ValueError: If edges do not increase or leave the sequence, or the mask has another shape.

    Example:
        >>> loss_by_position(np.array([[4.0, 2.0, 1.0, 1.0], [2.0, 2.0, 1.0, 0.0]]), [0, 1, 2, 4])
        array([3.  , 2.  , 0.75])
    """
    losses, edges = np.asarray(losses, float), np.asarray(edges, int)
    mask = np.ones(losses.shape, bool) if mask is None else np.asarray(mask)
    if losses.ndim != 2 or mask.shape != losses.shape:
        raise ValueError(f"expected losses [examples, time] and a mask like it, got {losses.shape} and {mask.shape}")
    if len(edges) < 2 or np.any(np.diff(edges) <= 0) or edges[0] < 0 or edges[-1] > losses.shape[1]:
        raise ValueError(f"expected increasing edges from 0 to {losses.shape[1]}, two or more, got {edges.tolist()}")
    counts, totals = mask.sum(axis=0), np.where(mask, losses, 0).sum(axis=0)
    count, total = (np.array([sums[a:b].sum() for a, b in itertools.pairwise(edges)]) for sums in (counts, totals))
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
