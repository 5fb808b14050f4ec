"""Write an experiment: sizes, a measurement, and a claim that is judged from the numbers alone.

It asks whether inference learning needs fewer updates than backpropagation at batch size 1, and can be judged again
from `results.json` without training. Installed packages offer experiments to `vicinal reproduce` by an entry point:
see CONTRIBUTING.

    python examples/own_experiment.py [--quick]
"""

import argparse
import dataclasses

import optax

import vicinal as vc
from vicinal.report import Section
from vicinal.reproduce import (
    AHEAD,
    Experiment,
    Problem,
    Run,
    Size,
    Variant,
    accuracy_table,
    compared,
    judge,
    reproduce,
    rows,
    verdict,
)

RULES = {"BP": vc.rules.Backprop(), "IL": vc.rules.InferenceLearning()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnlineSize(Size):
    """Updates of one example each, and the learning rate of both rules."""

    steps: int
    learning_rate: float = 0.01


def measure(run: Run[OnlineSize]) -> dict:
    """Trains each rule with every seed; `rows` makes plain numbers of the members."""
    data = vc.data.load(run.size.data[0]).flattened()
    task, every = Problem(data, lambda key: vc.nn.MLP((64, 32, 10), key=key)), run.size.steps // 2
    numbers = {"learning_rate": [run.size.learning_rate]}  # `make` gets each of them by name
    found = {}
    for label, rule in RULES.items():
        variant = Variant(label, lambda learning_rate, rule=rule: (rule, optax.sgd(learning_rate)), numbers)
        done = run.train(variant, task, steps=run.size.steps, batch_size=1, evaluate_every=every)
        found[label] = rows(done.members)
    return {"runs": found}


def faster(found) -> vc.report.Claim:
    """Compares the rules seed by seed; fewer than three seeds decide nothing."""
    outcome = compared(found.runs("runs"), "IL", "BP", "test_accuracy")
    words = f"After {found.size.steps} updates IL is {AHEAD[outcome]} BP in test accuracy."
    return vc.report.Claim("Inference learning learns faster at batch size 1.", words, verdict([outcome]))


EXPERIMENT = Experiment(
    name="mine/online",
    title="One example at a time",
    topic="inference learning and backpropagation at batch size 1",
    paper="ours",
    sizes={"quick": OnlineSize(data=("digits",), steps=40), "full": OnlineSize(data=("digits",), steps=4000)},
    time={"full": "a minute"},
    measure=measure,
    summary=lambda found: f"{len(RULES)} rules, {found.seeds} seeds.",
    claims=[faster],
    sections=lambda found: [Section("Accuracy", tables=[accuracy_table("Digits", found.runs("runs"))])],
    differences=lambda found: [],
    seeds=5,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    study = reproduce(EXPERIMENT, "own-experiment", quick=parser.parse_args().quick, progress=False)
    vc.report.print_study(study)
    assert judge("own-experiment/results.json", EXPERIMENT) == study


if __name__ == "__main__":
    main()
