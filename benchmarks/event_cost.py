"""Processor time of one update of inference learning by events, compared with simultaneous inference.

784-256-256-10, ReLU, gradient descent, in a compiled loop of updates; batch sizes 1 and 64. Each rule is compared with
inference learning of as many steps. Pin the process to one core (`taskset -c 0`): processor time adds up over cores.

    python benchmarks/event_cost.py [--rounds N] [--json FILE]
"""

import optax
from harness import Result, Times, main, mnist_network, take_turns, updating

from vicinal.events import Cyclic, Graded, Ternary
from vicinal.inference import Simultaneous
from vicinal.report import Section
from vicinal.rules import EventInferenceLearning, InferenceLearning

STEPS = 20
FLOOR = f"il, {STEPS} steps"
RULES = {
    FLOOR: InferenceLearning(inference=Simultaneous(steps=STEPS)),
    "graded": EventInferenceLearning(),
    "ternary": EventInferenceLearning(activity=Ternary(0.05), error=Ternary(0.0125)),
    "cyclic": EventInferenceLearning(activity=Cyclic(0.05), error=Cyclic(0.0125)),
    "relative thresholds": EventInferenceLearning(activity=Graded(0.05, True), error=Graded(0.05, True)),
    "at a random step": EventInferenceLearning(learn="any"),
    "mean": EventInferenceLearning(learn="mean"),
}
UPDATES = {1: 100, 64: 20}
"""The number of timed updates at each batch size."""


def measured(batch: int, rounds: int) -> Times:
    """Seconds per update of each rule."""
    model, _ = mnist_network()
    step = optax.sgd(1e-5)
    return take_turns(
        {name: updating(rule, step, model, batch, UPDATES[batch]) for name, rule in RULES.items()}, rounds
    )


def run(rounds: int) -> Result:
    """Measures all rules at both batch sizes."""
    times = {batch: measured(batch, rounds) for batch in UPDATES}
    words = "; ".join(
        f"batch {batch}: " + ", ".join(f"{name} {found.ratio(name, FLOOR):.2f}" for name in list(RULES)[1:])
        for batch, found in times.items()
    )
    tables = [found.table(f"Batch size {batch}", FLOOR) for batch, found in times.items()]
    numbers = {str(batch): found.seconds for batch, found in times.items()}
    return Result(f"Multiples of the time of {FLOOR}. {words}.", [Section("Events", tables=tables)], numbers)


if __name__ == "__main__":
    main("event_cost", "What an update costs by events", __doc__, run, rounds=5)
