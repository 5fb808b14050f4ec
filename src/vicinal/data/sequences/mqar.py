"""Multi-query associative recall (MQAR), and two relatives."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vicinal._numbers import check, check_count, check_counts
from vicinal.data.sequences.base import NOT_COUNTED, Sequences, distinct, passes


class Segment(NamedTuple):
    """Examples of one length and number of pairs.

    Args:
        time: Steps of an example.
        examples: How many.
        pairs: Pairs of key and value in each.
    """

    time: int
    examples: int
    pairs: int


MQAR_TRAIN = (
    Segment(64, 100_000, 4),
    Segment(128, 20_000, 8),
    Segment(256, 20_000, 16),
    Segment(256, 20_000, 32),
    Segment(256, 20_000, 64),
)
"""The published training set."""
MQAR_TEST = tuple(
    Segment(time, 1000, pairs)
    for time, pairs in ((64, 4), (64, 8), (64, 16), (128, 32), (256, 64), (512, 128), (1024, 256))
)
"""The published test set."""


def mqar(
    examples: int,
    time: int,
    pairs: int,
    *,
    vocabulary: int = 8192,
    power: float = 0.01,
    random_non_queries: bool = True,
    seed: int | np.random.SeedSequence,
) -> Sequences:
    """Pairs of a key and a value, then each key once more among random tokens, with its value as the target.

        k1 v1 k2 v2 ... kF vF   *  *  k2  *  *  *  k1  *  ...          target at the second k2: v2

    Keys are drawn without replacement from 1 to `vocabulary / 2 - 1`, values from `vocabulary / 2` on. The rest of
    the sequence is cut into slots of two steps, and each key comes again at the start of a slot of its own, slot `s`
    (from 1) with probability in proportion to `power * s^(power - 1)`, without replacement.

    Args:
        examples: How many examples.
        time: Steps of each, even, at least `4 * pairs`.
        pairs: Pairs of key and value.
        vocabulary: Number of tokens.
        power: Exponent of the distances' distribution, above 0; 1 makes all slots equally likely.
        random_non_queries: Whether the other steps hold random tokens (any, keys included), or zeros.
        seed: Of the draw.

    Returns:
        The examples, with `pairs` counted steps each.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> data = mqar(1, 16, 2, vocabulary=12, random_non_queries=False, seed=0)
        >>> data.inputs[0].tolist()
        [4, 11, 5, 7, 4, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        >>> data.targets[0].tolist()
        [-1, -1, -1, -1, 11, -1, 7, -1, -1, -1, -1, -1, -1, -1, -1, -1]

    References:
        Arora et al., Zoology: Measuring and improving recall in efficient language models, ICLR 2024, arXiv
        2312.04927 (section 3 and the published generator).
    """
    return forgetting_mqar(
        examples,
        time,
        pairs,
        updates=0,
        vocabulary=vocabulary,
        power=power,
        random_non_queries=random_non_queries,
        seed=seed,
    )


def forgetting_mqar(
    examples: int,
    time: int,
    pairs: int,
    *,
    updates: int,
    vocabulary: int = 8192,
    power: float = 0.01,
    random_non_queries: bool = True,
    seed: int | np.random.SeedSequence,
) -> Sequences:
    """`mqar` in which some keys get a second value after all have their first: the last one counts.

        k1 v1 k2 v2 ... kF vF   k2 v2' ...   *  *  k2  *  *  *  k1  *  ...     targets: v2', v1

    Args:
        examples: How many examples.
        time: Steps of each, even, at least `4 * pairs + 2 * updates`.
        pairs: How many different keys.
        updates: How many of them get a second value, at most `pairs`.
        vocabulary: Number of tokens.
        power: As in `mqar`.
        random_non_queries: As in `mqar`.
        seed: Of the draw.

    Returns:
        The examples, with `pairs` counted steps each.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> forgetting_mqar(3, 64, 8, updates=4, seed=0)
        Sequences(3 examples of 64 steps, 8 of them counted)

    *Differs from the paper*: Zoology's generator draws second values that may repeat; here all values of an example
    differ.
    """
    check_counts(examples=examples, pairs=pairs)
    check_count("updates", updates, 0)
    check("power", power, lambda v: v > 0, "above 0")
    read = 2 * (pairs + updates)  # steps
    if updates > pairs:
        raise ValueError(f"expected at most as many updates as pairs, {pairs}, got {updates}")
    if time % 2 or time < read + 2 * pairs:
        raise ValueError(
            f"expected an even time of at least {read + 2 * pairs} for {pairs} pairs and {updates} updates, got {time}"
        )
    half = vocabulary // 2
    if half - 1 < pairs or vocabulary - half < pairs + updates:
        raise ValueError(
            f"expected a vocabulary of at least {2 * max(pairs + 1, pairs + updates)} tokens, so that {pairs} keys and "
            f"{pairs + updates} values differ, got {vocabulary}"
        )
    rng = np.random.default_rng(seed)
    keys = distinct(rng, examples, pairs, 1, half)
    values = distinct(rng, examples, pairs + updates, half, vocabulary)
    updated = distinct(rng, examples, updates, 0, pairs)
    final = values[:, :pairs].copy()
    np.put_along_axis(final, updated, values[:, pairs:], axis=1)
    inputs = np.zeros((examples, time), np.int32)
    inputs[:, 0:read:2] = np.concatenate([keys, np.take_along_axis(keys, updated, axis=1)], axis=1)
    inputs[:, 1:read:2] = values
    places = read + 2 * _slots(rng, examples, (time - read) // 2, pairs, power)
    np.put_along_axis(inputs, places, keys, axis=1)
    targets = np.full((examples, time), NOT_COUNTED, np.int32)
    np.put_along_axis(targets, places, final, axis=1)
    if random_non_queries:
        inputs = np.where(inputs == 0, rng.integers(vocabulary, size=inputs.shape, dtype=np.int32), inputs)
    return Sequences(inputs, targets, targets != NOT_COUNTED)


def _slots(rng: np.random.Generator, examples: int, slots: int, count: int, power: float) -> np.ndarray:
    """A slot from 0 for each of `count` keys, drawn one after the other without replacement; `[examples, count]`."""
    rates = np.arange(1, slots + 1) ** (power - 1.0)
    # Of clocks that ring at these rates, the next to ring is each with probability in proportion to its rate.
    rings = rng.exponential(size=(examples, slots)) / rates
    return np.argsort(rings, axis=1)[:, :count]


def mqar_segments(
    segments: Sequence[Segment], *, vocabulary: int = 8192, power: float = 0.01, seed: int
) -> tuple[Sequences, ...]:
    """`mqar` for each segment of a table, `MQAR_TRAIN` or `MQAR_TEST`; the draws of the segments are independent.

    Args:
        segments: What to draw.
        vocabulary: Number of tokens.
        power: As in `mqar`.
        seed: Of the draw; take another one for testing than for training.

    Returns:
        One set of examples for each segment.

    Example:
        >>> mqar_segments(MQAR_TEST[:2], seed=1)[1]
        Sequences(1000 examples of 64 steps, 8 of them counted)

    Raises:
        ValueError: If a number is out of its range.
    """
    check("power", power, lambda v: v > 0, "above 0")
    seeds = np.random.SeedSequence(seed).spawn(len(segments))
    return tuple(
        mqar(s.examples, s.time, s.pairs, vocabulary=vocabulary, power=power, seed=child)
        for s, child in zip(segments, seeds, strict=True)
    )


def continuous_mqar(
    examples: int, pairs: int, *, rounds: int = 1, key_features: int = 32, values: int = 64, seed: int
) -> Sequences:
    """Associative recall of vectors, key and value in one step, so that a single layer can solve it.

        [key_1, one-hot value_1]  ...  [key_F, one-hot value_F]   [key_3, 0]  [key_1, 0]  ...

    Keys are independent points on the unit sphere, new in each example. After the pairs all keys come again, in
    random order, `rounds` times; the target there is the value's number.

    Args:
        examples: How many examples.
        pairs: Pairs of key and value.
        rounds: How often each key is asked for; there are `(rounds + 1) * pairs` steps.
        key_features: Length of a key.
        values: How many different values there are; those of an example are drawn with replacement.
        seed: Of the draw.

    Returns:
        The examples, with inputs `[examples, time, key_features + values]`.

    Raises:
        ValueError: If a number is below 1.

    Example:
        >>> data = continuous_mqar(5, 16, seed=0)
        >>> data.inputs.shape, data.targets.shape
        ((5, 32, 96), (5, 32))
    """
    check_counts(examples=examples, pairs=pairs, rounds=rounds, key_features=key_features, values=values)
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(examples, pairs, key_features))
    keys /= np.linalg.norm(keys, axis=2, keepdims=True)
    chosen = rng.integers(values, size=(examples, pairs))
    asked = passes(rng, examples, pairs, rounds * pairs)
    inputs = np.zeros((examples, (rounds + 1) * pairs, key_features + values), np.float32)
    inputs[:, :pairs, :key_features] = keys
    inputs[:, :pairs, key_features:] = np.eye(values)[chosen]
    inputs[:, pairs:, :key_features] = np.take_along_axis(keys, asked[..., None], axis=1)
    targets = np.full(inputs.shape[:2], NOT_COUNTED, np.int32)
    targets[:, pairs:] = np.take_along_axis(chosen, asked, axis=1)
    return Sequences(inputs, targets, targets != NOT_COUNTED)
