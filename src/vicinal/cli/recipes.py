"""`vicinal rules` and `cite`."""

from typing import Annotated

import tyro

from vicinal.recipes import ALIASES, RECIPES, recipe


def rules(check: bool = False) -> None:
    """List the recipes: paper, settings, locality, transport, cost.

    Locality was found by exchanging what a network holds, one thing at a time; the findings come with the library.

    Args:
        check: Find it anew (half a minute), and say where it differs.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table

    from vicinal.recipes.audits import audit_of, known

    console, done, differ = Console(), {}, []
    for chosen in RECIPES.values():
        rule, _ = chosen.make()
        violation = audit_of(chosen.name, done) if check or chosen.name not in known() else known()[chosen.name]
        if check and violation != known().get(chosen.name, "nothing"):
            differ.append(chosen.name)
        console.print(f"[bold]{chosen.name}[/bold]  {chosen.label}", highlight=False)
        rows = Table.grid(padding=(0, 2))
        if others := [alias for alias, name in ALIASES.items() if name == chosen.name]:
            rows.add_row("also", ", ".join(others))
        rows.add_row("paper", chosen.paper)
        rows.add_row("settings", chosen.settings)
        inference = (
            "" if getattr(getattr(rule, "inference", None), "local", True) else " (the update; inference is not)"
        )
        rows.add_row("local", f"yes{inference}" if violation is None else f"no: {violation}")
        rows.add_row("transport", f"errors travel by {chosen.transport}")
        rows.add_row("cost", f"{chosen.cost} product for each layer and update")
        rows.add_row("example", chosen.example)
        console.print(Padding(rows, (0, 0, 1, 2)), highlight=False)
    if check:
        print(f"audited anew: {'differs for ' + ', '.join(differ) if differ else 'all as shipped'}")
        if differ:
            raise SystemExit(1)


def cite(name: Annotated[str, tyro.conf.Positional]) -> None:
    """Print the BibTeX of a recipe's papers.

    Args:
        name: A recipe; `vicinal rules` lists them.
    """
    print(recipe(name).citation)
