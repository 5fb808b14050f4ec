"""Activation relaxation: Millidge, Tschantz, Seth and Buckley 2020, arXiv 2009.05359 and 2010.06219."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from vicinal.analysis import angle, angles
from vicinal.feedback import Fed, attach, detach, given
from vicinal.graph import Graph, capture
from vicinal.report import Study
from vicinal.reproduce.ar_words import (
    BARE,
    BP,
    EXACT,
    FIXED,
    FROZEN,
    FULL,
    LEARNED,
    converges,
    feedback_table,
    keeps,
    relaxed,
    section,
    settling_table,
    summary,
)
from vicinal.reproduce.runs import Measure, Scale, task_of
from vicinal.reproduce.side_by_side import Contender, first_input, on_first_device, train_side_by_side
from vicinal.rules import ActivationRelaxation, Backprop, Rule
from vicinal.sweeping import plain
from vicinal.task import Task
from vicinal.train import Sweep, TrainingState, keys_of

_PROBE = 64  # examples on which angles are measured
_SPREAD = 0.05  # standard deviation of the feedback weights
_RELAXATION: dict[str, Any] = {"steps": 100, "step_size": 0.1}
_SHORT: dict[str, Any] = {"steps": 20, "step_size": 0.5}


def mnist(scale: Scale) -> Study:
    """Activation relaxation, exact and simplified, against backpropagation: accuracy and angles along training."""
    dense, images = _tasks(scale)
    done = _train(scale, "dense", dense, [BP, EXACT, BARE, FIXED, LEARNED, FULL, *FROZEN], _RELAXATION)
    compared = [BP, EXACT, *scale.pick([], [BARE, LEARNED]), FULL]
    convolved = _train(scale, "convolutional", images, compared, _SHORT)
    both = {"dense": done, "convolutional": convolved}
    drift, settling = _drift(dense, done), _settling(scale, dense, done)
    return Study(
        title=f"Activation relaxation, on {dense.data.name}",
        summary=summary(both),
        command="",
        settings={
            "data": dense.data.name,
            "dense": _RELAXATION,
            "convolutional": _SHORT,
            "batch_size": 64,
            "feedback": f"normal, standard deviation {_SPREAD:g}",
        },
        environment={},
        claims=[converges(done, settling), *(keeps(both, label) for label in (BARE, LEARNED, FULL)), relaxed(done)],
        differences=[
            *(["The digits and smaller networks stand in for MNIST."] if scale.quick else []),
            "The papers train for 50 epochs; here the beginning of the curves alone, at a learning rate of .1, three "
            "times the first paper's.",
            "One learning rate for all forms, which is tuned for none of them.",
            "The papers' accuracies were not at hand, so none stands here.",
            "First weights are uniform in ±1/sqrt(inputs) as elsewhere in this library; the published code's are "
            "normal with standard deviation .05, and so is the feedback here.",
            "Biases are parameters like others; the published code has one for each position in the batch.",
            "The choices of the frozen pass are our reading: the text of 2010.06219 on it was not at hand. Its "
            "networks and data (CIFAR, SVHN) are larger; ours is small, and relaxes in 20 sweeps of .5.",
            "Cross-entropy alone; the first paper also has squared error.",
        ],
        sections=[
            section("Dense", _DENSE, done, [settling_table(settling), feedback_table(done, drift)]),
            section("Convolutional", _IMAGES, convolved, [feedback_table(convolved, _drift(images, convolved))]),
        ],
        numbers={
            "runs": {name: {label: plain(s.members) for label, s in runs.items()} for name, runs in both.items()},
            "drift": drift,
            "settling": {name: {str(n): v for n, v in along.items()} for name, along in settling.items()},
        },
        data_credit=dense.data.credit,
    )


_DENSE = (
    "Angles are between the update of a rule and backpropagation's at the same weights, on one batch of training "
    "examples, without the optimiser. 'Frozen' says what still reads the forward pass once the activities have left "
    "it: all (AR), the derivatives alone, the local product alone, or nothing."
)
_IMAGES = "The same on a convolutional network, where the feedback is a kernel for each kernel."


def _tasks(scale: Scale) -> tuple[Task, Task]:
    data = scale.pick("digits", "mnist")
    sizes = scale.pick((64, 32, 32, 16, 10), (784, 300, 300, 100, 10))
    dense = task_of(data, kind="mlp", sizes=sizes, vertex_at="post")
    shape: dict[str, Any] = {"channels": (4, 8), "stride": 2, "sizes": (scale.pick(16, 64), 10)}
    return dense, task_of(data, kind="convolutional", vertex_at="post", **shape)


def _probe(task: Task) -> tuple[Array, Array]:
    return jnp.asarray(task.data.x_train[:_PROBE]), jnp.asarray(task.data.y_train[:_PROBE])


def _train(scale: Scale, name: str, task: Task, labels: list[str], relaxation: dict[str, Any]) -> dict[str, Sweep]:
    x, y = _probe(task)
    contenders = []
    for label in labels:
        frozen, bare = FROZEN.get(label, "all"), label in (BARE, FULL)
        relaxing = ActivationRelaxation(derivatives=not bare, frozen=frozen, **relaxation)
        rule: Rule = Backprop() if label == BP else relaxing
        build, graph = None, task.graph
        if label in (FIXED, LEARNED, FULL):
            build = _fed(task, learned=label != FIXED)
            graph = capture(build(keys_of(0)[0]), first_input(task))
        contenders.append(Contender(label, rule, build, None if label == BP else _measure(rule, graph, task, x, y)))
    steps = scale.pick(600, 1000) if name == "dense" else scale.pick(300, 600)
    return train_side_by_side(
        scale,
        task,
        contenders,
        name=name,
        learning_rate=scale.pick(0.2, 0.1),
        steps=steps,
        batch_size=64,
        evaluate_every=steps // scale.pick(3, 10),
    )


# ------------------------------------------------------------------------------------------------------ feedback


def _layers(model: PyTree) -> dict[str, Any]:
    """The layers whose input has an error, by the name of their weight: all but the first."""
    convolutions = getattr(model, "convolutions", ())
    named = {f"convolutions[{i}].weight": layer for i, layer in enumerate(convolutions)}
    named |= {f"layers[{i}].weight": layer for i, layer in enumerate(model.layers)}
    return dict(list(named.items())[1:])


def _fed(task: Task, learned: bool) -> Callable[[PRNGKeyArray], PyTree]:
    def build(key: PRNGKeyArray) -> PyTree:
        model = task.build(key)
        layers = _layers(model)
        # Not fold_in(key, 1): that is split(key, n)[1], from which the layer of this index draws its weights.
        keys = jax.random.split(jax.random.fold_in(key, 2**31 - 1), len(layers))
        drawn = {
            name: _SPREAD * jax.random.normal(k, layer.weight.shape)
            for k, (name, layer) in zip(keys, layers.items(), strict=True)
        }
        return attach(model, given(drawn, learned=learned))

    return build


@eqx.filter_jit
def _angles(rule: Rule, graph: Graph, plain_graph: Graph, model: PyTree, x: Array, y: Array) -> dict[str, Array]:
    ours = detach(rule.value_and_grad(graph, model, (), x, y)[1])
    exact = Backprop(loss=rule.loss).value_and_grad(plain_graph, detach(model), (), x, y)[1]
    layers: dict[str, Any] = {name: layer for name, layer in _layers(model).items() if isinstance(layer, Fed)}
    fed = {f"feedback {name}": angle(found.path.feedback, found.layer.weight) for name, found in layers.items()}
    return {**{f"angle {name}": value for name, value in angles(ours, exact).items()}, **fed}


def _measure(rule: Rule, graph: Graph, task: Task, x: Array, y: Array) -> Measure:
    """Adds the angles to backpropagation, and those of the feedback to the weights, to a record."""

    def measure(record: dict[str, Any], state: TrainingState) -> None:
        found = _angles(rule, graph, task.graph, on_first_device(state.model), x, y)
        record |= {name: float(value) for name, value in found.items()}

    return measure


def _settling(scale: Scale, task: Task, done: dict[str, Sweep]) -> dict[str, dict[int, float]]:
    """The largest angle to backpropagation's update of any matrix, by the number of sweeps; first and last weights."""
    x, y = _probe(task)
    models = {"first weights": task.build(keys_of(0)[0]), "last weights": on_first_device(done[EXACT].members[0].model)}
    found: dict[str, dict[int, float]] = {name: {} for name in models}
    for steps in scale.pick((100, 400), (25, 50, 100, 200, 400)):
        rule = ActivationRelaxation(**(_RELAXATION | {"steps": steps}))
        for name, model in models.items():
            each = _angles(rule, task.graph, task.graph, model, x, y)
            found[name][steps] = max(float(value) for value in each.values())
    return found


def _drift(task: Task, done: dict[str, Sweep]) -> dict[str, float]:
    """How much the difference of weight and feedback changed in training, relatively; the worst layer and seed."""
    found = {}
    for label, learned in ((FIXED, False), (LEARNED, True), (FULL, True)):
        for member in done[label].members if label in done else ():
            first = _layers(_fed(task, learned)(keys_of(member.seed)[0]))
            for name, fed in _layers(member.model).items():
                before = np.asarray(first[name].layer.weight - first[name].path.feedback)
                after = np.asarray(fed.layer.weight) - np.asarray(fed.path.feedback)
                moved = float(np.linalg.norm(after - before) / np.linalg.norm(before))
                found[label] = max(found.get(label, 0.0), moved)
    return found
