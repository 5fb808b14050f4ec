"""`vicinal data`: list, fetch and verify data sets."""

import sys
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from vicinal import data
from vicinal._counted import counted
from vicinal.data.targets import TaskKind

Name = Annotated[str, tyro.conf.Positional]


def list_data() -> None:
    """List the data sets, and where they are or would be.

    Prints an unbroken line for each, so that its path can be copied: in columns on a terminal, with tabs elsewhere.
    """
    rows = [("data set", "status", "file", "credit")]
    rows += [(entry.name, entry.status, str(entry.path.absolute()), entry.credit) for entry in data.available()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if sys.stdout.isatty() else None
    for row in rows:
        print("\t".join(row) if widths is None else "  ".join(map(str.ljust, row, widths)).rstrip())


def fetch(name: Name) -> None:
    """Download a data set, check it, and store it in the data folder.

    Args:
        name: mnist, fashion_mnist or cifar10.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True))
    tasks: dict[str, TaskID] = {}

    def report(url: str, received: int, total: int) -> None:
        bar.start()  # only once something arrives, so that a mistake prints one line
        if url not in tasks:
            tasks[url] = bar.add_task(url.rsplit("/", 1)[-1], total=total or None)
        bar.update(tasks[url], completed=received, total=total or None)

    try:
        path = data.fetch(name, progress=report)
    finally:
        if tasks:
            bar.stop()
    print(f"{name} is in {path}")


def verify(
    name: Name,
    target: str | None = None,
    inputs: tuple[str, ...] = (),
    task: TaskKind | None = None,
    test_share: float | None = None,
    image_size: tuple[int, int] | None = None,
) -> None:
    """Read a data set whole, and say what is in it.

    Args:
        name: A data set, or the path of an .npz file, a table (.csv, .parquet) or a folder of images.
        target: Column of a table to predict.
        inputs: Columns of a table to predict it from; by default all others.
        task: Whether targets are labels or numbers to predict, where they do not tell.
        test_share: Share of the examples for testing, where the data do not say which.
        image_size: Height and width that images are resized to, in pixels.
    """
    given = {"target": target, "inputs": inputs or None, "task": task, "test_share": test_share}
    found = data.verify(name, image_size=image_size, **given)
    shape = f"of shape {list(found.shape)}"
    targets = f"{found.classes} classes" if found.classes else counted(found.outputs, "number")
    print(f"{found.name}: {found.train} training and {found.test} test examples {shape}, {targets}", end="")
    print("" if found.class_names is None else f": {', '.join(found.class_names)}")
    print(found.path)
    print(found.credit if found.sha256 is None else f"{found.credit}\nsha256 {found.sha256}")
