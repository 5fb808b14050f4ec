"""What OVQ-attention and its alternatives cost: time and memory by length, forward, backward and token by token."""

import dataclasses
import time as clock
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vicinal.attention import (
    decayed_linear_attention,
    gated_delta_rule,
    linear_attention,
    mesa_attention,
    ovq_attention,
    sliding_window_attention,
    softmax_attention,
    state_bytes,
    vq_attention,
)
from vicinal.report import Claim, Panel, Section, Series, Table
from vicinal.report.formatting import capitalized
from vicinal.reproduce import Experiment, Found, Run, Size
from vicinal_experiments import papers

Operator = Callable[..., tuple[Array, Any]]
"""`operator(q, k, v, initial_state=None) -> (outputs, state)`, `[batch, time, heads, features]`."""
FULL, OVQ = "full attention", "OVQ"
FORWARD, BOTH, DECODE = "forward", "forward and backward", "one token"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        batch: Sequences.
        heads: Of each.
        features: Of a head's keys and values.
        num_centroids: Of OVQ-attention, and codes of VQ-attention.
        chunk_size: Of both.
        window: Of the sliding window.
        dtype: Of queries, keys and values.
    """

    batch: int = 1
    heads: int = 2
    features: int = 64
    num_centroids: int = 512
    chunk_size: int = 128
    window: int = 128
    dtype: str = "float32"


def operators(sizes: Sizes, length: int) -> dict[str, Operator]:
    """Each operator by name, for sequences of a length at most; full attention by a fused kernel where there is one."""
    beta = sizes.features**0.5
    fused = jax.default_backend() == "gpu" and sizes.dtype in ("bfloat16", "float16")
    gates = {"log_decay": -0.01, "rate": 0.5}
    codebook = _unit(jax.random.normal(jax.random.key(9), (sizes.heads, sizes.num_centroids, sizes.features)))

    def gated(operator: Callable[..., Any], *names: str, **options: Any) -> Operator:
        def of(q: Array, k: Array, v: Array, initial_state: Any = None) -> tuple[Array, Any]:
            given = [jnp.full(q.shape[:3], gates[name], q.dtype) for name in names]
            return operator(q, k, v, *given, initial_state=initial_state, **options)

        return of

    shape = {"num_centroids": sizes.num_centroids, "chunk_size": sizes.chunk_size}
    return {
        FULL: gated(softmax_attention, beta=beta, max_length=length, implementation="cudnn" if fused else None),
        OVQ: gated(ovq_attention, beta=beta, **shape),
        "sliding window": gated(sliding_window_attention, beta=beta, window=sizes.window),
        "VQ-attention": gated(vq_attention, codebook=codebook, beta=beta, chunk_size=sizes.chunk_size),
        "linear attention": gated(linear_attention),
        "Mamba2 (SSD)": gated(decayed_linear_attention, "log_decay"),
        "Gated DeltaNet": gated(gated_delta_rule, "log_decay", "rate"),
        "Mesa layer": gated(mesa_attention, "log_decay", "rate", ridge=jnp.ones((sizes.heads, sizes.features))),
    }


def inputs(sizes: Sizes, length: int) -> tuple[Array, Array, Array]:
    """Random queries and keys of norm 1, and values."""
    shape = (sizes.batch, length, sizes.heads, sizes.features)
    q, k, v = (jax.random.normal(key, shape, sizes.dtype) for key in jax.random.split(jax.random.key(0), 3))
    return _unit(q), _unit(k), v


def _unit(x: Array) -> Array:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one operator costs at one length.

    Attributes:
        seconds: Median of the repetitions, after warming up; of one token, the mean over a chunk of them.
        spread: Their 20th and 80th percentile, seconds.
        compile_seconds: Of tracing and compiling.
        temporary_bytes: What the compiled program needs beside inputs and outputs, as XLA counts.
        state_bytes: Of the state after the last token.
    """

    seconds: float
    spread: tuple[float, float]
    compile_seconds: float
    temporary_bytes: int
    state_bytes: int


