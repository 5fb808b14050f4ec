"""`vicinal reproduce`."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from vicinal._lock import locked
from vicinal.cli.commands import command, own_folder, say, use_all_cores
from vicinal.cli.folders import check_command
from vicinal.cli.main import ARGUMENTS
from vicinal.interruption import COMMAND, UnderWay
from vicinal.report import print_study
from vicinal.reproduce import experiment, experiments, judge as judge_again, reproduce as run, settings_in
from vicinal.reproduce.driver import has_large
from vicinal.reproduce.installed import installed
from vicinal.settings import CONFIG, PAGE, RESULTS
from vicinal.sweeping import keep_study


def reproduce(
    name: Annotated[str | None, tyro.conf.Positional] = None,
    folder: Path | None = None,
    quick: bool = False,
    seeds: int | None = None,
    large: bool = False,
    resume: Path | None = None,
    checkpoint_seconds: float = 60.0,
    judge: Path | None = None,
) -> None:
    """Run an experiment of a paper again, and put its claims beside what was measured; without a name, list them.

    Args:
        name: An experiment.
        folder: Where results and report go; by default a new folder under runs/.
        quick: Show the same shape in under two minutes, on the embedded digits.
        seeds: Repetitions; by default the experiment's own number, or two if quick.
        large: Run the larger size, meant for a GPU; some experiments have one.
        resume: A folder of an interrupted experiment to finish; only --checkpoint-seconds may be given beside it.
        checkpoint_seconds: Seconds between checkpoints; one is also written at the end and when it is interrupted.
        judge: A results.json to judge again from its stored numbers, without training; nothing is written unless you
            give a folder.
    """
    if judge is not None:
        _judge(judge, name, folder, others=quick or large or seeds is not None or resume is not None)
    elif resume is not None:
        if name is not None or folder is not None or quick or large or seeds is not None:
            raise ValueError(
                "expected nothing but --checkpoint-seconds beside --resume, got more; a resumed experiment keeps its "
                "own settings"
            )
        with own_folder(resume, "reproduce") as chosen:
            check_command(resume, "reproduce")
            _run(settings_in(chosen), chosen, resume=True, checkpoint_seconds=checkpoint_seconds)
    elif name is not None:
        name = experiment(name).name
        settings = {"name": name, "quick": quick, "seeds": seeds, "large": large}
        with own_folder(folder, name.replace("/", "-")) as chosen:
            _run(settings, chosen, resume=False, checkpoint_seconds=checkpoint_seconds)
    elif len(ARGUMENTS.get()) > 1:
        raise ValueError("expected the name of an experiment, got only options; `vicinal reproduce` lists the names")
    else:
        _list()


def _list() -> None:
    for entry in experiments().values():
        ways = [entry.time["full"], "--quick"]
        ways += [f"--large on a GPU ({entry.time['large']})"] if has_large(entry) else []
        print(f"{entry.name:24} {entry.topic} ({entry.paper}); {', or '.join(ways)}")
    for fault in installed().faults:
        say(f"left out: {fault}")


def _run(settings: dict[str, Any], folder: Path, **how: Any) -> None:
    COMMAND.set(UnderWay("reproduce", folder))
    use_all_cores()
    print_study(run(folder=folder, **settings, **how, command=command(), say=say))
    print(f"report: {folder / PAGE}")


def _judge(path: Path, name: str | None, folder: Path | None, *, others: bool) -> None:
    if others:
        raise ValueError("expected only a name and a folder beside --judge, got more; stored numbers keep their size")
    with locked(folder):
        if folder is not None:
            _check_unused(folder, path)
        study = judge_again(path)
        if name not in (None, study.settings["experiment"]):
            raise ValueError(f"expected results of {name} in {path}, got those of {study.settings['experiment']}")
        print_study(study)
        if folder is not None:
            keep_study(folder, study)
            print(f"report: {folder / PAGE}")


def _check_unused(folder: Path, judged: Path) -> None:
    """Refuses a folder that holds another run, whose results the judged ones would replace."""
    results = folder / RESULTS
    ours = results.exists() and judged.exists() and results.samefile(judged)
    if not ours and (results.exists() or (folder / CONFIG).exists()):
        raise ValueError(f"expected a folder without a run, or that of {judged}, got {folder}; choose another")
