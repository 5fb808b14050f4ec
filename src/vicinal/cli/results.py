"""`vicinal results`."""

from pathlib import Path
from typing import Annotated

import tyro

from vicinal.report import write_results_pages


def results(folder: Annotated[Path, tyro.conf.Positional]) -> None:
    """Write the pages of a folder of stored results: one for each family, and an index of all claims.

    Args:
        folder: Holds a folder for each family, with JSON files of studies and comparisons in it.
    """
    if not folder.is_dir():
        raise ValueError(f"expected a folder of results, got {str(folder)!r}; name a folder such as docs/results")
    changed = write_results_pages(folder)
    for path in changed:
        print(f"written: {path}")
    if not changed:
        print("all pages are up to date")
