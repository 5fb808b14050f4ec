"""Recipes trained on one data set or several: their learning curves, tables and words that compare them."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vicinal.report import Section
from vicinal.reproduce import Found, Measure, Run, Size, compared, curve_section, mean, number_words, rows
from vicinal.reproduce.tables import ACCURACY, Runs
from vicinal.task import Task
from vicinal_experiments.recipes import Recipe, recipe_variant, train_measuring_path

PAIRED = "Compared seed by seed, beyond the 95 % interval of the difference"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurvesSize(Size):
    """Learning curves on each data set.

    Attributes:
        steps: Updates on each data set.
        batch_size: Examples in each.
        evaluations: How many, evenly spaced.
    """

    steps: tuple[int, ...]
    batch_size: int
    evaluations: int = 10


def train_recipes(
    run: Run[Any],
    task: Task,
    recipes: Mapping[str, Recipe],
    *,
    steps: int,
    batch_size: int,
    evaluations: int,
    measure: Callable[[Task, Recipe], Measure] | None = None,
) -> dict[str, Any]:
    """Trains recipes on a task with every seed, and measures the path of their weights.

    Args:
        run: The run.
        task: What to learn.
        recipes: What to train, by label.
        steps: Updates.
        batch_size: Examples in each.
        evaluations: How many, evenly spaced.
        measure: From a task and a recipe to what else to add to its records.

    Returns:
        The rows of each label.
    """
    found = {}
    for label, chosen in recipes.items():
        added = None if measure is None else measure(task, chosen)
        done = train_measuring_path(
            run,
            recipe_variant(
                label, task, chosen.name, [chosen.learning_rate], chosen.numbers, chosen.inference, measure=added
            ),
            task,
            steps=steps,
            batch_size=batch_size,
            evaluate_every=steps // evaluations,
            group_size=1 if steps <= 1000 else None,  # a calibration takes longer than so few steps
        )
        found[label] = rows(done.members)
    return found


def train_curves(
    run: Run[CurvesSize],
    task_of: Callable[[str], Task],
    recipes_of: Callable[[str], Mapping[str, Recipe]],
    measure: Callable[[Task, Recipe], Measure] | None = None,
) -> dict[str, Any]:
    """Trains the recipes of each data set of a size: `[data][label]` to rows."""
    size, found = run.size, {}
    for data, steps in zip(size.data, size.steps, strict=True):
        how: dict[str, Any] = {"steps": steps, "batch_size": size.batch_size, "evaluations": size.evaluations}
        found[data] = train_recipes(run, task_of(data), recipes_of(data), **how, measure=measure)
    return found


def curves(found: Found[CurvesSize]) -> Iterator[tuple[str, int, Runs]]:
    """For each data set its name, the number of updates, and the members of each recipe."""
    for data, steps in zip(found.size.data, found.size.steps, strict=True):
        yield data, steps, found.runs(data)


def curve_sections(found: Found[CurvesSize], shares: Sequence[float], accuracy: bool = True) -> list[Section]:
    """The learning curves of each data set, and tables at these shares of the updates."""
    return [
        curve_section(data, runs, [round(share * steps) for share in shares], accuracy)
        for data, steps, runs in curves(found)
    ]


def best_mean(found: Found[CurvesSize], quantity: str) -> str:
    """Which recipe ends with the best mean on each data set, in words."""
    sentences = []
    for data, _, runs in curves(found):
        means = {label: mean(members, quantity) for label, members in runs.items()}
        whole = {label: value for label, value in means.items() if not math.isnan(value)}
        if not whole:
            sentences.append(f"On {data}, every rule lost a seed.")
            continue
        first = (max if quantity == ACCURACY else min)(whole, key=lambda label: whole[label])
        sentences.append(f"On {data}, {first} ends with the best mean, {number_words(whole[first], quantity)}.")
    return " ".join(sentences)


def few_seeds(found: Found[Any]) -> list[str]:
    """That a run of one seed or two decides nothing, if this is one."""
    words = "Fewer than three seeds give a difference no interval, so that no comparison of them is decided."
    return [words] if found.seeds < 3 else []


def ahead_of_all(
    runs: Runs, labels: Sequence[str], others: Sequence[str], quantity: str, step: int | None = None
) -> list[int]:
    """For each label, whether it is ahead of all the others (1), behind one of them (-1), or neither (0)."""
    return [min(compared(runs, label, other, quantity, step) for other in others) for label in labels]
