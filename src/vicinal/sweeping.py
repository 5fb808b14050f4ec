"""Runs a sweep from settings, in as few compiled calls as possible, and reports it as a study."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from vicinal._counted import counted
from vicinal._lock import locked
from vicinal._numbers import check_count
from vicinal._records import is_number, or_nan
from vicinal.environment import environment, now
from vicinal.files import write_text_atomically
from vicinal.ledgers import array_counts_of
from vicinal.recipes import recipe
from vicinal.recipes.lookup import canonical
from vicinal.report import Panel, Section, Series, Study, Table, array_section, interval_text, write_study
from vicinal.report.formatting import capitalized
from vicinal.report.records import curve_panel, curve_rows, curves_csv, percent, series_of
from vicinal.rules import Rule
from vicinal.settings import CURVES, PAGE, RESULTS, TaskSettings, assignment, kept_config, last_files
from vicinal.task import Task
from vicinal.train import Member, Sweep, keys_of, sweep


@dataclasses.dataclass(frozen=True)
class SweepSettings(TaskSettings):
    """The rules and the numbers to vary."""

    rule: str = "il"
    """A recipe; `vicinal rules` lists them."""
    rules: tuple[str, ...] = ()
    """Several recipes, instead of `rule`, each with every combination of the numbers."""
    learning_rates: tuple[float, ...] = ()
    """Learning rates to try."""
    vary: tuple[str, ...] = ()
    """Other numbers to try, every combination of them: NAME=VALUE,VALUE,... each, like inference.step_size=0.02,0.1
    or inference.steps=5,10."""
    seeds: int = 3
    """Repetitions of each combination, each with its own initial weights and order of examples."""
    group_size: int | None = None
    """Members trained side by side on one device; by default a short calibration chooses, if it can pay off."""
    memory_gb: float | None = None
    """Memory to use, in 1e9 bytes; by default all free memory. A sweep that does not fit runs in waves."""

    def check(self) -> None:
        """As for `TaskSettings`."""
        super().check()
        check_count("seeds", self.seeds)
        if self.group_size is not None:
            check_count("group_size", self.group_size)
        if self.memory_gb is not None and not 0 < self.memory_gb < math.inf:
            raise ValueError(f"expected memory above 0, got {self.memory_gb} GB")

    def grid(self) -> dict[str, list[Any]]:
        """The values of each number that varies, and of the rule.

        Raises:
            ValueError: If nothing varies, or a number is given twice.
        """
        grid: dict[str, list[Any]] = {"rule": list(self.rules)} if self.rules else {}
        grid |= {"learning_rate": list(self.learning_rates)} if self.learning_rates else {}
        for name, values in map(assignment, self.vary):
            if name in grid:
                raise ValueError(f"expected each number once, got {name} twice")
            grid[name] = values
        if not grid:
            raise ValueError("expected numbers to vary, got none; give --learning-rates or --vary NAME=VALUE,VALUE")
        if "rule" in grid:
            grid["rule"] = list(canonical(tuple(map(str, grid["rule"]))))
            if self.rule != type(self).rule:
                raise ValueError("expected either one rule or several to try, got both")
        if self.learning_rate is not None and "learning_rate" in grid:
            raise ValueError("expected either one learning rate or several to try, got both")
        for name, values in grid.items():
            if len(set(map(_short, values))) < len(values):
                raise ValueError(f"expected values of {name} that differ in six digits, got {values}")
        return grid


def sweep_task(
    settings: SweepSettings,
    folder: str | Path,
    *,
    resume: bool = False,
    command: str = "",
    progress: bool | None = None,
) -> Study:
    """Trains every combination with every seed at once, and writes the report.

    Args:
        settings: The settings.
        folder: Where the report, the results, the settings, the log and the checkpoints go; made if missing.
        resume: Whether to resume from the existing checkpoints.
        command: The command line, for the report.
        progress: As for `vicinal.train.fit`.

    Returns:
        The results.

    Raises:
        ValueError: If the settings do not fit the data or each other, or the folder holds another run or is in
            use.
    """
    settings = dataclasses.replace(settings, rule=recipe(settings.rule).name)
    folder, grid = Path(folder), settings.grid()
    rules = tuple(grid.get("rule", [settings.rule]))

    def make(rule: str = settings.rule, **numbers: Any) -> Any:
        return task.settings.make(*rules, **numbers)[rule]

    task = Task(settings)
    build = _Build(task, settings, grid)
    with locked(folder) as held:
        with kept_config(folder, settings):
            done = sweep(
                make,
                build,
                task.data,
                grid,
                seeds=settings.seeds,
                **settings.training(),
                graph=None if build.numbers else task.graph_for(settings.rule),
                group_size=settings.group_size,
                memory=None if settings.memory_gb is None else int(settings.memory_gb * 1e9),
                folder=folder,
                resume=resume,
                progress=progress,
            )
        study = _study(settings, task, grid, done, command)
        names = [{"rule": settings.rule, **member.numbers, "seed": member.seed} for member in done.members]
        points = [curve_rows(who, member.records) for who, member in zip(names, done.members, strict=True)]
        with last_files(held):
            write_text_atomically(folder / CURVES, curves_csv([row for rows in points for row in rows]))
            keep_study(folder, study)
        return study


class _Build:
    """From a key, and the numbers that vary the model, to the model: that of a rule has its own feedback."""

    def __init__(self, task: Task, settings: SweepSettings, grid: dict[str, list[Any]]):
        self._task, self._rule = task, settings.rule
        self.numbers = tuple(name for name in grid if name == "rule" or name.startswith("model."))
        for name in self.numbers:
            for value in grid[name] if name != "rule" else ():
                settings.model.varied({name: value})

    def __call__(self, key: PRNGKeyArray, rule: str | None = None, **numbers: Any) -> PyTree:
        return self._task.build(key, rule or self._rule, **numbers)


def keep_study(folder: Path, study: Study) -> None:
    """Writes the results and the page of a study into a folder."""
    write_text_atomically(folder / RESULTS, study.to_json())
    write_study(folder / PAGE, study)


def last(member: Member, quantity: str) -> float:
    """A quantity of a member's last record; NaN if the member diverged or did not record it."""
    if member.diverged or not member.records:
        return np.nan
    return or_nan(member.records[-1].get(quantity))


