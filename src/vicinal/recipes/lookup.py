"""Look up a recipe by its name, or by another name that the field uses."""

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
    """Look up a recipe; capitals, blanks and underscores do not matter.

    Args:
        name: A name in `RECIPES` or in `ALIASES`.

    Returns:
        The recipe.

    Raises:
        ValueError: If no recipe has this name.
        TypeError: If the name is not a string.

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
    """Replace other names of recipes by their own names.

    Raises:
        ValueError: If a name is unknown, two names mean the same recipe, or there is no name.

    Example:
        >>> canonical(("backprop", "pc"))
        ('bp', 'il')
    """
    found = tuple(recipe(name).name for name in names)
    if not found or len(set(found)) < len(found):
        raise ValueError(f"expected different rules, at least one, got {' '.join(names) or 'none'}")
    return found
