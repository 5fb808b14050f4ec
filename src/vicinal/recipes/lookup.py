"""A recipe by its name, or by another name that the field has for it."""

from vicinal._nearest import did_you_mean
from vicinal.recipes.catalogue import RECIPES
from vicinal.recipes.recipe import Recipe

ALIASES = {
    "backprop": "bp",
    "backpropagation": "bp",
    "pc": "il",
    "predictive-coding": "il",
    "inference-learning": "il",
    "incremental-pc": "ipc",
    "incremental-predictive-coding": "ipc",
    "zil": "z-il",
    "zero-divergence-inference-learning": "z-il",
    "fixed-prediction-assumption": "fixed-prediction",
    "activation-relaxation": "ar",
    "direct-feedback-alignment": "dfa",
    "dynamic-inversion": "di",
    "phaseless-alignment": "pal",
    "phaseless-alignment-learning": "pal",
    "feedback-alignment": "fa",
    "usf": "sign-symmetric",
    "kp": "kolen-pollack",
    "wm": "weight-mirror",
}
"""Other names of recipes."""


def recipe(name: str) -> Recipe:
    """The recipe of this name; capitals, blanks and underscores do not matter.

    Args:
        name: A name in `RECIPES`, or in `ALIASES`.

    Raises:
        ValueError: If there is none.
        TypeError: If the name is no string.

    Example:
        >>> rule, optimizer = recipe("il").make()
        >>> int(rule.inference.steps)
        20
        >>> recipe("pc").name, recipe("IL_prox").name
        ('il', 'il-prox')
    """
    if not isinstance(name, str):
        raise TypeError(f"expected the name of a recipe, like 'il', got {name!r}")
    plain = "-".join(name.lower().replace("_", " ").replace("-", " ").split())
    plain = ALIASES.get(plain, plain)
    if plain not in RECIPES:
        hint = did_you_mean(plain, (*RECIPES, *ALIASES))
        raise ValueError(
            f"expected a recipe of {', '.join(RECIPES)}, got {name!r}{hint or '; `vicinal rules` lists them'}"
        )
    return RECIPES[plain]


def canonical(names: tuple[str, ...]) -> tuple[str, ...]:
    """The recipes' own names.

    Raises:
        ValueError: If one is unknown, two are the same, or there is none.

    Example:
        >>> canonical(("backprop", "pc"))
        ('bp', 'il')
    """
    found = tuple(recipe(name).name for name in names)
    if not found or len(set(found)) < len(found):
        raise ValueError(f"expected different rules, at least one, got {' '.join(names) or 'none'}")
    return found
