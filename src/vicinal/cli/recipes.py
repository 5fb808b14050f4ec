"""`vicinal rules` and `cite`."""

from typing import Annotated

import tyro

from vicinal.recipes import ALIASES, RECIPES, recipe


def rules(check: bool = False) -> None:
    """List the recipes: paper, settings, locality, transport, cost.

    An audit found locality by exchanging the values in a network one at a time; its findings come with the library. So
    do the counts of reads on arrays, for an example of digits and a network of 64-64-64-10.

    Args:
        check: Repeat the audit and the counts (half a minute), and report differences.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table

    from vicinal.recipes import counts
    from vicinal.recipes.audits import audit_of, known

    console, done, differ = Console(), {}, []
    for chosen in RECIPES.values():
        rule, _ = chosen.make()
        violation = audit_of(chosen.name, done) if check or chosen.name not in known() else known()[chosen.name]
        if check and violation != known().get(chosen.name, "nothing"):
            differ.append(chosen.name)
        stored = counts.known().get(chosen.name)
        found = counts.counts_of(chosen.name) if check or chosen.name not in counts.known() else stored
        if found != stored and chosen.name not in differ:
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
        rows.add_row("on arrays", counts.counts_text(found))
        rows.add_row("example", chosen.example)
        console.print(Padding(rows, (0, 0, 1, 2)), highlight=False)
    if check:
        print(f"audited again: {'differs for ' + ', '.join(differ) if differ else 'all as shipped'}")
        if differ:
            raise SystemExit(1)


def cite(name: Annotated[str, tyro.conf.Positional]) -> None:
    """Print the BibTeX of a recipe's papers.

    Args:
        name: A recipe; `vicinal rules` lists them.
    """
    print(recipe(name).citation)
