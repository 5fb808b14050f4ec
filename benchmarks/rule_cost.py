"""Time of one update of every recipe against backpropagation's, in the same process.

784-256-256-10, ReLU, in the compiled training loop, at batch sizes 1 and 64; small learning rates, random inputs.

    python benchmarks/rule_cost.py [--json FILE]

The recipes take turns; times are medians over rounds, ratios are taken within a round.
"""

import argparse
import json
import os
import platform
import statistics
from pathlib import Path

import jax
import jax.numpy as jnp

import vicinal as vc
from vicinal.recipes import RECIPES, recipe
from vicinal.train import fit

FLOOR = "bp-sgd"


def compare(batch: int, steps: int, rounds: int) -> dict:
    """Microseconds per update of each recipe, and the ratio to backpropagation's."""
    x = jax.random.uniform(jax.random.key(0), (20_000, 784))
    data = x, jnp.argmax(x[:, :10], axis=1)
    model = vc.nn.preset("mnist-mlp", key=jax.random.key(1))
    graph = vc.capture(model, x[0])
    made = {name: recipe(name).make(learning_rate=1e-5) for name in RECIPES}

    def seconds(name: str) -> float:
        rule, optimizer = made[name]
        run = fit(
            rule,
            model,
            optimizer,
            data,
            key=jax.random.key(2),
            steps=steps,
            batch_size=batch,
            evaluate_every=steps,
            graph=graph,
            progress=False,
        )
        return run.seconds_per_step

    times: dict[str, list[float]] = {name: [] for name in RECIPES}
    for _ in range(rounds):
        for name in RECIPES:
            times[name].append(seconds(name))
    return {
        "batch": batch,
        "microseconds": {name: 1e6 * statistics.median(row) for name, row in times.items()},
        f"over_{FLOOR}": {
            name: statistics.median(a / b for a, b in zip(row, times[FLOOR], strict=True))
            for name, row in times.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    result = {
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "rules": [compare(1, 4000, arguments.rounds), compare(64, 400, arguments.rounds)],
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
