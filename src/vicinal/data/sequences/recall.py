"""In-context recall: facts are read, then asked for."""

from typing import Literal

import numpy as np

from vicinal._numbers import check_count, check_counts
from vicinal.data.sequences.base import Sequences, distinct, next_token, passes

PAD, SEPARATOR, QUERY, NOISE = range(4)
"""Tokens with a meaning of their own. `SEPARATOR` is not used by the tasks here."""
SPECIALS = 4


def basic_recall(
    examples: int,
    time: int,
    facts: int | None = None,
    *,
    queries: int | None = None,
    vocabulary: int = 1024,
    key_tokens: int = 2,
    value_tokens: int = 2,
    seed: int,
) -> Sequences:
    """Facts, then questions: keys differ, and the answer to a question is its key's value.

        k1 k2 v1 v2   k1 k2 v1 v2  ...   NOISE ...   QUERY k1 k2 v1 v2   QUERY k1 k2 v1 v2  ...   PAD ...

    The value's tokens count, each predicted from the step before it with the true ones read so far. Keys are drawn
    from one half of the vocabulary and values from the other. With time either the distance or
    the number of facts can grow. For distance, fix `facts` and `queries`: noise fills the gap. (By default questions
    repeat until the end, each with its answer, so that the distance does not grow.) For facts that fill the context,
    leave `facts` out.

    Args:
        examples: How many examples.
        time: Steps of each.
        facts: How many facts; by default as many as fit when each is asked for once.
        queries: How many questions, in random order, all facts once before one comes again; noise lies between facts
            and questions. By default as many as fit, and no noise.
        vocabulary: Number of tokens.
        key_tokens: Length of a key.
        value_tokens: Length of a value.
        seed: Of the draw.

    Returns:
        The examples; `value_tokens` targets count in each question.

    Raises:
        ValueError: If a number is too small, facts and questions do not fit, or there are fewer keys than facts.

    Example:
        >>> data = basic_recall(1, 17, 2, vocabulary=24, seed=0)
        >>> data.inputs[0, :8].tolist(), data.inputs[0, 8:].tolist()  # two facts, two questions
        ([12, 8, 16, 17, 10, 7, 14, 14], [2, 10, 7, 14, 14, 2, 12, 8, 16])
        >>> data.targets[0, 8:].tolist()
        [-1, -1, 14, 14, -1, -1, -1, 16, 17]

    *Differs from the paper*: that of OVQ-attention (arXiv 2602.03922) uses a task of this name, whose sizes and
    layout we do not know; this layout is ours.
    """
    fact, question = key_tokens + value_tokens, 1 + key_tokens + value_tokens
    check_counts(examples=examples, time=time, key_tokens=key_tokens, value_tokens=value_tokens)
    if facts is None:
        facts = (time + 1) // (fact + question)
    check_counts(facts=facts)
    asked = _fitting(time, facts * fact, question, queries)
    first_key, first_value = _halves(vocabulary, SPECIALS)
    rng = np.random.default_rng(seed)
    keys = _distinct_words(rng, examples, facts, first_key, first_value, key_tokens)
    values = rng.integers(first_value, vocabulary, size=(examples, facts, value_tokens))
    order = passes(rng, examples, facts, asked)[..., None]
    answers = np.take_along_axis(values, order, axis=1)
    questions = _questions([np.take_along_axis(keys, order, axis=1)], answers)
    return _assembled(np.concatenate([keys, values], axis=2), questions, time, value_tokens, value_tokens, queries)


