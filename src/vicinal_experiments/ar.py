"""Activation relaxation: Millidge, Tschantz, Seth and Buckley 2020, arXiv 2009.05359 and 2010.06219."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from vicinal.analysis import angle, angles
from vicinal.feedback import Fed, attach, detach, given
from vicinal.graph import Graph
from vicinal.reproduce import Experiment, Measure, Run, Variant, captured, rows
from vicinal.rules import ActivationRelaxation, Backprop, Rule
from vicinal.task import Task
from vicinal.train import Member, TrainingState, keys_of
from vicinal_experiments import ar_judge
from vicinal_experiments.ar_judge import BARE, BP, EXACT, FIXED, FROZEN, FULL, LEARNED, NetworkSize, RelaxationSize
from vicinal_experiments.tasks import task_of
from vicinal_experiments.variants import Build, first_examples, on_first_device, rule_variant

_PROBE = 64  # examples on which angles are measured
_DENSE = (BP, EXACT, BARE, FIXED, LEARNED, FULL, *FROZEN)


def _measure(run: Run[RelaxationSize]) -> dict[str, Any]:
    size, (data,) = run.size, run.size.data
    dense = task_of(data, kind="mlp", sizes=size.sizes, vertex_at="post")
    shape: dict[str, Any] = {"channels": (4, 8), "stride": 2, "sizes": (size.units, 10)}
    images = task_of(data, kind="convolutional", vertex_at="post", **shape)
    networks = {"dense": (dense, _DENSE, size.dense), "convolutional": (images, size.compared, size.convolutional)}
    numbers: dict[str, Any] = {"runs": {}, "drift": {}}
    for name, (task, labels, how) in networks.items():
        members = {label: _train(run, name, task, label, how) for label in labels}
        numbers["runs"][name] = {label: rows(found) for label, found in members.items()}
        numbers["drift"][name] = _drift(task, members, size.feedback_deviation)
        if name == "dense":
            numbers["settling"] = _settling(size, task, on_first_device(members[EXACT][0].model))
    return numbers


def _train(run: Run[RelaxationSize], name: str, task: Task, label: str, how: NetworkSize) -> list[Member]:
    done = run.train(
        _variant(task, label, how, run.size),
        task,
        steps=how.updates,
        batch_size=run.size.batch_size,
        evaluate_every=how.updates // run.size.evaluations,
        part=name,
    )
    return done.members


def _variant(task: Task, label: str, how: NetworkSize, size: RelaxationSize) -> Variant:
    if label == BP:
        return rule_variant(BP, Backprop(), size.learning_rate)
    rule = ActivationRelaxation(
        steps=how.sweeps,
        step_size=how.step_size,
        derivatives=label not in (BARE, FULL),
        frozen=FROZEN.get(label, "all"),
    )
    build, graph = None, task.graph
    if label in (FIXED, LEARNED, FULL):
        build = _fed(task, label != FIXED, size.feedback_deviation)
        graph = captured(build, task.data)
    return rule_variant(label, rule, size.learning_rate, build=build, measure=_angles_of(rule, graph, task))


# ------------------------------------------------------------------------------------------------------ feedback


def _layers(model: PyTree) -> dict[str, Any]:
    """The layers whose input has an error, by the name of their weight: all but the first."""
    convolutions = getattr(model, "convolutions", ())
    named = {f"convolutions[{i}].weight": layer for i, layer in enumerate(convolutions)}
    named |= {f"layers[{i}].weight": layer for i, layer in enumerate(model.layers)}
    return dict(list(named.items())[1:])


def _fed(task: Task, learned: bool, deviation: float) -> Build:
    """From a key to the task's model, with normal feedback weights of a standard deviation."""

    def build(key: PRNGKeyArray) -> PyTree:
        model = task.build(key)
        layers = _layers(model)
        # Not fold_in(key, 1): that is split(key, n)[1], from which the layer of this index draws its weights.
        keys = jax.random.split(jax.random.fold_in(key, 2**31 - 1), len(layers))
        drawn = {
            name: deviation * jax.random.normal(k, layer.weight.shape)
            for k, (name, layer) in zip(keys, layers.items(), strict=True)
        }
        return attach(model, given(drawn, learned=learned))

    return build


