"""An Equinox network with batch norm and dropout, trained by a local rule: TensorBoard, early stopping, safetensors.

    python examples/own_network.py [--epochs 30] [--folder own-network]

Needs `pip install "vicinal[tensorboard,safetensors]"`.
"""

import argparse
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import vicinal as vc


class Network(eqx.Module):
    """A network without vertices. Its layers take and return `equinox.nn.State`."""

    layers: list[eqx.nn.Linear]
    norms: list[eqx.nn.BatchNorm]
    dropout: eqx.nn.Dropout

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.layers = [
            eqx.nn.Linear(64, 64, key=keys[0]),
            eqx.nn.Linear(64, 64, key=keys[1]),
            eqx.nn.Linear(64, 10, key=keys[2]),
        ]
        self.norms = [eqx.nn.BatchNorm(64, axis_name="batch", mode="batch", momentum=0.9) for _ in range(2)]
        self.dropout = eqx.nn.Dropout(0.1)

    def __call__(self, x, state, *, key):
        keys = [None] * 2 if key is None else jax.random.split(key)
        for layer, norm, dropout_key in zip(self.layers, self.norms, keys, strict=False):
            x, state = norm(layer(x), state)
            x = self.dropout(jax.nn.relu(x), key=dropout_key)
        return self.layers[-1](x), state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--folder", type=Path, default=Path("own-network"))
    arguments = parser.parse_args()
    folder = arguments.folder

    network, state = eqx.nn.make_with_state(Network)(jax.random.key(0))
    marked = vc.mark(network, lambda network: network.norms)  # a vertex after each normalisation
    model = vc.with_state(marked, state)

    digits = vc.data.load("digits").flattened()
    graph = vc.capture(model, jnp.asarray(digits.x_train[0]), batch_size=32)
    print(graph)

    rule = vc.rules.InferenceLearning(inference=vc.inference.Simultaneous(steps=10, step_size=0.1))
    run = vc.train.fit(
        rule,
        model,
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2)),
        digits,
        key=jax.random.key(1),
        epochs=arguments.epochs,
        batch_size=32,
        validation=0.2,
        graph=graph,
        folder=folder / "run",
        hooks=[
            vc.train.hooks.TensorBoard(folder / "tensorboard"),
            vc.train.hooks.EarlyStopping("validation_loss", patience=3),
        ],
        progress=False,
    )
    print(run.stopped or "took all its steps")

    vc.interchange.save_safetensors(folder / "network.safetensors", run.best)
    best = vc.interchange.load_safetensors(folder / "network.safetensors", like=model)
    measured = vc.train.evaluate(graph, best, rule.loss, jnp.asarray(digits.x_test), jnp.asarray(digits.y_test))
    print(f"test accuracy of the best model {float(measured['accuracy']):.3f}")


if __name__ == "__main__":
    main()
