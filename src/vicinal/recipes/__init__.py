"""Named combinations of a rule, an optimiser and their settings."""

from vicinal.recipes.catalogue import RECIPES as RECIPES, recipe as recipe
from vicinal.recipes.recipe import Made as Made, Recipe as Recipe, with_route as with_route
