"""`vicinal reproduce`."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from vicinal.cli.commands import command, new_folder, say, use_all_cores
from vicinal.cli.main import ARGUMENTS
from vicinal.report import print_study
from vicinal.reproduce import EXPERIMENTS, catalogue, experiment
from vicinal.settings import PAGE


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
        chosen, folder = catalogue.settings_in(resume), resume
    elif name is None:
        for entry in EXPERIMENTS.values():
            ways = [entry.full, "--quick"] + ([] if entry.large is None else [f"--large on a GPU ({entry.large})"])
            print(f"{entry.name:24} {entry.title} ({entry.paper}); {', or '.join(ways)}")
        return
    name = experiment(chosen["name"]).name
    folder = new_folder(name.replace("/", "-")) if folder is None else folder
    use_all_cores()
    how: dict[str, Any] = {"resume": resume is not None, "command": command(), "say": say}
    print_study(catalogue.reproduce(folder=folder, **chosen, **how))
    print(f"report: {folder / PAGE}")
