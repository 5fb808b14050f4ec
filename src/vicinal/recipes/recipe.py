"""What a recipe is: a rule, an optimiser, and their settings."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import optax
from jaxtyping import ArrayLike, PRNGKeyArray, PyTree

from vicinal._given import check_key
from vicinal._nearest import did_you_mean
from vicinal.feedback import Route, attach
from vicinal.inference import Proximal
from vicinal.losses import Loss, softmax_cross_entropy
from vicinal.references import bibtex
from vicinal.rules import Rule

_HABITS = {"lr": "learning_rate", "epsilon": "eps", "beta1": "b1", "beta2": "b2"}  # what others call them

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
        options: What else the command line needs for the paper's setting.
        feedback: What carries errors back in the model that it trains; None for the model as it is.
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
    feedback: Route | None = None
    options: str = ""

    def make(
        self, loss: Loss = softmax_cross_entropy, /, learning_rate: ArrayLike | None = None, **numbers: Any
    ) -> Made:
        """The rule and the optimiser.

        Args:
            loss: Loss of one example.
            learning_rate: Of the weights; the recipe's own if None.
            **numbers: Other hyper-parameters: those of the recipe (`eps`, `b1`, ...: see `numbers`), and those of the
                rule by their path (`**{"inference.step_size": 0.1, "inference.steps": 5}`). Numbers may be traced, so
                that a grid of them can be mapped; counts and words may not.

        Returns:
            `(rule, optimizer)`.

        Raises:
            ValueError: If there is no such number, or it is out of its range.

        Example:
            >>> import vicinal as vc
            >>> rule, _ = vc.recipes.recipe("il-prox").make(learning_rate=2.0, eps=0.5, **{"inference.step_size": 0.01})
            >>> float(rule.proximal.learning_rate), float(rule.proximal.eps), round(float(rule.inference.step_size), 3)
            (2.0, 0.5, 0.01)
        """
        own = {name: numbers.pop(name) for name in self.numbers if name in numbers}
        for name, value in (own | {"learning_rate": learning_rate}).items():
            _check_number(name, value)
        rule, optimizer = self.build(loss, self.learning_rate if learning_rate is None else learning_rate, **own)
        return self.with_numbers(rule, **numbers), optimizer

    def attach(self, model: PyTree, *, key: PRNGKeyArray) -> PyTree:
        """The model with the recipe's feedback, or as it is if the recipe has none.

        Args:
            model: A model, without feedback.
            key: For random feedback. That from which the model's weights were drawn will do.

        Example:
            >>> import jax, vicinal as vc
            >>> key = jax.random.key(0)
            >>> fed = vc.recipes.recipe("fa").attach(vc.nn.MLP((3, 4, 2), key=key), key=key)
            >>> type(fed.layers[0]).__name__
            'Fed'
        """
        return with_route(model, self.feedback, key=key)

    def with_numbers(self, rule: Rule, **numbers: Any) -> Rule:
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
        return f"vicinal train --rule {self.name} {self.options}".rstrip()

    @property
    def citation(self) -> str:
        """BibTeX of its papers, and of this library."""
        return bibtex(*self.references, "vicinal")


def with_route(model: PyTree, route: Route | None, *, key: PRNGKeyArray) -> PyTree:
    """The model with feedback by a route, if there is one; `key` may be that of the model's weights."""
    check_key(key)
    # Not fold_in(key, 1): that is split(key, n)[1], from which the layer of this index draws its weights.
    return model if route is None else attach(model, route, key=jax.random.fold_in(key, 2**31 - 1))


def _replaced(chosen: Recipe, part: Any, path: str, names: list[str], value: Any) -> Any:
    """The rule, or a part of it, with the number at a path replaced."""
    fields = {field.name: field for field in dataclasses.fields(part)} if dataclasses.is_dataclass(part) else {}
    name, *rest = names
    if rest and name in fields and not isinstance(getattr(part, name), Proximal):
        return dataclasses.replace(part, **{name: _replaced(chosen, getattr(part, name), path, rest, value)})
    if rest or name not in fields or not _can_be_set(part, fields[name]):
        known = ("learning_rate", *chosen.numbers, *_paths(chosen.make()[0]))
        meant = next((name for name in known if name.endswith(f".{path}")), _HABITS.get(path, path))
        hint = did_you_mean(meant, known)
        raise ValueError(f"expected a number of {chosen.name} among {', '.join(known)}, got {path!r}{hint}")
    own = getattr(part, name)
    if "converter" in fields[name].metadata:
        _check_number(path, value)
    elif type(value) is not type(own):  # what is static is part of the program: its kind stays, and it is not traced
        kind = {bool: "true or false", int: "a whole number", str: "a word"}[type(own)]
        raise ValueError(f"expected {kind} for {path}, got {value!r}")
    return dataclasses.replace(part, **{name: value})


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, str | bool):
        raise ValueError(f"expected a number for {name}, got {value!r}")


def _can_be_set(part: Any, field: Any) -> bool:
    """Whether a field is a number (it has a converter, or None in its place), or a count, a word or a choice."""
    return "converter" in field.metadata or isinstance(getattr(part, field.name), bool | int | str)


def _paths(part: Any) -> list[str]:
    """The paths of what can be set in a rule; those of its proximal output are numbers of the recipe."""
    found = []
    for field in dataclasses.fields(part) if dataclasses.is_dataclass(part) and not isinstance(part, Proximal) else ():
        inner = [f"{field.name}.{path}" for path in _paths(getattr(part, field.name))]
        found += [field.name] if _can_be_set(part, field) else inner
    return found
