"""Named combinations of a rule, an optimiser and their settings."""

import dataclasses
from collections.abc import Callable

import optax

from vicinal.inference import Simultaneous
from vicinal.losses import Loss, softmax_cross_entropy
from vicinal.references import bibtex
from vicinal.rules import Backprop, InferenceLearning, Rule

Optimizer = Callable[..., optax.GradientTransformation]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A rule and a step with their settings.

    Attributes:
        name: What the command line calls it.
        label: Name for people.
        rule: `loss -> Rule`.
        optimizer: `learning_rate -> optax transformation`.
        learning_rate: Of the weights, by default.
        settings: Where the settings come from.
        paper: The paper in words.
        link: Its address, or None.
        references: Keys of its BibTeX entries.
        transport: What carries errors back, in words.
        cost: Products per layer for one update, in words; `T` is the number of inference steps.
    """

    name: str
    label: str
    rule: Callable[[Loss], Rule]
    optimizer: Optimizer
    learning_rate: float
    settings: str
    paper: str
    link: str | None
    references: tuple[str, ...]
    transport: str
    cost: str

    def make(
        self, loss: Loss = softmax_cross_entropy, learning_rate: float | None = None
    ) -> tuple[Rule, optax.GradientTransformation]:
        """The rule and the optimiser.

        Args:
            loss: Loss of one example.
            learning_rate: Of the weights; the recipe's own if None.

        Returns:
            `(rule, optimizer)`.
        """
        return self.rule(loss), self.optimizer(self.learning_rate if learning_rate is None else learning_rate)

    @property
    def example(self) -> str:
        """A command that uses it."""
        return f"vicinal train --rule {self.name}"

    @property
    def citation(self) -> str:
        """BibTeX of its papers, and of this library."""
        return bibtex(*self.references, "vicinal")


def _il(steps: int, step_size: float, pull: float = 1.0) -> Callable[[Loss], Rule]:
    return lambda loss: InferenceLearning(
        inference=Simultaneous(steps=steps, step_size=step_size, pull=pull), loss=loss
    )


_BP = {
    "rule": lambda loss: Backprop(loss=loss),
    "transport": "the forward weights, transposed",
    "cost": "1 forward, 1 transposed, 1 outer",
}
_IL = {"transport": "the forward weights, transposed", "cost": "T + 2 forward, T transposed, 1 outer"}
_BP_PAPER = {"paper": "Rumelhart, Hinton and Williams 1986", "link": "https://doi.org/10.1038/323533a0"}
_IL_PAPER = {"paper": "Alonso et al. 2022, arXiv 2206.00164", "link": "https://arxiv.org/abs/2206.00164"}
_OURS = "of this library, for a first look"
_MNIST = "of arXiv 2206.00164, MNIST at batch size 1"

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="bp",
            label="backpropagation, Adam",
            optimizer=optax.adam,
            learning_rate=1e-3,
            settings=_OURS,
            references=("rumelhart1986", "kingma2015"),
            **_BP,
            **_BP_PAPER,
        ),
        Recipe(
            name="il",
            label="inference learning, Adam",
            rule=_il(steps=20, step_size=0.02),
            optimizer=optax.adam,
            learning_rate=1e-3,
            settings=_OURS,
            references=("rao1999", "whittington2017", "alonso2022", "kingma2015"),
            **_IL,
            **_IL_PAPER,
        ),
        Recipe(
            name="bp-sgd",
            label="backpropagation, gradient descent",
            optimizer=optax.sgd,
            learning_rate=0.015,
            settings=_MNIST,
            references=("rumelhart1986",),
            **_BP,
            **_BP_PAPER,
        ),
        Recipe(
            name="bp-adam",
            label="backpropagation, Adam",
            optimizer=optax.adam,
            learning_rate=1e-4,
            settings=_MNIST,
            references=("rumelhart1986", "kingma2015"),
            **_BP,
            **_BP_PAPER,
        ),
        Recipe(
            name="il-sgd",
            label="inference learning, gradient descent",
            rule=_il(steps=25, step_size=0.02, pull=0.75),
            optimizer=optax.sgd,
            learning_rate=0.05,
            settings=_MNIST + " (step sizes .02 bottom-up, .015 top-down)",
            references=("whittington2017", "alonso2022"),
            **_IL,
            **_IL_PAPER,
        ),
        Recipe(
            name="il-adam",
            label="inference learning, Adam",
            rule=_il(steps=20, step_size=0.02, pull=0.5),
            optimizer=optax.adam,
            learning_rate=1e-5,
            settings="of arXiv 2206.00164, CIFAR-10 at batch size 1, but fully clamped (the paper nudges by .95)",
            references=("whittington2017", "alonso2022", "kingma2015"),
            **_IL,
            **_IL_PAPER,
        ),
    )
}
"""All recipes by name."""


def recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        ValueError: If there is none.

    Example:
        >>> rule, optimizer = recipe("il").make()
        >>> int(rule.inference.steps)
        20
    """
    if name not in RECIPES:
        raise ValueError(f"expected a recipe of {', '.join(RECIPES)}, got {name!r}; `vicinal rules` lists them")
    return RECIPES[name]
