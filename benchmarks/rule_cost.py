"""Time of one update of every recipe, and of every rule with plain gradient descent, compared with backpropagation.

784-256-256-10, ReLU, in the compiled training loop, at batch sizes 1 and 64; small learning rates, random inputs.

    python benchmarks/rule_cost.py [--rounds N] [--json FILE]

The time of incremental predictive coding is also given per inference step, compared with inference learning with one
inference step.
"""

import optax
from harness import Result, Times, main, mnist_network, random_digits, take_turns, training

from vicinal.inference import ErrorBased, Sequential, Simultaneous
from vicinal.recipes import RECIPES, recipe
from vicinal.report import Section
from vicinal.rules import ZIL, ActivationRelaxation, Backprop, FixedPrediction, IncrementalPC, InferenceLearning

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
STEPS = {1: 2000, 64: 300}
"""The number of timed updates at each batch size."""


def measured(contestants: dict, rounds: int) -> dict[int, Times]:
    """Seconds per update of each rule and optimiser, by batch size."""
    data, (model, graph) = random_digits(), mnist_network()
    return {
        batch: take_turns(
            {
                name: training(rule, optimizer, model, data, graph=graph, batch_size=batch, steps=steps)
                for name, (rule, optimizer) in contestants.items()
            },
            rounds,
        )
        for batch, steps in STEPS.items()
    }


def run(rounds: int) -> Result:
    """Measures all recipes, then all rules."""
    recipes = measured({name: recipe(name).make(learning_rate=1e-5) for name in RECIPES}, rounds)
    rules = measured({name: (rule, optax.sgd(1e-5)) for name, rule in RULES.items()}, rounds)
    per_step = {batch: times.ratio("ipc, 5 steps", "il, 1 step") / 5 for batch, times in rules.items()}
    words = " and ".join(f"{ratio:.2f} at batch {batch}" for batch, ratio in per_step.items())
    return Result(
        f"An inference step of incremental predictive coding, over a step of inference learning with one: {words}.",
        [
            Section("Recipes", tables=[t.table(f"Batch size {b}", "bp-sgd") for b, t in recipes.items()]),
            Section(
                "Rules, plain gradient descent", tables=[t.table(f"Batch size {b}", "bp") for b, t in rules.items()]
            ),
        ],
        {"recipes": {b: t.seconds for b, t in recipes.items()}, "rules": {b: t.seconds for b, t in rules.items()}},
    )


if __name__ == "__main__":
    main("rule_cost", "What an update costs, by rule", __doc__, run, rounds=5)
