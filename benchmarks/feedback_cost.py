"""Time of one update of backpropagation with separate feedback weights, compared with the transposed weights.

784-256-256-10, ReLU, gradient descent with small learning rates, in the compiled training loop; batch sizes 1 and 64.

    python benchmarks/feedback_cost.py [--rounds N] [--json FILE]
"""

import jax
import jax.numpy as jnp
import optax
from harness import Measurement, Result, Times, main, mnist_network, random_digits, take_turns, training

import vicinal as vc
from vicinal.report import Section
from vicinal.rules import Backprop, DirectFeedback

PATHS = {
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
STEPS = {1: 2000, 64: 300}
"""The number of timed updates at each batch size."""


def measured(batch: int, rounds: int) -> Times:
    """Seconds per update with each feedback path."""
    data, (plain, graph), step = random_digits(), mnist_network(), optax.sgd(1e-5)
    how = {"batch_size": batch, "steps": STEPS[batch]}
    contestants: dict[str, Measurement] = {FLOOR: training(Backprop(), step, plain, data, graph=graph, **how)}
    for name, path in PATHS.items():
        model = vc.feedback.attach(plain, path, key=jax.random.key(2))
        both, own = vc.feedback.optimizers(step), vc.capture(model, jnp.ones(784))
        contestants[name] = training(Backprop(), both, model, data, graph=own, **how)
    contestants["direct feedback"] = training(DirectFeedback(), step, plain, data, graph=graph, **how)
    return take_turns(contestants, rounds)


def run(rounds: int) -> Result:
    """Measures all feedback paths at both batch sizes."""
    times = {batch: measured(batch, rounds) for batch in STEPS}
    dearest = {batch: max(PATHS, key=lambda name, t=t: t.ratio(name, FLOOR)) for batch, t in times.items()}
    words = "; ".join(f"at batch {b} {name} ({times[b].ratio(name, FLOOR):.1f} times)" for b, name in dearest.items())
    tables = [t.table(f"Batch size {batch}", FLOOR) for batch, t in times.items()]
    return Result(
        f"The dearest path: {words}.", [Section("Paths", tables=tables)], {b: t.seconds for b, t in times.items()}
    )


if __name__ == "__main__":
    main("feedback_cost", "What an update costs, by feedback path", __doc__, run, rounds=5)
