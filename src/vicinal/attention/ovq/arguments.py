"""Checks of the arguments of `ovq_attention`."""

import jax

from vicinal._numbers import check
from vicinal.attention._parts import check_arrays as check_qkv, check_integers
from vicinal.attention.ovq.assignment import JOINS
from vicinal.attention.ovq.dictionary import BIASES, Rule
from vicinal.attention.ovq.schedule import Schedule
from vicinal.attention.ovq.state import OVQState


def check_choices(rule: Rule, memory: str, key: jax.Array | None) -> None:
    """Raises a ValueError if a choice is unknown or needs another argument."""
    for name, choice, known in (
        ("join", rule.join, JOINS),
        ("bias", rule.bias, BIASES),
        ("memory", memory, ("lean", "autodiff")),
    ):
        if choice not in known:
            raise ValueError(f"expected {name} as one of {', '.join(known)}, got {choice!r}")
    if rule.join == "random" and key is None:
        raise ValueError("expected key with join='random', got None; give jax.random.key(seed)")
    if rule.learning_rate is not None:
        check("learning_rate", rule.learning_rate, lambda v: (v > 0) & (v <= 1), "above 0 and at most 1, or None")
        if memory == "lean":
            raise ValueError(
                f"expected memory='autodiff' with learning_rate={rule.learning_rate}, got memory='lean', "
                "whose backward pass undoes sums; give memory='autodiff' or learning_rate=None"
            )


def check_arrays(q, k, v, lengths, documents, max_documents) -> None:
    """Raises a ValueError or TypeError if arrays do not fit each other."""
    check_qkv(q, k, v, lengths)
    if documents is not None:
        check_integers("documents", documents, q.shape[:2])
    if documents is not None and (not isinstance(max_documents, int) or max_documents < 1):
        raise ValueError(
            f"expected max_documents of at least 1 with documents, got {max_documents!r}; give the most of a row"
        )
    if documents is None and max_documents is not None:
        raise ValueError(f"expected documents with max_documents, got only max_documents={max_documents!r}")


def check_state(state: OVQState, k, v, schedule: Schedule, documents) -> None:
    """Raises a ValueError or TypeError if a state does not fit these arrays."""
    if documents is not None:
        raise ValueError(
            "expected no initial_state with documents, each of which starts with nothing read; leave one out"
        )
    rows, size = state.counts.shape[-1], state.pending_keys.shape[2]
    if rows != schedule.num_centroids:
        advice = "grow it by grow_state" if rows < schedule.num_centroids else "a state cannot shrink"
        raise ValueError(
            f"expected an initial_state of num_centroids={schedule.num_centroids} rows, got {rows}; {advice}"
        )
    if size != schedule.chunk_size:
        raise ValueError(
            f"expected an initial_state for chunk_size={schedule.chunk_size}, got one for {size}; "
            "use the chunk size it was made with"
        )
    batch, _, heads, features = k.shape
    expected = (batch, heads, size, features), (batch, heads, size, v.shape[3])
    if (state.pending_keys.shape, state.pending_values.shape) != expected:
        raise ValueError(
            f"expected an initial_state with pending keys and values of shapes {list(map(list, expected))}, "
            f"got {list(state.pending_keys.shape)} and {list(state.pending_values.shape)}"
        )
    if state.pending_keys.dtype != k.dtype:
        raise TypeError(
            f"expected an initial_state for {k.dtype}, got one for {state.pending_keys.dtype}; cast the inputs"
        )
