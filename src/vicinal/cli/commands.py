"""`vicinal compare`, `train`, `sweep`, `rules` and `cite`."""

import contextlib
import contextvars
import dataclasses
import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import tyro
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from vicinal import compare as comparing, nn, report, sweeping
from vicinal.analysis import audit
from vicinal.compare import CompareSettings, TrainSettings
from vicinal.graph import capture
from vicinal.recipes import RECIPES, recipe
from vicinal.reproduce import EXPERIMENTS, catalogue as reproducing, experiment
from vicinal.settings import CONFIG, PAGE, read_config
from vicinal.sweeping import SweepSettings

Unnamed = tyro.conf.arg(name="")  # `--model.sizes` rather than `--settings.model.sizes`
ARGUMENTS: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("arguments", default=())
"""The words of the command line, without the program's name."""
_COMPARE, _TRAIN, _SWEEP = CompareSettings(), TrainSettings(), SweepSettings()


def compare(
    settings: Annotated[CompareSettings, Unnamed] = _COMPARE,
    folder: Path | None = None,
    resume: Path | None = None,
) -> None:
    """Train several rules side by side, print a table and write report.html.

    Args:
        settings: What to compare.
        folder: Where the report, logs and checkpoints go; by default a new folder under runs/.
        resume: A folder of an interrupted comparison to finish, with its own settings.
    """
    settings, folder = _settings_and_folder(settings, folder, resume, "compare")
    _report(comparing.compare(settings, folder, resume=resume is not None, command=_command(), say=_say), folder)


def train(
    settings: Annotated[TrainSettings, Unnamed] = _TRAIN,
    folder: Path | None = None,
    resume: Path | None = None,
) -> None:
    """Train one network by one rule; checkpoints, a log and a report go into one folder.

    Args:
        settings: What to train.
        folder: Where everything goes; by default a new folder under runs/.
        resume: A folder of an earlier run to continue, bit for bit, with its own settings. Of the settings only
            --epochs may be given, to train for longer.
    """
    settings, folder = _settings_and_folder(settings, folder, resume, "train")
    done = comparing.train(settings, folder, resume=resume is not None, command=_command())
    _report(done, folder)
    if done.rules[0].stopped:
        raise SystemExit(1)


def sweep(
    settings: Annotated[SweepSettings, Unnamed] = _SWEEP,
    folder: Path | None = None,
    resume: Path | None = None,
) -> None:
    """Train every combination of some numbers with every seed in one compiled run, on all cores or devices.

    Args:
        settings: What to vary.
        folder: Where everything goes; by default a new folder under runs/.
        resume: A folder of an interrupted sweep to continue, bit for bit, with its own settings. Of the settings only
            --epochs may be given, to train for longer.
    """
    settings, folder = _settings_and_folder(settings, folder, resume, "sweep")
    use_all_cores()
    report.print_study(sweeping.sweep_task(settings, folder, resume=resume is not None, command=_command()))
    print(f"report: {folder / PAGE}")


def reproduce(
    name: Annotated[str | None, tyro.conf.Positional] = None,
    folder: Path | None = None,
    quick: bool = False,
    seeds: int | None = None,
    large: bool = False,
    resume: Path | None = None,
) -> None:
    """Run an experiment of a paper again, and put its claims beside what was measured; without a name, list them.

    Args:
        name: An experiment.
        folder: Where results and report go; by default a new folder under runs/.
        quick: Show the same shape in under two minutes, on the embedded digits.
        seeds: Repetitions; by default the experiment's own number, or two if quick.
        large: Run larger sizes, meant for a GPU; some experiments have them.
        resume: A folder of an interrupted experiment to finish.
    """
    chosen: dict[str, Any] = {"name": name, "quick": quick, "seeds": seeds, "large": large}
    if resume is not None:
        if len(ARGUMENTS.get()) > 3:
            raise ValueError("expected nothing beside --resume, got more; a resumed experiment keeps its own settings")
        chosen, folder = reproducing.settings_in(resume), resume
    elif name is None:
        for entry in EXPERIMENTS.values():
            ways = [entry.full, "--quick"] + ([] if entry.large is None else [f"--large on a GPU ({entry.large})"])
            print(f"{entry.name:24} {entry.title} ({entry.paper}); {', or '.join(ways)}")
        return
    name = experiment(chosen["name"]).name
    folder = _new_folder(name.replace("/", "-")) if folder is None else folder
    use_all_cores()
    how: dict[str, Any] = {"resume": resume is not None, "command": _command(), "say": _say}
    report.print_study(reproducing.reproduce(folder=folder, **chosen, **how))
    print(f"report: {folder / PAGE}")


