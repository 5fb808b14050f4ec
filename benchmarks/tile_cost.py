"""Processor time of one update of a network on tiles, compared with the bare layers.

784-256-256-10, ReLU, gradient descent, in a compiled loop of updates; batch sizes 1 and 64. Steps for cells run with a
small learning rate, at which few cells get pulses, and with a large one. Pin the process to one core (`taskset -c 0`):
processor time adds up over cores.

    python benchmarks/tile_cost.py [--rounds N] [--json FILE]
"""

import jax
import optax
from harness import Measurement, Result, Times, main, mnist_network, take_turns, updating

from vicinal.hardware import Device, Periphery, place, pulsed, thresholded, transfer
from vicinal.inference import Simultaneous
from vicinal.report import Section
from vicinal.rules import Backprop, InferenceLearning, Rule

RULES = {"bp": Backprop(), "il, 10 steps": InferenceLearning(inference=Simultaneous(steps=10))}
SIDES = {
    "ideal": Periphery.preset("ideal"),
    "converters": Periphery(read_noise=None),
    "default": Periphery(),
    "default, noise of weights": Periphery(weight_noise=0.02),
    "default, 4 reads": Periphery(repeats=4),
}
RATE, LARGE = 1e-5, 0.1
CELLS = {
    "pulsed": pulsed(RATE),
    "pulsed, rate .1": pulsed(LARGE),
    "thresholded": thresholded(RATE),
    "transfer": transfer(RATE, "gokmen-vlasov"),
}
FLOOR = "bare layers"
STEPS = {1: 100, 64: 20}
"""The number of timed updates at each batch size."""


def measured(rule: Rule, batch: int, rounds: int) -> Times:
    """Seconds per update with each periphery, and with each step for cells beside the default one."""
    (bare, _), key = mnist_network(), jax.random.key(2)
    contestants: dict[str, Measurement] = {FLOOR: updating(rule, optax.sgd(RATE), bare, batch, STEPS[batch])}
    for name, side in SIDES.items():
        placed = place(bare, forward=side, backward=side, key=key)
        contestants[name] = updating(rule, optax.sgd(RATE), placed, batch, STEPS[batch])
    for name, step in CELLS.items():
        model = place(bare, Device.preset("gokmen-vlasov"), key=key)
        contestants[f"default, {name}"] = updating(rule, step, model, batch, STEPS[batch])
    return take_turns(contestants, rounds)


def run(rounds: int) -> Result:
    """Measures all rules at both batch sizes."""
    times = {(name, batch): measured(rule, batch, rounds) for name, rule in RULES.items() for batch in STEPS}
    words = "; ".join(
        f"{name}, batch {batch}: {found.ratio('ideal', FLOOR):.2f} ideal, {found.ratio('default', FLOOR):.2f} default, "
        f"{found.ratio('default, pulsed', FLOOR):.2f} pulsed"
        for (name, batch), found in times.items()
    )
    tables = [found.table(f"{name}, batch size {batch}", FLOOR) for (name, batch), found in times.items()]
    numbers = {f"{name}, {batch}": found.seconds for (name, batch), found in times.items()}
    return Result(f"Multiples of the bare layers' time. {words}.", [Section("Tiles", tables=tables)], numbers)


if __name__ == "__main__":
    main("tile_cost", "What an update costs on tiles", __doc__, run, rounds=5)
