"""The gradient of one batch by rules that are backpropagation by another schedule, against `jax.grad`."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from vicinal import nn
from vicinal.data import load
from vicinal.graph import Graph, capture, vertex
from vicinal.inference import Simultaneous
from vicinal.inference.relaxation import Order
from vicinal.losses import Loss, softmax_cross_entropy
from vicinal.report import Claim, Panel, Series, Table
from vicinal.reproduce import Found, supported
from vicinal.rules import ZIL, FixedPrediction, InferenceLearning, Rule
from vicinal.task import Task
from vicinal.train import keys_of

ZIL_NAME, FIXED, STRICT = "Z-IL", "fixed prediction", "strict IL"
REORDERED = "jax.grad, summed in another order"
STEP_SIZES = (0.1, 0.3, 1.0)
ORDERS: tuple[Order, ...] = ("sequential", "simultaneous")
_TOLERANCE = 1e-4

GRADIENT = (
    "The largest difference from jax.grad of the mean loss, of any array, relative to that array's largest entry, in "
    "float32. The last column is jax.grad again, example by example and summed from the last: what rounding alone "
    "gives. The plain function is y = tan(sqrt(theta x)) + sin(x^2) at x = 5, theta = 2, with a vertex at every step, "
    "and the loss of one example, half the squared distance from 0."
)
SMALL_STEPS = (
    "A chain 64-32-32-32-10 on the digits. With step size eta, the error at the k-th vertex from the output is, after "
    "T steps from zero, its adjoint times a probability; what is missing of the gradient, relatively, is "
    "P(Binomial(n, eta) < k), with n = T simultaneous steps or n = T + k - 1 for T sweeps from the output down. For "
    "k = 1 this is (1 - eta)^T; further down, polynomials in T multiply it."
)


def rules(loss: Loss = softmax_cross_entropy) -> dict[str, Rule]:
    """The rules that should be exact, and strict inference learning for contrast."""
    settle = Simultaneous(steps=20, step_size=0.1)
    return {
        ZIL_NAME: ZIL(loss=loss),
        FIXED: FixedPrediction(loss=loss),
        STRICT: InferenceLearning(inference=settle, loss=loss),
    }


def probe(task: Task, batch: int) -> tuple[Graph, PyTree, Array, Array]:
    """Graph, model and a batch of a task."""
    x, y = (jnp.asarray(part[:batch]) for part in (task.data.x_train, task.data.y_train))
    return task.graph, task.build(keys_of(0)[0]), x, y


def plain_function() -> tuple[Graph, PyTree, Array, Array]:
    """Graph, model and one example of the function of arXiv 2006.04182."""

    def function(theta: Array, x: Array) -> Array:
        root = vertex(jnp.sqrt(vertex(theta * x, "product")), "root")
        return vertex(jnp.tan(root), "tangent") + vertex(jnp.sin(vertex(x**2, "square")), "sine")

    model, x = jax.tree_util.Partial(function, jnp.asarray(2.0)), jnp.array([5.0])
    return capture(model, x[0]), model, x, jnp.zeros(1)


@eqx.filter_jit
def _gradient(rule: Rule, graph: Graph, model: PyTree, x: Array, y: Array) -> PyTree:
    return rule.value_and_grad(graph, model, (), x, y)[1]


@eqx.filter_jit
def _of_jax(model: PyTree, x: Array, y: Array, loss: Loss, one_by_one: bool) -> PyTree:
    arrays, static = eqx.partition(model, eqx.is_inexact_array)

    def mean_loss(arrays: PyTree, x: Array, y: Array) -> Array:
        return jnp.mean(jax.vmap(loss)(jax.vmap(eqx.combine(arrays, static))(x), y))

    if not one_by_one:
        return jax.grad(mean_loss)(arrays, x, y)
    each = jax.lax.map(lambda e: jax.grad(mean_loss)(arrays, e[0][None], e[1][None]), (x[::-1], y[::-1]))
    return jax.tree.map(lambda leaf: jnp.sum(leaf, 0) / len(x), each)


def differences(graph: Graph, model: PyTree, x: Array, y: Array, loss: Loss) -> dict[str, float]:
    """The largest relative difference of each rule's gradient from that of jax.grad."""
    expected = _of_jax(model, x, y, loss, False)
    found = {name: _gradient(rule, graph, model, x, y) for name, rule in rules(loss).items()}
    found[REORDERED] = _of_jax(model, x, y, loss, True)

    def relative(gradient: PyTree) -> float:
        pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True)
        return max(float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b))) for a, b in pairs)

    return {name: relative(gradient) for name, gradient in found.items()}


def missing(step_size: float, steps: int, k: int, order: str) -> float:
    """What is missing, relatively, of the error at the k-th vertex from the output of a chain, starting from zero."""
    n = steps if order == "simultaneous" else steps + k - 1
    return math.fsum(math.comb(n, j) * step_size**j * (1 - step_size) ** (n - j) for j in range(min(k, n + 1)))