def use_all_cores() -> None:
    """Makes a device of each core, unless JAX has started."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", cores)


def rules() -> None:
    """List the recipes. Locality is checked now, by exchanging what the network holds, one thing at a time."""
    model = nn.MLP((5, 4, 4, 3), vertex_at="pre", key=jax.random.key(0))
    x, y = jnp.ones((2, 5)), jnp.zeros(2, jnp.int32)
    console, audited = Console(), {}
    for chosen in RECIPES.values():
        rule, _ = chosen.make()
        kind = type(rule), chosen.feedback
        if kind not in audited:
            fed = chosen.attach(model, key=jax.random.key(0))
            audited[kind] = audit(rule, capture(fed, x[0]), fed, x, y, key=jax.random.key(1))
        console.print(f"[bold]{chosen.name}[/bold]  {chosen.label}", highlight=False)
        rows = Table.grid(padding=(0, 2))
        rows.add_row("paper", chosen.paper)
        rows.add_row("settings", chosen.settings)
        inference = (
            "" if getattr(getattr(rule, "inference", None), "local", True) else " (the update; inference is not)"
        )
        rows.add_row("local", f"yes{inference}" if audited[kind].local else f"no: {audited[kind].violations[0]}")
        rows.add_row("transport", f"errors travel by {chosen.transport}")
        rows.add_row("cost", f"{chosen.cost} product for each layer and update")
        rows.add_row("example", chosen.example)
        console.print(Padding(rows, (0, 0, 1, 2)), highlight=False)


def cite(name: Annotated[str, tyro.conf.Positional]) -> None:
    """Print the BibTeX of a recipe's papers.

    Args:
        name: A recipe; `vicinal rules` lists them.
    """
    print(recipe(name).citation)


def _settings_and_folder(settings: Any, folder: Path | None, resume: Path | None, kind: str) -> tuple[Any, Path]:
    if resume is None:
        folder = _new_folder(kind) if folder is None else folder
        if (folder / CONFIG).exists():
            raise ValueError(f"expected a folder without a run, got {folder}; continue it with --resume {folder}")
        return settings, folder
    if folder is not None:
        raise ValueError("expected --folder or --resume, got both; a resumed run goes on in its own folder")
    given = {word.split("=")[0] for word in ARGUMENTS.get() if word.startswith("--")}
    if given - {"--resume", "--epochs"}:
        raise ValueError("expected no settings but --epochs beside --resume, got others; a resumed run keeps its own")
    own = read_config(resume, type(settings))
    return (dataclasses.replace(own, epochs=settings.epochs) if "--epochs" in given else own), resume


def _new_folder(kind: str) -> Path:
    number = 1
    while (folder := Path("runs") / f"{kind}-{number:03}").exists():
        number += 1
    return folder


def _command() -> str:
    return shlex.join(["vicinal", *ARGUMENTS.get()])


def _say(sentence: str) -> None:
    Console(stderr=True).print(sentence, highlight=False)


def _report(comparison: report.Comparison, folder: Path) -> None:
    report.print_tables(comparison)
    for rule in comparison.rules:
        if rule.stopped:
            print(f"{rule.name} {rule.stopped}")
    print(f"report: {folder / PAGE}")
