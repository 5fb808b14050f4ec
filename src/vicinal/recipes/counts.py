"""Stored counts of what the recipes ask of arrays; a test compares them with new counts."""

import functools
import json
from pathlib import Path

from vicinal.recipes.lookup import recipe

FILE = Path(__file__).with_name("counts.json")
"""Recipe -> its counts (`vicinal.report.ARRAY_COUNTS`) for one example on `SIZES`, or null where a loop stops when its
values say so. `python -m vicinal.recipes.counts` writes the file."""

SIZES = (64, 64, 64, 10)
"""The network: that of the command line for digits, with vertices at potentials."""


@functools.lru_cache(maxsize=1)
def known() -> dict[str, dict[str, float] | None]:
    """Read the stored counts.

    Example:
        >>> known()["bp"]["forward"], known()["bp"]["transposed"], known()["bp"]["depth"]
        (3.0, 2.0, 5.0)
    """
    return json.loads(FILE.read_text())


def counts_of(name: str) -> dict[str, float] | None:
    """Count what an update by a recipe asks of arrays.

    Args:
        name: A recipe.

    Returns:
        The counts; None where a loop stops when its values say so.
    """
    import jax
    import jax.numpy as jnp

    from vicinal import nn
    from vicinal.hardware import UnknownTurns, ledger

    chosen, key = recipe(name), jax.random.key(0)
    model = chosen.attach(nn.MLP(SIZES, vertex_at="pre", key=key), key=key)
    x, y = jax.ShapeDtypeStruct((1, SIZES[0]), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    try:
        found = ledger(chosen.make()[0], model, x, y)
    except UnknownTurns:
        return None
    return {name: round(value, 3) for name, value in found.array_counts.items()}


def counts_text(counts: dict[str, float] | None) -> str:
    """Write counts as a sentence.

    Example:
        >>> counts_text(known()["bp"]).split(";")[0]
        '3 forward and 2 transposed reads, 3 outer products'
    """
    if counts is None:
        return "as many reads as its loop makes turns: `vicinal ledger` with --turns"
    each = {name: f"{value:g}" for name, value in counts.items()}
    return (
        f"{each['forward']} forward and {each['transposed']} transposed reads, {each['outer']} outer products; as many "
        f"reads as {counts['passes']:.3g} forward passes; depth {each['depth']}, busiest array {each['busiest']} reads"
    )


def write() -> None:
    """Count for all recipes and write the file."""
    from vicinal.recipes.catalogue import RECIPES

    FILE.write_text(json.dumps({name: counts_of(name) for name in RECIPES}, indent=2) + "\n")


if __name__ == "__main__":
    write()
