"""Feedback alignment of wide two-layer networks: Song, Xu and Lafferty 2021, arXiv 2106.06044."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from vicinal.analysis import angle
from vicinal.feedback import attach, given, optimizers
from vicinal.graph import capture, vertex
from vicinal.losses import squared_error
from vicinal.nn import Linear
from vicinal.report import Claim, Panel, Section, Series, Study, Table
from vicinal.reproduce.runs import Scale
from vicinal.rules import Backprop
from vicinal.sweeping import interval_text

_EXAMPLES, _INPUTS, _RATE, _DECAY = 20, 30, 0.1, 0.3
_UNTIL = (0, 100, 300)
_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"linear": lambda z: z, "ReLU": jax.nn.relu}
_FITTED = 1e-3
_INDEPENDENT = {
    "linear": {100: (0.27, 0.64, 0.71), 1000: (0.03, 0.29, 0.54), 5000: (0.02, 0.16, 0.36)},
    "ReLU": {100: (0.25, 0.70, 0.85), 1000: (0.06, 0.47, 0.74), 5000: (0.03, 0.29, 0.59)},
}
"""What a loop written apart from this library found, one seed."""


class _Network(eqx.Module):
    """`beta^T psi(W x) / sqrt(width)`, all weights standard normal at first."""

    below: Linear
    above: Linear
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(self, width: int, activation: Callable[[Array], Array], key: PRNGKeyArray):
        keys = jax.random.split(key, 2)
        below = Linear(_INPUTS, width, use_bias=False, key=key)
        above = Linear(width, 1, use_bias=False, key=key)
        self.below = eqx.tree_at(lambda m: m.weight, below, jax.random.normal(keys[0], (width, _INPUTS)))
        self.above = eqx.tree_at(lambda m: m.weight, above, jax.random.normal(keys[1], (1, width)))
        self.activation = activation

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, "1"]:
        rates = vertex(self.activation(self.below(x)), "hidden")
        return self.above(rates) / jnp.sqrt(jnp.asarray(rates.size, x.dtype))


def convergence(scale: Scale) -> Study:
    """Alignment of the upper weights with their feedback, by width and by how long they decay."""
    scale = scale.by_default(3)
    widths, steps = scale.pick((100, 400), (100, 1000, 5000)), scale.pick(600, 4000)
    found: dict[str, dict[int, list[list[dict[str, float]]]]] = {}
    for name, activation in _ACTIVATIONS.items():
        scale.say(f"{name} networks, widths {', '.join(map(str, widths))}, {steps} steps, {scale.seeds} seeds")
        found[name] = {
            width: [[_run(activation, width, until, steps, seed) for seed in range(scale.seeds)] for until in _UNTIL]
            for width in widths
        }
    return Study(
        title="Feedback alignment of wide two-layer networks",
        summary="Cosine of the upper weights to their feedback after training: "
        + "; ".join(
            f"{name}, width {widths[-1]}: " + ", ".join(f"{_cosine(row):.2f}" for row in rows[widths[-1]])
            for name, rows in found.items()
        )
        + f", with decay of {_DECAY:g} in the first {', '.join(map(str, _UNTIL))} steps.",
        command="",
        settings={
            "examples": _EXAMPLES,
            "inputs": _INPUTS,
            "learning_rate": _RATE,
            "decay": _DECAY,
            "steps": steps,
            "seeds": scale.seeds,
        },
        environment={},
        claims=[_fits(found), _needs_decay(found, widths)],
        differences=[
            "Random labels, inputs of norm 1; the paper's own figures were not at hand. The numbers beside ours are of "
            "a loop written apart from this library, from the paper's equations.",
        ],
        sections=[
            Section(
                name,
                f"Losses are summed over {_EXAMPLES} examples. The decay acts on the upper weights alone.",
                tables=[_table(name, rows)],
                panels=[_panel(name, rows)],
            )
            for name, rows in found.items()
        ],
        numbers={"runs": {name: {str(width): row for width, row in rows.items()} for name, rows in found.items()}},
        data_credit="Random numbers.",
    )


def _run(activation: Callable[[Array], Array], width: int, until: int, steps: int, seed: int) -> dict[str, float]:
    keys = jax.random.split(jax.random.key(seed), 4)
    x = jax.random.normal(keys[0], (_EXAMPLES, _INPUTS))
    x, y = x / jnp.linalg.norm(x, axis=1, keepdims=True), jax.random.normal(keys[1], (_EXAMPLES, 1))
    feedback = jax.random.normal(keys[2], (1, width))
    model = attach(_Network(width, activation, keys[3]), given({"above.weight": feedback}))
    graph, rule = capture(model, x[0]), Backprop(loss=squared_error)

    def upper(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.shape == (1, width), tree)

    # The library's gradient is a mean over examples; the paper's a sum, beside which the decay stands.
    rate = optax.sgd(_RATE * _EXAMPLES)
    decaying = optax.chain(optax.add_decayed_weights(_DECAY / _EXAMPLES, upper), rate)
    arrays, static = eqx.partition(model, eqx.is_array)
    for count, step in ((until, optimizers(decaying)), (steps - until, optimizers(rate))):
        state = step.init(graph.trainable(eqx.combine(arrays, static)))

        def body(_: Array, carry: Any, step: optax.GradientTransformation = step) -> Any:
            moved = rule.step(graph, step, eqx.combine(carry[0], static), carry[1], (), x, y)
            return eqx.filter(moved[0], eqx.is_array), moved[1]

        arrays, _ = jax.jit(lambda carry, count, body=body: jax.lax.fori_loop(0, count, body, carry))(
            (arrays, state), count
        )
    model = eqx.combine(arrays, static)
    output, _ = graph.feedforward(model, x)
    return {
        "cosine": float(jnp.cos(jnp.deg2rad(angle(model.above.layer.weight, feedback)))),
        "loss": float(0.5 * jnp.sum(jnp.square(output - y))),
    }


def _cosine(runs: list[dict[str, float]]) -> float:
    return float(np.mean([run["cosine"] for run in runs]))


def _fits(found: dict[str, Any]) -> Claim:
    losses = [run["loss"] for rows in found.values() for row in rows.values() for runs in row for run in runs]
    return Claim(
        "Wide networks fit their examples by feedback alignment, with or without a decay that ends.",
        f"The largest training loss at the end is {np.max(losses):.2g}, of {len(losses)} runs; below {_FITTED:g} "
        "counts as fitted.",
        "holds" if np.max(losses) < _FITTED else "does not hold",
    )


def _needs_decay(found: dict[str, Any], widths: tuple[int, ...]) -> Claim:
    plain = {name: [_cosine(rows[width][0]) for width in widths] for name, rows in found.items()}
    longest = {name: [_cosine(rows[width][-1]) for width in widths] for name, rows in found.items()}
    falls = all(row[-1] < row[0] for row in plain.values())
    more = all(b > 2 * a for name in plain for a, b in zip(plain[name], longest[name], strict=True))

    def words(row: list[float]) -> str:
        return ", ".join(f"{value:.2f}" for value in row)

    return Claim(
        "Alignment of the weights with their feedback vanishes with width unless they are regularised early on.",
        "; ".join(
            f"{name}: without decay {words(plain[name])}, with the longest {words(longest[name])}" for name in plain
        )
        + f", at widths {', '.join(map(str, widths))}.",
        "holds" if falls and more else "holds in part" if falls or more else "does not hold",
    )


def _table(name: str, rows: dict[int, Any]) -> Table:
    columns = ["width", *(f"decay in the first {until} steps" if until else "no decay" for until in _UNTIL), "apart"]
    lines: list[list[Any]] = []
    for width, row in rows.items():
        beside = _INDEPENDENT[name].get(width)
        cells = [interval_text([run["cosine"] for run in runs]) for runs in row]
        lines.append([width, *cells, None if beside is None else " / ".join(f"{value:.2f}" for value in beside)])
    return Table(f"Cosine of upper weights and feedback, {name}", columns, lines)


def _panel(name: str, rows: dict[int, Any]) -> Panel:
    series = [
        Series(
            f"decay until {until}" if until else "no decay",
            [float(width) for width in rows],
            [[rows[width][i][seed]["cosine"] for width in rows] for seed in range(len(next(iter(rows.values()))[i]))],
        )
        for i, until in enumerate(_UNTIL)
    ]
    return Panel(f"Alignment, {name}", "width", "cosine", series)