def combinations(members: list[Member]) -> list[list[Member]]:
    """Groups members by their numbers; each group has one member per seed."""
    return [list(group) for _, group in itertools.groupby(members, key=lambda member: tuple(member.numbers.items()))]


def words_of(done: Sweep) -> str:
    """A sentence about the layout of a sweep and its time."""
    layout = done.layout
    waves = f", in {done.waves} waves" if done.waves > done.parts else ""
    waves += f", {done.parts} programs one after another" if done.parts > 1 else ""
    return (
        f"{len(done.members)} members on {counted(layout.devices, 'device')}, "
        f"{layout.size} side by side{waves}: {done.seconds:.1f} s, of which {done.seconds_to_start:.1f} s until the "
        f"layout was compiled and chosen ({done.compilations} tried)."
    )


def _study(settings: SweepSettings, task: Task, grid: dict[str, list[Any]], done: Sweep, command: str) -> Study:
    groups = combinations(done.members)
    accuracy = task.data.classes is not None and not settings.model.reconstructs
    quantity, heading, unit = ("test_accuracy", "test accuracy (%)", 100) if accuracy else ("test_loss", "test loss", 1)
    stopped = sum(member.diverged for member in done.members)
    label = "learning rules" if "rule" in grid else recipe(settings.rule).label
    return Study(
        title=f"{capitalized(label)} on {task.data.name}: a sweep",
        summary=f"{counted(len(groups), 'combination')} of {', '.join(grid)}, {counted(settings.seeds, 'seed')} each. "
        + (f"{stopped} of {len(done.members)} members diverged. " if stopped else "No member diverged. ")
        + words_of(done),
        command=command,
        settings=dataclasses.asdict(settings),
        environment=environment(),
        sections=[
            Section(
                "At the end of training",
                "A diverged member was frozen at its last good state, and has no number here.",
                tables=[_table(groups, accuracy)],
                panels=_against(grid, groups, quantity, heading, unit),
            ),
            Section("Along training", panels=_curves(grid, groups, accuracy)),
            *filter(None, [array_section(_array_counts(settings, task, grid))]),
        ],
        numbers={"members": plain(done.members), "layout": done.layout._asdict()},
        data_credit=task.data.credit,
        when=now(),
    )


