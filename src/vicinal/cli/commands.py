"""`vicinal compare`, `train` and `sweep`."""

import contextlib
import dataclasses
import itertools
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro
from rich.console import Console

from vicinal import compare as comparing, report, sweeping
from vicinal._lock import locked
from vicinal.cli.folders import check_command, resumption
from vicinal.cli.main import ARGUMENTS
from vicinal.compare import CompareSettings, TrainSettings
from vicinal.interruption import COMMAND, UnderWay
from vicinal.settings import CONFIG, PAGE, read_config
from vicinal.sweeping import SweepSettings

Unnamed = tyro.conf.arg(name="")  # `--model.sizes` rather than `--settings.model.sizes`
FigureFormat = Literal["pdf", "svg", "png"]
_ON_RESUME = ("epochs", "checkpoint_seconds", "keep")  # settings that a resumed run may change
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
    with _settings_and_folder(settings, folder, resume, "compare") as (settings, folder):
        COMMAND.set(UnderWay("compare", folder))
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
            --epochs, to train for longer, --checkpoint-seconds and --keep may be given.
        figures: Formats in which to write the figures into the folder too.
    """
    with _settings_and_folder(settings, folder, resume, "train") as (settings, folder):
        COMMAND.set(UnderWay("train", folder))
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
            --epochs, to train for longer, --checkpoint-seconds and --keep may be given.
        figures: Formats in which to write the figures into the folder too.
    """
    with _settings_and_folder(settings, folder, resume, "sweep") as (settings, folder):
        COMMAND.set(UnderWay("sweep", folder))
        use_all_cores()
        done = sweeping.sweep_task(settings, folder, resume=resume is not None, command=command())
        report.print_study(done)
        _say_files(report.save_figures(done, folder, figures), folder)


def use_all_cores() -> None:
    """Make each core a device of JAX, unless JAX has started."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", cores)


@contextlib.contextmanager
def _settings_and_folder(
    settings: Any, folder: Path | None, resume: Path | None, kind: str
) -> Iterator[tuple[Any, Path]]:
    """Locks the folder of a run, and reads the settings of a resumed one."""
    if folder is not None and resume is not None:
        raise ValueError("expected --folder or --resume, got both; a resumed run continues in its own folder")
    given = {word.split("=")[0][2:].replace("-", "_") for word in ARGUMENTS.get() if word.startswith("--")}
    if resume is not None and given - {"resume", "figures", *_ON_RESUME}:
        allowed = ", ".join(f"--{name.replace('_', '-')}" for name in _ON_RESUME)
        raise ValueError(f"expected no settings but {allowed} beside --resume, got others; a resumed run keeps its own")
    with own_folder(folder if resume is None else resume, kind) as chosen:
        if resume is not None:
            check_command(resume, kind)
            changed = {name: getattr(settings, name) for name in _ON_RESUME if name in given}
            settings = dataclasses.replace(read_config(resume, type(settings)), **changed)
        elif (chosen / CONFIG).exists():
            raise ValueError(f"expected a folder without a run, got {chosen}; {resumption(chosen)}")
        yield settings, chosen


@contextlib.contextmanager
def own_folder(folder: Path | None, kind: str) -> Iterator[Path]:
    """Locks the folder of a run; None for the next free one under runs/ for a run of a kind."""
    with contextlib.ExitStack() as stack:
        numbers = itertools.count(1)
        while folder is None:
            place = Path("runs") / f"{kind}-{next(numbers):03}"
            if not place.exists():
                with contextlib.suppress(FileExistsError):  # another command has just made it
                    stack.enter_context(locked(place, new=True))
                    folder = place
        stack.enter_context(locked(folder))
        yield folder


def command() -> str:
    """The command line, ready to be typed again."""
    return shlex.join(["vicinal", *ARGUMENTS.get()])


def say(sentence: str) -> None:
    """Print a sentence to standard error, apart from the results."""
    Console(stderr=True).print(sentence, highlight=False)


def _report(comparison: report.Comparison, folder: Path, figures: tuple[FigureFormat, ...]) -> None:
    report.print_study(comparison)
    _say_files(report.save_figures(comparison, folder, figures), folder)


def _say_files(figures: list[Path], folder: Path) -> None:
    if figures:
        print(f"figures: {', '.join(map(str, figures))}")
    print(f"report: {folder / PAGE}")
