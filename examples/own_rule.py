"""Write a learning rule, check it against the contract, and train with it.

This rule trains only the read-out, by the delta rule: hidden vertices carry no error. Every rule that assigns credit
should beat it.

    python examples/own_rule.py [--epochs 10]
"""

import argparse
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import vicinal as vc
from vicinal.losses import Loss, loss_and_error
from vicinal.testing import check_rule


class ReadoutOnly(vc.rules.Rule):
    """value = prediction, error = 0 at every hidden vertex; output error = target - prediction."""

    local: ClassVar[bool] = True
    loss: Loss = eqx.field(static=True, default=vc.losses.softmax_cross_entropy)

    def credit(self, graph, model, state, x, y, *, key=None):
        output, values = graph.feedforward(model, x)
        loss, output_error = loss_and_error(self.loss, output, y)
        errors = jax.tree.map(jnp.zeros_like, values)
        return vc.Credit(loss, values, errors, output_error, vc.Info(output)), state

    def errors(self, graph, model, credit, x):
        return jax.tree.map(jnp.zeros_like, credit.values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    epochs = parser.parse_args().epochs

    check_rule(ReadoutOnly())
    print("the rule keeps the contract")

    digits = vc.data.load("digits").flattened()
    for rule in (ReadoutOnly(), vc.rules.InferenceLearning(), vc.rules.Backprop()):
        model = vc.nn.MLP((64, 64, 64, 10), key=jax.random.key(0))
        run = vc.train.fit(
            rule, model, optax.adam(1e-3), digits, key=jax.random.key(1), epochs=epochs, batch_size=32, progress=False
        )
        print(f"{type(rule).__name__:18} test accuracy {run.records[-1]['test_accuracy']:.1%}")


if __name__ == "__main__":
    main()
