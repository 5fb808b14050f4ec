"""What a sweep varies: every combination of some values, and which members can share a compiled program."""

import dataclasses
import functools
import inspect
import itertools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from vicinal._nearest import did_you_mean
from vicinal._records import is_number
from vicinal.train.arguments import at_least_one, check_make
from vicinal.train.fleet import Make

Value = float | int | bool | str | None
"""What may vary. Members that differ in numbers alone share a program, if the numbers can be traced."""
Build = Callable[..., PyTree]


@dataclasses.dataclass(frozen=True)
class Group:
    """Members that one compiled program serves.

    Attributes:
        make: From the traced numbers, or more of a member's, to its rule and its optimiser.
        build: From a key to a model.
        members: Which, in the order of the runs.
        traced: The names of the numbers in which they differ.
        own_model: Whether the model depends on what they have in common.
    """

    make: Make
    build: Callable[[PRNGKeyArray], PyTree]
    members: list[int]
    traced: tuple[str, ...]
    own_model: bool = False


def combinations_of(make: Make, build: Build, numbers: Any) -> list[dict[str, Value]]:
    """Every combination of the values, each of which makes a rule and an optimiser.

    Raises:
        TypeError: If `make`, `build` or the values are of the wrong kind.
        ValueError: If there is no value, or the combinations have different names; or as `make` does.
    """
    _check_functions(make, build)
    try:
        if isinstance(numbers, Mapping):
            if any(isinstance(values, str) for values in numbers.values()):
                raise TypeError
            rows = [dict(zip(numbers, values, strict=True)) for values in itertools.product(*numbers.values())]
        else:
            rows = [dict(row) for row in numbers]
        rows = [{_name(name): _plain(value) for name, value in row.items()} for row in rows]
    except (TypeError, ValueError):
        raise TypeError(
            f"expected numbers as lists of values by name, or a list of combinations, got {numbers!r}; "
            'write {"learning_rate": [0.01, 0.1]}, with numbers, words, True, False or None as values'
        ) from None
    if not rows:
        raise ValueError("expected at least one value of each number, got none")
    if any(set(row) != set(rows[0]) for row in rows):
        raise ValueError("expected the same names in all combinations of numbers, got different ones")
    _check_names(make, build, list(rows[0]))
    for row in rows:
        check_make(_bound(make, row), {})
    return rows


def seeds_of(seeds: Any) -> list[int]:
    """The seeds: so many from 0, or those given."""
    if isinstance(seeds, int | float):
        return list(range(at_least_one("seeds", seeds)))
    try:
        found = [operator.index(seed) for seed in seeds]
    except TypeError:
        raise TypeError(f"expected seeds as an integer or a list of integers, got {seeds!r}") from None
    if not found or len(set(found)) < len(found):
        raise ValueError(f"expected different seeds, at least one, got {found}")
    return found


def groups_of(make: Make, build: Build, runs: list[tuple[dict[str, Value], int]]) -> list[Group]:
    """The members that share a program: those that differ only in numbers that can be traced, and in seeds.

    A number that decides the program itself, as a count of steps does, cannot be traced; no more can a word.
    """
    rows = [row for row, _ in runs]
    of_build = [name for name in rows[0] if name in _parameters(build)[1:]]
    numeric = [name for name in rows[0] if name not in of_build and all(is_number(row[name]) for row in rows)]
    traced_with: dict[tuple, tuple[str, ...]] = {}
    members: dict[tuple, list[int]] = {}
    for i, row in enumerate(rows):
        words = tuple(_exact(row[name]) for name in row if name not in numeric)
        if words not in traced_with:
            traced_with[words] = _traceable(make, row, tuple(numeric))
        shared = tuple((name, _exact(value)) for name, value in row.items() if name not in traced_with[words])
        members.setdefault((traced_with[words], shared), []).append(i)
    groups = []
    for (traced, _), own in members.items():
        fixed = {name: value for name, value in rows[own[0]].items() if name not in traced}
        model = functools.partial(build, **{name: fixed[name] for name in of_build}) if of_build else build
        groups.append(Group(_bound(make, fixed), model, own, traced, bool(of_build)))
    return groups


