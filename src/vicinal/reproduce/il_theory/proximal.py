"""How near an update comes to implicit SGD, along inference: the proximal objective, and the angle to the optimum."""

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
from vicinal.report import Claim, Panel, Section, Series, Study, Table
from vicinal.reproduce.runs import Scale, Variant
from vicinal.rules import Backprop, ImplicitSGD, InferenceLearning
from vicinal.settings import ModelSettings, TaskSettings
from vicinal.task import Task
from vicinal.train import fit, keys_of

_STEP_SIZE, _PAPER_STEPS, _EVERY = 0.015, 25, 5  # measured at every fifth inference step
_PAPER = _PAPER_STEPS // _EVERY  # the measurement after the paper's number of steps
_THEN = 0.1  # the step size after these, to settle in fewer
_CLAMPED = 1e9  # a proximal output of this learning rate is the target
_OURS, _WEIGHTED = "feedforward, soft", "feedforward, soft, weighted"
_KINDS = {  # start, clamp, whether energies are weighted
    _OURS: ("feedforward", False, False),
    "feedforward, full": ("feedforward", True, False),
    "random, soft": ("random", False, False),
    "random, full": ("random", True, False),
    _WEIGHTED: ("feedforward", False, True),
}


def proximal(scale: Scale) -> Study:
    """Objective, angles and distances after the normalised step, as a function of the inference step."""
    task = _task(scale)
    blocks, examples = scale.pick(30, 80), scale.pick(8, 30)
    sizes = [_STEP_SIZE] * _PAPER + [_THEN] * blocks
    rates = scale.pick((0.1, 1.0, 10.0), (0.01, 0.1, 1.0, 10.0, 100.0))
    scale.say(
        f"a network trained for {scale.pick(300, 1000)} iterations, then {examples} examples at {len(rates)} rates"
    )
    model = _trained(task, scale.pick(300, 1000))
    found = {rate: _measure(task, model, rate, sizes, examples) for rate in rates}
    one = 1.0
    scale.say("curvature")
    shares = _shares(task, model, examples)
    return Study(
        title=f"Inference and the proximal step, on {task.data.name}",
        summary=_summary(found),
        command="",
        settings={
            "data": task.data.name,
            "examples": examples,
            "inference_steps": {_STEP_SIZE: _PAPER_STEPS, _THEN: _EVERY * blocks},
            "learning_rates": rates,
        },
        environment={},
        claims=[_by_matrix(found), _as_a_whole(found)],
        differences=[
            *(["The digits and a smaller network stand in for MNIST."] if scale.quick else []),
            "The network was trained for a while by BP-SGD before measuring; the paper's state of training was not at "
            "hand.",
            "Its activation is tanh: at the kinks of ReLU the gradient of the proximal objective jumps, so that no "
            "solver brings its residual to zero, and angles to the optimum would not be known to a degree.",
            "The optimum is found by L-BFGS on the parameters, to the residual in the table, where the published code "
            "takes 500 gradient steps of .005 with alpha 1.",
        ],
        sections=[
            Section(
                f"Along inference, learning rate {one:g}",
                "After each inference step the normalised update is taken on trial. The proximal objective is the loss "
                "after it plus its squared norm over twice the learning rate; implicit SGD is what minimises it. The "
                "output is held at its proximal optimum (soft) or at the target (full). Weighted: the energy of each "
                "layer is divided by the squared norm of what enters it, as the proximal objective has it, taken at "
                "the feedforward values and relative to the output's; the paper's rule weighs all layers alike.",
                panels=_panels(found[one]),
            ),
            Section(
                "Across learning rates",
                f"After {_PAPER_STEPS} inference steps of {_STEP_SIZE}, as in the paper, and {_EVERY * blocks} more "
                f"of {_THEN} (settled); from the feedforward values, soft.",
                tables=[*_rate_tables(found), _layer_table(found[one])],
                panels=[_rate_panel(found)],
            ),
            Section(
                "Curvature",
                "Of the squared norm of each matrix's update (clamped, 25 steps): what the gradient explains, and what "
                "the Hessian times the gradient explains beyond, as the step size of the activities grows.",
                panels=[_share_panel(shares)],
            ),
        ],
        numbers={"along": {str(rate): rows for rate, rows in found.items()}, "shares": shares},
        data_credit=task.data.credit,
    )