def _array_counts(settings: SweepSettings, task: Task, grid: dict[str, list[Any]]) -> dict[str, dict[str, float]]:
    """What an update asks of arrays: for each rule, and each number that changes a program, such as steps."""
    first, rules = {name: values[0] for name, values in grid.items()}, tuple(grid.get("rule", [settings.rule]))

    def made(numbers: dict[str, Any]) -> tuple[str, Rule, dict[str, Any]]:
        """A recipe, its rule, and the numbers of its model."""
        others = first | numbers
        name = others.pop("rule", settings.rule)
        of_model = {number: value for number, value in others.items() if number.startswith("model.")}
        return name, task.settings.make(*rules, **others)[name][0], of_model

    def program(name: str, value: Any) -> Any:
        """What differs where a program does: all of a rule, or of a model, but the numbers in its arrays."""
        chosen, rule, of_model = made({name: value})
        build = functools.partial(task.build, rule=chosen, **of_model)
        return jax.tree.structure(eqx.filter_eval_shape(build, keys_of(0)[0]) if name in of_model else rule)

    def changes_the_program(name: str, values: list[Any]) -> bool:
        start = program(name, values[0])
        return any(program(name, value) != start for value in values[1:])

    names, found = [n for n, values in grid.items() if n == "rule" or changes_the_program(n, values)], {}
    for values in itertools.product(*(grid[name] for name in names)):
        shown = dict(zip(names, values, strict=True))
        name, rule, of_model = made(shown)
        varied = {number: value for number, value in of_model.items() if number in shown}
        if counts := array_counts_of(task, name, rule, numbers=varied):
            label = recipe(shown.pop("rule", name)).label
            found[", ".join(filter(None, [label, _name(shown, list(shown))]))] = counts
    return found


def plain(members: Sequence[Member]) -> list[dict[str, Any]]:
    """Members as JSON data, without their models."""
    return [{"numbers": m.numbers, "seed": m.seed, "stopped": m.stopped, "records": m.records} for m in members]


def _short(value: Any) -> str:
    return f"{value:.6g}" if is_number(value) else str(value)


def _name(numbers: dict[str, Any], names: list[str]) -> str:
    return ", ".join(f"{name} {_short(numbers[name])}" for name in names)


def _table(groups: list[list[Member]], accuracy: bool) -> Table:
    rows: list[list[Any]] = []
    for group in groups:
        row: list[Any] = [_name(group[0].numbers, list(group[0].numbers))]
        if accuracy:
            row.append(interval_text([last(member, "test_accuracy") for member in group], 100.0))
        row.append(interval_text([last(member, "test_loss") for member in group]))
        row.append(interval_text([last(member, "train_loss") for member in group]))
        diverged = sum(member.diverged for member in group)
        rows.append([*row, f"{diverged} of {len(group)}" if diverged else "none"])
    columns = ["numbers", *["test accuracy (%)"] * accuracy, "test loss", "training loss", "diverged"]
    return Table("Mean over seeds ± half a 95 % interval (of two seeds both values)", columns, rows)


def _against(
    grid: dict[str, list[Any]], groups: list[list[Member]], quantity: str, heading: str, unit: int
) -> list[Panel]:
    """A figure of a final quantity against the number with the most values; one line per combination of the others."""
    numeric = [name for name in grid if all(map(is_number, grid[name]))]
    if not numeric:
        return []
    along = max(numeric, key=lambda name: len(grid[name]))
    others = [name for name in grid if name != along]
    lines: dict[str, dict[float, list[float]]] = {}
    for group in groups:
        line = lines.setdefault(_name(group[0].numbers, others), {})
        line[group[0].numbers[along]] = [unit * last(member, quantity) for member in group]
    series = [
        Series(label, sorted(line), np.array([line[x] for x in sorted(line)]).T.tolist())
        for label, line in lines.items()
    ]
    log = min(grid[along]) > 0 and max(grid[along]) / min(grid[along]) >= 10
    label = along.replace("_", " ")
    return [Panel(f"{capitalized(heading)} at the end", label, heading, series, log_x=log)]


def _curves(grid: dict[str, list[Any]], groups: list[list[Member]], accuracy: bool) -> list[Panel]:
    named = [(_name(group[0].numbers, list(grid)), group) for group in groups]
    quantities = [*["test_accuracy"] * accuracy, "test_loss", "train_loss"]
    panels = [
        curve_panel(quantity, [curve(label, group, quantity, percent(quantity)) for label, group in named])
        for quantity in quantities
    ]
    return [panel for panel in panels if panel is not None]


def curve(label: str, group: list[Member], quantity: str, unit: float = 1.0) -> Series:
    """A series of a quantity during training, with a row for each seed; NaN after a member diverged."""
    return series_of(label, [member.records for member in group], quantity, unit)
