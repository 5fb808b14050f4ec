"""Watch activities settle: energies during inference, and the angle of the update to backpropagation's.

With few small steps inference learning follows backpropagation; at equilibrium it does not.

    python examples/settling.py [--steps 40]
"""

import argparse

import jax
import jax.numpy as jnp

import vicinal as vc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    steps = parser.parse_args().steps

    digits = vc.data.load("digits").flattened()
    x, y = jnp.asarray(digits.x_train[:64]), jnp.asarray(digits.y_train[:64])
    model = vc.nn.MLP((64, 32, 32, 10), key=jax.random.key(0))
    graph = vc.capture(model, x[0])

    settle = vc.inference.Simultaneous(steps=steps, step_size=0.1, trace=True)
    rule = vc.rules.InferenceLearning(inference=settle)
    info = rule.value_and_grad(graph, model, (), x, y)[-1]
    print("step  " + "  ".join(f"{name:>9}" for name in info.trace))
    for t in range(0, steps + 1, max(1, steps // 8)):
        print(f"{t:4}  " + "  ".join(f"{float(jnp.mean(rows[t])):9.5f}" for rows in info.trace.values()))

    _, reference, _, _ = vc.rules.Backprop().value_and_grad(graph, model, (), x, y)
    print("\nangle to backpropagation, in degrees")
    for count in (3, 10, 30, 100, 300):
        rule = vc.rules.InferenceLearning(inference=vc.inference.Simultaneous(steps=count, step_size=0.1))
        _, gradient, _, _ = rule.value_and_grad(graph, model, (), x, y)
        found = vc.analysis.angles(gradient, reference)
        print(f"{count:4} steps  " + "  ".join(f"{float(degrees):5.1f}" for degrees in found.values()))


if __name__ == "__main__":
    main()