def _task(scale: Scale) -> Task:
    data, sizes = scale.pick(("digits", (64, 64, 64, 10)), ("mnist", (784, 256, 256, 10)))
    return Task(TaskSettings(data=data, model=ModelSettings(sizes=sizes, activation="tanh", vertex_at="pre")))


def _trained(task: Task, steps: int) -> PyTree:
    rule, optimizer = Variant("BP-SGD", "bp-sgd", 0.015).make(task)
    model_key, train_key = keys_of(0)
    model = task.build(model_key)
    run = fit(
        rule, model, optimizer, task.data, key=train_key, steps=steps, batch_size=1, graph=task.graph, progress=False
    )
    return run.model


def _examples(task: Task, count: int) -> tuple[Array, Array]:
    """The first training examples in an order of their own."""
    rows = jax.random.permutation(jax.random.key(7), len(task.data.x_train))[:count]
    return jnp.asarray(task.data.x_train)[rows], jnp.asarray(task.data.y_train)[rows]


def _measure(task: Task, model: PyTree, rate: float, sizes: list[float], examples: int) -> dict[str, Any]:
    """Means over the examples of what `_along` measures, for each start and clamp, and of the references."""
    x, y = _examples(task, examples)
    along, references = _along(task, model, x, y, jnp.float32(rate), jnp.asarray(sizes))
    time = [0.0, *np.cumsum(_EVERY * np.array(sizes)).tolist()]
    return {"time": time, "along": _means(along), "references": _means(references)}


def _means(tree: Any) -> Any:
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
            update, output = _normalised_step(task, model, problem, values, x)
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
            rule = InferenceLearning(loss=loss, proximal=pull)
            problem = rule.problem(graph, model, x, y)
            settling = dataclasses.replace(rule, precision=weights).problem(graph, model, x, y) if weighted else problem

            def body(values: Values, size: Array, problem=problem, settling=settling) -> tuple[Values, Any]:
                values = Simultaneous(steps=_EVERY, step_size=size).settle(settling, values).values
                left = equilibrium_residual(settling, values)[0]
                return values, at(values, problem) | {"slope left": left}

            begin = _start(start, feedforward, key)
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


def _start(start: str, feedforward: Values, key: Array) -> Values:
    if start == "feedforward":
        return feedforward
    keys = jax.random.split(key, len(feedforward))
    return {
        name: jax.random.normal(k, v.shape, v.dtype) for k, (name, v) in zip(keys, feedforward.items(), strict=True)
    }


def _normalised_step(task: Any, model: PyTree, problem: Any, values: Values, x: Array) -> tuple[PyTree, Array]:
    """The unit normalised update at these values, and the output that it aims at."""
    errors = problem.errors(values)
    output, _ = problem.predict(values)
    credit = Credit(errors.loss, values, errors.vertices, errors.output, Info(output))
    gradient = local_gradient(task.graph, model, credit, x)
    step = nlms(1.0)
    extra = {"presynaptic": presynaptic_norms(task.graph, model, credit, x)}
    update, _ = step.update(gradient, step.init(gradient), None, **extra)
    return update, output + errors.output


def _shares(task: Task, model: PyTree, examples: int) -> dict[str, Any]:
    """What gradient and curvature explain of inference learning's update, against the activities' step size."""
    x, y = _examples(task, examples)
    sizes = [0.001, 0.003, 0.01, 0.03, 0.1, 0.2]

    @eqx.filter_jit
    def measure(size: Array) -> Any:
        rule = InferenceLearning(inference=Simultaneous(steps=_PAPER_STEPS, step_size=size), loss=softmax_cross_entropy)

        def one(example: Any) -> Any:
            x, y = example[0][None], example[1][None]
            _, gradient, _, _ = rule.value_and_grad(task.graph, model, (), x, y)
            found = second_order_sensitivity(gradient, task.graph, model, x, y, loss=softmax_cross_entropy)
            return {name: [share.gradient, share.curvature] for name, share in found.items()}

        return jax.lax.map(one, (x, y))

    rows = [_means(measure(jnp.float32(size))) for size in sizes]
    return {"step sizes": sizes, "shares": {name: [row[name] for row in rows] for name in rows[0]}}


