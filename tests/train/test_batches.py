"""Batches from arrays and iterables: what comes, in which order, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vicinal.data import epoch_order
from vicinal.train import batches as batches_module
from vicinal.train.batches import ArraySource, IterableSource, count_examples, source_of

KEY = jax.random.key(3)


def numbered(examples):
    return np.arange(examples, dtype=np.float32)[:, None], np.arange(examples, dtype=np.int32)


def visited(source, steps, lengths):
    """The targets of each batch of a run cut into chunks of these lengths, repeated."""
    found, lengths = [], [*lengths] * steps
    while len(found) < steps:
        chunk = source.chunk(len(found), min(lengths.pop(), steps - len(found)))
        if chunk is None:
            break
        held, index, count = chunk
        assert count >= 1
        for i in range(index, index + count):
            x, y = held.get(jnp.int32(i))
            np.testing.assert_array_equal(x[:, 0].astype(y.dtype), y)  # inputs and targets stay together
            found.append(np.asarray(y).tolist())
    return found


def in_epoch_order(examples, batch_size, steps):
    per_epoch = examples // batch_size
    orders = [np.asarray(epoch_order(KEY, epoch, examples)) for epoch in range(-(-steps // per_epoch))]
    rows = [order[: per_epoch * batch_size].reshape(per_epoch, batch_size) for order in orders]
    return np.concatenate(rows)[:steps].tolist()


@pytest.mark.parametrize("rows_ahead", [1, 40])
@pytest.mark.parametrize(("examples", "batch_size"), [(10, 3), (10, 10), (7, 1), (1, 1)])
def test_arrays_are_visited_in_the_order_of_the_epochs(monkeypatch, rows_ahead, examples, batch_size):
    monkeypatch.setattr(batches_module, "_ROWS_AHEAD", rows_ahead)
    source = ArraySource(*numbered(examples), batch_size, KEY)
    assert source.steps_per_epoch == examples // batch_size
    expected = in_epoch_order(examples, batch_size, 23)
    for lengths in ([1], [100], [3, 7, 1]):
        assert visited(source, 23, lengths) == expected


def test_array_batches_have_one_shape_whatever_the_chunk():
    source = ArraySource(*numbered(10), 3, KEY)
    shapes = {tuple(leaf.shape for leaf in jax.tree.leaves(source.chunk(step, 4)[0])) for step in range(200)}
    assert len(shapes) == 1


def test_array_inputs_may_be_trees():
    x, y = numbered(6)
    source = source_of(({"a": x, "b": (x, y)}, {"c": y}), 2, KEY)
    held, index, _ = source.chunk(0, 1)
    inputs, targets = held.get(jnp.int32(index))
    np.testing.assert_array_equal(inputs["b"][1], targets["c"])
    assert source.example()["a"].shape == (1,)


def pairs(count, size=2):
    return [(np.full((size, 1), i, np.float32), np.full(size, i, np.int32)) for i in range(count)]


class Anew:
    """An iterable that counts how often it is begun."""

    def __init__(self, batches):
        self.batches, self.begun = batches, 0

    def __iter__(self):
        self.begun += 1
        return iter(self.batches)


@pytest.mark.parametrize("lengths", [[1], [100], [3, 7, 1]], ids=str)
def test_a_list_of_batches_starts_over(lengths):
    given = Anew(pairs(5))
    assert visited(IterableSource(given), 12, lengths) == [[i % 5] * 2 for i in range(12)]
    assert given.begun == 3


@pytest.mark.parametrize("lengths", [[1], [100]], ids=str)
def test_a_generator_ends(lengths):
    assert visited(IterableSource(iter(pairs(5))), 12, lengths) == [[i] * 2 for i in range(5)]


def test_nothing_is_read_ahead_of_a_chunk():
    read = []
    source = IterableSource(read.append(i) or batch for i, batch in enumerate(pairs(9)))
    source.example()
    assert read == [0]
    source.chunk(0, 3)
    assert read == [0, 1, 2]


def test_a_batch_of_another_size_is_a_chunk_of_its_own():
    ragged = [*pairs(3), (np.full((1, 1), 3, np.float32), np.full(1, 3, np.int32))]
    source = IterableSource(ragged)
    assert [(source.chunk(step, 9)[2], source.examples_in(source.chunk(step + 3, 9)[0])) for step in (0, 4)] == [
        (3, 1),
        (3, 1),
    ]
    assert visited(IterableSource(ragged), 8, [100]) == [[0, 0], [1, 1], [2, 2], [3], [0, 0], [1, 1], [2, 2], [3]]


def test_a_resumed_run_skips_what_was_seen_across_the_end():
    source = IterableSource(pairs(5))
    source.example()
    held, index, count = source.chunk(13, 2)
    assert [int(held.get(jnp.int32(index + i))[1][0]) for i in range(count)] == [3, 4]


def test_a_stack_is_as_large_as_memory_allows_and_always_as_large(monkeypatch):
    monkeypatch.setattr(batches_module, "_STACK_BYTES", 3 * (2 * 4 + 2 * 4))  # three batches of pairs()
    source = IterableSource(pairs(8))
    chunks = [source.chunk(0, 2), source.chunk(2, 100), source.chunk(5, 100)]
    assert [(held.x.shape[0], count) for held, _, count in chunks] == [(3, 2), (3, 3), (3, 3)]
    monkeypatch.setattr(batches_module, "_STACK_BYTES", 1)
    assert visited(IterableSource(pairs(3)), 5, [100]) == [[i % 3] * 2 for i in range(5)]


def test_an_iterable_that_is_empty_the_second_time_ends():
    class Once:
        given = iter(pairs(2))

        def __iter__(self):
            return (batch for batch in self.given)

    assert visited(IterableSource(Once()), 5, [1]) == [[0, 0], [1, 1]]


def test_what_the_iterable_raises_comes_through():
    def failing():
        yield pairs(1)[0]
        raise OSError("the disk is gone")

    source = IterableSource(failing())
    source.chunk(0, 1)
    with pytest.raises(OSError, match="the disk is gone"):
        source.chunk(1, 1)


@pytest.mark.parametrize(
    ("batch", "error", "sentence"),
    [
        (None, TypeError, "expected each batch as a pair of arrays .x, y., got NoneType"),
        (np.ones((2, 3)), TypeError, "expected each batch as a pair of arrays .x, y., got ndarray"),
        ({"x": 1, "y": 2}, TypeError, "got a Python int"),  # dictionaries of arrays are batches
        (
            {"pixels": np.ones((2, 3)), "y": np.ones(2)},
            TypeError,
            "inputs as one of x, X, .*got pixels, y; vicinal.data",
        ),
        ((np.ones((2, 3)), np.array(["a", "b"])), TypeError, "arrays of numbers, got <U1; vicinal.data.from_arrays"),
        ((np.ones((2, 3)),) * 3, TypeError, "got 3 items"),
        ((np.ones((2, 3)), [0, 1]), TypeError, "got a Python int"),
        ((np.ones((2, 3)), np.float32(1)), TypeError, "got a scalar"),
        ((np.ones((2, 3)), np.ones(3)), ValueError, "as many targets as inputs, got 2 and 3 examples"),
        ((np.ones((0, 3)), np.ones(0)), ValueError, "expected at least one example, got none"),
    ],
)
def test_wrong_batches_are_refused(batch, error, sentence):
    with pytest.raises(error, match=sentence):
        IterableSource([batch]).example()
    with pytest.raises(error, match=sentence):
        IterableSource([pairs(1)[0], batch]).chunk(0, 2)


@pytest.mark.parametrize("empty", [[], (), iter([])], ids=["list", "tuple", "iterator"])
def test_an_empty_iterable_is_refused(empty):
    with pytest.raises(ValueError, match="expected at least one batch, got an empty iterable"):
        source_of(empty, 1, KEY).example()


def test_a_generator_function_must_be_called():
    def batches():
        yield from pairs(1)

    with pytest.raises(TypeError, match="an iterable of batches, got function; call it"):
        source_of(batches, 1, KEY)
    assert isinstance(source_of(batches(), 1, KEY), IterableSource)


@pytest.mark.parametrize("data", ["digits", b"digits", {"x": 1}, 3, None, np.ones((4, 2)), jnp.ones((4, 2))], ids=repr)
def test_other_data_are_refused(data):
    with pytest.raises(TypeError, match="expected data as a Dataset, a pair of arrays"):
        source_of(data, 1, KEY)


def test_arrays_that_do_not_belong_together_are_refused():
    x, y = numbered(5)
    with pytest.raises(ValueError, match="as many targets as inputs, got 4 and 5 examples"):
        source_of((x, y[:4]), 1, KEY)
    with pytest.raises(TypeError, match=r"got a Python int; use jnp\.asarray"):
        source_of((x, y.tolist()), 1, KEY)
    with pytest.raises(TypeError, match="got a scalar"):
        source_of((x, np.float32(3)), 1, KEY)
    with pytest.raises(ValueError, match="expected at least one example, got none"):
        count_examples(x[:0], y[:0])
    with pytest.raises(ValueError, match="expected at least one example, got none"):
        count_examples((), ())


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "batch_size as an integer of at least 1, got 0"),
        (-1, "batch_size as an integer of at least 1, got -1"),
        (6, "a batch size from 1 to 5, the number of examples, got 6"),
    ],
)
def test_batch_sizes_out_of_range_are_refused(size, words):
    with pytest.raises(ValueError, match=f"expected {words}"):
        source_of(numbered(5), size, KEY)


def test_batch_sizes_are_integers():
    with pytest.raises(TypeError, match=r"expected batch_size as an integer of at least 1, got 2\.0"):
        source_of(numbered(5), 2.0, KEY)
    assert source_of(numbered(5), np.int64(2), KEY).steps_per_epoch == 2
