"""Recipes: named combinations of a rule, an optimiser and their settings."""

from vicinal.recipes.catalogue import RECIPES
from vicinal.recipes.lookup import ALIASES, recipe
from vicinal.recipes.recipe import Made, Recipe, with_route

__all__ = ["ALIASES", "RECIPES", "Made", "Recipe", "recipe", "with_route"]