# ---------------------------------------------------------------------------------------------------------- words


def _summary(found: dict[float, Any]) -> str:
    one = found[1.0]
    ours, weighted, theirs = one["along"][_OURS], one["along"][_WEIGHTED], one["references"]
    return (
        f"At learning rate 1, the normalised update after {_PAPER_STEPS} inference steps of {_STEP_SIZE} is "
        f"{ours['to implicit SGD'][_PAPER]:.0f}° from implicit SGD, settled "
        f"{ours['to implicit SGD'][-1]:.0f}°; backpropagation's is {theirs['backpropagation to implicit SGD']:.0f}° "
        f"away. With each layer's energy divided by the squared norm of what enters it, it is "
        f"{weighted['to implicit SGD'][-1]:.0f}°. The proximal objective falls from {theirs['start']:.3f} (no "
        f"update) to {ours['objective'][_PAPER]:.3f} after {_PAPER_STEPS} steps, {ours['objective'][-1]:.3f} settled "
        f"and {weighted['objective'][-1]:.3f} if weighted; the optimum is {theirs['implicit SGD']:.3f}, and "
        f"backpropagation's step gives {theirs['backpropagation']:.3f}."
    )


def _by_matrix(found: dict[float, Any]) -> Claim:
    """Matrix by matrix, as the paper compares updates."""
    ours = np.array([row["along"][_OURS]["layers"] for row in found.values()])  # rates, steps, matrices
    theirs = np.array([row["references"]["layers"] for row in found.values()])
    nearer = {_PAPER: ours[:, _PAPER] < theirs, -1: ours[:, -1] < theirs}

    def words(angles: np.ndarray) -> str:
        return ", ".join(f"{angle:.0f}°" for angle in angles.mean(axis=0))

    return Claim(
        "Inference learning approximates implicit SGD (abstract): matrix by matrix, more closely than backpropagation.",
        f"Angle of each matrix's update to implicit SGD's, means over learning rates, from the bottom up: "
        f"{words(ours[:, _PAPER])} after {_PAPER_STEPS} steps, {words(ours[:, -1])} settled, backpropagation "
        f"{words(theirs)}. Nearer than backpropagation in {nearer[_PAPER].sum()} of {theirs.size} cases (matrices and "
        f"learning rates) after {_PAPER_STEPS} steps, in {nearer[-1].sum()} settled.",
        "holds"
        if nearer[_PAPER].all()
        else "holds in part"
        if nearer[_PAPER].any() or nearer[-1].any()
        else "does not hold",
    )


def _as_a_whole(found: dict[float, Any]) -> Claim:
    """All weights in one vector, where the scales of the layers count."""

    def nearer(name: str, step: int) -> int:
        return sum(
            row["along"][name]["to implicit SGD"][step] < row["references"]["backpropagation to implicit SGD"]
            for row in found.values()
        )

    words = "; ".join(
        f"at {rate:g} {row['along'][_OURS]['to implicit SGD'][_PAPER]:.0f}° after {_PAPER_STEPS} steps, "
        f"{row['along'][_OURS]['to implicit SGD'][-1]:.0f}° settled, "
        f"{row['along'][_WEIGHTED]['to implicit SGD'][-1]:.0f}° settled with weighted energies, "
        f"backpropagation {row['references']['backpropagation to implicit SGD']:.0f}°"
        for rate, row in found.items()
    )
    counts = [nearer(_OURS, _PAPER), nearer(_OURS, -1), nearer(_WEIGHTED, -1)]
    ours = counts[:2]  # the paper's rule; weighted energies are ours
    verdict = "holds" if ours[0] == len(found) else "holds in part" if any(ours) else "does not hold"
    return Claim(
        "The same for the whole update, all weights in one vector.",
        f"Angle to implicit SGD: {words}. Nearer than backpropagation at {counts[0]}, {counts[1]} and {counts[2]} of "
        f"{len(found)} learning rates. Weighted energies are the theory's; the paper's rule weighs all layers alike.",
        verdict,
    )


