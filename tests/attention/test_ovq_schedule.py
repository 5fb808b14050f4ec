"""How the dictionary grows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vicinal.attention.ovq import Schedule

GROWTHS = ["plateau", "min", "linear", "constant", (2, 7, 7, 11)]


def make(growth, num_centroids=12, chunk_size=16, max_length=150):
    return Schedule(growth, num_centroids, chunk_size, max_length)


def test_the_published_table():
    schedule = Schedule("plateau", num_centroids=48, chunk_size=32)
    assert [schedule.size(c) for c in range(9)] == [0, 19, 27, 32, 34, 36, 38, 39, 40]


@pytest.mark.parametrize(
    ("growth", "formula"),
    [
        ("plateau", lambda t: t * 100 // (t + 100)),
        ("min", lambda t: min(t, 100)),
        ("linear", lambda t: min(100 * t // 3000, 100)),
    ],
)
def test_formulas(growth, formula):
    schedule = Schedule(growth, 100, 32, 3000)
    assert [schedule.size(c) for c in range(200)] == [0] + [max(formula(32 * c), 1) for c in range(1, 200)]


@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("chunk_size", [12, 16])
def test_it_never_falls_and_never_makes_more_than_a_chunk_has(growth, chunk_size):
    schedule = make(growth, chunk_size=chunk_size)
    sizes = np.array([schedule.size(c) for c in range(40)])
    assert sizes[0] == 0
    assert sizes[1] >= 1
    assert np.all(np.diff(sizes) >= 0)
    assert np.all(np.diff(sizes) <= chunk_size)
    assert sizes[-1] <= 12
    assert all(type(schedule.size(c)) is int for c in range(3))
    np.testing.assert_array_equal(schedule.size(np.arange(40)), sizes)
    np.testing.assert_array_equal(jax.jit(schedule.size)(jnp.arange(40)), sizes)


def test_a_million_tokens_do_not_overflow():
    schedule = Schedule("plateau", 2048, 128)
    chunks = 2**20  # of 134 million tokens
    expected = 128 * chunks * 2048 // (128 * chunks + 2048)
    assert int(jax.jit(schedule.size)(jnp.asarray(chunks))) == expected == schedule.size(chunks)


@pytest.mark.parametrize("growth", GROWTHS[:3])
@pytest.mark.parametrize("used", [0, 3, 60, 200])
def test_a_dictionary_that_is_behind_catches_up(growth, used):
    schedule = Schedule(growth, 100, 8, 200)
    size, expected = used, []
    for c in range(30):
        expected.append(size)
        size = max(size, min(size + 8, schedule.size(5 + c + 1)))
    np.testing.assert_array_equal(schedule.sizes(used, 5, np.arange(30)), expected)
    np.testing.assert_array_equal(schedule.sizes(jnp.asarray(used), 5, jnp.arange(30)), expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"growth": "fast"}, "growth as one of plateau, min, linear, constant or a list of sizes, got 'fast'"),
        ({"growth": "linear", "max_length": None}, "max_length with growth='linear', got None"),
        ({"growth": "linear", "max_length": 2**30}, r"below 2\*\*31"),
        ({"growth": "constant", "num_centroids": 17}, "at most chunk_size=16 with growth='constant', got 17"),
        ({"num_centroids": 1}, "num_centroids as an integer of at least 2, got 1"),
        ({"num_centroids": 50_000}, "at most 46340, got 50000"),
        ({"chunk_size": 1}, "chunk_size as an integer of at least 2, got 1"),
        ({"chunk_size": 2.0}, "chunk_size as an integer of at least 2, got 2.0"),
        ({"max_length": 0}, "max_length as an integer of at least 1, got 0"),
        ({"growth": ()}, r"sizes of at least 1 .* got \[\]"),
        ({"growth": (3, 2)}, r"never fall .* got \[3, 2\]"),
        ({"growth": (17,), "num_centroids": 40}, r"at most chunk_size=16, got \[17\]"),
        ({"growth": (5, 13)}, "at most num_centroids=12, got 13"),
    ],
)
def test_clear_errors(arguments, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make(**({"growth": "plateau"} | arguments))
