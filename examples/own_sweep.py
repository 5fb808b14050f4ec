"""Your own rule, a sweep of a hundred runs, a data frame and a plot.

The rule sends back the sign of each error, or 0 if the error is small, as a chip with three levels would.

    python examples/own_sweep.py [--steps 200] [--seeds 10] [--folder own-sweep]

Needs `pip install "vicinal[tables]"`.
"""

import argparse
from pathlib import Path
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import optax

import vicinal as vc
from vicinal.losses import Loss, loss_and_error
from vicinal.testing import cases, check_rule

matplotlib.use("agg")  # no window
from matplotlib.figure import Figure


class TernaryErrors(vc.rules.Rule):
    """value = prediction; error = scale * sign(carried error), or 0 where that is below the threshold.

    Args:
        threshold: Errors up to this magnitude are not sent back; at least 0.
        scale: The magnitude of the errors that are sent back.
        loss: Loss of one example.
    """

    local: ClassVar[bool] = True
    holds_errors: ClassVar[bool] = True

    threshold: jax.Array = eqx.field(converter=jnp.asarray, default=1e-3)
    scale: jax.Array = eqx.field(converter=jnp.asarray, default=0.05)
    loss: Loss = eqx.field(static=True, default=vc.losses.softmax_cross_entropy)

    def credit(self, graph, model, state, x, y, *, key=None):
        output, values = graph.feedforward(model, x)
        loss, output_error = loss_and_error(self.loss, output, y)
        errors = {}

        def send_on(name, carried):
            threshold, scale = self.threshold.astype(carried.dtype), self.scale.astype(carried.dtype)
            large = jnp.abs(carried) > threshold
            errors[name] = jnp.where(large, scale * jnp.sign(carried), jnp.zeros_like(carried))
            return errors[name]

        graph.clamp(model, x).linearize(values).sweep(output_error, send_on)
        return vc.Credit(loss, values, errors, output_error, vc.Info(output)), state


def make(learning_rate, scale):
    return TernaryErrors(scale=scale), optax.sgd(learning_rate)


def build(key):
    return vc.nn.MLP((64, 32, 32, 10), key=key)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=Path("own-sweep"))
    arguments = parser.parse_args()

    check_rule(TernaryErrors(), only=cases()[:1])
    print("the rule keeps the contract on a small network")

    digits = vc.data.load("digits").flattened()
    numbers = {"learning_rate": [0.01, 0.03, 0.1, 0.3, 1.0], "scale": [0.01, 0.1]}
    done = vc.train.sweep(
        make, build, digits, numbers, seeds=arguments.seeds, steps=arguments.steps, batch_size=32, progress=False
    )
    frame = done.to_frame()
    last = frame[frame["step"] == arguments.steps]
    table = last.pivot_table(index="learning_rate", columns="scale", values="test_accuracy", aggfunc=["mean", "std"])
    print(f"{len(done.members)} runs in {done.seconds:.1f} s\n{(100 * table).round(1)}")

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    for scale, rows in last.groupby("scale"):
        at = rows.groupby("learning_rate")["test_accuracy"]
        axes.errorbar(at.mean().index, 100 * at.mean(), 100 * at.std().fillna(0), marker="o", label=f"scale {scale}")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("test accuracy (%)")
    axes.legend()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    frame.to_csv(arguments.folder / "runs.csv", index=False)
    figure.savefig(arguments.folder / "accuracy.png", dpi=150)
    print(f"figure: {arguments.folder / 'accuracy.png'}")


if __name__ == "__main__":
    main()
