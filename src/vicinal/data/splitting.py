"""Setting examples aside: which rows are for testing, the same ones every time."""

import math

import numpy as np
from jaxtyping import Int, Shaped

from vicinal._counted import counted

TEST_SHARE = 0.2
"""Of the examples, where a data set does not say which ones are for testing."""


def split_rows(
    examples: int, share: float, labels: Shaped[np.ndarray, " examples"] | None = None, *, seed: int = 0
) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " aside"]]:
    """Draws the rows to set aside: `round(share * examples)` of them.

    With labels, each class gives its share (stratified): of `n` examples `floor(share * n)`, and the classes with the
    largest rest one more, until all are drawn. A class keeps at least one example.

    Args:
        examples: How many rows there are.
        share: What to set aside, in (0, 1).
        labels: Of the rows; None draws from all of them alike.
        seed: The same seed draws the same rows.

    Returns:
        The rows that stay and those set aside, each in ascending order.

    Raises:
        ValueError: The share is out of its range, or leaves one side empty.

    Example:
        >>> kept, aside = split_rows(6, 1 / 3, np.array([0, 0, 0, 1, 1, 1]))
        >>> len(kept), (aside < 3).tolist()  # one of each class
        (4, [True, False])
    """
    if isinstance(share, bool) or not isinstance(share, int | float | np.number) or not 0 < share < 1:
        raise ValueError(f"expected a share of the examples above 0 and below 1, got {share!r}")
    wanted = math.floor(share * examples + 0.5)
    if not 1 <= wanted < examples:
        raise ValueError(
            f"expected a share that leaves examples on both sides, got {share:g} of "
            f"{counted(examples, 'example')}; give more examples or another share"
        )
    generator = np.random.default_rng(seed)
    mixed = generator.permutation(examples)
    if labels is None:
        aside = mixed[:wanted]
    else:
        groups = [mixed[labels[mixed] == label] for label in np.unique(labels)]
        counts = _shares(np.array([len(group) for group in groups]), wanted)
        aside = np.concatenate([group[:count] for group, count in zip(groups, counts, strict=True)])
    if not len(aside):
        raise ValueError(f"expected a class with at least two examples, got {examples} examples of as many classes")
    return np.setdiff1d(np.arange(examples), aside), np.sort(aside)


def _shares(sizes: Int[np.ndarray, " classes"], wanted: int) -> Int[np.ndarray, " classes"]:
    """How many of each class, `wanted` in all where every class can keep one."""
    exact = sizes * (wanted / sizes.sum())
    counts = np.minimum(np.floor(exact).astype(int), sizes - 1)
    while counts.sum() < min(wanted, (sizes - 1).sum()):  # again where classes of few examples cannot give their share
        for label in np.argsort(counts - exact, kind="stable"):  # the largest rests first
            if counts.sum() < wanted and counts[label] < sizes[label] - 1:
                counts[label] += 1
    return counts


def rows_of(chosen: Shaped[np.ndarray, "..."], examples: int, origin: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows for training and for testing, as an array of a file or a column of a table says it.

    Args:
        chosen: Truth values or zeros and ones `[examples]`, true for testing; the words `train` and `test`, in
            capitals or not; or the indices of the rows for testing.
        examples: How many rows there are.
        origin: How error messages call the array.

    Returns:
        The rows for training and those for testing, in ascending order.

    Raises:
        ValueError: The array says something else, or leaves one side empty.

    Example:
        >>> rows_of(np.array(["train", "test", "train"]), 3, "split")[1]
        array([1])
    """
    chosen = np.asarray(chosen)
    if chosen.dtype.kind == "O" and all(isinstance(value, str) for value in chosen.ravel()):
        chosen = chosen.astype(str)
    if chosen.dtype.kind == "U":
        chosen = np.array([word.strip().lower() for word in chosen.ravel().tolist()]).reshape(chosen.shape)
    if chosen.dtype.kind == "U" and chosen.shape == (examples,) and np.isin(chosen, ("train", "test")).all():
        mask = chosen == "test"
    elif chosen.dtype.kind == "b" and chosen.shape == (examples,):
        mask = chosen
    elif chosen.dtype.kind in "iu" and chosen.shape == (examples,) and np.isin(chosen, (0, 1)).all():
        mask = chosen == 1
    elif chosen.dtype.kind in "iu" and chosen.ndim == 1 and chosen.size and _are_rows(chosen, examples):
        mask = np.isin(np.arange(examples), chosen)
    else:
        raise ValueError(
            f"{origin}: expected which of the {examples} examples are for testing, as truth values, as 'train' and "
            f"'test', or as different indices from 0 to {examples - 1}, got {chosen.dtype} of shape {chosen.shape}."
        )
    if mask.all() or not mask.any():
        raise ValueError(f"{origin}: expected examples for training and for testing, got {int(mask.sum())} for testing")
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def _are_rows(chosen: np.ndarray, examples: int) -> bool:
    return int(chosen.min()) >= 0 and int(chosen.max()) < examples and len(np.unique(chosen)) == len(chosen)
