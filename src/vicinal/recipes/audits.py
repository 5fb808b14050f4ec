"""Stored audits of the recipes' locality; a test compares them with new audits."""

import functools
import json
from pathlib import Path

from vicinal.feedback import Route
from vicinal.recipes.lookup import recipe
from vicinal.rules import Rule

FILE = Path(__file__).with_name("audits.json")
"""Recipe -> its first dependence that is not local, or null. `python -m vicinal.recipes.audits` writes the file."""


@functools.lru_cache(maxsize=1)
def known() -> dict[str, str | None]:
    """Read the stored audits: recipe -> its first dependence that is not local, or None.

    Example:
        >>> known()["il"] is None, known()["bp"]
        (True, 'the error of hidden1 depends on error output')
    """
    return json.loads(FILE.read_text())


def audit_of(name: str, done: dict[tuple[type[Rule], Route | None], str | None] | None = None) -> str | None:
    """Audit a recipe on a small network.

    Args:
        name: A recipe.
        done: Earlier findings by kind of rule and feedback, which decide the result; a new finding is added.

    Returns:
        The recipe's first dependence that is not local, or None.
    """
    import jax
    import jax.numpy as jnp

    from vicinal import nn
    from vicinal.analysis import audit
    from vicinal.graph import capture

    chosen, done = recipe(name), {} if done is None else done
    rule, _ = chosen.make()
    kind = type(rule), chosen.feedback
    if kind not in done:
        model = nn.MLP((5, 4, 4, 3), vertex_at="pre", key=jax.random.key(0))
        x, y = jnp.ones((2, 5)), jnp.zeros(2, jnp.int32)
        fed = chosen.attach(model, key=jax.random.key(0))
        found = audit(rule, capture(fed, x[0]), fed, x, y, key=jax.random.key(1))
        done[kind] = None if found.local else found.violations[0]
    return done[kind]


def write() -> None:
    """Audit all recipes and write the file."""
    from vicinal.recipes.catalogue import RECIPES

    done: dict = {}
    FILE.write_text(json.dumps({name: audit_of(name, done) for name in RECIPES}, indent=2) + "\n")


if __name__ == "__main__":
    write()
