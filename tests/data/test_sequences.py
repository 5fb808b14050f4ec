"""Tasks on sequences: every label is found again by looking back, with plain Python."""

import dataclasses
import itertools

import numpy as np
import pytest

from vicinal.data import sequences as seq

PAD, QUERY, NOISE = 0, 2, 3


def arrays(data):
    return [value for value in vars(data).values() if isinstance(value, np.ndarray)]


# ------------------------------------------------------------------------------------------------ basic recall


def read_back(tokens, targets, mask, key, value, facts, asked):
    """Walks through one example; returns the facts and, per question, the key and the distance to its fact."""
    stream = [*tokens, targets[-1] if mask[-1] else PAD]
    known, at = {}, 0
    for _ in range(facts):
        known[tuple(stream[at : at + key])] = (tuple(stream[at + key : at + key + value]), at)
        at += key + value
    while at < len(stream) and stream[at] == NOISE:
        assert not mask[at - 1]
        at += 1
    questions = []
    for _ in range(asked):
        assert stream[at] == QUERY
        name = tuple(stream[at + 1 : at + 1 + key])
        first = at + 1 + key  # where the answer is read; each of its tokens is the target one step before
        assert not np.any(mask[at - 1 : first - 1])
        assert np.all(mask[first - 1 : first - 1 + value])
        assert tuple(targets[first - 1 : first - 1 + value]) == known[name][0]
        assert tuple(stream[first : first + value]) == known[name][0]
        questions.append((name, at - known[name][1]))
        at = first + value
    assert np.all(np.asarray(stream[at:]) == PAD)
    assert not np.any(mask[at - 1 :][: len(mask)])
    return known, questions


@pytest.mark.parametrize(
    ("time", "facts", "queries", "asked", "settings"),
    [
        (120, 8, None, 17, {}),  # 32 tokens of facts; (121 - 32) // 5 questions
        (200, 8, 8, 8, {}),
        (90, None, None, 10, {}),  # 91 // 9 = 10 facts fill it, each asked once
        (64, 5, None, 12, {"key_tokens": 1, "value_tokens": 2}),
        (80, 5, 7, 7, {"key_tokens": 3, "value_tokens": 1, "vocabulary": 12}),
    ],
)
def test_basic_recall(time, facts, queries, asked, settings):
    data = seq.basic_recall(20, time, facts, queries=queries, seed=0, **settings)
    key, value = settings.get("key_tokens", 2), settings.get("value_tokens", 2)
    vocabulary = settings.get("vocabulary", 1024)
    middle = 4 + (vocabulary - 4) // 2
    facts = 10 if facts is None else facts
    assert data.inputs.shape == data.targets.shape == data.mask.shape == (20, time)
    assert (data.inputs.dtype, data.targets.dtype, data.value_tokens) == (np.int32, np.int32, value)
    assert np.all(data.mask.sum(axis=1) == asked * value)
    distances = set()
    for row in zip(data.inputs, data.targets, data.mask, strict=True):
        known, questions = read_back(*row, key, value, facts, asked)
        assert len(known) == facts  # keys differ
        assert all(4 <= token < middle for name in known for token in name)
        assert all(middle <= token < vocabulary for words, _ in known.values() for token in words)
        names = [name for name, _ in questions]
        for start in range(0, asked - facts + 1, facts):  # all once before one comes again
            assert set(names[start : start + facts]) == set(known)
        distances |= {distance for _, distance in questions}
        if queries is not None:
            assert np.sum(row[0] == NOISE) == time + 1 - facts * (key + value) - asked * (1 + key + value)
    assert len(distances) > 5