def _bound(make: Make, fixed: dict[str, Value]) -> Make:
    """`make` with some of its numbers given; of a member's numbers it takes those that it knows."""
    known = _parameters(make)

    def bound(**numbers: Any) -> Any:
        given = fixed | numbers
        return make(**(given if known is ANY else {name: given[name] for name in given if name in known}))

    return bound


def _traceable(make: Make, row: dict[str, Value], names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the numbers with which `make` can be traced: all of them, or those that can be alone, or none."""
    if _traces(make, row, names):
        return names
    alone = tuple(name for name in names if _traces(make, row, (name,)))
    return alone if _traces(make, row, alone) else ()


def _traces(make: Make, row: dict[str, Value], names: tuple[str, ...]) -> bool:
    def trial(traced: dict[str, Any]) -> PyTree:
        rule, _ = _bound(make, row)(**traced)
        hash(jax.tree.structure(rule))  # a traced number among the static parts of a rule has no hash
        return eqx.filter(rule, eqx.is_array)

    like = jax.ShapeDtypeStruct((), jnp.result_type(float), weak_type=True)
    try:
        jax.eval_shape(trial, dict.fromkeys(names, like))
    except Exception:  # with the plain number it has worked, so whatever it is, it is of tracing
        return False
    return True


class _Any(tuple):
    """The parameters of a function that takes all names."""

    def __contains__(self, name: object) -> bool:
        return True


ANY = _Any()


def _parameters(function: Callable) -> tuple[str, ...]:
    """The names that a function can be called with; `ANY` if it takes all."""
    found = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in found):
        return ANY
    return tuple(parameter.name for parameter in found if parameter.kind is not parameter.VAR_POSITIONAL)


def _check_functions(make: Any, build: Any) -> None:
    if isinstance(make, str):
        advice = f"write lambda **numbers: vc.recipes.recipe({make!r}).make(**numbers)"
        raise TypeError(f"expected make as a function, got {make!r}; {advice}")
    for name, function in (("make", make), ("build", build)):
        if not callable(function):
            raise TypeError(f"expected {name} as a function, got {function!r}")
    takes = _parameters(build)
    if isinstance(build, eqx.Module | type) and takes is not ANY and takes[:1] != ("key",):
        name = build.__name__ if isinstance(build, type) else type(build).__name__
        raise TypeError(
            f"expected build as a function from a key to a model, got {name}; write lambda key: {name}(..., key=key)"
        )
    if not takes and takes is not ANY:
        raise TypeError("expected build to take a key, got a function without arguments; write lambda key: ...")


def _check_names(make: Make, build: Build, names: list[str]) -> None:
    """Each number must be somebody's, and `make` must have all that it needs."""
    known = _parameters(make)
    takes = [*known, *_parameters(build)[1:]]
    for name in names:
        if name not in known and name not in takes:
            hint = did_you_mean(name, takes)
            raise TypeError(f"expected names that make takes ({', '.join(known) or 'none'}), got {name!r}{hint}")
    for parameter in inspect.signature(make).parameters.values():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and parameter.default is parameter.empty and parameter.name not in names:
            raise TypeError(
                f"expected values of {parameter.name}, which make needs, got those of {', '.join(names) or 'nothing'}; "
                f"add {parameter.name!r} to the numbers"
            )


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError
    return name


def _plain(value: Any) -> Value:
    """The value as Python has it; an array of one element is its number."""
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        value = np.asarray(value).item()
    if not isinstance(value, float | int | str | None):
        raise TypeError
    return value


def _exact(value: Value) -> tuple[type, Value]:
    return type(value), value  # True is no 1
