"""Time of one update of backpropagation with errors that go back through other weights, against the transposed ones.

784-256-256-10, ReLU, gradient descent, in the compiled training loop, at batch sizes 1 and 64; small learning rates.

    python benchmarks/feedback_cost.py [--json FILE]

The paths take turns; times are medians over rounds, ratios are taken within a round.
"""

import argparse
import json
import os
import statistics
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

import vicinal as vc
from vicinal.environment import environment
from vicinal.rules import Backprop, DirectFeedback, Rule
from vicinal.train import fit

PATHS = {
    "transposed weights": None,
    "random": vc.feedback.random(),
    "sign-symmetric": vc.feedback.sign_symmetric(),
    "batch-random signs": vc.feedback.sign_symmetric("batch-random"),
    "Kolen-Pollack": vc.feedback.kolen_pollack(),
    "weight mirror": vc.feedback.weight_mirror(),
    "information alignment": vc.feedback.information_alignment(),
    "symmetric alignment": vc.feedback.symmetric_alignment(),
    "activation alignment": vc.feedback.activation_alignment(),
}
FLOOR = "transposed weights"


def compare(batch: int, steps: int, rounds: int) -> dict:
    """Microseconds per update on each path, and the ratio to the transposed weights'."""
    x = jax.random.uniform(jax.random.key(0), (20_000, 784))
    data = x, jnp.argmax(x[:, :10], axis=1)
    plain = vc.nn.preset("mnist-mlp", key=jax.random.key(1))
    made: dict[str, tuple] = {}
    for name, route in PATHS.items():
        model = plain if route is None else vc.feedback.attach(plain, route, key=jax.random.key(2))
        step = optax.sgd(1e-5) if route is None else vc.feedback.optimizers(optax.sgd(1e-5))
        made[name] = Backprop(), model, step, vc.capture(model, x[0])
    made["direct feedback"] = DirectFeedback(), plain, optax.sgd(1e-5), vc.capture(plain, x[0])

    def seconds(rule: Rule, model, step, graph) -> float:
        run = fit(
            rule,
            model,
            step,
            data,
            key=jax.random.key(3),
            steps=steps,
            batch_size=batch,
            evaluate_every=steps,
            progress=False,
            graph=graph,
        )
        return run.seconds_per_step

    times: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(rounds):
        for name, parts in made.items():
            times[name].append(seconds(*parts))
    return {
        "batch": batch,
        "microseconds": {name: 1e6 * statistics.median(row) for name, row in times.items()},
        "over_transposed_weights": {
            name: statistics.median(a / b for a, b in zip(row, times[FLOOR], strict=True))
            for name, row in times.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    result = environment() | {
        "load_before": os.getloadavg()[0],
        "paths": [compare(1, 2000, arguments.rounds), compare(64, 300, arguments.rounds)],
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
