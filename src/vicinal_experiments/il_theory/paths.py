"""How far the weights travel to a loss, how straight, and what a change of the weights does to output and loss."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import PyTree

from vicinal.report import Claim, Panel, Section, Series, Table
from vicinal.report.formatting import capitalized
from vicinal.reproduce import Experiment, Found, Run, Size, ahead, curve_panel, first_step, value, verdict
from vicinal.reproduce.tables import Runs
from vicinal.sweeping import interval_text
from vicinal.task import Task
from vicinal.train import Member, keys_of
from vicinal_experiments.il_theory.weight_changes import EQUAL_NORM, Changes, measure_changes
from vicinal_experiments.learning_curves import train_recipes
from vicinal_experiments.papers import IL_THEORY
from vicinal_experiments.recipes import Recipe, recipe_variant
from vicinal_experiments.tasks import classifier

_RECIPES = {
    "BP-SGD": Recipe("bp-sgd", 0.015),
    "IL-SGD": Recipe("il-sgd", 0.05),
    "IL-prox": Recipe("il-prox", 5.0, {"eps": 0.25}),
    "BP-prox": Recipe("bp-prox", 5.0, {"eps": 0.25}),
}
_LEVELS = (1.0, 0.6, 0.4, 0.3, 0.2)  # of the test loss
_INFERENCE = ("IL-SGD", "IL-prox")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathsSize(Size):
    """Training along which paths are measured.

    Attributes:
        steps: Updates of one example each.
        evaluations: How many, evenly spaced.
        examples: On how many the change of the function is measured.
    """

    steps: int
    evaluations: int
    examples: int


# ---------------------------------------------------------------------------------------------------- measurement


def _measure(run: Run[PathsSize]) -> dict[str, Any]:
    size, task = run.size, classifier(run.size.data[0])
    how: dict[str, Any] = {"steps": size.steps, "batch_size": 1, "evaluations": size.evaluations}
    runs = train_recipes(run, task, _RECIPES, **how)
    stages = _stages(run, task)
    run.say(f"change of the function, on {size.examples} examples at {len(stages)} stages of training")
    return {
        "runs": runs,
        "changes": {stage: measure_changes(task, model, _RECIPES, size.examples) for stage, model in stages.items()},
    }


def _stages(run: Run[PathsSize], task: Task) -> dict[str, PyTree]:
    """Weights at the start, early and late in training by BP-SGD."""
    size, recipe = run.size, _RECIPES["BP-SGD"]
    variant = recipe_variant("BP-SGD", task, recipe.name, [recipe.learning_rate])
    lone = dataclasses.replace(run, seeds=1)
    found = {"at the start": task.build(keys_of(0)[0])}
    for steps, name in ((size.steps // 20, "early"), (size.steps, "late")):
        every = size.steps // size.evaluations
        done = lone.train(variant, task, steps=steps, batch_size=1, evaluate_every=every, part="a stage")
        found[f"{name}, after {steps} updates"] = done.members[0].model
    return found


# ---------------------------------------------------------------------------------------------------------- judge


def _median(changes: dict[str, list[float]], quantity: str) -> float:
    return float(np.nanmedian(changes[quantity]))


def _lengths_at(members: list[Member], level: float) -> list[float]:
    """The path length when the test loss is first at most the level, of each member; NaN if it never is."""
    steps = [first_step(member, "test_loss", lambda loss: loss <= level) for member in members]
    return [
        np.nan if np.isnan(step) else value(member, "path_length", int(step))
        for member, step in zip(members, steps, strict=True)
    ]


def _summary(found: Found[PathsSize]) -> str:
    lengths = {
        label: np.mean([value(member, "path_length") for member in members])
        for label, members in found.runs("runs").items()
    }
    changes = {
        label: _median(changes, "output, as taken")
        for label, changes in found.numbers["changes"]["at the start"].items()
    }
    words = [", ".join(f"{label} {number:.3g}" for label, number in rows.items()) for rows in (lengths, changes)]
    return (
        f"Path lengths at the end of training: {words[0]}. Output change per unit of weight change, at the start: "
        f"{words[1]}."
    )


def _shorter(found: Found[PathsSize]) -> Claim:
    """Compares path lengths, seed by seed, at the lowest level that both rules reach with every seed."""
    words, signs, runs = [], [], found.runs("runs")
    theirs = {level: _lengths_at(runs["BP-SGD"], level) for level in _LEVELS}
    for label in _INFERENCE:
        ours = {level: _lengths_at(runs[label], level) for level in _LEVELS}
        common = [level for level in _LEVELS if not np.any(np.isnan([ours[level], theirs[level]]))]
        if not common:
            words.append(f"{label} and BP-SGD reach no common test loss")
            continue
        level = min(common)
        signs.append(ahead(theirs[level], ours[level]))
        told = {1: "shorter", 0: "not distinguishable", -1: "longer"}[signs[-1]]
        words.append(
            f"to a test loss of {level:g} {label} takes a path of {np.mean(ours[level]):.3g}, BP-SGD of "
            f"{np.mean(theirs[level]):.3g} ({told}, seed by seed, at 95 %)"
        )
    return Claim(
        "Inference learning takes a shorter path to a minimum than backpropagation (here: to a test loss).",
        "; ".join(words) + ".",
        verdict(signs) if signs else "open",
    )


def _larger(found: Found[PathsSize]) -> Claim:
    words, signs = [], []
    for stage, rules in found.numbers["changes"].items():
        output, loss = (
            {label: _median(changes, f"{kind}, as taken") for label, changes in rules.items()}
            for kind in ("output", "loss")
        )
        signs += [ahead(rules[label]["output, as taken"], rules["BP-SGD"]["output, as taken"]) for label in _INFERENCE]
        words.append(
            f"{stage}: output {output['IL-SGD']:.3g} (IL-SGD), {output['IL-prox']:.3g} (IL-prox), "
            f"{output['BP-SGD']:.3g} (BP-SGD); loss {loss['IL-SGD']:.3g}, {loss['IL-prox']:.3g}, {loss['BP-SGD']:.3g}"
        )
    return Claim(
        "Per unit of weight change, an update of inference learning has a larger effect on the output.",
        f"Change per unit of weight change, medians over examples: {'. '.join(words)}. For a small update no direction "
        "lowers the loss more than the gradient, so only updates that are not small can have a larger effect.",
        verdict(signs),
    )


def _straight(found: Found[PathsSize]) -> Claim:
    words, signs = [], []
    for stage, rules in found.numbers["changes"].items():
        angle = {label: _median(changes, "angle, as taken") for label, changes in rules.items()}
        signs += [ahead(rules["BP-SGD"]["angle, as taken"], rules[label]["angle, as taken"]) for label in _INFERENCE]
        words.append(
            f"{stage} {angle['IL-SGD']:.1f}° (IL-SGD), {angle['IL-prox']:.1f}° (IL-prox), "
            f"{angle['BP-SGD']:.1f}° (BP-SGD)"
        )
    return Claim(
        "An update of inference learning moves the output more nearly along its steepest descent (toy figure).",
        f"Angle between the output's change and the steepest descent of the loss in it, medians: {'; '.join(words)}.",
        verdict(signs),
    )


def _differences(found: Found[PathsSize]) -> list[str]:
    return [
        "The path is the sum of the norms of all updates; the published code sums those of every fiftieth.",
        "Implicit SGD is solved by L-BFGS, which stops short of the optimum at the kinks of ReLU.",
        "The paper gives BP-prox no learning rate of its own outside the study of stability; here it has that of "
        "IL-prox.",
    ]


# --------------------------------------------------------------------------------------------- tables and figures


def _sections(found: Found[PathsSize]) -> list[Section]:
    runs = found.runs("runs")
    return [
        Section(
            "Paths",
            "The length of the path is the sum of the norms of all updates; its straightness is the distance between "
            "the first weights and the last, divided by that length.",
            tables=[_path_table(runs), _level_table(runs)],
            panels=[_path_panel(runs), curve_panel("Path length", runs, "path_length", "path length", log=True)],
        ),
        Section(
            "What a change of the weights does",
            "One update of each rule for one example, from the same weights: how much it moves the output and "
            "lowers the loss of that example, per unit of weight change; and the angle between the change of the "
            "output and the steepest descent of the loss in it. As taken, updates differ in size; scaled, all have "
            "the same norm.",
            tables=[_change_table(stage, rules) for stage, rules in found.numbers["changes"].items()],
        ),
    ]


def _path_table(runs: Runs) -> Table:
    table: list[list[Any]] = []
    for label, members in runs.items():
        loss, accuracy, length, moved, norm, variance = (
            [value(member, quantity) for member in members]
            for quantity in (
                "test_loss",
                "test_accuracy",
                "path_length",
                "distance_moved",
                "update_norm",
                "update_norm_variance",
            )
        )
        straightness = np.divide(moved, length).tolist()
        texts = map(interval_text, (loss, (100 * np.array(accuracy)).tolist(), length, moved, straightness))
        table.append([label, *texts, interval_text(norm), interval_text(variance)])
    columns = ["rule", "test loss", "test accuracy (%)", "path length", "distance moved", "straightness"]
    columns += ["mean norm of an update", "its variance"]
    return Table("At the end of training (mean over seeds ± half a 95 % interval)", columns, table)


def _level_table(runs: Runs) -> Table:
    table: list[list[Any]] = []
    for label, members in runs.items():
        lengths = [_lengths_at(list(members), level) for level in _LEVELS]
        table.append([label, *(None if np.any(np.isnan(row)) else interval_text(row) for row in lengths)])
    title = "Path length when the test loss is first at most so much (none if a seed does not reach it)"
    return Table(title, ["rule", *(f"{level:g}" for level in _LEVELS)], table)


def _path_panel(runs: Runs) -> Panel:
    """Test loss against path length; the path length of a point is the mean over seeds."""
    series = []
    for label, members in runs.items():
        live = [member.records for member in members if not member.diverged]
        if live:
            x = np.mean([[record["path_length"] for record in records] for records in live], axis=0)
            series.append(Series(label, x.tolist(), [[r["test_loss"] for r in records] for records in live]))
    return Panel("Test loss along the path", "path length", "test loss", series, log_x=True, log_y=True)


def _change_table(stage: str, rules: Changes) -> Table:
    quantities = {
        "norm": "norm of the update",
        "output, as taken": "output change per weight change",
        "loss, as taken": "loss decrease per weight change",
        "angle, as taken": "angle of output change to descent (°)",
        "output, scaled": "output change, equal norms",
        "loss, scaled": "loss decrease, equal norms",
        "angle, scaled": "angle, equal norms (°)",
    }
    table: list[list[Any]] = [
        [label, *(_median(changes, quantity) for quantity in quantities)] for label, changes in rules.items()
    ]
    title = f"{capitalized(stage)}: medians over the examples (equal norms: {EQUAL_NORM:g})"
    return Table(title, ["rule", *quantities.values()], table)


PATHS = Experiment(
    name="il-theory/paths",
    title="Paths of the weights, and what they do",
    topic="how far the weights travel, and what a change of them does",
    paper=IL_THEORY,
    sizes={
        "quick": PathsSize(data=("digits",), steps=1_500, evaluations=30, examples=8),
        "full": PathsSize(data=("mnist",), steps=20_000, evaluations=80, examples=50),
    },
    time={"full": "ten minutes"},
    measure=_measure,
    summary=_summary,
    claims=[_shorter, _larger, _straight],
    sections=_sections,
    differences=_differences,
)
"""Path length and straightness of training; change of output and loss per unit of weight change."""
