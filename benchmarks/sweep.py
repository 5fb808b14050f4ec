"""A sweep compared with the same runs one after the other, in the same process.

Members: 784-256-256-10, ReLU, batch size 1, random inputs, learning rates at which nothing diverges. The floor is
`vicinal.train.fit` for one member after another, with the same evaluations and shared compiled programs.

    python benchmarks/sweep.py [--steps N] [--members N] [--recipes NAME ...] [--json FILE]

The first ratio excludes compilation and calibration on both sides; the second includes them.
"""

import os
import time
from typing import Any

import jax

jax.config.update("jax_num_cpu_devices", os.cpu_count())

from harness import Result, main, mnist_network, random_digits  # noqa: E402

import vicinal as vc  # noqa: E402
from vicinal.recipes import recipe  # noqa: E402
from vicinal.report import Section, Table  # noqa: E402
from vicinal.train import fit, keys_of, sweep  # noqa: E402


def build(key):
    """The network with the initial weights of a key."""
    return vc.nn.preset("mnist-mlp", key=key)


def compare(name: str, members: int, steps: int) -> dict[str, Any]:
    """Measures a sweep of a recipe, and the same members one after the other."""
    data, graph = random_digits(), mnist_network()[1]
    rates = [0.001 * (1 + i) for i in range(members // 5)]
    numbers = {"eps": 1.0} if "prox" in name else {}
    settings = {"steps": steps, "batch_size": 1, "evaluate_every": steps, "progress": False}

    def make(learning_rate):
        return recipe(name).make(learning_rate=learning_rate, **numbers)

    done = sweep(make, build, data, {"learning_rate": rates}, seeds=5, graph=graph, **settings)
    if any(member.stopped for member in done.members):
        raise RuntimeError(f"expected every member of {name} to reach its end, got one that stopped")

    def alone(member, steps: int) -> float:
        rule, optimizer = make(**member.numbers)
        model_key, key = keys_of(member.seed)
        model, start = build(model_key), time.monotonic()
        fit(rule, model, optimizer, data, key=key, graph=graph, **(settings | {"steps": steps}))
        return time.monotonic() - start

    first = alone(done.members[0], 2)
    one_by_one = sum(alone(member, steps) for member in done.members)
    compiled = done.seconds - done.seconds_to_start
    return {
        "recipe": name,
        "members": len(done.members),
        "side_by_side": done.layout.size,
        "compilations": done.compilations,
        "sweep_s": done.seconds,
        "sweep_to_start_s": done.seconds_to_start,
        "one_by_one_s": one_by_one,
        "one_by_one_to_start_s": first,
        "us_per_member_and_step": 1e6 * compiled / steps / len(done.members),
        "ratio": one_by_one / compiled,
        "ratio_whole": (one_by_one + first) / done.seconds,
    }


def run(steps: int, members: int, recipes: list[str]) -> Result:
    """Measures one sweep for each recipe."""
    found = [compare(name, members, steps) for name in recipes]
    shown = {"sweep_s": ".1f", "one_by_one_s": ".1f", "us_per_member_and_step": ".0f"}
    shown |= {"ratio": ".2f", "ratio_whole": ".2f"}
    rows = [
        [each["recipe"], each["side_by_side"], *(f"{each[name]:{digits}}" for name, digits in shown.items())]
        for each in found
    ]
    columns = ["recipe", "side by side", "sweep (s)", "one by one (s)", "µs per update", "ratio", "ratio whole"]
    ratios = ", ".join(f"{each['recipe']} {each['ratio']:.2f}" for each in found)
    return Result(
        f"{members} members, one by one over in one sweep, compilation left out: {ratios}.",
        [Section("Time", tables=[Table("A sweep and its members one by one", columns, rows)])],
        {"sweeps": found},
    )


if __name__ == "__main__":
    recipes = ["bp-sgd", "il-sgd", "il-prox", "bp-prox"]
    main("sweep", "A sweep against its members one by one", __doc__, run, steps=20_000, members=30, recipes=recipes)