def convergence(order: Order, steps: tuple[int, ...]) -> dict[str, list[list[float]]]:
    """For each step size and number of steps, the relative distance from BP's gradient at three vertices.

    They are the vertices 1, 2 and 3 from the output.
    """
    data = load("digits").flattened()
    model = nn.MLP((64, 32, 32, 32, 10), activation="relu", key=jax.random.key(0))
    x, y = jnp.asarray(data.x_train[:64]), jnp.asarray(data.y_train[:64])
    graph, exact = capture(model, x[0]), _of_jax(model, x, y, softmax_cross_entropy, False)

    def distances(step_size: float, count: int) -> list[float]:
        found = _gradient(FixedPrediction(steps=count, step_size=step_size, order=order), graph, model, x, y)
        layers = [(found.layers[3 - k].weight, exact.layers[3 - k].weight) for k in (1, 2, 3)]
        return [float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in layers]

    return {str(step_size): [distances(step_size, count) for count in steps] for step_size in STEP_SIZES}


# ---------------------------------------------------------------------------------------------------------- judge


def gap_table(found: Found) -> Table:
    """The largest relative differences, a row for each model."""
    title = "Largest difference from jax.grad, relative to the largest entry of the array"
    lines = [[name, *(f"{gap:.2g}" for gap in gaps.values())] for name, gaps in found.numbers["gaps"].items()]
    return Table(title, ["model", ZIL_NAME, FIXED, STRICT, REORDERED], [list(line) for line in lines])


def same_gradient(found: Found) -> Claim:
    """Equal if no array differs by more than single precision explains."""
    gaps = found.numbers["gaps"]
    words = "; ".join(
        f"{name} {each[ZIL_NAME]:.1g} (Z-IL), {each[FIXED]:.1g} (fixed prediction), {each[REORDERED]:.1g} (rounding)"
        for name, each in gaps.items()
    )
    return Claim(
        "Z-IL does exact backpropagation on convolutional and recurrent networks (2103.03725), fixed prediction along "
        "any computation graph (2006.04182).",
        f"Largest relative difference from jax.grad: {words}.",
        supported([each[rule] < _TOLERANCE for each in gaps.values() for rule in (ZIL_NAME, FIXED)]),
    )


def nears(found: Found) -> Claim:
    """It follows the theory if no distance is further from it than rounding."""
    steps, by_order = found.numbers["steps"], found.numbers["convergence"]
    off = max(
        abs(distance - missing(float(step_size), count, k, order))
        for order, by_size in by_order.items()
        for step_size, along in by_size.items()
        for count, distances in zip(steps, along, strict=True)
        for k, distance in enumerate(distances, 1)
    )
    smallest = by_order["sequential"][str(STEP_SIZES[0])][-1][-1]
    return Claim(
        "With small steps fixed prediction converges exponentially to backpropagation's gradients (2006.04182).",
        f"The relative distance follows the theory above to {off:.1g}, at every step size, order, depth and number of "
        f"steps tried; at .1 and {steps[-1]} sweeps the bottom matrix is {smallest:.2g} away, where (1 - .1)^T alone "
        f"would be {0.9 ** steps[-1]:.2g}.",
        "holds" if off < _TOLERANCE else "does not hold",
    )


def convergence_table(found: Found) -> Table:
    """The distance of the bottom matrix, beside the theory."""
    steps = found.numbers["steps"]
    lines: list[list[str | float | int | None]] = []
    for order, by_size in found.numbers["convergence"].items():
        for step_size, along in by_size.items():
            eta = float(step_size)
            lines.append([order, eta, "measured", *(distances[-1] for distances in along)])
            lines.append([order, eta, "theory", *(missing(eta, count, 3, order) for count in steps)])
    title = "Relative distance of the bottom matrix's gradient (k = 3) from BP's after so many steps"
    return Table(title, ["order", "eta", "", *map(str, steps)], lines)


def convergence_panel(found: Found, order: str) -> Panel:
    """Measured distances of the top and the bottom matrix, and the line (1 - eta)^T."""
    steps, series = found.numbers["steps"], []
    x = [float(count) for count in steps]
    for step_size, along in found.numbers["convergence"][order].items():
        eta = float(step_size)
        if eta < 1:  # a unit step leaves rounding alone
            series.append(Series(f"eta {eta:g}, bottom", x, [[distances[2] for distances in along]]))
            series.append(Series(f"eta {eta:g}, top", x, [[distances[0] for distances in along]]))
            series.append(Series(f"(1 - {eta:g})^T", x, [[(1 - eta) ** count for count in steps]]))
    title = f"Distance from BP's gradient, {order} steps"
    note = "Top and bottom are the hidden matrices nearest the output and the input. Below 1e-6 rounding remains."
    return Panel(title, "steps T", "relative distance", series, log_y=True, note=note)