def test_noise_stretches_the_distance_and_facts_fill_the_context():
    near, far = (seq.basic_recall(5, time, 4, queries=4, seed=1) for time in (40, 400))
    assert np.all(near.mask.sum(axis=1) == far.mask.sum(axis=1))
    assert np.all(far.inputs[:, 16:-19] == NOISE)  # 4 facts of 4; 4 questions of 5, whose last token is not read
    for time in (90, 900):
        assert np.all(seq.basic_recall(2, time, seed=0).mask.sum(axis=1) == 2 * ((time + 1) // 9))


# --------------------------------------------------------------------------------------------- positional recall


@pytest.mark.parametrize("ask", ["index", "all"])
@pytest.mark.parametrize("queries", [None, 4])
def test_positional_recall(ask, queries):
    facts, times, time = 4, 3, 140
    data = seq.positional_recall(20, time, facts, occurrences=times, ask=ask, queries=queries, seed=0)
    orders, asked = set(), []
    for tokens, targets, mask in zip(data.inputs, data.targets, data.mask, strict=True):
        stream = [*tokens, targets[-1] if mask[-1] else PAD]
        values, at = {}, 0
        order = []
        for _ in range(facts * times):
            values.setdefault(tuple(stream[at : at + 2]), []).append(tuple(stream[at + 2 : at + 4]))
            order.append(list(values).index(tuple(stream[at : at + 2])))
            at += 4
        orders.add(tuple(order))
        assert [len(listed) for listed in values.values()] == [times] * facts
        assert len({value for listed in values.values() for value in listed}) == facts * times
        assert not np.any(mask[: at - 1])
        counted = 0
        while at < len(stream):
            if stream[at] != QUERY:
                assert stream[at] == (PAD if queries is None else NOISE)
                assert not mask[at - 1]
                at += 1
                continue
            listed = values[tuple(stream[at + 1 : at + 3])]
            first = at + 3
            if ask == "index":
                index = stream[first] - 4
                assert 0 <= index < times
                asked.append(index)
                wanted, first = listed[index], first + 1
            else:
                wanted = tuple(itertools.chain(*listed))
            assert tuple(targets[first - 1 : first - 1 + len(wanted)]) == wanted
            assert tuple(stream[first : first + len(wanted)]) == wanted
            counted += len(wanted)
            at = first + len(wanted)
        assert counted == mask.sum()
        assert queries is None or counted == 4 * (2 if ask == "index" else 6)
    assert len(orders) > 15
    assert ask == "all" or set(asked) == {0, 1, 2}
    middle = 4 + times + (1024 - 4 - times) // 2
    assert np.all((data.targets >= middle) == data.mask)


# ---------------------------------------------------------------------------------------------------------- MQAR


@pytest.mark.parametrize(("pairs", "updates"), [(8, 0), (16, 0), (6, 4), (4, 4)])
@pytest.mark.parametrize("filled", [True, False])
def test_mqar(pairs, updates, filled):
    make = seq.mqar if updates == 0 else (lambda *args, **kw: seq.forgetting_mqar(*args, updates=updates, **kw))
    data = make(50, 64, pairs, vocabulary=200, random_non_queries=filled, seed=0)
    assert (data.inputs.dtype, data.inputs.shape) == (np.int32, (50, 64))
    read = 2 * (pairs + updates)
    for tokens, targets in zip(data.inputs, data.targets, strict=True):
        last, first = {}, {}
        for key, value in zip(tokens[0:read:2], tokens[1:read:2], strict=True):
            assert 1 <= key < 100 <= value < 200
            first.setdefault(key, value)
            last[key] = value
        assert len(set(tokens[1:read:2])) == pairs + updates
        assert len(set(tokens[: 2 * pairs : 2])) == len(last) == pairs  # all keys have a value before one has two
        assert sum(first[key] != last[key] for key in last) == updates
        queries = np.flatnonzero(targets != seq.NOT_COUNTED)
        assert np.all(queries >= read)
        assert np.all((queries - read) % 2 == 0)
        assert sorted(tokens[queries]) == sorted(last)  # each once
        assert all(targets[at] == last[tokens[at]] for at in queries)
        others = np.delete(tokens, np.concatenate([np.arange(read), queries]))
        assert np.all(others == 0) != filled or len(others) == 0
        assert np.all((others >= 0) & (others < 200))
    assert np.array_equal(data.mask, data.targets != seq.NOT_COUNTED)


def test_what_fills_mqar_does_not_give_the_answer_away():
    data = seq.mqar(3000, 64, 4, vocabulary=200, seed=0)
    rows, queries = np.nonzero(data.mask)
    following = data.inputs[rows, np.minimum(queries + 1, 63)]
    hits = np.sum((following == data.targets[rows, queries]) & (queries < 63))
    assert hits < 4 * 12000 / 200  # chance is one in 200
    labelled = data.inputs[rows, queries]
    assert np.all(labelled < 100)
    assert abs(np.mean(data.inputs[:, 8:][~data.mask[:, 8:]]) - 99.5) < 1


@pytest.mark.parametrize("power", [0.01, 0.5, 1.0])
def test_gaps_follow_the_power_law(power):
    data = seq.mqar(20000, 42, 1, power=power, vocabulary=64, seed=0)
    slots = np.argmax(data.mask, axis=1) // 2 - 1
    expected = power * np.arange(1, 21) ** (power - 1.0)
    expected /= expected.sum()
    found = np.bincount(slots, minlength=20) / 20000
    assert np.all(np.abs(found - expected) < 4.5 * np.sqrt(expected / 20000))


def test_gaps_are_drawn_one_after_the_other_without_replacement():
    """With two keys the pair of slots (s, t) has probability p_s p_t / (1 - p_s)."""
    data = seq.mqar(40000, 12, 2, power=0.01, vocabulary=64, seed=0)
    p = np.arange(1.0, 5) ** -0.99
    p /= p.sum()
    found = np.zeros((4, 4))
    for key in (0, 1):  # where the first key of the context is asked for, and the second
        place = np.argmax(data.mask & (data.inputs == data.inputs[:, 2 * key : 2 * key + 1]), axis=1) // 2 - 2
        slots = place if key == 0 else np.stack([slots, place])
    np.add.at(found, tuple(slots), 1 / 40000)
    expected = p[:, None] * p / (1 - p[:, None]) * (1 - np.eye(4))
    assert np.all(np.abs(found - expected) <= 4.5 * np.sqrt(expected / 40000))


def test_segments():
    assert sum(segment.examples for segment in seq.MQAR_TRAIN) == 180_000
    assert [tuple(s) for s in seq.MQAR_TRAIN[:2]] == [(64, 100_000, 4), (128, 20_000, 8)]
    assert [(s.time, s.pairs) for s in seq.MQAR_TEST][-2:] == [(512, 128), (1024, 256)]
    assert all(4 * s.pairs <= s.time for s in (*seq.MQAR_TRAIN, *seq.MQAR_TEST))
    small = [seq.Segment(16, 10, 2), seq.Segment(16, 10, 2), seq.Segment(24, 5, 3)]
    first, second, third = seq.mqar_segments(small, vocabulary=64, seed=0)
    assert third.inputs.shape == (5, 24)
    assert not np.array_equal(first.inputs, second.inputs)


def test_continuous_mqar():
    data = seq.continuous_mqar(10, 6, rounds=3, key_features=5, values=7, seed=0)
    assert data.inputs.shape == (10, 24, 12)
    assert data.inputs.dtype == np.float32
    assert np.array_equal(data.mask, np.tile(np.arange(24) >= 6, (10, 1)))
    for vectors, targets in zip(data.inputs, data.targets, strict=True):
        known = {tuple(vector[:5]): int(np.argmax(vector[5:])) for vector in vectors[:6]}
        assert np.all(vectors[:6, 5:].sum(axis=1) == 1)
        np.testing.assert_allclose(np.linalg.norm(vectors[:, :5], axis=1), 1, rtol=1e-6)
        assert not np.any(vectors[6:, 5:])
        assert [known[tuple(vector[:5])] for vector in vectors[6:]] == targets[6:].tolist()
        for start in (6, 12, 18):
            assert {tuple(vector[:5]) for vector in vectors[start : start + 6]} == set(known)


# ---------------------------------------------------------------------------------------------------- regression


def test_linear_regression():
    data = seq.linear_regression(6, 30, 4, features=3, noise=0.0, seed=0)
    assert data.inputs.shape == (6, 60, 8)
    assert (data.inputs.dtype, data.targets.dtype) == (np.float32, np.float32)
    for i in range(6):
        seen = [0] * 4
        for t in range(30):
            f, point, value = data.function[i, t], data.points[i, t], data.values[i, t]
            np.testing.assert_allclose(value, data.weights[i, f] @ point, rtol=1e-12)
            name = [float(f == g) for g in range(4)]
            np.testing.assert_allclose(data.inputs[i, 2 * t], [*point, 0, *name], rtol=1e-6)
            np.testing.assert_allclose(data.inputs[i, 2 * t + 1], [0, 0, 0, value, *name], rtol=1e-6)
            np.testing.assert_allclose(data.targets[i, 2 * t : 2 * t + 2, 0], [value, np.nan], rtol=1e-6)
            assert data.mask[i, 2 * t : 2 * t + 2].tolist() == [True, False]
            assert data.earlier[i, t] == seen[f]
            seen[f] += 1


def test_values_have_the_variance_that_errors_are_divided_by():
    data = seq.linear_regression(2000, 20, 2, features=8, noise=0.5, seed=0)
    assert abs(np.var(data.values) / 1.25 - 1) < 0.05
    assert abs(np.var(data.weights) * 8 - 1) < 0.03
    errors = seq.normalized_error(np.zeros((2000, 20)), data)
    assert abs(errors[0] - 1) < 0.1
    by_hand = np.mean(data.values[data.earlier == 3] ** 2) / 1.25
    np.testing.assert_allclose(errors[3], by_hand, rtol=1e-12)
    few = dataclasses.replace(data, earlier=np.where(data.earlier == 1, 2, data.earlier))
    assert np.isnan(seq.normalized_error(np.zeros((2000, 20)), few)[1])


@pytest.mark.parametrize(("noise", "ridge"), [(0.0, None), (0.3, None), (0.0, 0.7), (0.3, 0.0)])
def test_the_oracle_is_least_squares_on_the_same_prefix(noise, ridge):
    data = seq.linear_regression(3, 40, 3, features=4, noise=noise, seed=0)
    found = seq.ridge_oracle(data, ridge)
    strength = 4 * noise**2 if ridge is None else ridge
    for i, t in itertools.product(range(3), range(40)):
        same = [s for s in range(t) if data.function[i, s] == data.function[i, t]]
        x, y = data.points[i, same], data.values[i, same]
        rows = np.concatenate([x, np.sqrt(strength) * np.eye(4)])  # ridge as more rows
        w = np.linalg.lstsq(rows, np.concatenate([y, np.zeros(4)]), rcond=1e-10)[0]
        np.testing.assert_allclose(found[i, t], w @ data.points[i, t], rtol=1e-7, atol=1e-8)


def test_the_oracle_needs_as_many_examples_as_features():
    """Without noise the weights are known in the span of the points: `1 - j / features` of their variance is left."""
    data = seq.linear_regression(4000, 10, features=6, seed=0)
    errors = seq.normalized_error(seq.ridge_oracle(data), data)
    np.testing.assert_allclose(errors[:6], 1 - np.arange(6) / 6, atol=0.06)
    assert np.all(errors[6:] < 1e-12)
    noisy = seq.linear_regression(2000, 12, features=6, noise=0.5, seed=0)
    best, other = (seq.normalized_error(seq.ridge_oracle(noisy, r), noisy)[-1] for r in (None, 0.0))
    assert 0.25 / 1.25 < best < other  # the noise is left, and the posterior mean beats least squares


# ------------------------------------------------------------------------------------------------------- metrics


def test_accuracies():
    targets = np.array([[-1, 4, 5, -1, 6, 7], [4, 5, 6, 7, -1, -1]])
    data = seq.Sequences(targets, targets, targets >= 0, value_tokens=2)
    predictions = np.array([[9, 4, 5, 9, 6, 0], [0, 5, 6, 7, 9, 9]])
    assert seq.token_accuracy(predictions, data) == 6 / 8
    assert seq.value_accuracy(predictions, data) == 2 / 4
    assert seq.value_accuracy(np.where(targets < 0, 1, targets), data) == 1


def test_loss_by_position():
    losses = np.arange(12.0).reshape(2, 6)
    mask = np.array([[1, 1, 0, 1, 0, 0], [1, 0, 0, 1, 0, 0]], bool)
    np.testing.assert_array_equal(
        seq.loss_by_position(losses, [0, 2, 4, 6], mask), [(0 + 1 + 6) / 3, (3 + 9) / 2, np.nan]
    )
    np.testing.assert_array_equal(seq.loss_by_position(losses, [1, 3]), [(1 + 2 + 7 + 8) / 4])
    losses[:, 2] = np.nan  # what does not count may be undefined
    assert np.isfinite(seq.loss_by_position(losses, [0, 4], mask)[0])


# --------------------------------------------------------------------------------------------- seeds and errors


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: seq.basic_recall(4, 60, 4, seed=seed),
        lambda seed: seq.positional_recall(4, 60, 2, seed=seed),
        lambda seed: seq.mqar(4, 32, 4, seed=seed),
        lambda seed: seq.forgetting_mqar(4, 32, 4, updates=2, seed=seed),
        lambda seed: seq.continuous_mqar(4, 4, seed=seed),
        lambda seed: seq.linear_regression(4, 10, 2, seed=seed),
        lambda seed: seq.random_windows((np.arange(200, dtype=np.uint8),), 10, 8, seed=seed),
    ],
)
def test_a_seed_fixes_the_examples(make):
    first, again, other = make(3), make(3), make(4)
    assert all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(arrays(first), arrays(again), strict=True)
    )
    assert not np.array_equal(first.inputs, other.inputs)
    assert not np.array_equal(first.inputs[0], first.inputs[1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: seq.basic_recall(0, 60, 4, seed=0), "examples as an integer of at least 1, got 0"),
        (lambda: seq.basic_recall(2, 60, 0, seed=0), "facts as an integer of at least 1, got 0"),
        (lambda: seq.basic_recall(2, 60, 4, queries=0, seed=0), "queries as an integer of at least 1, got 0"),
        (
            lambda: seq.basic_recall(2, 19, 4, seed=0),
            "at least 20 steps for 16 tokens of facts and 1 question.*time=19",
        ),
        (lambda: seq.basic_recall(2, 50, 4, queries=8, seed=0), "at least 55 steps"),
        (lambda: seq.basic_recall(2, 7, seed=0), "facts as an integer of at least 1, got 0"),
        (lambda: seq.basic_recall(2, 60, 5, vocabulary=8, seed=0), "5 different words of 2 tokens out of 2 .* got 4"),
        (lambda: seq.basic_recall(2, 60, 2, vocabulary=5, seed=0), "vocabulary as an integer of at least 6, got 5"),
        (lambda: seq.basic_recall(2, 60, 1, key_tokens=9, seed=0), "fewer than 2\\^63 words"),
        (lambda: seq.positional_recall(2, 60, 2, occurrences=1, seed=0), "occurrences as an integer of at least 2"),
        (lambda: seq.positional_recall(2, 60, 2, ask="any", seed=0), "'index' or 'all', got 'any'"),
        (lambda: seq.mqar(2, 30, 8, seed=0), "even time of at least 32 for 8 pairs and 0 updates, got 30"),
        (lambda: seq.mqar(2, 33, 8, seed=0), "even time of at least 32"),
        (lambda: seq.mqar(2, 64, 8, vocabulary=16, seed=0), "vocabulary of at least 18 tokens"),
        (lambda: seq.mqar(2, 64, 8, power=0.0, seed=0), "power above 0"),
        (lambda: seq.forgetting_mqar(2, 64, 4, updates=5, seed=0), "as many updates as pairs, 4, got 5"),
        (lambda: seq.continuous_mqar(2, 4, rounds=0, seed=0), "rounds as an integer of at least 1, got 0"),
        (lambda: seq.linear_regression(2, 4, noise=-1.0, seed=0), "noise of at least 0"),
        (lambda: seq.ridge_oracle(seq.linear_regression(2, 4, seed=0), -1.0), "ridge of at least 0"),
        (lambda: seq.normalized_error(np.zeros((2, 3)), seq.linear_regression(2, 4, seed=0)), r"shape \(2, 4\)"),
        (
            lambda: seq.token_accuracy(np.zeros((2, 3)), seq.mqar(2, 16, 4, seed=0)),
            r"each step, \(2, 16\), got \(2, 3\)",
        ),
        (lambda: seq.loss_by_position(np.zeros((2, 3)), [0, 4]), "increasing edges from 0 to 3"),
        (lambda: seq.loss_by_position(np.zeros((2, 3)), [2, 2]), "increasing edges"),
        (lambda: seq.loss_by_position(np.zeros(3), [0, 2]), "losses"),
    ],
)
def test_clear_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_examples_that_do_not_belong_together():
    targets = np.array([[-1, 5, 6]])
    with pytest.raises(ValueError, match="one target for each step"):
        seq.Sequences(targets[:, :2], targets, targets >= 0)
    with pytest.raises(ValueError, match="expected targets of -1 exactly where the mask is False"):
        seq.Sequences(targets, targets, targets >= 6)
    with pytest.raises(ValueError, match="expected values of 3 tokens, got 2 counted steps"):
        seq.Sequences(targets, targets, targets >= 0, value_tokens=3)
    empty = np.full((1, 3), -1)
    with pytest.raises(ValueError, match="a step that counts"):
        seq.value_accuracy(empty, seq.Sequences(empty, empty, empty >= 0))
