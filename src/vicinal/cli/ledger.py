"""`vicinal ledger`."""

import json
from pathlib import Path
from typing import Annotated

import tyro

from vicinal.cli.commands import Unnamed, command
from vicinal.files import write_text_atomically
from vicinal.hardware import ledger_study
from vicinal.ledgers import LedgerSettings, ledgers
from vicinal.report import print_study, write_study

_SETTINGS = LedgerSettings()


def ledger(
    recipes: Annotated[tuple[str, ...], tyro.conf.Positional],
    settings: Annotated[LedgerSettings, Unnamed] = _SETTINGS,
    page: Path | None = None,
    file: Path | None = None,
) -> None:
    """Count what an update by a rule asks of arrays that hold the weights: reads, conversions, energy, time.

    Of rules whose units send events, synaptic operations are measured as well.

    Args:
        recipes: Recipes, at least one; `vicinal rules` lists them.
        settings: Which network, data and machine.
        page: Where to write tables and figures, a page of HTML.
        file: Where to write everything, as JSON.
    """
    found = ledgers(recipes, settings)
    study = ledger_study(found, command())
    print_study(study)
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        write_study(page, study)
        print(f"page: {page}")
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(file, json.dumps([item.to_dict() for item in found], indent=2) + "\n")
        print(f"ledgers: {file}")
