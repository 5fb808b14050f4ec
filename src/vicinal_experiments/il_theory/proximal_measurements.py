"""Along inference: what the normalised update would do after each step, beside implicit SGD and backpropagation."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from vicinal.analysis import (
    CONCATENATED,
    angles,
    equilibrium_residual,
    norms,
    proximal_objective,
    proximal_residual,
    second_order_sensitivity,
)
from vicinal.credit import Credit, Info, local_gradient, presynaptic_norms
from vicinal.graph import OUTPUT, Values
from vicinal.inference import Proximal, Simultaneous
from vicinal.losses import softmax_cross_entropy
from vicinal.optim import nlms
from vicinal.rules import Backprop, ImplicitSGD, InferenceLearning
from vicinal.task import Task
from vicinal.train import fit, keys_of
from vicinal_experiments.recipes import recipe_variant
from vicinal_experiments.tasks import task_of

STEP_SIZE, PAPER_STEPS, EVERY = 0.015, 25, 5  # measured at every fifth inference step
PAPER = PAPER_STEPS // EVERY  # the measurement after the paper's number of steps
THEN = 0.1  # the step size after these, to settle in fewer
_CLAMPED = 1e9  # a proximal output of this learning rate is the target
OURS, WEIGHTED = "feedforward, soft", "feedforward, soft, weighted"
_KINDS = {  # start, clamp, whether energies are weighted
    OURS: ("feedforward", False, False),
    "feedforward, full": ("feedforward", True, False),
    "random, soft": ("random", False, False),
    "random, full": ("random", True, False),
    WEIGHTED: ("feedforward", False, True),
}


def tanh_classifier(data: str) -> Task:
    """784-256-256-10 with tanh for MNIST, 64-64-64-10 for the digits."""
    sizes = {"digits": (64, 64, 64, 10), "mnist": (784, 256, 256, 10)}[data]
    return task_of(data, sizes=sizes, activation="tanh")


def trained(task: Task, steps: int) -> PyTree:
    """The model trained for a number of updates by BP-SGD."""
    rule, optimizer = recipe_variant("BP-SGD", task, "bp-sgd", [0.015]).make(learning_rate=0.015)
    model_key, train_key = keys_of(0)
    model = task.build(model_key)
    run = fit(
        rule, model, optimizer, task.data, key=train_key, steps=steps, batch_size=1, graph=task.graph, progress=False
    )
    return run.model


def examples_of(task: Task, count: int) -> tuple[Array, Array]:
    """The first training examples in an order of their own."""
    rows = jax.random.permutation(jax.random.key(7), len(task.data.x_train))[:count]
    return jnp.asarray(task.data.x_train)[rows], jnp.asarray(task.data.y_train)[rows]


def measure(task: Task, model: PyTree, rate: float, sizes: list[float], examples: int) -> dict[str, Any]:
    """Means over the examples of what `_along` measures, for each start and clamp, and of the references."""
    x, y = examples_of(task, examples)
    along, references = _along(task, model, x, y, jnp.float32(rate), jnp.asarray(sizes))
    time = [0.0, *np.cumsum(EVERY * np.array(sizes)).tolist()]
    return {"time": time, "along": means(along), "references": means(references)}


def means(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.mean(np.asarray(leaf, float), axis=0).tolist(), tree)


@eqx.filter_jit
def _along(task: Any, model: PyTree, x: Array, y: Array, rate: Array, sizes: Array) -> tuple[Any, Any]:
    graph, loss = task.graph, softmax_cross_entropy

    def one(example: tuple[Array, Array, Array]) -> tuple[Any, Any]:
        x, y, key = example[0][None], example[1][None], example[2]
        implicit = ImplicitSGD(learning_rate=rate, loss=loss, steps=400)
        after, _, _ = implicit.solve(graph, model, x, y)
        best = jax.tree.map(jnp.subtract, *[eqx.filter(tree, eqx.is_inexact_array) for tree in (after, model)])
        _, gradient, _, _ = Backprop(loss=loss).value_and_grad(graph, model, (), x, y)
        descent = jax.tree.map(lambda g: -rate * g, gradient)

        def objective(update: PyTree) -> Array:
            return proximal_objective(graph, model, update, x, y, loss=loss, learning_rate=rate)

        def at(values: Values, problem: Any) -> dict[str, Array]:
            """What the normalised step from these values would do."""
            update, output = normalised_step(task, model, problem, values, x)
            reached, vertices = graph.feedforward(eqx.apply_updates(model, update), x)
            gap = [vertices[name] - values[name] for name in graph.vertices] + [reached - output]
            to_best, to_descent = angles(update, best), angles(update, descent)
            return {
                "objective": objective(update),
                "to implicit SGD": to_best[CONCATENATED],
                "to backpropagation": to_descent[CONCATENATED],
                "layers": jnp.stack([a for name, a in to_best.items() if name != CONCATENATED]),
                "distance": jnp.sqrt(sum(jnp.sum(jnp.square(part)) for part in gap)),
            }

        output, feedforward = graph.feedforward(model, x)
        entering = {name: graph.entering(name, model, feedforward, x)[0] for name in (*graph.vertices, OUTPUT)}
        weights = {name: entering[OUTPUT] / entering[name] for name in graph.vertices}
        found = {}
        for name, (start, clamped, weighted) in _KINDS.items():
            pull = Proximal(jnp.full_like(rate, _CLAMPED) if clamped else rate)
            rule = InferenceLearning(loss=loss, proximal=pull, start=start)
            problem = rule.problem(graph, model, x, y)
            settling = dataclasses.replace(rule, precision=weights).problem(graph, model, x, y) if weighted else problem

            def body(values: Values, size: Array, problem=problem, settling=settling) -> tuple[Values, Any]:
                values = Simultaneous(steps=EVERY, step_size=size).settle(settling, values).values
                left = equilibrium_residual(settling, values)[0]
                return values, at(values, problem) | {"slope left": left}

            begin = rule.begin(feedforward, key)
            before = at(begin, problem) | {"slope left": equilibrium_residual(settling, begin)[0]}
            after_ = jax.lax.scan(body, begin, sizes)[1]
            found[name] = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), before, after_)
        references = {
            "start": jnp.mean(jax.vmap(loss)(output, y)),
            "implicit SGD": objective(best),
            "backpropagation": objective(descent),
            "backpropagation to implicit SGD": angles(descent, best)[CONCATENATED],
            "layers": jnp.stack([a for name, a in angles(descent, best).items() if name != CONCATENATED]),
            "residual": proximal_residual(graph, model, after, x, y, loss=loss, learning_rate=rate)
            / norms(best)[CONCATENATED],
        }
        return found, references

    keys = jax.random.split(jax.random.key(11), x.shape[0])
    return jax.lax.map(one, (x, y, keys))


def normalised_step(task: Any, model: PyTree, problem: Any, values: Values, x: Array) -> tuple[PyTree, Array]:
    """The unit normalised update at these values, and the output that it aims at."""
    errors = problem.errors(values)
    output, _ = problem.predict(values)
    credit = Credit(errors.loss, values, errors.by_vertex, errors.output, Info(output))
    gradient = local_gradient(task.graph, model, credit, x)
    step = nlms(1.0)
    extra = {"presynaptic": presynaptic_norms(task.graph, model, credit.values, x)}
    update, _ = step.update(gradient, step.init(gradient), None, **extra)
    return update, output + errors.output


def shares_explained(task: Task, model: PyTree, examples: int) -> dict[str, Any]:
    """What gradient and curvature explain of inference learning's update, against the activities' step size."""
    x, y = examples_of(task, examples)
    sizes = [0.001, 0.003, 0.01, 0.03, 0.1, 0.2]

    @eqx.filter_jit
    def measure(size: Array) -> Any:
        rule = InferenceLearning(inference=Simultaneous(steps=PAPER_STEPS, step_size=size), loss=softmax_cross_entropy)

        def one(example: Any) -> Any:
            x, y = example[0][None], example[1][None]
            _, gradient, _, _ = rule.value_and_grad(task.graph, model, (), x, y)
            found = second_order_sensitivity(gradient, task.graph, model, x, y, loss=softmax_cross_entropy)
            return {name: [share.gradient, share.curvature] for name, share in found.items()}

        return jax.lax.map(one, (x, y))

    rows = [means(measure(jnp.float32(size))) for size in sizes]
    return {"step sizes": sizes, "shares": {name: [row[name] for row in rows] for name in rows[0]}}
