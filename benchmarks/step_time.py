"""Time of one inference-learning step compared with a hand-derived floor, in the same process.

The step: 784-256-256-10, tanh, vertices at rates, 20 inference steps of 0.1, softmax cross-entropy, Adam. The floor is
the same network written by hand: the first prediction computed once, closed-form derivatives, buffers donated.

A user's step with `value_and_grad` is timed twice: as it is, and with the old weights and the optimiser's state
donated, as its documentation shows.

    python benchmarks/step_time.py [--rounds N] [--json FILE]

Times are medians over rounds in which the contestants take turns; compare their ratios within a round.
"""

import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from harness import Result, Times, main, stepping, take_turns

import vicinal as vc
from vicinal.report import Section, Table

SIZES, STEPS, STEP_SIZE, RATE = (784, 256, 256, 10), 20, 0.1, 1e-3
FLOOR, LOOP = "floor", 100  # steps in one call of the loop


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


def scanned(step: Callable) -> Callable:
    """Takes many steps in one call, as the training loop does."""

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


def compare(batch: int, rounds: int, repeats: int) -> tuple[Times, float]:
    """Seconds per step of each contestant, and the distance of the library's gradient from the floor's."""
    key = jax.random.key(0)
    optimizer, x = optax.adam(RATE), jax.random.uniform(key, (batch, SIZES[0]))
    y, model = jnp.arange(batch) % SIZES[-1], vc.nn.MLP(SIZES, key=key)
    graph = vc.capture(model, x[0])
    rule = vc.rules.InferenceLearning(vc.inference.Simultaneous(steps=STEPS, step_size=STEP_SIZE))
    library = make_library(rule, graph, optimizer)

    def fresh_model():
        copy = eqx.combine(jax.tree.map(jnp.copy, eqx.filter(model, eqx.is_array)), model)
        return copy, optimizer.init(eqx.filter(copy, eqx.is_array))

    def fresh_weights():
        copy = [(jnp.copy(layer.weight), jnp.copy(layer.bias)) for layer in model.layers]
        return copy, optimizer.init(copy)

    _, ours, _, _ = rule.value_and_grad(graph, model, (), x, y)
    _, theirs = floor_gradient(fresh_weights()[0], x, y)
    difference = max(relative_difference(a.weight, b) for a, (b, _) in zip(ours.layers, theirs, strict=True))
    xs, ys = (jnp.broadcast_to(part, (LOOP, *part.shape)) for part in (x, y))
    contestants = {
        FLOOR: stepping(make_floor(optimizer), fresh_weights(), (x, y), repeats),
        "library": stepping(library, fresh_model(), (x, y), repeats),
        "loop": stepping(scanned(library), fresh_model(), (xs, ys), max(1, repeats // LOOP), steps=LOOP),
        "own step": stepping(make_own(rule, graph, optimizer, False), fresh_model(), (x, y), repeats),
        "own step, donated": stepping(make_own(rule, graph, optimizer, True), fresh_model(), (x, y), repeats),
    }
    return take_turns(contestants, rounds), difference


def deep(layers: int = 100, width: int = 64) -> dict[str, dict[str, float]]:
    """Seconds to capture, trace and compile a deep network."""
    model = vc.nn.MLP((width,) * (layers + 1), key=jax.random.key(0))
    x, y, optimizer = jnp.ones((16, width)), jnp.zeros(16, int), optax.adam(RATE)
    found = {}
    for name, rule in (("inference learning", vc.rules.InferenceLearning()), ("backpropagation", vc.rules.Backprop())):
        start = time.perf_counter()
        graph = vc.capture(model, x[0])
        captured = time.perf_counter()
        state = optimizer.init(eqx.filter(model, eqx.is_array))
        lowered = make_library(rule, graph, optimizer).lower(model, state, x, y)
        traced = time.perf_counter()
        lowered.compile()
        found[name] = {
            "capture": captured - start,
            "trace": traced - captured,
            "compile": time.perf_counter() - traced,
        }
    return found


def run(rounds: int) -> Result:
    """Measures steps at batch sizes 64 and 1, and the time to compile a deep network."""
    times, difference = {}, {}
    for batch, repeats in ((64, 100), (1, 300)):
        times[batch], difference[batch] = compare(batch, rounds, repeats)
    compiled = deep()
    parts = ("capture", "trace", "compile")
    rows = [[name, *(f"{each[part]:.2f}" for part in parts)] for name, each in compiled.items()]
    ratios = ", ".join(f"{t.ratio('library', FLOOR):.2f} at batch {batch}" for batch, t in times.items())
    gradient = ", ".join(f"{value:.1e}" for value in difference.values())
    return Result(
        f"A step of the library over the floor: {ratios}. Their gradients differ by {gradient} of their norm.",
        [
            Section("Steps", tables=[t.table(f"Batch size {b}", FLOOR) for b, t in times.items()]),
            Section("100 layers of 64", tables=[Table("Seconds", ["", *parts], rows)]),
        ],
        {"steps": {b: t.seconds for b, t in times.items()}, "gradient_difference": difference, "deep": compiled},
    )


if __name__ == "__main__":
    main("step_time", "A step of inference learning against a floor derived by hand", __doc__, run, rounds=15)
