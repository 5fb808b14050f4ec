"""A residual network of 64 weight layers: time to trace and compile each rule, and its accuracy on MNIST.

784-128-...-128-10, ReLU, vertices at rates. Accuracies are after the same number of examples (an epoch, batches of 64,
Adam), at two learning rates; sequential inference runs with and without decay of its step size.

    python benchmarks/depth.py [--json FILE] [--quick] [--only WORDS]
"""

import statistics
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from harness import Result, main

import vicinal as vc
from vicinal.inference import Adaptive, ErrorBased, Sequential, Simultaneous
from vicinal.report import Section, Table
from vicinal.rules import ZIL, ActivationRelaxation, Backprop, FixedPrediction, IncrementalPC, InferenceLearning
from vicinal.train import fit

DEPTH, WIDTH, BATCH, STEPS = 64, 128, 64, 937
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
    x, y = jax.random.uniform(jax.random.key(0), (BATCH, 784)), jnp.arange(BATCH) % 10
    model, optimizer = network(jax.random.key(1)), optax.sgd(1e-3)
    graph, found = vc.capture(model, x[0]), {}
    for name, rule in RULES.items():

        def step(model, state, x, y, rule=rule):
            return rule.step(graph, optimizer, model, state, (), x, y)

        start = time.perf_counter()
        lowered = eqx.filter_jit(step).lower(model, optimizer.init(eqx.filter(model, eqx.is_array)), x, y)
        traced = time.perf_counter()
        lowered.compile()
        found[name] = {"trace": traced - start, "compile": time.perf_counter() - traced}
        print(name, found[name], flush=True)
    return found


def accuracies(steps: int, seeds: int, only: str) -> list[dict]:
    """Test accuracy of each rule after the same number of examples."""
    data = vc.data.load("mnist").flattened()
    graph, rows = vc.capture(network(jax.random.key(0)), jnp.asarray(data.x_train[0])), []
    how = {"steps": steps, "batch_size": BATCH, "evaluate_every": steps, "graph": graph, "progress": False}
    for name, rule in {name: rule for name, rule in LEARNING.items() if only in name}.items():
        for rate in (3e-4, 1e-3):
            keys = [vc.train.keys_of(seed) for seed in range(seeds)]
            runs = [fit(rule, network(first), optax.adam(rate), data, key=key, **how) for first, key in keys]
            accuracy = [run.records[-1]["test_accuracy"] if run.stopped is None else None for run in runs]
            milliseconds = [1e3 * run.seconds_per_step for run in runs]
            rows.append({"rule": name, "learning_rate": rate, "test_accuracy": accuracy, "ms_per_step": milliseconds})
            print(rows[-1], flush=True)
    return rows


def run(quick: bool, only: str) -> Result:
    """Compile times and, unless quick, accuracies."""
    seconds = compile_times()
    rows = [[name, *(f"{each[part]:.2f}" for part in ("trace", "compile"))] for name, each in seconds.items()]
    sections = [Section("Until it is compiled", tables=[Table("Seconds", ["rule", "trace", "compile"], rows)])]
    slowest = max(seconds, key=lambda name: sum(seconds[name].values()))
    numbers = {"seconds": seconds, "accuracy": [] if quick else accuracies(STEPS, 2, only)}
    if numbers["accuracy"]:
        learned = [
            [
                row["rule"],
                f"{row['learning_rate']:g}",
                " and ".join(map(_percent, row["test_accuracy"])),
                f"{statistics.median(row['ms_per_step']):.0f}",
            ]
            for row in numbers["accuracy"]
        ]
        columns = ["rule", "learning rate", "test accuracy (%), each seed", "ms per update"]
        sections.append(Section(f"After {STEPS} updates of {BATCH}", tables=[Table("MNIST", columns, learned)]))
    return Result(f"Slowest to compile: {slowest}, {sum(seconds[slowest].values()):.1f} s.", sections, numbers)


def _percent(accuracy: float | None) -> str:
    return "diverged" if accuracy is None else f"{100 * accuracy:.1f}"


if __name__ == "__main__":
    main("depth", "A residual network of 64 weight layers", __doc__, run, quick=False, only="")
