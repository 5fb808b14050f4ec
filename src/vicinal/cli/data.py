"""`vicinal data`: which data sets there are, and how to get them."""

from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from vicinal import data

Name = Annotated[str, tyro.conf.Positional]


def list_data() -> None:
    """List the data sets, and where they are or would be."""
    table = Table(box=None, pad_edge=False)
    for column in ("data set", "status", "file", "credit"):
        table.add_column(column, overflow="fold")
    for entry in data.available():
        table.add_row(entry.name, entry.status, str(entry.path), entry.credit)
    Console().print(table)


def fetch(name: Name) -> None:
    """Download a data set, check it, and store it in the data folder.

    Args:
        name: mnist, fashion_mnist or cifar10.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def report(url: str, received: int, total: int) -> None:
            if url not in tasks:
                tasks[url] = bar.add_task(url.rsplit("/", 1)[-1], total=total or None)
            bar.update(tasks[url], completed=received, total=total or None)

        path = data.fetch(name, progress=report)
    print(f"{name} is in {path}")


def verify(name: Name) -> None:
    """Read a data set whole, and say what is in it.

    Args:
        name: A data set, or the path of an .npz file.
    """
    found = data.verify(name)
    print(f"{found.name}: {found.train} training and {found.test} test examples of shape {list(found.shape)}, ", end="")
    print(f"{found.classes} classes" if found.classes else "no classes")
    print(f"{found.path}\nsha256 {found.sha256}")
