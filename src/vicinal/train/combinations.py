"""What a sweep varies: every combination of some values, and which members can share a compiled program."""

import dataclasses
import functools
import inspect
import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from vicinal._memory import check_room
from vicinal._nearest import did_you_mean
from vicinal._numbers import check_count
from vicinal._records import is_number
from vicinal.train.arguments import check_make
from vicinal.train.compiled import Make

_MEMBER_BYTES = 1000  # at the least, of a member's numbers, records and files
_MOST_SEEDS = 2**32

Value = float | int | bool | str | None
"""A value that may vary. Members that differ only in numbers share a program, if the numbers can be traced."""
Build = Callable[..., PyTree]


@dataclasses.dataclass(frozen=True)
class SharedProgram:
    """Members that share a compiled program, and the functions that make their rules and models.

    Attributes:
        make: Returns the rule and the optimiser of a member from its traced numbers; further numbers are ignored.
        build: Returns the model of a member from a key and the numbers `of_build`.
        members: The members, in the order of the runs.
        traced: The names of the numbers in which they differ.
        of_build: The names of the numbers on which the model depends.
    """

    make: Make
    build: Build
    members: list[int]
    traced: tuple[str, ...]
    of_build: tuple[str, ...] = ()


def combinations_of(make: Make, build: Build, numbers: Any) -> list[dict[str, Value]]:
    """Every combination of the values; each must make a rule and an optimiser.

    Raises:
        TypeError: If `make`, `build` or the values are of the wrong kind.
        ValueError: If there is no value, or the combinations have different names; or as `make` does.
    """
    _check_functions(make, build)
    try:
        if isinstance(numbers, Mapping):
            if any(isinstance(values, str) for values in numbers.values()):
                raise TypeError
            values = [one if isinstance(one, Sequence) else list(one) for one in numbers.values()]
            count = math.prod(map(len, values))
            check_room(count * _MEMBER_BYTES, f"{count} combinations", "take fewer values")
            rows = [dict(zip(numbers, row, strict=True)) for row in itertools.product(*values)]
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


def runs_of(rows: list[dict[str, Value]], seeds: Sequence[int]) -> list[tuple[dict[str, Value], int]]:
    """Every combination with every seed; raises MemoryError if there are too many to keep."""
    count = len(rows) * len(seeds)
    check_room(count * _MEMBER_BYTES, f"{count} members", "take fewer seeds or combinations")
    return list(itertools.product(rows, seeds))


def seeds_of(seeds: Any) -> Sequence[int]:
    """The seeds: `range(seeds)`, or those given."""
    if isinstance(seeds, int | float):
        count = check_count("seeds", seeds)
        if count > _MOST_SEEDS:
            raise ValueError(f"expected at most {_MOST_SEEDS} seeds, got {count}; take fewer")
        return range(count)
    try:
        found = [operator.index(seed) for seed in seeds]
    except TypeError:
        raise TypeError(f"expected seeds as an integer or a list of integers, got {seeds!r}") from None
    if not found or len(set(found)) < len(found):
        raise ValueError(f"expected different seeds, at least one, got {found}")
    return found


def shared_programs(make: Make, build: Build, runs: list[tuple[dict[str, Value], int]]) -> list[SharedProgram]:
    """The members that share a program: those that differ only in numbers that can be traced, and in seeds.

    A number that determines the program, such as a count of steps, cannot be traced; nor can text. A number of the
    model can vary within a program if it only changes numbers in the model's arrays.
    """
    rows = [row for row, _ in runs]
    of_build = tuple(name for name in rows[0] if name in _taken(build))
    forms = _forms(build, of_build, rows)
    numeric = {name for name in rows[0] if name not in of_build and all(is_number(row[name]) for row in rows)}
    numeric |= {name for name in of_build if _varies(name, forms, rows)}
    traced_with: dict[tuple, tuple[str, ...]] = {}
    members: dict[tuple, list[int]] = {}
    for i, row in enumerate(rows):
        varying = tuple(name for name in row if name in numeric and is_number(row[name]))
        words = tuple(_exact(value) for name, value in row.items() if name not in varying)
        if words not in traced_with:
            traced_with[words] = _traceable(make, row, varying)
        shared = tuple((name, _exact(value)) for name, value in row.items() if name not in traced_with[words])
        members.setdefault((traced_with[words], shared, forms[i]), []).append(i)
    programs = []
    for (traced, *_), own in members.items():
        fixed = {name: value for name, value in rows[own[0]].items() if name not in traced}
        programs.append(SharedProgram(_bound(make, fixed), build, own, traced, of_build))
    return programs


def _forms(build: Build, names: tuple[str, ...], rows: list[dict[str, Value]]) -> list[int]:
    """For each row an index of what its model is without the numbers in its arrays; the same for models of one form."""
    found: list[Any] = []
    of_values: dict[tuple, int] = {}
    for row in rows:
        values = tuple(_exact(row[name]) for name in names)
        if values not in of_values:
            form = _form(build, {name: row[name] for name in names}) if names else ()
            place = next((i for i, other in enumerate(found) if form is not None and _same(form, other)), len(found))
            found += [form] if place == len(found) else []
            of_values[values] = place
    return [of_values[tuple(_exact(row[name]) for name in names)] for row in rows]


def _form(build: Build, numbers: dict[str, Value]) -> Any:
    """Shapes and dtypes of a model's arrays, and all else that it consists of; None if it cannot be traced."""
    try:
        model = eqx.filter_eval_shape(functools.partial(build, **numbers), jax.random.key(0))
    except Exception:  # it may still be built
        return None
    leaves, structure = jax.tree.flatten(model)
    return structure, [(leaf.shape, leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf for leaf in leaves]


def _same(form: Any, other: Any) -> bool:
    try:
        return bool(form == other)
    except Exception:  # of arrays among the static parts, say
        return False


def _varies(name: str, forms: list[int], rows: list[dict[str, Value]]) -> bool:
    """Whether models of one form differ in this number."""
    values = {(form, _exact(row[name])) for form, row in zip(forms, rows, strict=True)}
    return len(values) > len(set(forms))


def _bound(make: Make, fixed: dict[str, Value]) -> Make:
    """`make` with some numbers fixed; it ignores numbers that it does not take."""
    known = _parameters(make)

    def bound(**numbers: Any) -> Any:
        given = fixed | numbers
        return make(**(given if known is ANY else {name: given[name] for name in given if name in known}))

    return bound


def _traceable(make: Make, row: dict[str, Value], names: tuple[str, ...]) -> tuple[str, ...]:
    """The numbers with which `make` can be traced: all, or each that can be traced on its own, or none."""
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
    except Exception:  # `make` worked with the plain number, so that any error is due to tracing
        return False
    return True


class _Any(tuple):
    """The parameters of a function that takes all names."""

    def __contains__(self, name: object) -> bool:
        return True


ANY = _Any()


def _taken(build: Build) -> tuple[str, ...]:
    """The names of the numbers that `build` takes: those in its attribute `numbers`, or in its signature."""
    return getattr(build, "numbers", None) or _parameters(build)[1:]


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
    """Raises TypeError if nothing takes a number, or `make` lacks one that it needs."""
    known = _parameters(make)
    takes = [*known, *_taken(build)]
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
    """The value as a Python object; an array of one element becomes a number."""
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        value = np.asarray(value).item()
    if not isinstance(value, float | int | str | None):
        raise TypeError
    return value


def _exact(value: Value) -> tuple[type, Value]:
    return type(value), value  # True == 1, but they differ here