def measure(operator: Operator, mode: str, sizes: Sizes, length: int, repetitions: int = 5) -> Cost:
    """Times an operator.

    Args:
        operator: One of `operators`.
        mode: `"forward"`, `"forward and backward"` (gradients of queries, keys and values), or `"one token"`: the
            mean of the next `chunk_size` tokens, one after the other, after so many were read.
        sizes: The sizes.
        length: Tokens. For `"one token"` the operator needs room for `room(mode, sizes, length, repetitions)`.
        repetitions: How often it is timed, after one run that is not.

    Returns:
        The cost.
    """
    if mode not in (FORWARD, BOTH, DECODE):
        raise ValueError(f"expected a mode of {FORWARD}, {BOTH}, {DECODE}, got {mode!r}")
    if mode == DECODE:
        return _of_one_token(operator, sizes, length, repetitions)
    q, k, v = inputs(sizes, length)
    program: Callable[..., Any] = lambda q, k, v: operator(q, k, v)[0]  # noqa: E731
    if mode == BOTH:
        program = jax.grad(lambda q, k, v: jnp.sum(jnp.sin(operator(q, k, v)[0])), argnums=(0, 1, 2))
    compiled, compiling, temporary = _compiled(jax.jit(program), q, k, v)
    kept = state_bytes(jax.eval_shape(operator, q, k, v)[1])
    jax.block_until_ready(compiled(q, k, v))
    times = []
    for _ in range(repetitions):
        begun = clock.perf_counter()
        jax.block_until_ready(compiled(q, k, v))
        times.append(clock.perf_counter() - begun)
    return _cost(times, compiling, temporary, kept)


def room(mode: str, sizes: Sizes, length: int, repetitions: int) -> int:
    """How many tokens `measure` reads, for which full attention has to have room."""
    return length + (1 + repetitions) * sizes.chunk_size * (mode == DECODE)


def _of_one_token(operator: Operator, sizes: Sizes, length: int, repetitions: int) -> Cost:
    # One sequence is read and then repeated: for a whole batch there may be no memory.
    q, k, v = inputs(dataclasses.replace(sizes, batch=1), length)
    state = jax.jit(operator)(q, k, v)[1]
    *token, state = (
        jax.tree.map(lambda x: jnp.repeat(x, sizes.batch, axis=0), x) for x in (*(x[:, -1:] for x in (q, k, v)), state)
    )
    kept = state_bytes(state)
    # The state is donated, as in generation: the one before is not kept.
    compiled, compiling, temporary = _compiled(jax.jit(operator, donate_argnums=3), *token, state)
    times = []
    for repetition in range(1 + repetitions):
        begun = clock.perf_counter()
        for _ in range(sizes.chunk_size):
            _, state = compiled(*token, state)
        jax.block_until_ready(state)
        if repetition:  # the first is for warming up
            times.append((clock.perf_counter() - begun) / sizes.chunk_size)
    return _cost(times, compiling, temporary, kept)


def _compiled(program: Any, *arguments: Any) -> tuple[Any, float, int]:
    """The compiled program, the seconds it took, and the bytes it needs beside inputs and outputs."""
    begun = clock.perf_counter()
    compiled = program.lower(*arguments).compile()
    compiling = clock.perf_counter() - begun
    found = compiled.memory_analysis()
    return compiled, compiling, 0 if found is None else int(found.temp_size_in_bytes)


def _cost(times: Sequence[float], compiling: float, temporary: int, kept: int) -> Cost:
    low, middle, high = (float(np.percentile(times, at)) for at in (20, 50, 80))
    return Cost(middle, (low, high), compiling, temporary, kept)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostSize(Size):
    """Shapes and lengths.

    Attributes:
        shapes: Of queries, keys, values and states.
        lengths: Tokens.
    """

    shapes: Sizes
    lengths: tuple[int, ...]


def _measure(run: Run[CostSize]) -> dict[str, Any]:
    """The cost of each operator, by mode and length."""
    sizes = run.size.shapes
    found: Costs = {mode: {name: {} for name in operators(sizes, 1)} for mode in (FORWARD, BOTH, DECODE)}
    for mode, by_name in found.items():
        for length in run.size.lengths:
            repetitions = 3 if length > 4096 else 5
            for name, operator in operators(sizes, room(mode, sizes, length, repetitions)).items():
                run.say(f"{name}, {mode}, {length} tokens")
                seen = measure(operator, mode, sizes, length, repetitions)
                by_name[name][str(length)] = dataclasses.asdict(seen)
    return {"cost": found}


# ---------------------------------------------------------------------------------------------------------- judge

Costs = dict[str, dict[str, dict[str, Any]]]
"""Fields of `Cost` by mode, operator and length (as text, for JSON)."""


def _sections(found: Found[CostSize]) -> list[Section]:
    costs, lengths = found.numbers["cost"], found.size.lengths
    return [*(_section(mode, costs[mode], lengths) for mode in costs), _memory(costs, lengths)]


