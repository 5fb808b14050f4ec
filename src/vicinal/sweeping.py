"""A sweep as the settings describe it: run in as few compiled calls as possible, reported as a study."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vicinal._records import is_number, or_nan
from vicinal.environment import environment, now
from vicinal.files import write_text_atomically
from vicinal.recipes import recipe
from vicinal.recipes.lookup import canonical
from vicinal.report import Panel, Section, Series, Study, Table, interval_words, mean_interval, write_study
from vicinal.report.records import curve_rows, curves_csv
from vicinal.report.words import significant
from vicinal.settings import CURVES, PAGE, RESULTS, TaskSettings, assignment, kept_config
from vicinal.task import Task
from vicinal.train import Member, Sweep, sweep


@dataclasses.dataclass(frozen=True)
class SweepSettings(TaskSettings):
    """Which numbers to vary, of which rules."""

    rule: str = "il"
    """A recipe; `vicinal rules` lists them."""
    rules: tuple[str, ...] = ()
    """Several recipes instead, each with every combination of the numbers."""
    learning_rates: tuple[float, ...] = ()
    """Learning rates to try."""
    vary: tuple[str, ...] = ()
    """Other numbers to try, every combination of them: NAME=VALUE,VALUE,... each, like inference.step_size=0.02,0.1
    or inference.steps=5,10."""
    seeds: int = 3
    """Repetitions of each combination, each with its own initial weights and order of examples."""
    group_size: int | None = None
    """Members trained side by side on one device; by default what a short calibration finds fastest, if it can pay."""
    memory_gb: float | None = None
    """Memory to use, in 1e9 bytes; by default what is free. A sweep that does not fit runs in waves."""

    def grid(self) -> dict[str, list[Any]]:
        """The values of each number that varies, and of the rule.

        Raises:
            ValueError: If there is none, or one is given twice.
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
        settings: What to do.
        folder: Where the report, the results, the settings, the log and the checkpoints go; made if missing.
        resume: Whether to go on from the checkpoints that are there.
        command: The command line, for the report.
        progress: As for `vicinal.train.fit`.

    Returns:
        The results.

    Raises:
        ValueError: If the settings do not fit the data or each other, or the folder holds another run.
    """
    settings = dataclasses.replace(settings, rule=recipe(settings.rule).name)
    folder, grid = Path(folder), settings.grid()
    rules = tuple(grid.get("rule", [settings.rule]))
    if settings.memory_gb is not None and not 0 < settings.memory_gb < math.inf:
        raise ValueError(f"expected memory above 0, got {settings.memory_gb} GB")

    def make(rule: str = settings.rule, **numbers: Any) -> Any:
        return task.settings.make(*rules, **numbers)[rule]

    task = Task(settings)
    build: Any = functools.partial(task.build, rule=settings.rule)
    if "rule" in grid:  # each with its own feedback

        def build(key: Any, rule: str) -> Any:
            return task.build(key, rule)

    if settings.group_size is not None and settings.group_size < 1:
        raise ValueError(f"expected a group size of at least 1, got {settings.group_size}")
    if settings.seeds < 1:
        raise ValueError(f"expected at least one seed, got {settings.seeds}")
    with kept_config(folder, settings):
        done = sweep(
            make,
            build,
            task.data,
            grid,
            seeds=settings.seeds,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            validation=settings.validation,
            evaluate_every=settings.evaluate_every,
            graph=None if "rule" in grid else task.graph_for(settings.rule),
            group_size=settings.group_size,
            memory=None if settings.memory_gb is None else int(settings.memory_gb * 1e9),
            folder=folder,
            resume=resume,
            progress=progress,
        )
    study = _study(settings, task, grid, done, command)
    names = [{"rule": settings.rule, **member.numbers, "seed": member.seed} for member in done.members]
    points = [curve_rows(who, member.records) for who, member in zip(names, done.members, strict=True)]
    write_text_atomically(folder / CURVES, curves_csv([row for rows in points for row in rows]))
    keep_study(folder, study)
    return study


def keep_study(folder: Path, study: Study) -> None:
    """Writes the results and the page of a study into a folder."""
    write_text_atomically(folder / RESULTS, study.to_json())
    write_study(folder / PAGE, study)


def last(member: Member, quantity: str) -> float:
    """A quantity of a member's last record; NaN if it diverged, or has no such number."""
    if member.diverged or not member.records:
        return np.nan
    return or_nan(member.records[-1].get(quantity))


