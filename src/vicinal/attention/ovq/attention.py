"""OVQ-attention as a function of queries, keys and values."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vicinal.attention._parts import temperatures
from vicinal.attention.chunks import cut, joined, one_sequence, unfinished
from vicinal.attention.ovq.arguments import check_arrays, check_choices, check_state
from vicinal.attention.ovq.chunked import Chunks, Plan, of_document, scan_dictionary
from vicinal.attention.ovq.dictionary import Rule
from vicinal.attention.ovq.documents import packed
from vicinal.attention.ovq.lean import scan_lean
from vicinal.attention.ovq.schedule import Schedule
from vicinal.attention.ovq.state import OVQState, empty_state
from vicinal.attention.ovq.step import step


def ovq_attention(
    q: Float[Array, "batch time heads d"],
    k: Float[Array, "batch time heads d"],
    v: Float[Array, "batch time heads e"],
    *,
    beta: float | Float[Array, ""] | Float[Array, " heads"],
    chunk_size: int = 128,
    num_centroids: int = 512,
    growth: str | Sequence[int] = "plateau",
    join: str = "all",
    bias: str = "count",
    learning_rate: float | None = None,
    normalize_centroids: bool = False,
    initial_state: OVQState | None = None,
    lengths: Int[Array, " batch"] | None = None,
    documents: Int[Array, "batch time"] | None = None,
    max_documents: int | None = None,
    max_length: int | None = None,
    key: PRNGKeyArray | None = None,
    memory: str = "lean",
) -> tuple[Float[Array, "batch time heads e"], OVQState]:
    """Causal attention to a dictionary that is learned online, and to the tokens of the current chunk.

    A head holds up to `N` centroids, with the mean key `mu_n` and the mean value `nu_n` of the `count_n` tokens that
    went to each. Token `i` reads them and the tokens of its own chunk:

        o_i = (sum_n e^{a_n} nu_n + sum_j e^{b_j} v_j) / (sum_n e^{a_n} + sum_j e^{b_j})
        a_n = beta q_i . mu_n + log count_n,      b_j = beta q_i . k_j  for j <= i in the chunk

    After `chunk_size` tokens the chunk is added to the dictionary: some of its tokens make new centroids, as many as
    the schedule says, and the others go to the centroid of most similar key. So time grows with `T N`, and what is kept
    does not grow with `T`. With a centroid for every token this is softmax attention.

    Args:
        q: Queries, usually of norm 1.
        k: Keys, usually of norm 1.
        v: Values.
        beta: The temperature, for each head or for all. It multiplies `q . k` directly, so a common scale
            `1 / sqrt(d)` is not implied.
        chunk_size: Tokens of a chunk, at least 2.
        num_centroids: `N`, the most centroids. No weight depends on it, so it may differ at test time.
        growth: How the dictionary grows; see `Schedule`.
        join: Which centroids the tokens of a chunk can go to; see `assign`. `"random"` needs `key`.
        bias: What is added to the logits of the dictionary: `"count"`, the log count; `"none"`, nothing; `"gmr"`, the
            log count and `-beta/2 (|mu_n|^2 - 1)`, which is Gaussian mixture regression also for means of norm below 1.
        learning_rate: Of the centroids: `1 / count` by default, the running mean. A constant is for comparison: it
            forgets, cannot be undone, and needs `memory="autodiff"`.
        normalize_centroids: Whether `mu_n` is taken to norm 1 when it is read or compared.
        initial_state: The state after the earlier tokens; empty by default.
        lengths: Tokens of each row without the padding on its right, which is not read and whose outputs are zero;
            all by default.
        documents: The document of each token, never falling along a row. Every document is read as if
            alone, and the returned state is that of the last one.
        max_documents: The most documents of a row, which has to be known before tracing. The outputs of more would be
            NaN.
        max_length: The length that `growth="linear"` is for.
        key: For `join="random"`.
        memory: `"lean"`: the backward pass goes back through the dictionaries, and takes memory for the inputs and one
            dictionary. `"autodiff"`: it keeps the dictionary of every chunk.

    Returns:
        The outputs, in the dtype of `v`, and the state to continue from. Softmax, sums and counts are in float32, or
        float64 if that is what the inputs are in.

    Raises:
        ValueError: If shapes do not match each other or the state, or a choice is not one of those named.
        TypeError: If dtypes differ.

    Example:
        >>> q, k, v = (jax.random.normal(key, (1, 100, 2, 8)) for key in jax.random.split(jax.random.key(0), 3))
        >>> outputs, state = ovq_attention(q, k, v, beta=1.0, chunk_size=16, num_centroids=32)
        >>> first, middle = ovq_attention(q[:, :37], k[:, :37], v[:, :37], beta=1.0, chunk_size=16, num_centroids=32)
        >>> rest, _ = ovq_attention(
        ...     q[:, 37:], k[:, 37:], v[:, 37:], beta=1.0, chunk_size=16, num_centroids=32, initial_state=middle
        ... )
        >>> bool(jnp.allclose(outputs, jnp.concatenate([first, rest], axis=1), atol=1e-5))
        True
        >>> state.tokens.tolist(), state.keys.shape
        ([100], (1, 2, 32, 8))

    References:
        Alonso, Figliolia and Millidge, Online vector quantized attention, arXiv 2602.03922. Lingle, Transformer-VQ,
        arXiv 2309.16354 (the dictionary and the log count).

    *Differs from the paper*: implemented from its abstract, published reviews and the equations of a third-party
    implementation, as the text was not available. `join="all"` is ours, see `assign`; `join="old"` is the published
    rule. The dictionary holds sums in place of running means, which is the same up to rounding.
    """
    schedule = Schedule(growth, num_centroids, chunk_size, max_length)
    rule = Rule(join, bias, learning_rate, normalize_centroids)
    check_choices(rule, memory, key)
    check_arrays(q, k, v, lengths, documents, max_documents)
    lengths, documents = (None if x is None else jnp.asarray(x) for x in (lengths, documents))
    batch, time, heads, features = q.shape
    state = initial_state
    if state is None:
        sizes = {"chunk_size": chunk_size, "num_centroids": num_centroids}
        state = empty_state(batch, heads, features, v.shape[3], **sizes, dtype=v.dtype)
    else:
        check_state(state, k, v, schedule, documents)
    if time == 0:
        return v, state
    exact = state.counts.dtype
    beta = temperatures(beta, heads, exact)
    q = (q.astype(exact) * beta[None, None, :, None]).astype(q.dtype)
    if time == 1 and lengths is None and documents is None:
        used, done = _used(state), state.tokens // chunk_size
        q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
        priority = _priorities(rule, key, done, (heads, chunk_size))
        outputs, state = step(rule, q, k, v, beta, state, schedule.sizes(used, done, 1) - used, priority)
        return jnp.swapaxes(outputs, 1, 2), state

    used = 0 if initial_state is None else _used(state)[None]
    if documents is None or max_documents is None:
        read = None if initial_state is None else state.tokens
        layout = one_sequence(batch, time, chunk_size, read, lengths)
    else:
        layout = packed(documents, chunk_size, max_documents, lengths)
    return _chunk_by_chunk(rule, schedule, q, k, v, beta, state, layout, used, key, memory)


def _chunk_by_chunk(rule, schedule, q, k, v, beta, state, layout, used, key, memory):
    """The same once it is known where each token lies."""
    before = (jnp.zeros_like(state.pending_keys), state.pending_keys, state.pending_values)
    before = [None if layout.document is not None else jnp.swapaxes(x, 1, 2) for x in before]
    chunks = Chunks(*(cut(layout, x, pending) for x, pending in zip((q, k, v), before, strict=True)))
    made = schedule.sizes(used, layout.done - layout.counted, layout.counted + 1)
    made = made - schedule.sizes(used, layout.done - layout.counted, layout.counted)
    priority = _priorities(rule, key, layout.done, chunks.keys.shape[2:4])
    plan = Plan(jnp.asarray(layout.full), jnp.asarray(made, jnp.int32), priority, layout.document)
    sums = state.sums
    if layout.document is not None:
        sums = jax.tree.map(lambda x: jnp.broadcast_to(x[:, None], (len(x), layout.documents, *x.shape[1:])), sums)
    if memory == "lean":
        outputs, sums = scan_lean(rule, chunks, beta, sums, plan)
    else:
        outputs, sums, _ = scan_dictionary(rule, chunks, beta, sums, plan)
    sums = of_document(sums, layout.last)
    pending_keys, pending_values = unfinished(layout, chunks.keys), unfinished(layout, chunks.values)
    tokens = jnp.asarray(layout.tokens)
    return joined(layout, outputs), OVQState(sums.keys, sums.values, sums.counts, pending_keys, pending_values, tokens)


def _used(state: OVQState) -> Int[Array, " batch"]:
    """The rows in use, of which all heads have as many."""
    return jnp.sum(state.counts[:, 0] > 0, axis=-1, dtype=jnp.int32)


def _priorities(rule, key, done, shape):
    """Random numbers for each token of a chunk, which depend on the chunk's place alone, not on where calls begin."""
    if rule.join != "random":
        return None

    def one(chunk):
        return jax.random.uniform(jax.random.fold_in(key, chunk), shape)

    for _ in range(jnp.ndim(done)):
        one = jax.vmap(one)
    return one(jnp.asarray(done))