def _panel(row: dict[str, Any], title: str, heading: str, quantity: str, references: dict[str, float], **how) -> Panel:
    """A quantity along inference, for each kind of it; references are level lines."""
    series = [Series(name, row["time"], [values[quantity]]) for name, values in row["along"].items()]
    series += [Series(name, [0.0, row["time"][-1]], [[value, value]]) for name, value in references.items()]
    return Panel(title, "step size x inference steps", heading, series, **how)


def _panels(row: dict[str, Any]) -> list[Panel]:
    references = row["references"]
    levels = {name: references[name] for name in ("implicit SGD", "backpropagation")}
    angle = {"backpropagation": references["backpropagation to implicit SGD"]}
    note = "The normalised step with one example reproduces the activities; what is left is rounding."
    return [
        _panel(row, "Proximal objective after the update", "objective", "objective", levels, log_y=True),
        _panel(row, "Angle of the whole update to implicit SGD", "angle (°)", "to implicit SGD", angle),
        _panel(
            row,
            "Distance between activities and the next forward pass",
            "distance",
            "distance",
            {},
            log_y=True,
            note=note,
        ),
        _panel(row, "How settled the activities are", "largest slope left", "slope left", {}, log_y=True),
    ]


def _rate_panel(found: dict[float, Any]) -> Panel:
    names = list(_angles_at(next(iter(found.values()))))
    series = [Series(name, list(found), [[_angles_at(row)[name] for row in found.values()]]) for name in names]
    return Panel("Angle to implicit SGD", "learning rate", "angle (°)", series, log_x=True)


def _angles_at(row: dict[str, Any]) -> dict[str, float]:
    """The angles to implicit SGD that are compared across learning rates."""
    along = {name: values["to implicit SGD"] for name, values in row["along"].items()}
    return {
        f"{_PAPER_STEPS} inference steps": along[_OURS][_PAPER],
        "settled": along[_OURS][-1],
        "settled, weighted": along[_WEIGHTED][-1],
        "backpropagation": row["references"]["backpropagation to implicit SGD"],
    }


def _objectives_at(row: dict[str, Any]) -> dict[str, float]:
    along = {name: values["objective"] for name, values in row["along"].items()}
    return {
        "no update": row["references"]["start"],
        f"{_PAPER_STEPS} inference steps": along[_OURS][_PAPER],
        "settled": along[_OURS][-1],
        "settled, weighted": along[_WEIGHTED][-1],
        "backpropagation": row["references"]["backpropagation"],
        "implicit SGD": row["references"]["implicit SGD"],
        "residual of implicit SGD": row["references"]["residual"],
    }


def _rate_tables(found: dict[float, Any]) -> list[Table]:
    tables = []
    for title, at in (("Angle to implicit SGD (°)", _angles_at), ("Proximal objective", _objectives_at)):
        rows: list[list[Any]] = [[rate, *at(row).values()] for rate, row in found.items()]
        tables.append(Table(title, ["learning rate", *at(next(iter(found.values())))], rows))
    return tables


def _layer_table(row: dict[str, Any]) -> Table:
    ours, weighted = (np.array(row["along"][name]["layers"]) for name in (_OURS, _WEIGHTED))
    theirs = row["references"]["layers"]
    columns = ["update", *(f"matrix {i + 1}" for i in range(len(theirs)))]
    rows: list[list[Any]] = [
        [f"{_PAPER_STEPS} inference steps", *ours[_PAPER].tolist()],
        ["settled", *ours[-1].tolist()],
        ["settled, weighted", *weighted[-1].tolist()],
        ["backpropagation", *theirs],
    ]
    return Table("Angle to implicit SGD matrix by matrix (°), learning rate 1", columns, rows)


def _share_panel(shares: dict[str, Any]) -> Panel:
    sizes, series = shares["step sizes"], []
    for name, rows in shares["shares"].items():
        label = "all weights" if name == CONCATENATED else name.removesuffix(".weight")
        series.append(Series(f"{label}: gradient", sizes, [[row[0] for row in rows]]))
        series.append(Series(f"{label}: with curvature", sizes, [[row[0] + row[1] for row in rows]]))
    return Panel("Share of the update explained", "step size of the activities", "share", series, log_x=True)