def combinations(members: list[Member]) -> list[list[Member]]:
    """The members of each combination of numbers: its seeds."""
    return [list(group) for _, group in itertools.groupby(members, key=lambda member: tuple(member.numbers.items()))]


def words_of(done: Sweep) -> str:
    """How a sweep was laid out, and how long it took."""
    layout = done.layout
    waves = f", in {done.waves} waves" if done.waves > done.parts else ""
    waves += f", {done.parts} programs one after another" if done.parts > 1 else ""
    return (
        f"{len(done.members)} members on {layout.devices} device{'s' * (layout.devices > 1)}, "
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
        title=f"{label[0].upper()}{label[1:]} on {task.data.name}: a sweep",
        summary=f"{_count(len(groups), 'combination')} of {', '.join(grid)}, {_count(settings.seeds, 'seed')} each. "
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
        ],
        numbers={"members": plain(done.members), "layout": done.layout._asdict()},
        data_credit=task.data.credit,
        when=now(),
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def plain(members: Sequence[Member]) -> list[dict[str, Any]]:
    """Members as JSON data, without their models."""
    return [{"numbers": m.numbers, "seed": m.seed, "stopped": m.stopped, "records": m.records} for m in members]


def _short(value: Any) -> str:
    return f"{value:.6g}" if is_number(value) else str(value)


def _name(numbers: dict[str, Any], names: list[str]) -> str:
    return ", ".join(f"{name} {_short(numbers[name])}" for name in names)


def interval_text(values: list[float], unit: float = 1.0) -> str | None:
    """A mean over seeds with half its 95 % interval, to the same decimals; None without a value.

    Below three seeds there is no interval: two values are both shown. Where some values are not finite, the text says
    how many are.

    Example:
        >>> interval_text([0.951, 0.962, 0.957], 100)
        '95.7 ± 1.4'
        >>> interval_text([0.951, float("nan"), 0.957], 100)
        '95.1 and 95.7 (2 of 3)'
    """
    scaled = [unit * value for value in values]
    mean, half = mean_interval(scaled)
    if np.isnan(mean):
        return None
    finite = int(np.sum(np.isfinite(scaled)))
    part = f" ({finite} of {len(values)})" if finite < len(values) else ""
    size = half if half else abs(mean)
    if size == 0 or not 1e-4 <= max(abs(mean), size) < 1e5:
        return interval_words(scaled, "{:.3g}".format, "{:.2g}".format) + part
    if finite == 2:
        return interval_words(scaled, significant, str) + part
    decimals = min(max(0, (1 if half else 2) - math.floor(math.log10(size))), 6)
    return interval_words(scaled, f"{{:.{decimals}f}}".format, f"{{:.{decimals}f}}".format) + part


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
    """The quantity at the end against the number with the most values, a line for each combination of the others."""
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
    return [Panel(f"{heading[0].upper()}{heading[1:]} at the end", label, heading, series, log_x=log)]


def _curves(grid: dict[str, list[Any]], groups: list[list[Member]], accuracy: bool) -> list[Panel]:
    quantities = [("test_accuracy", "test accuracy (%)", 100.0, False)] if accuracy else []
    quantities += [("test_loss", "test loss", 1.0, True), ("train_loss", "training loss", 1.0, True)]
    return [
        Panel(
            f"{heading[0].upper()}{heading[1:]}",
            "training step",
            heading,
            [curve(_name(group[0].numbers, list(grid)), group, quantity, unit) for group in groups],
            log_y=log,
        )
        for quantity, heading, unit, log in quantities
    ]


def curve(label: str, group: list[Member], quantity: str, unit: float = 1.0) -> Series:
    """A quantity along training, a row for each seed; NaN after a member diverged."""
    steps = sorted({record["step"] for member in group for record in member.records})
    rows = [{record["step"]: record.get(quantity) for record in member.records} for member in group]
    values = [[np.nan if (value := row.get(step)) is None else unit * value for step in steps] for row in rows]
    return Series(label, [float(step) for step in steps], values)
