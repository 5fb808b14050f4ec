"""Named combinations of a rule, an optimiser and their settings."""

from vicinal.recipes.catalogue import RECIPES, recipe
from vicinal.recipes.recipe import Made, Recipe, with_route

__all__ = ["RECIPES", "Made", "Recipe", "recipe", "with_route"]
