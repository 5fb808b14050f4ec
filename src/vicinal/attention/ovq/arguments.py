"""Refuses what `ovq_attention` cannot read."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vicinal.attention.ovq.assignment import JOINS
from vicinal.attention.ovq.dictionary import BIASES, Rule
from vicinal.attention.ovq.schedule import Schedule
from vicinal.attention.ovq.state import OVQState


def check_choices(rule: Rule, memory: str, key: jax.Array | None) -> None:
    """Raises a ValueError if a choice has no meaning."""
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
        if not 0 < rule.learning_rate <= 1:
            raise ValueError(f"expected learning_rate above 0 and at most 1, or None, got {rule.learning_rate!r}")
        if memory == "lean":
            raise ValueError(
                f"expected memory='autodiff' with learning_rate={rule.learning_rate}, got memory='lean', "
                "whose backward pass undoes sums; give memory='autodiff' or learning_rate=None"
            )


def check_arrays(q, k, v, lengths, documents, max_documents) -> None:
    """Raises a ValueError or TypeError if arrays do not fit each other."""
    if q.ndim != 4 or k.shape != q.shape or v.ndim != 4 or v.shape[:3] != q.shape[:3]:
        raise ValueError(
            "expected q and k of shape [batch, time, heads, d] and v of shape [batch, time, heads, e], "
            f"got {list(q.shape)}, {list(k.shape)} and {list(v.shape)}"
        )
    if not (q.dtype == k.dtype == v.dtype and jnp.issubdtype(q.dtype, jnp.floating)):
        raise TypeError(f"expected q, k and v of one floating dtype, got {q.dtype}, {k.dtype} and {v.dtype}; cast them")
    for name, ids, shape in (("lengths", lengths, q.shape[:1]), ("documents", documents, q.shape[:2])):
        if ids is None:
            continue
        if jnp.shape(ids) != shape:
            raise ValueError(f"expected {name} of shape {list(shape)}, got {list(jnp.shape(ids))}")
        if not jnp.issubdtype(jnp.result_type(ids), jnp.integer):
            raise TypeError(f"expected integers as {name}, got {jnp.result_type(ids)}")
    if documents is not None and (not isinstance(max_documents, int) or max_documents < 1):
        raise ValueError(
            f"expected max_documents of at least 1 with documents, got {max_documents!r}; give the most of a row"
        )
    if documents is None and max_documents is not None:
        raise ValueError(f"expected documents with max_documents, got max_documents={max_documents!r} alone")


def check_state(state: OVQState, k, v, schedule: Schedule, documents) -> None:
    """Raises a ValueError or TypeError if a state is not one to go on from with these arrays."""
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
            "go on with the chunk size it was made with"
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


def temperature(beta, heads: int, dtype) -> Float[Array, " heads"]:
    """`beta` as one number per head."""
    if jnp.shape(beta) not in ((), (heads,)):
        raise ValueError(f"expected beta as a number or of shape [{heads}], got shape {list(jnp.shape(beta))}")
    return jnp.broadcast_to(jnp.asarray(beta).astype(dtype), (heads,))
