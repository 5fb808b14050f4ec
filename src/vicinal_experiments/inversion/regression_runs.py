"""What is measured while dynamic inversion and its references learn a linear and a non-linear map."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal.analysis import angles, inversion_angles, loop_eigenvalues, loop_stability
from vicinal.feedback import attach, given, optimizers
from vicinal.graph import Graph, capture
from vicinal.inference import Result
from vicinal.losses import squared_error
from vicinal.nn import MLP
from vicinal.reproduce import Run, Size
from vicinal.rules import Backprop, DynamicInversion, Rule
from vicinal.rules.inversion import ClosedForm, Dynamic, PseudoInverse, Refuse, Stabilise, Uniform

BP, FA, DI, DI_T, SDI, NDI, PBP = "BP", "FA", "DI", "DI, first transpose", "SDI", "NDI", "PBP"
DYNAMIC, INVERTING = (DI, DI_T, SDI), (DI, DI_T, SDI, NDI)
_TEST, _PROBE = 500, 20  # examples that errors, and angles, are measured on
SCALE = 0.5


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is learned.

    Attributes:
        heading: Heading of its section.
        sizes: Units of each layer of teacher and student.
        activation: Activation of the hidden units of both.
        weight_scale: First weights are uniform in plus and minus this; None for the library's.
        rate: Learning rate.
        updates: One example each.
    """

    heading: str
    sizes: tuple[int, ...]
    activation: str
    weight_scale: float | None
    rate: float
    updates: int

    def teacher(self, key: PRNGKeyArray) -> Callable[[Array], Array]:
        """`y = T x` with `T` uniform in ±1; or a network, its weights as wide as make units of variance about 1."""
        if self.activation == "identity":
            matrix = jax.random.uniform(key, (self.sizes[-1], self.sizes[0]), minval=-1.0)
            return lambda x: matrix @ x
        return self._scaled(MLP(self.sizes, self.activation, "pre", False, key=key), 3**0.5)

    def student(self, key: PRNGKeyArray) -> MLP:
        """The network at first."""
        model = MLP(self.sizes, self.activation, "pre", False, key=key)
        if self.weight_scale is None:
            return model
        widths = [self.weight_scale * layer.weight.shape[1] ** 0.5 for layer in model.layers]
        layers = [
            eqx.tree_at(lambda m: m.weight, m, width * m.weight) for m, width in zip(model.layers, widths, strict=True)
        ]
        return eqx.tree_at(lambda m: m.layers, model, tuple(layers))

    @staticmethod
    def _scaled(model: MLP, factor: float) -> MLP:
        return jax.tree.map(lambda leaf: factor * leaf if eqx.is_array(leaf) else leaf, model)


class Student(NamedTuple):
    """A rule, and what it is run with; one for all seeds, so that it is compiled once."""

    rule: Rule
    graph: Graph
    optimizer: optax.GradientTransformation


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionSize(Size):
    """The problems, and the loops that learn them.

    Attributes:
        problems: The maps to learn.
        steps: Steps of the loops in each update.
        step_size: Step size of the loops.
        leak: Leak of the loops.
        clip: Largest norm of an error.
    """

    problems: tuple[Problem, ...]
    steps: int
    step_size: float = 0.5
    leak: float = 0.01
    clip: float = 10.0


# ---------------------------------------------------------------------------------------------------- measurement

Runs = dict[str, list[list[dict[str, float]]]]
"""For each rule and seed, what was measured along the way."""


def measure(run: Run[RegressionSize]) -> dict[str, Any]:
    """For each problem, rule and seed, what was measured along the way."""
    return {"runs": {problem.heading: _learn(run, problem) for problem in run.size.problems}}


def _learn(run: Run[RegressionSize], problem: Problem) -> Runs:
    run.say(f"{problem.heading}, {problem.updates} updates, {run.seeds} seeds")
    found: Runs = {}
    for label, student in _students(run.size, problem).items():
        for seed in range(run.seeds):
            keys = jax.random.split(jax.random.key(seed), 4)
            first = _first(problem, label, keys[0], keys[1])
            found.setdefault(label, []).append(_train(problem, student, first, problem.teacher(keys[2]), keys[3]))
    return found


def _first(problem: Problem, label: str, key: PRNGKeyArray, feedback_key: PRNGKeyArray) -> PyTree:
    """The network at first; for feedback alignment with its feedback."""
    model = problem.student(key)
    if label != FA:
        return model
    back = {
        f"layers[{i}].weight": jax.random.uniform(
            jax.random.fold_in(feedback_key, i), layer.weight.shape, minval=-SCALE, maxval=SCALE
        )
        for i, layer in enumerate(model.layers)
        if i
    }
    return attach(model, given(back))


