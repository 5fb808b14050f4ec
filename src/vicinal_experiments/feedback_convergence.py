"""Feedback alignment of wide two-layer networks: Song, Xu and Lafferty 2021, arXiv 2106.06044."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal._records import or_nan
from vicinal.analysis import angle
from vicinal.feedback import attach, given, optimizers
from vicinal.graph import Graph, capture, vertex
from vicinal.losses import squared_error
from vicinal.nn import Linear
from vicinal.report import Claim, Panel, Section, Series, Table
from vicinal.reproduce import Experiment, Found, Run, Size, supported
from vicinal.rules import Backprop, Rule
from vicinal.sweeping import interval_text

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"linear": lambda z: z, "ReLU": jax.nn.relu}
_FITTED = 1e-3
_INDEPENDENT = {
    "linear": {100: (0.27, 0.64, 0.71), 1000: (0.03, 0.29, 0.54), 5000: (0.02, 0.16, 0.36)},
    "ReLU": {100: (0.25, 0.70, 0.85), 1000: (0.06, 0.47, 0.74), 5000: (0.03, 0.29, 0.59)},
}
"""What a loop written apart from this library found, one seed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvergenceSize(Size):
    """Networks and their training by gradient descent on random numbers.

    Attributes:
        widths: Units of the hidden layer.
        steps: Updates.
        decay_until: Numbers of updates that the decay of the upper weights lasts.
        decay: Decay of the upper weights, added to the gradient of the summed loss.
        learning_rate: Learning rate of gradient descent on the summed loss.
        examples: To fit.
        inputs: Number of inputs of an example.
    """

    widths: tuple[int, ...]
    steps: int
    decay_until: tuple[int, ...] = (0, 100, 300)
    decay: float = 0.3
    learning_rate: float = 0.1
    examples: int = 20
    inputs: int = 30


# ---------------------------------------------------------------------------------------------------- measurement


class _Network(eqx.Module):
    """`beta^T psi(W x) / sqrt(width)`, all weights standard normal at first."""

    below: Linear
    above: Linear
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(self, inputs: int, width: int, activation: Callable[[Array], Array], key: PRNGKeyArray):
        keys = jax.random.split(key, 2)
        below = Linear(inputs, width, use_bias=False, key=key)
        above = Linear(width, 1, use_bias=False, key=key)
        self.below = eqx.tree_at(lambda m: m.weight, below, jax.random.normal(keys[0], (width, inputs)))
        self.above = eqx.tree_at(lambda m: m.weight, above, jax.random.normal(keys[1], (1, width)))
        self.activation = activation

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, "1"]:
        rates = vertex(self.activation(self.below(x)), "hidden")
        return self.above(rates) / jnp.sqrt(jnp.asarray(rates.size, x.dtype))


def _measure(run: Run[ConvergenceSize]) -> dict[str, Any]:
    size = run.size
    found: dict[str, Any] = {}
    for name, activation in _ACTIVATIONS.items():
        run.say(f"{name} networks, widths {', '.join(map(str, size.widths))}, {size.steps} steps, {run.seeds} seeds")
        found[name] = {
            str(width): [
                [_train(size, activation, width, until, seed) for seed in range(run.seeds)]
                for until in size.decay_until
            ]
            for width in size.widths
        }
    return {"runs": found}


def _train(
    size: ConvergenceSize, activation: Callable[[Array], Array], width: int, until: int, seed: int
) -> dict[str, float]:
    """The cosine of the upper weights to their feedback, and the loss, after training."""
    keys = jax.random.split(jax.random.key(seed), 4)
    x = jax.random.normal(keys[0], (size.examples, size.inputs))
    x, y = x / jnp.linalg.norm(x, axis=1, keepdims=True), jax.random.normal(keys[1], (size.examples, 1))
    feedback = jax.random.normal(keys[2], (1, width))
    model = attach(_Network(size.inputs, width, activation, keys[3]), given({"above.weight": feedback}))
    graph, rule = capture(model, x[0]), Backprop(loss=squared_error)

    def upper(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.shape == (1, width), tree)

    # The library's gradient is a mean over examples; the paper's is a sum, and so is the decay beside it.
    rate = optax.sgd(size.learning_rate * size.examples)
    decaying = optax.chain(optax.add_decayed_weights(size.decay / size.examples, upper), rate)
    for count, step in ((until, optimizers(decaying)), (size.steps - until, optimizers(rate))):
        model = _advance(graph, rule, step, model, x, y, count)
    output, _ = graph.feedforward(model, x)
    return {
        "cosine": float(jnp.cos(jnp.deg2rad(angle(model.above.layer.weight, feedback)))),
        "loss": float(0.5 * jnp.sum(jnp.square(output - y))),
    }


