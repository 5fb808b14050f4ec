"""Named combinations of a rule, an optimiser and their settings."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import optax
from jaxtyping import ArrayLike

from vicinal.inference import Proximal, Simultaneous
from vicinal.losses import Loss, softmax_cross_entropy
from vicinal.optim import nlms, scale_by_presynaptic_norm
from vicinal.references import bibtex
from vicinal.rules import Backprop, InferenceLearning, Rule

Made = tuple[Rule, optax.GradientTransformation]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A rule and a step with their settings.

    Attributes:
        name: What the command line calls it.
        label: Name for people.
        build: `(loss, learning_rate, **numbers) -> (rule, optimizer)`; the numbers are further hyper-parameters.
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
    build: Callable[..., Made]
    learning_rate: float
    settings: str
    paper: str
    link: str | None
    references: tuple[str, ...]
    transport: str
    cost: str

    def make(
        self, loss: Loss = softmax_cross_entropy, /, learning_rate: ArrayLike | None = None, **numbers: ArrayLike
    ) -> Made:
        """The rule and the optimiser.

        Args:
            loss: Loss of one example.
            learning_rate: Of the weights; the recipe's own if None.
            **numbers: Other numeric hyper-parameters: those of the recipe (`eps`, `b1`, ...: see `numbers`), and those
                of the rule by their path (`**{"inference.step_size": 0.1}`). They may be traced, so that a grid of
                them can be mapped.

        Returns:
            `(rule, optimizer)`.

        Raises:
            ValueError: If there is no such number, or it is out of its range.

        Example:
            >>> rule, _ = recipe("il-prox").make(learning_rate=2.0, eps=0.5, **{"inference.step_size": 0.01})
            >>> float(rule.proximal.learning_rate), float(rule.proximal.eps), round(float(rule.inference.step_size), 3)
            (2.0, 0.5, 0.01)
        """
        own = {name: numbers.pop(name) for name in self.numbers if name in numbers}
        rule, optimizer = self.build(loss, self.learning_rate if learning_rate is None else learning_rate, **own)
        return self.with_numbers(rule, **numbers), optimizer

    def with_numbers(self, rule: Rule, **numbers: ArrayLike) -> Rule:
        """The rule with numbers replaced, by their paths."""
        for path, value in numbers.items():
            rule = _replaced(self, rule, path, path.split("."), value)
        return rule

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the hyper-parameters of its own, beside the learning rate."""
        return tuple(inspect.signature(self.build).parameters)[2:]

    @property
    def example(self) -> str:
        """A command that uses it."""
        return f"vicinal train --rule {self.name}"

    @property
    def citation(self) -> str:
        """BibTeX of its papers, and of this library."""
        return bibtex(*self.references, "vicinal")


def _replaced(chosen: Recipe, part: Any, path: str, names: list[str], value: ArrayLike) -> Any:
    """The rule, or a part of it, with the number at a path replaced."""
    fields = {field.name: field for field in dataclasses.fields(part)} if dataclasses.is_dataclass(part) else {}
    name, *rest = names
    if rest and name in fields and not isinstance(getattr(part, name), Proximal):
        return dataclasses.replace(part, **{name: _replaced(chosen, getattr(part, name), path, rest, value)})
    # A field with a converter is a number, or None in the place of one; what is static is part of the program.
    if rest or name not in fields or "converter" not in fields[name].metadata:
        known = ", ".join(("learning_rate", *chosen.numbers, *_paths(chosen.make()[0])))
        raise ValueError(f"expected a number of {chosen.name} among {known}, got {path!r}")
    return dataclasses.replace(part, **{name: value})


def _paths(part: Any) -> list[str]:
    """The paths of the numbers in a rule; those of its proximal output are numbers of the recipe."""
    found = []
    for field in dataclasses.fields(part) if dataclasses.is_dataclass(part) and not isinstance(part, Proximal) else ():
        inner = [f"{field.name}.{path}" for path in _paths(getattr(part, field.name))]
        found += [field.name] if "converter" in field.metadata else inner
    return found


# ---------------------------------------------------------------------------------------------- how they are built


def _sgd(rule: Callable[[Loss], Rule]) -> Callable[..., Made]:
    return lambda loss, learning_rate: (rule(loss), optax.sgd(learning_rate))


def _adam(rule: Callable[[Loss], Rule]) -> Callable[..., Made]:
    def build(loss: Loss, learning_rate: Any, b1: Any = 0.9, b2: Any = 0.999) -> Made:
        return rule(loss), optax.adam(learning_rate, b1=b1, b2=b2)

    return build


