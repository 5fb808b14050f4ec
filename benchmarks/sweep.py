"""A sweep against the same runs one after the other, in the same process.

Members: 784-256-256-10, ReLU, batch size 1, on random inputs; learning rates at which nothing diverges. The floor is
`vicinal.train.fit` for one member after another, with the same evaluations, sharing what is compiled.

    python benchmarks/sweep.py [--json FILE]

`ratio` leaves out compilation and calibration on both sides, `ratio_whole` counts them.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import jax

jax.config.update("jax_num_cpu_devices", os.cpu_count())

import jax.numpy as jnp  # noqa: E402

import vicinal as vc  # noqa: E402
from vicinal.recipes import recipe  # noqa: E402
from vicinal.train import fit, keys_of, sweep  # noqa: E402

EXAMPLES = 20_000


def build(key):
    return vc.nn.preset("mnist-mlp", key=key)


def compare(name: str, members: int, steps: int, group_size: int | None) -> dict:
    """Times a sweep of a recipe and the same members one after the other."""
    x = jax.random.uniform(jax.random.key(0), (EXAMPLES, 784))
    data = x, jnp.argmax(x[:, :10], axis=1)
    rates = [0.001 * (1 + i) for i in range(members // 5)]
    numbers = {"eps": 1.0} if "prox" in name else {}
    settings = {"steps": steps, "batch_size": 1, "evaluate_every": steps, "progress": False}

    def make(learning_rate):
        return recipe(name).make(learning_rate=learning_rate, **numbers)

    graph = vc.capture(build(jax.random.key(0)), x[0])
    done = sweep(make, build, data, {"learning_rate": rates}, seeds=5, graph=graph, group_size=group_size, **settings)
    assert all(member.stopped is None for member in done.members)

    def alone(member, steps: int) -> float:
        rule, optimizer = make(**member.numbers)
        model_key, key = keys_of(member.seed)
        model, begun = build(model_key), time.monotonic()
        fit(rule, model, optimizer, data, key=key, graph=graph, **(settings | {"steps": steps}))
        return time.monotonic() - begun

    first = alone(done.members[0], 2)
    one_by_one = [alone(member, steps) for member in done.members]
    return {
        "recipe": name,
        "members": len(done.members),
        "steps": steps,
        "layout": done.layout._asdict(),
        "layouts_compiled": done.compilations,
        "sweep_s": done.seconds,
        "sweep_to_start_s": done.seconds_to_start,
        "one_by_one_s": sum(one_by_one),
        "one_by_one_to_start_s": first,
        "microseconds_per_member_and_step": 1e6 * (done.seconds - done.seconds_to_start) / steps / len(done.members),
        "ratio": sum(one_by_one) / (done.seconds - done.seconds_to_start),
        "ratio_whole": (sum(one_by_one) + first) / done.seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--members", type=int, default=30)
    parser.add_argument("--recipes", nargs="+", default=["bp-sgd", "il-sgd", "il-prox", "bp-prox"])
    arguments = parser.parse_args()
    result = {
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "sweeps": [compare(name, arguments.members, arguments.steps, None) for name in arguments.recipes],
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
