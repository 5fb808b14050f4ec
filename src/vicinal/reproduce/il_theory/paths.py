"""How far the weights travel to a loss, how straight, and what a change of the weights does to output and loss."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from vicinal.analysis import CONCATENATED, descent_alignment, function_change, norms, update
from vicinal.losses import softmax_cross_entropy
from vicinal.report import Claim, Panel, Section, Series, Study, Table
from vicinal.reproduce.runs import Scale, Variant, ahead, classification, first_step, train, verdict
from vicinal.rules import ImplicitSGD
from vicinal.sweeping import curve, interval_text, last, plain
from vicinal.task import Task
from vicinal.train import Sweep, keys_of

_VARIANTS = (
    Variant("BP-SGD", "bp-sgd", 0.015),
    Variant("IL-SGD", "il-sgd", 0.05),
    Variant("IL-prox", "il-prox", 5.0, {"eps": 0.25}),
    Variant("BP-prox", "bp-prox", 5.0, {"eps": 0.25}),
)
_IMPLICIT = 5.0
_LEVELS = (1.0, 0.6, 0.4, 0.3, 0.2)


def paths(scale: Scale) -> Study:
    """Path length and straightness of training runs; change of output and loss per unit of weight change."""
    task, steps = classification(scale), scale.pick(1_500, 20_000)
    every = steps // scale.pick(30, 80)
    done = {v.label: train(scale, task, v, steps=steps, batch_size=1, evaluate_every=every) for v in _VARIANTS}
    stages = _stages(scale, task, steps, every)
    examples = scale.pick(8, 50)
    scale.say(f"change of the function, on {examples} examples at {len(stages)} stages of training")
    changes = {stage: _changes(task, model, examples) for stage, model in stages.items()}
    return Study(
        title=f"Paths of the weights, and what they do, on {task.data.name}",
        summary=_summary(done, changes),
        command="",
        settings={"data": task.data.name, "batch_size": 1, "steps": steps, "examples": examples},
        environment={},
        claims=[_shorter(done), _larger(changes), _straight(changes)],
        differences=[
            *(["The digits and a smaller network stand in for MNIST."] if scale.quick else []),
            "The path is the sum of the norms of all updates; the published code sums those of every fiftieth.",
            "Implicit SGD is solved by L-BFGS, which at the kinks of ReLU stops short of the optimum.",
            "The paper gives BP-prox no learning rate of its own outside the study of stability; here that of IL-prox.",
        ],
        sections=[
            Section(
                "Paths",
                "The length of the path is the sum of the norms of all updates; its straightness the distance between "
                "the first weights and the last, over the length.",
                tables=[_path_table(done), _level_table(done)],
                panels=[_path_panel(done), _length_panel(done)],
            ),
            Section(
                "What a change of the weights does",
                "One update of each rule for one example, from the same weights: how much it moves the output and "
                "lowers the loss of that example, per unit of weight change; and the angle between the change of the "
                "output and the steepest descent of the loss in it. As taken, updates differ in size; scaled, all have "
                "the same norm.",
                tables=[_change_table(stage, rows) for stage, rows in changes.items()],
            ),
        ],
        numbers={"runs": {name: plain(sweep.members) for name, sweep in done.items()}, "changes": changes},
        data_credit=task.data.credit,
    )


def _stages(scale: Scale, task: Task, steps: int, every: int) -> dict[str, PyTree]:
    """Weights at the start, early and late in training by BP-SGD; with one seed, that of the paths goes on."""
    lone = dataclasses.replace(scale, asked=1)
    early = steps // 20
    found = {"at the start": task.build(keys_of(0)[0])}
    for count, name in ((early, "early"), (steps, "late")):
        done = train(lone, task, _VARIANTS[0], steps=count, batch_size=1, evaluate_every=every)
        found[f"{name}, after {count} iterations"] = done.members[0].model
    return found


# ------------------------------------------------------------------------------------------ what a change does


def _changes(task: Task, model: PyTree, examples: int) -> dict[str, dict[str, list[float]]]:
    """For each rule and each example: output and loss ratio, and alignment; as taken, and at equal norms."""
    rows = jax.random.permutation(jax.random.key(5), len(task.data.x_train))[:examples]
    x, y = jnp.asarray(task.data.x_train)[rows], jnp.asarray(task.data.y_train)[rows]
    rules = {variant.label: variant.make(task) for variant in _VARIANTS}
    rules["implicit SGD"] = (ImplicitSGD(learning_rate=_IMPLICIT, loss=softmax_cross_entropy), optax.sgd(_IMPLICIT))
    found = {}
    for name, (rule, optimizer) in rules.items():
        measured = _change(task, model, x, y, rule, optimizer)
        found[name] = {quantity: np.asarray(values, float).tolist() for quantity, values in measured.items()}
    return found


_EQUAL = 0.01  # the norm that updates are scaled to


@eqx.filter_jit
def _change(task: Any, model: PyTree, x: Array, y: Array, rule: Any, optimizer: Any) -> dict[str, Array]:
    loss = softmax_cross_entropy

    def one(example: tuple[Array, Array]) -> dict[str, Array]:
        x, y = example[0][None], example[1][None]
        step = update(rule, optimizer, task.graph, model, x, y)
        size = norms(step)[CONCATENATED]
        scaled = jax.tree.map(lambda leaf: leaf * (_EQUAL / size), step)
        found = {"norm": size}
        for name, taken in (("as taken", step), ("scaled", scaled)):
            change = function_change(task.graph, model, taken, x, y, loss=loss)
            cosine = descent_alignment(task.graph, model, taken, x, y, loss=loss)[0]
            found[f"output, {name}"], found[f"loss, {name}"] = change.output_ratio, change.loss_ratio
            found[f"angle, {name}"] = jnp.rad2deg(jnp.arccos(jnp.clip(cosine, -1.0, 1.0)))
        return found

    return jax.lax.map(one, (x, y))


def _median(rows: dict[str, list[float]], quantity: str) -> float:
    return float(np.nanmedian(rows[quantity]))


def _change_table(stage: str, rules: dict[str, dict[str, list[float]]]) -> Table:
    quantities = {
        "norm": "norm of the update",
        "output, as taken": "output change per weight change",
        "loss, as taken": "loss decrease per weight change",
        "angle, as taken": "angle of output change to descent (°)",
        "output, scaled": "output change, equal norms",
        "loss, scaled": "loss decrease, equal norms",
        "angle, scaled": "angle, equal norms (°)",
    }
    rows: list[list[Any]] = [
        [name, *(_median(found, quantity) for quantity in quantities)] for name, found in rules.items()
    ]
    title = f"{stage[0].upper()}{stage[1:]}: medians over the examples (equal norms: {_EQUAL:g})"
    return Table(title, ["rule", *quantities.values()], rows)


# --------------------------------------------------------------------------------------------------------- paths


def _straightness(distances: list[float], lengths: list[float]) -> list[float]:
    return [moved / length for moved, length in zip(distances, lengths, strict=True)]


def _lengths_at(sweep: Sweep, level: float) -> list[float]:
    """The path length when the test loss is first at most the level, of each member; NaN if it never is."""
    found = []
    for member in sweep.members:
        step = first_step(member, "test_loss", lambda value: value <= level)
        lengths = [record["path_length"] for record in member.records if record["step"] == step]
        found.append(lengths[0] if lengths else np.nan)
    return found


def _path_table(done: dict[str, Sweep]) -> Table:
    rows: list[list[Any]] = []
    for name, sweep in done.items():
        lengths = [last(member, "path_length") for member in sweep.members]
        moved = [last(member, "distance_moved") for member in sweep.members]
        rows.append(
            [
                name,
                interval_text([last(member, "test_loss") for member in sweep.members]),
                interval_text([last(member, "test_accuracy") for member in sweep.members], 100.0),
                interval_text(lengths),
                interval_text(moved),
                interval_text(_straightness(moved, lengths)),
                interval_text([last(member, "update_norm") for member in sweep.members]),
                interval_text([last(member, "update_norm_variance") for member in sweep.members]),
            ]
        )
    columns = [
        "rule",
        "test loss",
        "test accuracy (%)",
        "path length",
        "distance moved",
        "straightness",
        "mean norm of an update",
        "its variance",
    ]
    return Table("At the end of training (mean over seeds ± half a 95 % interval)", columns, rows)


def _level_table(done: dict[str, Sweep]) -> Table:
    rows: list[list[Any]] = []
    for name, sweep in done.items():
        lengths = [_lengths_at(sweep, level) for level in _LEVELS]
        rows.append([name, *(None if np.any(np.isnan(row)) else interval_text(row) for row in lengths)])
    title = "Path length when the test loss is first at most so much (none if a seed does not reach it)"
    return Table(title, ["rule", *(f"{level:g}" for level in _LEVELS)], rows)


def _path_panel(done: dict[str, Sweep]) -> Panel:
    """Test loss against path length; the path length of a point is the mean over seeds."""
    series = []
    for name, sweep in done.items():
        live = [member for member in sweep.members if not member.diverged]
        if live:
            x = np.mean([[record["path_length"] for record in member.records] for member in live], axis=0)
            series.append(Series(name, x.tolist(), [[r["test_loss"] for r in member.records] for member in live]))
    return Panel("Test loss along the path", "path length", "test loss", series, log_x=True, log_y=True)


def _length_panel(done: dict[str, Sweep]) -> Panel:
    series = [curve(name, sweep.members, "path_length") for name, sweep in done.items()]
    return Panel("Path length", "iteration", "path length", series, log_y=True)


# --------------------------------------------------------------------------------------------------------- words


def _shorter(done: dict[str, Sweep]) -> Claim:
    """Compares path lengths, seed by seed, at the lowest level that both rules reach with every seed."""
    words, found = [], []
    theirs = {level: _lengths_at(done["BP-SGD"], level) for level in _LEVELS}
    for name in ("IL-SGD", "IL-prox"):
        ours = {level: _lengths_at(done[name], level) for level in _LEVELS}
        common = [v for v in _LEVELS if not np.any(np.isnan(ours[v])) and not np.any(np.isnan(theirs[v]))]
        if not common:
            words.append(f"{name} and BP-SGD reach no common test loss")
            continue
        level = min(common)
        found.append(ahead(theirs[level], ours[level]))
        told = {1: "shorter", 0: "not told apart", -1: "longer"}[found[-1]]
        words.append(
            f"to a test loss of {level:g} {name} takes a path of {np.mean(ours[level]):.3g}, BP-SGD of "
            f"{np.mean(theirs[level]):.3g} ({told}, seed by seed, at 95 %)"
        )
    return Claim(
        "Inference learning takes a shorter path to a minimum than backpropagation (here: to a test loss).",
        "; ".join(words) + ".",
        verdict(found) if found else "open",
    )


def _larger(changes: dict[str, Any]) -> Claim:
    words, found = [], []
    for stage, rules in changes.items():
        ratios = {name: _median(rows, "output, as taken") for name, rows in rules.items()}
        losses = {name: _median(rows, "loss, as taken") for name, rows in rules.items()}
        found += [
            ahead(rules[n]["output, as taken"], rules["BP-SGD"]["output, as taken"]) for n in ("IL-SGD", "IL-prox")
        ]
        words.append(
            f"{stage}: output {ratios['IL-SGD']:.3g} (IL-SGD), {ratios['IL-prox']:.3g} (IL-prox), "
            f"{ratios['BP-SGD']:.3g} (BP-SGD); loss {losses['IL-SGD']:.3g}, {losses['IL-prox']:.3g}, "
            f"{losses['BP-SGD']:.3g}"
        )
    return Claim(
        "Per unit of weight change, an update of inference learning has a larger effect on the output.",
        f"Change per unit of weight change, medians over examples: {'. '.join(words)}. For a small update no direction "
        "lowers the loss more than the gradient, so what can be larger is the effect of updates that are not small.",
        verdict(found),
    )


def _straight(changes: dict[str, Any]) -> Claim:
    words, found = [], []
    for stage, rules in changes.items():
        angle = {name: _median(rows, "angle, as taken") for name, rows in rules.items()}
        found += [ahead(rules["BP-SGD"]["angle, as taken"], rules[n]["angle, as taken"]) for n in ("IL-SGD", "IL-prox")]
        words.append(
            f"{stage} {angle['IL-SGD']:.1f}° (IL-SGD), {angle['IL-prox']:.1f}° (IL-prox), "
            f"{angle['BP-SGD']:.1f}° (BP-SGD)"
        )
    return Claim(
        "An update of inference learning moves the output more nearly along its steepest descent (toy figure).",
        f"Angle between the output's change and the steepest descent of the loss in it, medians: {'; '.join(words)}.",
        verdict(found),
    )


def _summary(done: dict[str, Sweep], changes: dict[str, Any]) -> str:
    lengths = ", ".join(
        f"{name} {np.mean([last(member, 'path_length') for member in sweep.members]):.3g}"
        for name, sweep in done.items()
    )
    return (
        f"Path lengths at the end of training: {lengths}. Output change per unit of weight change, at the start: "
        + ", ".join(
            f"{name} {_median(found, 'output, as taken'):.3g}" for name, found in changes["at the start"].items()
        )
        + "."
    )
