"""Time of the ledger of every recipe: tracing an update of 784-256-256-10 and counting it.

    python benchmarks/ledger.py [--rounds N] [--json FILE]

The reach is two seconds. `di` is counted with 20 turns of its loop.
"""

import time

import jax
import jax.numpy as jnp
from harness import Result, main, take_turns

import vicinal as vc
from vicinal.recipes import RECIPES, recipe
from vicinal.report import Section


def counting(name: str):
    """Measures one ledger, from capture to counts."""
    key, chosen = jax.random.key(0), recipe(name)
    model = chosen.attach(vc.nn.MLP((784, 256, 256, 10), vertex_at="pre", key=key), key=key)
    x, y = jax.ShapeDtypeStruct((1, 784), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)

    def measure() -> float:
        start = time.perf_counter()
        vc.hardware.ledger(chosen.make()[0], model, x, y, turns=20 if name == "di" else None)
        return time.perf_counter() - start

    return measure


def run(rounds: int) -> Result:
    """Measures all recipes."""
    times = take_turns({name: counting(name) for name in RECIPES}, rounds)
    slowest = max(times.seconds, key=times.median)
    return Result(
        f"The slowest ledger, that of {slowest}, takes {times.median(slowest):.2f} s.",
        [Section("Ledgers", tables=[times.table("Tracing and counting an update", "bp", 1e3)])],
        {"seconds": times.seconds},
    )


if __name__ == "__main__":
    main("ledger", "What a ledger costs", __doc__, run, rounds=3)