def _il(steps: int, step_size: float, pull: float = 1.0) -> Callable[..., Rule]:
    def rule(loss: Loss, proximal: Proximal | None = None) -> Rule:
        settle = Simultaneous(steps=steps, step_size=step_size, pull=pull)
        return InferenceLearning(inference=settle, loss=loss, proximal=proximal)

    return rule


def _bp(loss: Loss, proximal: Proximal | None = None) -> Rule:
    return Backprop(loss=loss, proximal=proximal)


def _normalised(rule: Callable[..., Rule], eps: float) -> Callable[..., Made]:
    """The learning rate enters through the output alone; the weights take the unit normalised step."""

    def build(loss: Loss, learning_rate: Any, eps: Any = eps) -> Made:
        return rule(loss, Proximal(learning_rate, eps, norm="mean")), nlms(1.0, eps)

    return build


def _normalised_adam(rule: Callable[..., Rule], output_learning_rate: float, eps: float) -> Callable[..., Made]:
    """The normalised gradient handed to Adam, which has a learning rate of its own."""

    def build(loss: Loss, learning_rate: Any, output_learning_rate: Any = output_learning_rate, eps: Any = eps) -> Made:
        step = optax.chain(scale_by_presynaptic_norm(eps), optax.adam(learning_rate))
        return rule(loss, Proximal(output_learning_rate, eps, norm="mean")), step

    return build


_BP = {
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
            build=_adam(_bp),
            learning_rate=1e-3,
            settings=_OURS,
            references=("rumelhart1986", "kingma2015"),
            **_BP,
            **_BP_PAPER,
        ),
        Recipe(
            name="il",
            label="inference learning, Adam",
            build=_adam(_il(steps=20, step_size=0.02)),
            learning_rate=1e-3,
            settings=_OURS,
            references=("rao1999", "whittington2017", "alonso2022", "kingma2015"),
            **_IL,
            **_IL_PAPER,
        ),
        Recipe(
            name="bp-sgd",
            label="backpropagation, gradient descent",
            build=_sgd(_bp),
            learning_rate=0.015,
            settings=_MNIST,
            references=("rumelhart1986",),
            **_BP,
            **_BP_PAPER,
        ),
        Recipe(
            name="bp-adam",
            label="backpropagation, Adam",
            build=_adam(_bp),
            learning_rate=1e-4,
            settings=_MNIST,
            references=("rumelhart1986", "kingma2015"),
            **_BP,
            **_BP_PAPER,
        ),
        Recipe(
            name="il-sgd",
            label="inference learning, gradient descent",
            build=_sgd(_il(steps=25, step_size=0.02, pull=0.75)),
            learning_rate=0.05,
            settings=_MNIST + " (step sizes .02 bottom-up, .015 top-down)",
            references=("whittington2017", "alonso2022"),
            **_IL,
            **_IL_PAPER,
        ),
        Recipe(
            name="il-adam",
            label="inference learning, Adam",
            build=_adam(_il(steps=20, step_size=0.02, pull=0.5)),
            learning_rate=1e-5,
            settings="of arXiv 2206.00164, CIFAR-10 at batch size 1, but fully clamped (the paper nudges by .95)",
            references=("whittington2017", "alonso2022", "kingma2015"),
            **_IL,
            **_IL_PAPER,
        ),
        Recipe(
            name="il-prox",
            label="inference learning, proximal",
            build=_normalised(_il(steps=25, step_size=0.015), eps=0.25),
            learning_rate=5.0,
            settings=_MNIST + " (step size .015); the learning rate is the proximal one, of the output",
            references=("alonso2022",),
            **_IL,
            **_IL_PAPER,
        ),
        Recipe(
            name="il-prox-fast",
            label="inference learning, proximal, fast",
            build=_normalised(_il(steps=12, step_size=0.025, pull=0.0), eps=0.25),
            learning_rate=3.0,
            settings=_MNIST + " (step size .025 bottom-up, 0 top-down); the learning rate is the proximal one",
            references=("alonso2022",),
            **_IL,
            **_IL_PAPER,
        ),
        Recipe(
            name="il-prox-adam",
            label="inference learning, proximal, Adam",
            build=_normalised_adam(_il(steps=20, step_size=0.02, pull=0.75), output_learning_rate=100.0, eps=5.0),
            learning_rate=3e-5,
            settings="of arXiv 2206.00164, CIFAR-10 at batch size 64; Adam's learning rate is its code's default",
            references=("alonso2022", "kingma2015"),
            **_IL,
            **_IL_PAPER,
        ),
        Recipe(
            name="bp-prox",
            label="backpropagation, proximal",
            build=_normalised(_bp, eps=0.0),
            learning_rate=1.0,
            settings="of arXiv 2206.00164's study of stability (eps 0), at one of its learning rates, .01 to 100",
            references=("rumelhart1986", "alonso2022"),
            **_BP,
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
