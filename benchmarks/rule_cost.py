"""Time of one update of every recipe, and of every rule under plain gradient descent, against backpropagation's.

784-256-256-10, ReLU, in the compiled training loop, at batch sizes 1 and 64; small learning rates, random inputs.

    python benchmarks/rule_cost.py [--json FILE]

All take turns in one process; times are medians over rounds, ratios are taken within a round. Incremental predictive
coding is given per inference step too, against a step of inference learning with one inference step.
"""

import argparse
import json
import os
import platform
import statistics
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

import vicinal as vc
from vicinal.inference import ErrorBased, Sequential, Simultaneous
from vicinal.recipes import RECIPES, recipe
from vicinal.rules import ZIL, ActivationRelaxation, Backprop, FixedPrediction, IncrementalPC, InferenceLearning
from vicinal.train import fit

RULES = {
    "bp": Backprop(),
    "z-il": ZIL(),
    "fixed prediction, one sweep": FixedPrediction(),
    "activation relaxation, one sweep": ActivationRelaxation(steps=1, step_size=1.0),
    "il, 1 step": InferenceLearning(inference=Simultaneous(steps=1)),
    "il, 3 steps": InferenceLearning(inference=Simultaneous(steps=3)),
    "il, 15 steps": InferenceLearning(inference=Simultaneous(steps=15)),
    "seqil, 1 sweep": InferenceLearning(inference=Sequential(steps=1)),
    "seqil, 3 sweeps": InferenceLearning(inference=Sequential(steps=3)),
    "error-based, 3 steps": InferenceLearning(inference=ErrorBased(steps=3)),
    "ipc, 5 steps": IncrementalPC(steps=5),
}


def compare(made: dict, floor: str, batch: int, steps: int, rounds: int) -> dict:
    """Microseconds per update of each, and the ratio to the floor's."""
    x = jax.random.uniform(jax.random.key(0), (20_000, 784))
    data = x, jnp.argmax(x[:, :10], axis=1)
    model = vc.nn.preset("mnist-mlp", key=jax.random.key(1))
    graph = vc.capture(model, x[0])

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

    times: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(rounds):
        for name in made:
            times[name].append(seconds(name))

    def ratio(a: str, b: str) -> float:
        return statistics.median(x / y for x, y in zip(times[a], times[b], strict=True))

    found = {
        "batch": batch,
        "microseconds": {name: 1e6 * statistics.median(row) for name, row in times.items()},
        f"over_{floor}": {name: ratio(name, floor) for name in made},
    }
    if "ipc, 5 steps" in made:
        found["ipc_step_over_il_of_one_step"] = ratio("ipc, 5 steps", "il, 1 step") / 5
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    recipes = {name: recipe(name).make(learning_rate=1e-5) for name in RECIPES}
    plain = {name: (rule, optax.sgd(1e-5)) for name, rule in RULES.items()}
    sizes = ((1, 2000), (64, 300))
    result = {
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "recipes": [compare(recipes, "bp-sgd", batch, steps, arguments.rounds) for batch, steps in sizes],
        "rules": [compare(plain, "bp", batch, steps, arguments.rounds) for batch, steps in sizes],
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
