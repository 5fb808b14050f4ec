"""Time of one inference-learning step against a hand-derived floor, in the same process.

The step: 784-256-256-10, tanh, rates as vertices, 20 inference steps of 0.1, softmax cross-entropy, Adam. The floor
is that network written out by hand: the first prediction computed once, closed-form derivatives, buffers donated.

The same update with `value_and_grad` in a step of one's own is timed twice: as it is, and with the old weights and the
optimiser's state donated, as its documentation shows.

    python benchmarks/step_time.py [--json FILE]

Times are medians over rounds in which the contestants take turns; what counts is their ratio within a round.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import vicinal as vc

SIZES, STEPS, STEP_SIZE, RATE = (784, 256, 256, 10), 20, 0.1, 1e-3


def up(a, w):
    """`a @ w.T`, as one product: at batch 1 a separate transpose costs more than the product."""
    return jax.lax.dot_general(a, w, (((1,), (1,)), ((), ())))


def floor_gradient(weights, x, y):
    """The same update, derived by hand: `error = value - tanh(W value_below + b)`."""
    (w1, b1), (w2, b2), (w3, b3) = weights
    batch = x.shape[0]
    p1 = jnp.tanh(up(x, w1) + b1)
    p2 = jnp.tanh(up(p1, w2) + b2)
    logits = up(p2, w3) + b3
    target = jax.nn.one_hot(y, logits.shape[-1], dtype=logits.dtype)
    loss = -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits), axis=-1))

    def relax(_, values):
        a1, a2 = values
        p2 = jnp.tanh(up(a1, w2) + b2)
        e1, e2, e3 = a1 - p1, a2 - p2, target - jax.nn.softmax(up(a2, w3) + b3)
        return a1 + STEP_SIZE * (((1 - p2**2) * e2) @ w2 - e1), a2 + STEP_SIZE * (e3 @ w3 - e2)

    a1, a2 = jax.lax.fori_loop(0, STEPS, relax, (p1, p2))
    p2 = jnp.tanh(up(a1, w2) + b2)
    d1, d2 = (1 - p1**2) * (a1 - p1), (1 - p2**2) * (a2 - p2)
    d3 = target - jax.nn.softmax(up(a2, w3) + b3)
    pairs = ((d1, x), (d2, a1), (d3, a2))
    return loss, [(-d.T @ a / batch, -jnp.sum(d, axis=0) / batch) for d, a in pairs]


def make_floor(optimizer) -> Callable:
    @jax.jit
    def plain(weights, state, x, y):
        loss, gradient = floor_gradient(weights, x, y)
        update, state = optimizer.update(gradient, state, weights)
        return optax.apply_updates(weights, update), state, loss

    return jax.jit(plain, donate_argnums=(0, 1))


def make_library(rule, graph, optimizer) -> Callable:
    def step(model, state, x, y):
        model, state, _, loss, _ = rule.step(graph, optimizer, model, state, (), x, y)
        return model, state, loss

    return jax.jit(step, donate_argnums=(0, 1))


def make_own(rule, graph, optimizer, donate: bool) -> Callable:
    def step(model, state, x, y):
        loss, gradient, _, _ = rule.value_and_grad(graph, model, (), x, y)
        updates, state = optimizer.update(gradient, state, model)
        return optax.apply_updates(model, updates), state, loss

    return jax.jit(step, donate_argnums=(0, 1) if donate else ())


def time_steps(step: Callable, carry, x, y, repeats: int) -> tuple[float, tuple]:
    start = time.perf_counter()
    for _ in range(repeats):
        *carry, loss = step(*carry, x, y)
    jax.block_until_ready((carry, loss))
    return (time.perf_counter() - start) / repeats, tuple(carry)


def scanned(step: Callable) -> Callable:
    """Many steps in one call, as the training loop takes them."""

    @jax.jit
    def run(model, state, xs, ys):
        def body(carry, batch):
            *carry, loss = step(*carry, *batch)
            return tuple(carry), loss

        (model, state), losses = jax.lax.scan(body, (model, state), (xs, ys))
        return model, state, losses

    return jax.jit(run, donate_argnums=(0, 1))


def relative_difference(a, b) -> float:
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


def compare(batch: int, rounds: int, repeats: int) -> dict:
    key = jax.random.key(0)
    optimizer = optax.adam(RATE)
    x = jax.random.uniform(key, (batch, SIZES[0]))
    y = jnp.arange(batch) % SIZES[-1]
    model = vc.nn.MLP(SIZES, key=key)
    graph = vc.capture(model, x[0])
    rule = vc.rules.InferenceLearning(vc.inference.Simultaneous(steps=STEPS, step_size=STEP_SIZE))
    library, floor = make_library(rule, graph, optimizer), make_floor(optimizer)
    loop, loop_steps = scanned(library), 100
    xs, ys = jnp.broadcast_to(x, (loop_steps, *x.shape)), jnp.broadcast_to(y, (loop_steps, *y.shape))

    def fresh_model():
        copy = jax.tree.map(jnp.copy, eqx.filter(model, eqx.is_array))
        copy = eqx.combine(copy, model)
        return copy, optimizer.init(eqx.filter(copy, eqx.is_array))

    def fresh_weights():
        copy = [(jnp.copy(layer.weight), jnp.copy(layer.bias)) for layer in model.layers]
        return copy, optimizer.init(copy)

    _, ours, _, _ = rule.value_and_grad(graph, model, (), x, y)
    _, theirs = floor_gradient(fresh_weights()[0], x, y)
    same = max(relative_difference(a.weight, b) for a, (b, _) in zip(ours.layers, theirs, strict=True))
    own = {"own": make_own(rule, graph, optimizer, False), "own_donated": make_own(rule, graph, optimizer, True)}
    carry = {"library": fresh_model(), "floor": fresh_weights(), "loop": fresh_model()}
    carry |= {name: fresh_model() for name in own}
    start = time.perf_counter()
    *carry["loop"], losses = loop(*carry["loop"], xs, ys)
    jax.block_until_ready(losses)
    first_call = time.perf_counter() - start
    times: dict[str, list[float]] = {name: [] for name in carry}
    for _ in range(rounds):
        for name, step in (("floor", floor), ("library", library), *own.items()):
            seconds, carry[name] = time_steps(step, carry[name], x, y, repeats)
            times[name].append(seconds)
        seconds, carry["loop"] = time_steps(loop, carry["loop"], xs, ys, max(1, repeats // loop_steps))
        times["loop"].append(seconds / loop_steps)
    ratios = {
        name: statistics.median(a / b for a, b in zip(times[name], times["floor"], strict=True))
        for name in ("library", "loop", "own", "own_donated")
    }
    return {
        "batch": batch,
        "relative_gradient_difference_to_floor": same,
        "floor_ms": 1e3 * statistics.median(times["floor"]),
        "library_ms": 1e3 * statistics.median(times["library"]),
        "loop_ms": 1e3 * statistics.median(times["loop"]),
        "library_over_floor": ratios["library"],
        "loop_over_floor": ratios["loop"],
        "own_over_floor": ratios["own"],
        "own_donated_over_floor": ratios["own_donated"],
        "first_call_of_the_loop_s": first_call,
    }


def deep(layers: int = 100, width: int = 64) -> dict:
    """Trace and compile time of a deep network."""
    model = vc.nn.MLP((width,) * (layers + 1), key=jax.random.key(0))
    x, y = jnp.ones((16, width)), jnp.zeros(16, int)
    optimizer = optax.adam(RATE)
    results = {}
    for name, rule in (("il", vc.rules.InferenceLearning()), ("bp", vc.rules.Backprop())):
        start = time.perf_counter()
        graph = vc.capture(model, x[0])
        captured = time.perf_counter()
        lowered = make_library(rule, graph, optimizer).lower(
            model, optimizer.init(eqx.filter(model, eqx.is_array)), x, y
        )
        traced = time.perf_counter()
        lowered.compile()
        done = time.perf_counter()
        results[name] = {
            "capture_s": captured - start,
            "trace_s": traced - captured,
            "compile_s": done - traced,
        }
        results[name]["total_s"] = done - start
    return {"layers": layers, "width": width, **results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    result = {
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "steps": [compare(64, arguments.rounds, 100), compare(1, arguments.rounds, 300)],
        "deep": deep(),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