def _students(size: RegressionSize, problem: Problem) -> dict[str, Student]:
    settings = {"loss": squared_error, "leak": size.leak, "step_size": size.step_size, "clip": size.clip}
    dynamic = Dynamic(steps=size.steps)
    stabilised: dict[str, Any] = {"feedback": Uniform(SCALE), "stability": Stabilise(repair=True)}
    rules: dict[str, Rule] = {
        BP: Backprop(loss=squared_error),
        FA: Backprop(loss=squared_error),
        DI: DynamicInversion(inversion=dynamic, **settings, **stabilised),
        DI_T: DynamicInversion(inversion=dynamic, **settings, stability=Stabilise(repair=True)),
        NDI: DynamicInversion(inversion=ClosedForm(), **settings, **stabilised),
        PBP: DynamicInversion(inversion=PseudoInverse(), **settings),
    }
    if len(problem.sizes) > 3:
        rules[SDI] = DynamicInversion(inversion=dynamic, **settings, **stabilised, single_loop=True)
    step, key, x = optax.sgd(problem.rate), jax.random.key(0), jnp.zeros(problem.sizes[0])
    plain, fed = (capture(_first(problem, label, key, key), x) for label in (BP, FA))
    return {
        label: Student(rule, *((fed, optimizers(step)) if label == FA else (plain, step)))
        for label, rule in rules.items()
    }


def _train(
    problem: Problem, student: Student, model: PyTree, teacher: Callable[[Array], Array], key: PRNGKeyArray
) -> list[dict[str, float]]:
    """What is measured before the first update and after each tenth of them."""
    init_key, learn_key, test_key = jax.random.split(key, 3)
    x = jax.random.normal(test_key, (_TEST, problem.sizes[0]))
    y, chunk = jax.vmap(teacher)(x), problem.updates // 10
    state = student.rule.init(student.graph, model, key=init_key)
    carry = (model, student.optimizer.init(student.graph.trainable(model)), state)
    records = [_measured(student, carry, x, y)]
    for i in range(10):
        inputs = jax.random.normal(jax.random.fold_in(learn_key, i), (chunk, 1, problem.sizes[0]))
        carry, lost = _advance(student, carry, inputs, jax.vmap(jax.vmap(teacher))(inputs))
        records.append({**_measured(student, carry, x, y), "lost": float(lost)})
    return [{"updates": float(i * chunk), **record} for i, record in enumerate(records)]


@eqx.filter_jit
def _advance(
    student: Student, carry: Any, x: Float[Array, "updates 1 in"], y: Float[Array, "updates 1 out"]
) -> tuple[Any, Float[Array, ""]]:
    """Learns from one example after the other; and the share of updates in which a loop did not hold."""
    arrays, static = eqx.partition(carry, eqx.is_array)

    def body(arrays: Any, xy: tuple[Array, Array]) -> tuple[Any, Array]:
        model, optimizer_state, state = eqx.combine(arrays, static)
        *after, _, info = student.rule.step(student.graph, student.optimizer, model, optimizer_state, state, *xy)
        lost = jnp.zeros(()) if info.result is None else jnp.mean((info.result >= Result.DIVERGED).astype(jnp.float32))
        return eqx.filter(tuple(after), eqx.is_array), lost

    arrays, lost = jax.lax.scan(body, arrays, (x, y))
    return eqx.combine(arrays, static), jnp.mean(lost)


def _measured(
    student: Student, carry: Any, x: Float[Array, "test in"], y: Float[Array, "test out"]
) -> dict[str, float]:
    model, _, state = carry
    record = {"error": float(_error(student.graph, model, x, y))}
    if not isinstance(student.rule, DynamicInversion):
        return record
    rule = dataclasses.replace(student.rule, stability=Refuse())  # measure the feedback without a repair
    record["update"] = float(_update_angle(rule, student.graph, model, state, x[:_PROBE], y[:_PROBE]))
    if not rule.inversion.has_feedback:
        return record
    values = np.concatenate(list(loop_eigenvalues(rule, student.graph, model, state).values()))
    found = _angles(rule, student.graph, model, state, x[:_PROBE], y[:_PROBE])
    loops = loop_stability(rule, student.graph, model, state).values()
    return {
        **record,
        "abscissa": float(np.max(values.real)),
        "least": float(np.min(values.real)),
        "imaginary": float(np.max(values.imag)),
        "amplification": max(loop.amplification for loop in loops),
        **{name: float(np.mean(list(values.values()))) for name, values in dataclasses.asdict(found).items()},
    }


_angles = eqx.filter_jit(inversion_angles)


@eqx.filter_jit
def _update_angle(
    rule: DynamicInversion, graph: Graph, model: PyTree, state: PyTree, x: Array, y: Array
) -> Float[Array, ""]:
    """Between the update and backpropagation's, the mean over weights; but for the uppermost, where both are one."""
    ours = rule.value_and_grad(graph, model, state, x, y)[1]
    theirs = Backprop(loss=rule.loss).value_and_grad(graph, model, (), x, y)[1]
    found = angles(ours, theirs)
    return jnp.mean(jnp.stack([found[f"layers[{i}].weight"] for i in range(len(model.layers) - 1)]))


@eqx.filter_jit
def _error(graph: Graph, model: PyTree, x: Array, y: Array) -> Float[Array, ""]:
    """The squared error over the squared targets."""
    return jnp.sum(jnp.square(graph.feedforward(model, x)[0] - y)) / jnp.sum(jnp.square(y))