def positional_recall(
    examples: int,
    time: int,
    facts: int | None = None,
    *,
    occurrences: int = 2,
    ask: Literal["index", "all"] = "index",
    queries: int | None = None,
    vocabulary: int = 1024,
    key_tokens: int = 2,
    value_tokens: int = 2,
    seed: int,
) -> Sequences:
    """Each key occurs several times with different values; a question asks for one of them by number, or for all.

        k1 k2 v1 v2  ...   NOISE ...   QUERY k1 k2 #i v1 v2  ...   PAD ...          ask="index"
        k1 k2 v1 v2  ...   NOISE ...   QUERY k1 k2 v1 v2 v1' v2' ...  ...           ask="all", in order of occurrence

    What is asked for depends on the order in which things were read, which a layer without positions does not see.
    The token of `#i`, `i = 1, 2, ...`, is `3 + i`; keys and values are the halves of what then remains.

    Args:
        examples: How many examples.
        time: Steps of each.
        facts: How many different keys; by default as many as fit when all is asked for once.
        occurrences: How often each key occurs, in random order among the others, at least 2.
        ask: `"index"` or `"all"`.
        queries: How many questions, as for `basic_recall`.
        vocabulary: Number of tokens.
        key_tokens: Length of a key.
        value_tokens: Length of a value.
        seed: Of the draw.

    Returns:
        The examples. All values of an example differ.

    Raises:
        ValueError: If a number is too small, facts and questions do not fit, there are fewer keys than facts, or
            `ask` is neither.

    Example:
        >>> positional_recall(10, 255, 8, occurrences=4, seed=0)
        Sequences(10 examples of 255 steps, 42 of them counted)
    """
    if ask not in ("index", "all"):
        raise ValueError(f"expected ask as 'index' or 'all', got {ask!r}")
    check_counts(examples=examples, time=time, key_tokens=key_tokens, value_tokens=value_tokens)
    check_count("occurrences", occurrences, 2)
    answer_tokens = value_tokens if ask == "index" else occurrences * value_tokens
    fact = occurrences * (key_tokens + value_tokens)
    question = 1 + key_tokens + (ask == "index") + answer_tokens
    if facts is None:
        facts = (time + 1) // (fact + question * (occurrences if ask == "index" else 1))
    check_counts(facts=facts)
    asked = _fitting(time, facts * fact, question, queries)
    first_key, first_value = _halves(vocabulary, SPECIALS + occurrences)
    rng = np.random.default_rng(seed)
    keys = _distinct_words(rng, examples, facts, first_key, first_value, key_tokens)
    written = rng.permuted(np.tile(np.arange(facts), (examples, occurrences)), axis=1)  # the key of each fact read
    values = _distinct_words(rng, examples, facts * occurrences, first_value, vocabulary, value_tokens)
    # A stable sort lists where each key's first, second, ... occurrence is.
    places = np.argsort(written, axis=1, kind="stable").reshape(examples, facts, occurrences)
    if ask == "index":
        order = passes(rng, examples, facts * occurrences, asked)
        key, index = np.divmod(order, occurrences)
        place = np.take_along_axis(places.reshape(examples, -1), order, axis=1)
        asks = [np.take_along_axis(keys, key[..., None], axis=1), SPECIALS + index[..., None]]
    else:
        key = passes(rng, examples, facts, asked)[..., None]
        place = np.take_along_axis(places, key, axis=1).reshape(examples, -1)
        asks = [np.take_along_axis(keys, key, axis=1)]
    answers = np.take_along_axis(values, place[..., None], axis=1).reshape(examples, asked, answer_tokens)
    read = np.concatenate([np.take_along_axis(keys, written[..., None], axis=1), values], axis=2)
    return _assembled(read, _questions(asks, answers), time, answer_tokens, value_tokens, queries)


def _halves(vocabulary: int, specials: int) -> tuple[int, int]:
    """The first key token and the first value token."""
    check_count("vocabulary", vocabulary, specials + 2)
    return specials, specials + (vocabulary - specials) // 2


def _distinct_words(
    rng: np.random.Generator, examples: int, count: int, first: int, stop: int, tokens: int
) -> np.ndarray:
    """Different words of tokens from `first` to `stop - 1`: digits of their numbers; `[examples, count, tokens]`."""
    kinds = stop - first
    if not count <= kinds**tokens < 2**63:
        raise ValueError(
            f"expected {count} different words of {tokens} tokens out of {kinds} (and fewer than 2^63 words), got "
            f"{kinds**tokens}; change the vocabulary or the length of keys and values"
        )
    numbers = distinct(rng, examples, count, 0, kinds**tokens)
    return first + numbers[..., None] // kinds ** np.arange(tokens - 1, -1, -1) % kinds


def _fitting(time: int, facts: int, question: int, queries: int | None) -> int:
    """How many questions there are; `facts` and `question` in tokens. The last token is predicted, not read."""
    fitting = (time + 1 - facts) // question
    wanted = 1 if queries is None else queries
    check_count("queries", wanted, 1)
    if fitting < wanted:
        raise ValueError(
            f"expected at least {facts + wanted * question - 1} steps for {facts} tokens of facts and {wanted} "
            f"question(s) of {question}, got time={time}; take fewer facts or more time"
        )
    return fitting if queries is None else queries


def _questions(asks: list[np.ndarray], answers: np.ndarray) -> np.ndarray:
    start = np.full((*answers.shape[:2], 1), QUERY)
    return np.concatenate([start, *asks, answers], axis=2)


def _assembled(
    facts: np.ndarray, questions: np.ndarray, time: int, answer_tokens: int, value_tokens: int, queries: int | None
) -> Sequences:
    """Facts and questions, `[examples, count, tokens]`, in one stream; noise or padding takes what remains."""
    examples, _, tokens = questions.shape
    answer = np.broadcast_to(np.arange(tokens) >= tokens - answer_tokens, questions.shape)
    facts, questions, answer = (part.reshape(examples, -1) for part in (facts, questions, answer))
    rest = time + 1 - facts.shape[1] - questions.shape[1]
    empty = np.full((examples, rest), PAD if queries is None else NOISE)
    never = np.zeros_like
    if queries is None:
        parts = [(facts, never(facts, bool)), (questions, answer), (empty, never(empty, bool))]
    else:
        parts = [(facts, never(facts, bool)), (empty, never(empty, bool)), (questions, answer)]
    stream, counted = (np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
    return next_token(stream, counted, value_tokens)
