"""A recipe: a rule, an optimiser, and their settings."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import optax
from jaxtyping import ArrayLike, PRNGKeyArray, PyTree

from vicinal._given import check_key
from vicinal._nearest import did_you_mean
from vicinal._numbers import check
from vicinal.feedback import Route, attach
from vicinal.inference import Proximal
from vicinal.losses import Loss, softmax_cross_entropy
from vicinal.references import bibtex
from vicinal.rules import Rule

_HABITS = {"lr": "learning_rate", "epsilon": "eps", "beta1": "b1", "beta2": "b2"}  # what others call them

Made = tuple[Rule, optax.GradientTransformation]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A rule and an optimiser with their settings.

    Attributes:
        name: Its name on the command line.
        label: Name for people.
        build: `(loss, learning_rate, **numbers) -> (rule, optimizer)`; the numbers are further hyper-parameters.
        learning_rate: The default learning rate of the weights.
        settings: Where the settings come from.
        paper: The paper, as authors, year and number.
        link: Its address, or None.
        references: Keys of its BibTeX entries.
        transport: In words, what carries errors back.
        cost: In words, the products per layer for one update; `T` is the number of inference steps.
        options: Further options of the command line for the paper's setting.
        feedback: What carries errors back in the trained model; None for the model as it is.
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
        self,
        loss: Loss = softmax_cross_entropy,
        /,
        learning_rate: ArrayLike | None = None,
        *,
        change: Callable[[Rule], Rule] | None = None,
        **numbers: Any,
    ) -> Made:
        """Make the rule and the optimiser.

        Args:
            loss: Loss of one example.
            learning_rate: Learning rate of the weights, at least 0; None for the recipe's own.
            change: Replaces the rule before the numbers are set, for example by one that settles in another way.
            **numbers: Other hyper-parameters: those of the recipe (`eps`, `b1`, ...: see `numbers`), and those of the
                rule by their path (`**{"inference.step_size": 0.1, "inference.steps": 5}`). Numbers may be traced, so
                that `vmap` can run a grid of them; counts and words may not.

        Returns:
            `(rule, optimizer)`.

        Raises:
            ValueError: If the recipe has no such number, or a number is out of range.

        Example:
            >>> import vicinal as vc
            >>> rule, _ = vc.recipes.recipe("il-prox").make(learning_rate=2.0, eps=0.5, **{"inference.step_size": 0.01})
            >>> float(rule.proximal.learning_rate), float(rule.proximal.eps), round(float(rule.inference.step_size), 3)
            (2.0, 0.5, 0.01)
        """
        own = {name: numbers.pop(name) for name in self.numbers if name in numbers}
        for name, value in (own | {"learning_rate": learning_rate}).items():
            _check_number(name, value)
        check("a learning rate", learning_rate, lambda v: v >= 0, "of at least 0")
        rule, optimizer = self.build(loss, self.learning_rate if learning_rate is None else learning_rate, **own)
        rule = rule if change is None else change(rule)
        for path, value in numbers.items():
            rule = _replaced(self, rule, path, path.split("."), value)
        return rule, optimizer

    def attach(self, model: PyTree, *, key: PRNGKeyArray) -> PyTree:
        """Attach the recipe's feedback to a model, if the recipe has any.

        Args:
            model: A model, without feedback.
            key: For random feedback; it may be the key of the model's weights.

        Example:
            >>> import jax, vicinal as vc
            >>> key = jax.random.key(0)
            >>> fed = vc.recipes.recipe("fa").attach(vc.nn.MLP((3, 4, 2), key=key), key=key)
            >>> type(fed.layers[0]).__name__
            'Fed'
        """
        return with_route(model, self.feedback, key=key)

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the recipe's own hyper-parameters other than the learning rate."""
        return tuple(inspect.signature(self.build).parameters)[2:]

    @property
    def example(self) -> str:
        """A command that uses the recipe."""
        return f"vicinal train --rule {self.name} {self.options}".rstrip()

    @property
    def citation(self) -> str:
        """BibTeX entries of the recipe's papers and of this library."""
        return bibtex(*self.references, "vicinal")


def with_route(model: PyTree, route: Route | None, *, key: PRNGKeyArray) -> PyTree:
    """Attach feedback to a model if a route is given; `key` may be the key of the model's weights."""
    check_key(key)
    # Not fold_in(key, 1): that is split(key, n)[1], from which the layer of this index draws its weights.
    return model if route is None else attach(model, route, key=jax.random.fold_in(key, 2**31 - 1))


def _replaced(chosen: Recipe, part: Any, path: str, names: list[str], value: Any) -> Any:
    """Replace the number at a path in a rule or a part of it."""
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
    elif type(own) is float and type(value) is int:
        value = float(value)
    elif type(value) is not type(own):  # what is static is part of the program: its kind stays, and it is not traced
        kind = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}[type(own)]
        raise ValueError(f"expected {kind} for {path}, got {value!r}")
    return dataclasses.replace(part, **{name: value})


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, str | bool):
        raise ValueError(f"expected a number for {name}, got {value!r}")
    check(name, value)


def _can_be_set(part: Any, field: Any) -> bool:
    """Whether a field is a number, which has a converter, or a count, a word or a choice."""
    return "converter" in field.metadata or isinstance(getattr(part, field.name), bool | int | float | str)


def _paths(part: Any) -> list[str]:
    """List the paths that can be set in a rule; those of its proximal output are numbers of the recipe."""
    found = []
    for field in dataclasses.fields(part) if dataclasses.is_dataclass(part) and not isinstance(part, Proximal) else ():
        inner = [f"{field.name}.{path}" for path in _paths(getattr(part, field.name))]
        found += [field.name] if _can_be_set(part, field) else inner
    return found