def _advance(
    graph: Graph, rule: Rule, step: optax.GradientTransformation, model: PyTree, x: Array, y: Array, count: int
) -> PyTree:
    arrays, static = eqx.partition(model, eqx.is_array)

    def body(_: Array, carry: Any) -> Any:
        moved = rule.step(graph, step, eqx.combine(carry[0], static), carry[1], (), x, y)
        return eqx.filter(moved[0], eqx.is_array), moved[1]

    advance = jax.jit(lambda carry, count: jax.lax.fori_loop(0, count, body, carry))
    return eqx.combine(advance((arrays, step.init(graph.trainable(model))), count)[0], static)


# ---------------------------------------------------------------------------------------------------------- judge


def _cosine(runs: list[dict[str, float]]) -> float:
    return float(np.mean([run["cosine"] for run in runs]))


def _summary(found: Found[ConvergenceSize]) -> str:
    width = found.size.widths[-1]
    cosines = {
        name: ", ".join(f"{_cosine(row):.2f}" for row in rows[str(width)])
        for name, rows in found.numbers["runs"].items()
    }
    return (
        "Cosine of the upper weights to their feedback after training: "
        + "; ".join(f"{name}, width {width}: {words}" for name, words in cosines.items())
        + f", with decay of {found.size.decay:g} in the first {', '.join(map(str, found.size.decay_until))} steps."
    )


def _fits(found: Found[ConvergenceSize]) -> Claim:
    networks = found.numbers["runs"].values()
    losses = [or_nan(run["loss"]) for rows in networks for row in rows.values() for runs in row for run in runs]
    return Claim(
        "Wide networks fit their examples by feedback alignment, with or without a decay that ends.",
        f"The largest training loss at the end is {np.max(losses):.2g}, of {len(losses)} runs; below {_FITTED:g} "
        "counts as fitted.",
        "holds" if np.max(losses) < _FITTED else "does not hold",
    )


def _needs_decay(found: Found[ConvergenceSize]) -> Claim:
    runs, widths = found.numbers["runs"], list(map(str, found.size.widths))
    none, longest = (
        {name: [_cosine(rows[width][at]) for width in widths] for name, rows in runs.items()} for at in (0, -1)
    )
    falls = all(row[-1] < row[0] for row in none.values())
    more = all(b > 2 * a for name in none for a, b in zip(none[name], longest[name], strict=True))

    def words(row: list[float]) -> str:
        return ", ".join(f"{value:.2f}" for value in row)

    return Claim(
        "Alignment of the weights with their feedback vanishes with width unless they are regularised early on.",
        "; ".join(
            f"{name}: without decay {words(none[name])}, with the longest {words(longest[name])}" for name in none
        )
        + f", at widths {', '.join(widths)}.",
        supported([falls, more]),
    )


def _differences(found: Found[ConvergenceSize]) -> list[str]:
    return [
        "Random labels, inputs of norm 1; we could not read the paper's own figures. The numbers beside ours are of a "
        "loop written apart from this library, from the paper's equations.",
    ]


def _sections(found: Found[ConvergenceSize]) -> list[Section]:
    return [
        Section(
            name,
            f"Losses are summed over {found.size.examples} examples. The decay acts on the upper weights alone.",
            tables=[_table(found, name)],
            panels=[_panel(found, name)],
        )
        for name in found.numbers["runs"]
    ]


def _table(found: Found[ConvergenceSize], name: str) -> Table:
    headings = [f"decay in the first {until} steps" if until else "no decay" for until in found.size.decay_until]
    lines: list[list[Any]] = []
    for width in found.size.widths:
        cells = [interval_text([run["cosine"] for run in runs]) for runs in found.numbers["runs"][name][str(width)]]
        beside = _INDEPENDENT[name].get(width)
        lines.append([width, *cells, None if beside is None else " / ".join(f"{value:.2f}" for value in beside)])
    return Table(f"Cosine of upper weights and feedback, {name}", ["width", *headings, "apart"], lines)


def _panel(found: Found[ConvergenceSize], name: str) -> Panel:
    rows = list(found.numbers["runs"][name].values())
    series = [
        Series(
            f"decay until {until}" if until else "no decay",
            list(map(float, found.size.widths)),
            [[row[i][seed]["cosine"] for row in rows] for seed in range(len(rows[0][i]))],
        )
        for i, until in enumerate(found.size.decay_until)
    ]
    return Panel(f"Alignment, {name}", "width", "cosine", series)


CONVERGENCE = Experiment(
    name="fa/convergence",
    title="Feedback alignment of wide two-layer networks",
    topic="alignment of wide two-layer networks with their feedback",
    paper="Song, Xu and Lafferty 2021, arXiv 2106.06044",
    sizes={
        "quick": ConvergenceSize(widths=(100, 400), steps=600),
        "full": ConvergenceSize(widths=(100, 1000, 5000), steps=4000),
    },
    time={"full": "two minutes"},
    measure=_measure,
    summary=_summary,
    claims=[_fits, _needs_decay],
    sections=_sections,
    differences=_differences,
    seeds=3,
    credit="Random numbers.",
)
"""Alignment of the upper weights with their feedback, by width and by how long they decay."""
