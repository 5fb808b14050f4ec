"""A residual network of 64 weight layers: time to trace and compile each rule, and what each learns of MNIST.

784-128-...-128-10, ReLU, vertices at rates. Accuracy after the same number of examples (an epoch, batches of 64, Adam),
at two learning rates; sequential inference with and without the decay of its step.

    python benchmarks/depth.py [--json FILE] [--quick] [--only WORDS]
"""

import argparse
import json
import os
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import vicinal as vc
from vicinal.environment import environment
from vicinal.inference import Adaptive, ErrorBased, Sequential, Simultaneous
from vicinal.rules import ZIL, ActivationRelaxation, Backprop, FixedPrediction, IncrementalPC, InferenceLearning
from vicinal.train import fit

DEPTH, WIDTH = 64, 128
LEARNING = {
    "bp": Backprop(),
    "il, 20 steps of .1": InferenceLearning(inference=Simultaneous(steps=20, step_size=0.1)),
    "seqil, 3 sweeps of .05/(1+t)": InferenceLearning(inference=Sequential(), nudge=100 / 101),
    "seqil, 3 sweeps of .5": InferenceLearning(inference=Sequential(step_size=0.5, decay=False), nudge=100 / 101),
    "error-based, 5 steps of .1": InferenceLearning(inference=ErrorBased(steps=5, step_size=0.1)),
    "error-based, 5 steps of .01": InferenceLearning(inference=ErrorBased(steps=5, step_size=0.01)),
    "error-based, 5 steps of .001": InferenceLearning(inference=ErrorBased(steps=5, step_size=0.001)),
}
RULES = LEARNING | {
    "adaptive": InferenceLearning(inference=Adaptive()),
    "fixed prediction": FixedPrediction(),
    "z-il": ZIL(),
    "activation relaxation": ActivationRelaxation(),
    "activation relaxation, nothing frozen": ActivationRelaxation(derivatives=False, frozen="none"),
    "incremental": IncrementalPC(),
}


def network(key: jax.Array) -> vc.nn.ResidualMLP:
    return vc.nn.ResidualMLP((784, WIDTH, 10), depth=DEPTH, key=key)


def compile_times() -> dict:
    """Seconds to trace and to compile one training step of each rule."""
    x, y = jax.random.uniform(jax.random.key(0), (64, 784)), jnp.arange(64) % 10
    model, optimizer = network(jax.random.key(1)), optax.sgd(1e-3)
    graph, found = vc.capture(model, x[0]), {}
    for name, rule in RULES.items():

        def step(model, state, x, y, rule=rule):
            return rule.step(graph, optimizer, model, state, (), x, y)

        begun = time.perf_counter()
        lowered = eqx.filter_jit(step).lower(model, optimizer.init(eqx.filter(model, eqx.is_array)), x, y)
        traced = time.perf_counter()
        lowered.compile()
        found[name] = {"trace": traced - begun, "compile": time.perf_counter() - traced}
        print(name, found[name], flush=True)
    return found


def accuracies(steps: int, seeds: int, only: str) -> list[dict]:
    """Test accuracy of each rule after the same number of examples."""
    data = vc.data.load("mnist").flattened()
    graph, rows = vc.capture(network(jax.random.key(0)), jnp.asarray(data.x_train[0])), []
    for name, rule in {name: rule for name, rule in LEARNING.items() if only in name}.items():
        for rate in (3e-4, 1e-3):
            runs = []
            for seed in range(seeds):
                model_key, key = vc.train.keys_of(seed)
                runs.append(
                    fit(
                        rule,
                        network(model_key),
                        optax.adam(rate),
                        data,
                        key=key,
                        steps=steps,
                        batch_size=64,
                        evaluate_every=steps,
                        graph=graph,
                        progress=False,
                    )
                )
            accuracy = [run.records[-1]["test_accuracy"] if run.stopped is None else None for run in runs]
            milliseconds = [1e3 * run.seconds_per_step for run in runs]
            rows.append({"rule": name, "learning_rate": rate, "test_accuracy": accuracy, "ms_per_step": milliseconds})
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--quick", action="store_true", help="compile times alone")
    parser.add_argument("--only", default="", help="train the rules alone whose name holds these words")
    arguments = parser.parse_args()
    result = environment() | {"load_before": os.getloadavg()[0], "seconds": compile_times()}
    if not arguments.quick:
        result |= {"steps": 937, "batch": 64, "accuracy": accuracies(937, 2, arguments.only)}
    text = json.dumps(result, indent=2)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
