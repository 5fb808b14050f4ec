"""`vicinal compare`, `train` and `sweep`."""

import contextlib
import dataclasses
import os
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro
from rich.console import Console

from vicinal import compare as comparing, report, sweeping
from vicinal.cli.main import ARGUMENTS
from vicinal.compare import CompareSettings, TrainSettings
from vicinal.settings import CONFIG, PAGE, read_config
from vicinal.sweeping import SweepSettings

Unnamed = tyro.conf.arg(name="")  # `--model.sizes` rather than `--settings.model.sizes`
FigureFormat = Literal["pdf", "svg", "png"]
_COMPARE, _TRAIN, _SWEEP = CompareSettings(), TrainSettings(), SweepSettings()


def compare(
    settings: Annotated[CompareSettings, Unnamed] = _COMPARE,
    folder: Path | None = None,
    resume: Path | None = None,
    figures: tuple[FigureFormat, ...] = (),
) -> None:
    """Train several rules side by side, print a table and write report.html.

    Args:
        settings: What to compare.
        folder: Where the report, logs and checkpoints go; by default a new folder under runs/.
        resume: A folder of an interrupted comparison to finish, with its own settings.
        figures: Formats in which to write the figures into the folder too.
    """
    settings, folder = _settings_and_folder(settings, folder, resume, "compare")
    done = comparing.compare(settings, folder, resume=resume is not None, command=command(), say=say)
    _report(done, folder, figures)


def train(
    settings: Annotated[TrainSettings, Unnamed] = _TRAIN,
    folder: Path | None = None,
    resume: Path | None = None,
    figures: tuple[FigureFormat, ...] = (),
) -> None:
    """Train one network by one rule; checkpoints, a log and a report go into one folder.

    Args:
        settings: What to train.
        folder: Where everything goes; by default a new folder under runs/.
        resume: A folder of an earlier run to continue, bit for bit, with its own settings. Of the settings only
            --epochs may be given, to train for longer.
        figures: Formats in which to write the figures into the folder too.
    """
    settings, folder = _settings_and_folder(settings, folder, resume, "train")
    done = comparing.train(settings, folder, resume=resume is not None, command=command())
    _report(done, folder, figures)
    if done.rules[0].stopped and not done.rules[0].stopped_by:
        raise SystemExit(1)


def sweep(
    settings: Annotated[SweepSettings, Unnamed] = _SWEEP,
    folder: Path | None = None,
    resume: Path | None = None,
    figures: tuple[FigureFormat, ...] = (),
) -> None:
    """Train every combination of some numbers and rules with every seed, on all cores or devices.

    Args:
        settings: What to vary.
        folder: Where everything goes; by default a new folder under runs/.
        resume: A folder of an interrupted sweep to continue, bit for bit, with its own settings. Of the settings only
            --epochs may be given, to train for longer.
        figures: Formats in which to write the figures into the folder too.
    """
    settings, folder = _settings_and_folder(settings, folder, resume, "sweep")
    use_all_cores()
    done = sweeping.sweep_task(settings, folder, resume=resume is not None, command=command())
    report.print_study(done)
    _say_files(report.save_figures(done, folder, figures), folder)


def use_all_cores() -> None:
    """Makes a device of each core, unless JAX has started."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", cores)


def _settings_and_folder(settings: Any, folder: Path | None, resume: Path | None, kind: str) -> tuple[Any, Path]:
    if resume is None:
        folder = new_folder(kind) if folder is None else folder
        if (folder / CONFIG).exists():
            raise ValueError(f"expected a folder without a run, got {folder}; continue it with --resume {folder}")
        return settings, folder
    if folder is not None:
        raise ValueError("expected --folder or --resume, got both; a resumed run goes on in its own folder")
    given = {word.split("=")[0] for word in ARGUMENTS.get() if word.startswith("--")}
    if given - {"--resume", "--epochs", "--figures"}:
        raise ValueError("expected no settings but --epochs beside --resume, got others; a resumed run keeps its own")
    own = read_config(resume, type(settings))
    return (dataclasses.replace(own, epochs=settings.epochs) if "--epochs" in given else own), resume


def new_folder(kind: str) -> Path:
    """The next free folder under runs/ for a run of a kind."""
    number = 1
    while (folder := Path("runs") / f"{kind}-{number:03}").exists():
        number += 1
    return folder


def command() -> str:
    """The command line, as it can be typed again."""
    return shlex.join(["vicinal", *ARGUMENTS.get()])


def say(sentence: str) -> None:
    """Prints a sentence beside the results."""
    Console(stderr=True).print(sentence, highlight=False)


def _report(comparison: report.Comparison, folder: Path, figures: tuple[FigureFormat, ...]) -> None:
    report.print_tables(comparison)
    _say_files(report.save_figures(comparison, folder, figures), folder)


def _say_files(figures: list[Path], folder: Path) -> None:
    if figures:
        print(f"figures: {', '.join(map(str, figures))}")
    print(f"report: {folder / PAGE}")
