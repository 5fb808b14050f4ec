"""Runs, judges and reports an experiment, and judges stored numbers again."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vicinal._lock import locked
from vicinal._numbers import check_count, check_seconds
from vicinal._reading import read_bytes
from vicinal.config import read_config, read_plain
from vicinal.data import available
from vicinal.environment import environment, now
from vicinal.report import Study
from vicinal.report.formatting import name_list
from vicinal.report.storage import plain
from vicinal.reproduce.experiment import FULL, LARGE, QUICK, Experiment, Found
from vicinal.reproduce.installed import experiment, experiments
from vicinal.reproduce.training import Run
from vicinal.settings import CONFIG, kept_config, last_files
from vicinal.sweeping import keep_study


def reproduce(
    name: str | Experiment,
    folder: str | Path,
    *,
    quick: bool = False,
    seeds: int | None = None,
    large: bool = False,
    resume: bool = False,
    checkpoint_seconds: float = 60.0,
    command: str = "",
    progress: bool | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Study:
    """Runs an experiment, and writes its results and report.

    Args:
        name: A name in `experiments`, or an experiment.
        folder: Where the report, the results and the checkpoints of its sweeps go; made if missing.
        quick: Whether to run the quick size, which takes less than two minutes and uses the embedded digits.
        seeds: Number of seeds; by default the experiment's own, at most two if quick.
        large: Whether to run the size meant for a GPU.
        resume: Whether to resume from the existing checkpoints.
        checkpoint_seconds: Time between checkpoints; a resumed run may have another.
        command: The command line, for the report.
        progress: As for `vicinal.train.fit`.
        say: Called with a sentence before each part.

    Returns:
        The study.

    Raises:
        ValueError: If the experiment does not exist or has no large size, or the folder holds another run or
            is in use.
        FileNotFoundError: If its data set is missing.
    """
    chosen, folder = name if isinstance(name, Experiment) else experiment(name), Path(folder)
    if seeds is not None and seeds < 1:
        raise ValueError(f"expected at least one seed, got {seeds}")
    if large and not has_large(chosen):
        having = ", ".join(other.name for other in experiments().values() if has_large(other))
        raise ValueError(f"expected an experiment with large sizes, {having}, got {chosen.name}; leave out large")
    if large and quick:
        raise ValueError("expected quick or large, got both; leave one of them out")
    check_seconds("checkpoint_seconds", checkpoint_seconds)
    config = {"experiment": chosen.name, "quick": quick, "seeds": seeds} | ({"large": True} if large else {})
    with locked(folder) as held:
        _check_folder(folder, config if resume else None)
        with kept_config(folder, config):
            size = QUICK if quick else LARGE if large else FULL
            count = seeds or (min(2, chosen.seeds) if quick else chosen.seeds)
            numbers = chosen.measure(Run(chosen.sizes[size], count, folder, progress, say, checkpoint_seconds))
            study = study_of(chosen, size, count, numbers, command=command, environment=environment(), when=now())
            with last_files(held):
                keep_study(folder, study)
    return study


def _check_folder(folder: Path, resumed: dict[str, Any] | None) -> None:
    """Raises ValueError if a folder holds another run than the resumed one."""
    if (folder / CONFIG).exists() and (resumed is None or read_plain(folder) != resumed):
        raise ValueError(f"expected a folder without a run, or the same one to resume, got {folder}; choose another")


def judge(path: str | Path, chosen: Experiment | None = None) -> Study:
    """Judges a stored study again, without training: keeps its numbers and derives the rest from them.

    Args:
        path: A `results.json` that `reproduce` wrote.
        chosen: Its experiment; by default the installed one of the name in the file.

    Returns:
        The study, with the command, machine and date of the stored one.

    Raises:
        ValueError: If the file is not a study of an installed experiment, lacks a number that the experiment reads, or
            was measured with settings that the experiment no longer has.
        OSError: If the file cannot be read.
    """
    stored = _stored(path)
    settings = stored.settings
    name = settings.get("experiment")
    if not isinstance(name, str):
        raise ValueError(f"expected the results of an experiment in {path}, got {stored.title!r}")
    chosen = experiment(name) if chosen is None else chosen
    if chosen.name != name:
        raise ValueError(f"expected the results of {chosen.name} in {path}, got those of {name}")
    size, seeds = settings.get("size"), settings.get("seeds")
    if size not in list(chosen.sizes):
        raise ValueError(
            f"expected numbers of {name} in a size of {', '.join(chosen.sizes)}, got {size} in {path}; run it again"
        )
    if not isinstance(seeds, int) or seeds < 1:
        raise ValueError(f"expected a whole number of seeds in {path}, got {seeds!r}; run {name} again")
    _check_same(path, settings, _settings(chosen, size))
    kept: dict[str, Any] = {field: getattr(stored, field) for field in ("command", "environment", "when")}
    try:
        return study_of(chosen, size, seeds, stored.numbers, **kept)
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise ValueError(
            f"expected the numbers that {name} is judged by in {path}, got others ({type(error).__name__}: {error}); "
            "run it again"
        ) from error


def _stored(path: str | Path) -> Study:
    try:
        return Study.from_json(read_bytes(path).decode("utf-8"))
    except ValueError as error:
        raise ValueError(
            f"expected the stored results of an experiment in {path}, got something else: {error}"
        ) from error


def has_large(chosen: Experiment) -> bool:
    """Whether an experiment has a size meant for a GPU."""
    return LARGE in chosen.sizes


def _settings(chosen: Experiment, size: str) -> dict[str, Any]:
    return {"experiment": chosen.name, "size": size} | dataclasses.asdict(chosen.sizes[size])


def _check_same(path: str | Path, stored: dict[str, Any], now: dict[str, Any]) -> None:
    for name, value in plain(now).items():
        if name not in stored or stored[name] != value:
            raise ValueError(
                f"expected numbers measured with {name} {value}, as {now['experiment']} now has, got "
                f"{stored.get(name)} in {path}; run it again"
            )


def study_of(
    chosen: Experiment, size: str, seeds: int, numbers: Any, *, command: str, environment: dict[str, Any], when: str
) -> Study:
    """The study of a run's numbers; everything else in it follows from them."""
    found = Found(chosen.sizes[size], seeds, plain(numbers), quick=size == QUICK)
    data, whole = found.size.data, chosen.sizes[FULL].data
    stand_in = [] if data == whole else [f"{name_list(data)} with smaller networks stand in for {name_list(whole)}."]
    return Study(
        title=chosen.title + (f", on {name_list(data)}" if data else ""),
        summary=chosen.summary(found),
        command=command,
        settings=_settings(chosen, size) | {"seeds": seeds},
        environment=environment,
        sections=chosen.sections(found),
        claims=[made for claim in chosen.claims if (made := claim(found)) is not None],
        differences=[*stand_in, *chosen.differences(found)],
        numbers=found.numbers,
        data_credit=_credit(chosen, data),
        when=when,
    )


def _credit(chosen: Experiment, data: tuple[str, ...]) -> str:
    named = {entry.name: entry.credit for entry in available()}
    credits = [chosen.credit, *(named.get(name, "") for name in data)]
    return " ".join(dict.fromkeys(filter(None, credits)))


@dataclasses.dataclass(frozen=True)
class _Arguments:
    """What `config.json` holds of an experiment."""

    experiment: str
    quick: bool
    seeds: int | None
    large: bool = False

    def check(self) -> None:
        if self.seeds is not None:
            check_count("seeds", self.seeds)


def settings_in(folder: Path) -> dict[str, Any]:
    """Reads the arguments of the experiment in a folder: name, quick, seeds and large.

    Raises:
        ValueError: If the folder holds no experiment, or arguments of other types or out of range.
    """
    found = read_config(folder, _Arguments)
    return {"name": found.experiment, "quick": found.quick, "seeds": found.seeds, "large": found.large}