@eqx.filter_jit
def _angles(rule: Rule, graph: Graph, plain_graph: Graph, model: PyTree, x: Array, y: Array) -> dict[str, Array]:
    """Of the update to backpropagation's, and of the feedback to the weights."""
    ours = detach(rule.value_and_grad(graph, model, (), x, y)[1])
    exact = Backprop(loss=rule.loss).value_and_grad(plain_graph, detach(model), (), x, y)[1]
    layers: dict[str, Any] = {name: layer for name, layer in _layers(model).items() if isinstance(layer, Fed)}
    fed = {f"feedback {name}": angle(found.path.feedback, found.layer.weight) for name, found in layers.items()}
    return {**{f"angle {name}": value for name, value in angles(ours, exact).items()}, **fed}


def _angles_of(rule: Rule, graph: Graph, task: Task) -> Measure:
    """Adds the angles to a record."""
    x, y = first_examples(task.data, _PROBE)

    def measure(record: dict[str, Any], state: TrainingState) -> None:
        found = _angles(rule, graph, task.graph, on_first_device(state.model), x, y)
        record |= {name: float(value) for name, value in found.items()}

    return measure


def _settling(size: RelaxationSize, task: Task, trained: PyTree) -> dict[str, dict[str, float]]:
    """The largest angle to backpropagation's update of any matrix, by the number of sweeps; first and last weights."""
    x, y = first_examples(task.data, _PROBE)
    models = {"first weights": task.build(keys_of(0)[0]), "last weights": trained}
    found: dict[str, dict[str, float]] = {name: {} for name in models}
    for sweeps in size.settling:
        rule = ActivationRelaxation(steps=sweeps, step_size=size.dense.step_size)
        for name, model in models.items():
            each = _angles(rule, task.graph, task.graph, model, x, y)
            found[name][str(sweeps)] = max(float(value) for value in each.values())
    return found


def _drift(task: Task, members: dict[str, list[Member]], deviation: float) -> dict[str, float]:
    """How much the difference of weight and feedback changed in training, relatively; the worst layer and seed."""
    found = {}
    for label, learned in ((FIXED, False), (LEARNED, True), (FULL, True)):
        for member in members.get(label, ()):
            first = _layers(_fed(task, learned, deviation)(keys_of(member.seed)[0]))
            for name, fed in _layers(member.model).items():
                before = np.asarray(first[name].layer.weight - first[name].path.feedback)
                after = np.asarray(fed.layer.weight) - np.asarray(fed.path.feedback)
                moved = float(np.linalg.norm(after - before) / np.linalg.norm(before))
                found[label] = max(found.get(label, 0.0), moved)
    return found


ACTIVATION_RELAXATION = Experiment(
    name="ar/mnist",
    title="Activation relaxation",
    topic="activation relaxation and its simplifications against backpropagation",
    paper="Millidge et al. 2020, arXiv 2009.05359 and 2010.06219",
    sizes={
        "quick": RelaxationSize(
            data=("digits",),
            sizes=(64, 32, 32, 16, 10),
            units=16,
            dense=NetworkSize(updates=600, sweeps=100, step_size=0.1),
            convolutional=NetworkSize(updates=300, sweeps=20, step_size=0.5),
            compared=(BP, EXACT, FULL),
            evaluations=3,
            settling=(100, 400),
            learning_rate=0.2,
        ),
        "full": RelaxationSize(
            data=("mnist",),
            sizes=(784, 300, 300, 100, 10),
            units=64,
            dense=NetworkSize(updates=1000, sweeps=100, step_size=0.1),
            convolutional=NetworkSize(updates=600, sweeps=20, step_size=0.5),
            compared=(BP, EXACT, BARE, LEARNED, FULL),
            evaluations=10,
            settling=(25, 50, 100, 200, 400),
            learning_rate=0.1,
        ),
    },
    time={"full": "eight minutes"},
    measure=_measure,
    summary=ar_judge.summary,
    claims=[
        ar_judge.converges,
        *(ar_judge.keeps_accuracy(label) for label in (BARE, LEARNED, FULL)),
        ar_judge.forward_pass_forgotten,
    ],
    sections=ar_judge.sections,
    differences=ar_judge.differences,
)
"""Activation relaxation, exact and simplified, against backpropagation: accuracy and angles along training."""