def _section(mode: str, found: dict[str, dict[str, Any]], lengths: Sequence[int]) -> Section:
    unit, factor = ("µs", 1e6) if mode == DECODE else ("ms", 1e3)
    rows: list[list[Any]] = [
        [name, *(f"{factor * row[str(length)]['seconds']:.3g}" for length in lengths)] for name, row in found.items()
    ]
    series = [
        Series(name, [float(n) for n in lengths], [[factor * row[str(n)]["seconds"] for n in lengths]])
        for name, row in found.items()
    ]
    heading = capitalized(mode)
    return Section(
        heading,
        tables=[Table(f"{heading}: median time ({unit}), by tokens", ["operator", *map(str, lengths)], rows)],
        panels=[Panel(heading, "tokens", unit, series, log_x=True, log_y=True)],
    )


def _memory(found: Costs, lengths: Sequence[int]) -> Section:
    def rows(mode: str, quantity: str) -> list[list[Any]]:
        return [
            [name, *(f"{row[str(length)][quantity] / 1e6:.3g}" for length in lengths)]
            for name, row in found[mode].items()
        ]

    columns = ["operator", *map(str, lengths)]
    return Section(
        "Memory",
        tables=[
            Table("State (MB), by tokens", columns, rows(FORWARD, "state_bytes")),
            Table("Temporary memory of forward and backward (MB), by tokens", columns, rows(BOTH, "temporary_bytes")),
        ],
    )


def _ratio(found: Costs, mode: str, length: int) -> float:
    seconds = {name: found[mode][name][str(length)]["seconds"] for name in (FULL, OVQ)}
    return seconds[FULL] / seconds[OVQ]


def _summary(found: Found[CostSize]) -> str:
    long, costs = found.size.lengths[-1], found.numbers["cost"]
    parts = ", ".join(f"{mode} {_ratio(costs, mode, long):.1f}" for mode in costs)
    return f"At {long} tokens full attention takes so many times as long as OVQ-attention: {parts}."


def _faster(found: Found[CostSize]) -> Claim:
    costs, lengths = found.numbers["cost"], found.size.lengths
    ratios = {length: (_ratio(costs, FORWARD, length), _ratio(costs, BOTH, length)) for length in lengths}
    won = [length for length, both in ratios.items() if min(both) > 1]
    return Claim(
        "Linear compute makes OVQ-attention faster than full attention on long sequences (arXiv 2602.03922).",
        "Full attention's time over OVQ's, forward and with backward: "
        + "; ".join(f"{length} tokens {one:.2f} and {two:.2f}" for length, (one, two) in ratios.items())
        + ".",
        "holds" if won and won[-1] == lengths[-1] else "does not hold",
    )


def _constant(found: Found[CostSize]) -> Claim:
    costs, ends = found.numbers["cost"], (found.size.lengths[0], found.size.lengths[-1])
    sizes = {costs[FORWARD][OVQ][str(length)]["state_bytes"] for length in found.size.lengths}
    ours, full = ([1e6 * costs[DECODE][name][str(length)]["seconds"] for length in ends] for name in (OVQ, FULL))
    return Claim(
        "The state does not grow with the length, and neither does the time for a token.",
        f"State: {', '.join(f'{size / 1e6:.3g} MB' for size in sorted(sizes))}. A token after {ends[0]} and after "
        f"{ends[1]}: {ours[0]:.0f} and {ours[1]:.0f} µs (full attention {full[0]:.0f} and {full[1]:.0f}).",
        "holds" if len(sizes) == 1 and ours[1] < 1.5 * ours[0] else "does not hold",
    )


def _differences(found: Found[CostSize]) -> list[str]:
    return [
        "The paper has no table of times; reviewers asked for one. This is one machine with XLA for its cores, without "
        "kernels of our own: where full attention has a fused kernel the lengths at which OVQ wins are longer.",
        "One repetition of each measurement's data; medians of three to five runs (of a token: of the mean over a "
        "chunk of them).",
    ]


COST = Experiment(
    name="ovq/cost",
    title="What OVQ-attention costs",
    topic="time and memory against full attention and the others, by length",
    paper=papers.OVQ,
    sizes={
        "quick": CostSize(shapes=Sizes(features=16, num_centroids=32, chunk_size=32, window=32), lengths=(64, 128)),
        "full": CostSize(shapes=Sizes(), lengths=(512, 1024, 2048, 4096, 8192, 16_384)),
    },
    time={"full": "ten minutes"},
    measure=_measure,
    summary=_summary,
    claims=[_faster, _constant],
    sections=_sections,
    differences=_differences,
    seeds=1,
)
"""Time, temporary memory and state of OVQ-attention against full attention and the others, by length."""
