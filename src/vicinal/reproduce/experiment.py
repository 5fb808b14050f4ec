"""What an experiment is: sizes, a measurement, and a judge that reads only the measured numbers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from vicinal.report import Claim, Section
from vicinal.reproduce.members import members
from vicinal.reproduce.training import Run
from vicinal.train import Member

QUICK, FULL, LARGE = "quick", "full", "large"
"""The sizes an experiment may have. Published results use `full`; `large` is meant for a GPU."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """How much of an experiment to run. Each experiment adds its own fields, which must be valid JSON.

    Attributes:
        data: Names of the data sets, as for `vicinal.data.load`; the report credits them.
    """

    data: tuple[str, ...] = ()


S = TypeVar("S", bound=Size)


@dataclasses.dataclass(frozen=True)
class Found(Generic[S]):
    """The measurements of a run: all that a judge may read.

    Attributes:
        size: The size of the run.
        seeds: The number of seeds.
        numbers: What `measure` returned, after conversion to JSON: keys are text, tuples are lists, NaN is None.
        quick: Whether this is the quick size.
    """

    size: S
    seeds: int
    numbers: dict[str, Any]
    quick: bool = False

    def members(self, *path: str) -> list[Member]:
        """The stored members of one variant, without their models; `path` leads to them in `numbers`."""
        return members(_at(self.numbers, path))

    def runs(self, *path: str) -> dict[str, list[Member]]:
        """The stored members of each variant, by label; `path` leads to the variants in `numbers`."""
        return {label: members(rows) for label, rows in _at(self.numbers, path).items()}


def _at(numbers: Any, path: Sequence[str]) -> Any:
    for name in path:
        numbers = numbers[name]
    return numbers


@dataclasses.dataclass(frozen=True)
class Experiment(Generic[S]):
    """An experiment of a paper: what to run at each size, and how to judge the numbers.

    `measure` trains and returns plain numbers. The other functions read only these numbers, in a `Found`, so that
    claims can be judged again from a stored file without training.

    Attributes:
        name: The name on the command line, such as `"il-theory/stability"`.
        title: The heading of its page.
        topic: A phrase for the list of experiments.
        paper: The paper it reproduces.
        sizes: The sizes, by `"quick"`, `"full"` and optionally `"large"`.
        time: How long each size but the quick one takes, as text; the quick one takes less than two minutes.
        measure: Runs the experiment and returns numbers that are valid JSON.
        summary: Returns a paragraph.
        claims: Each returns a claim of the paper with its verdict; None if the size does not measure it.
        sections: Returns tables and figures.
        differences: Returns a sentence for each difference from the paper.
        seeds: The default number of seeds; the quick size runs at most two.
        credit: Whom to credit in addition to the data sets.
    """

    name: str
    title: str
    topic: str
    paper: str
    sizes: Mapping[str, S]
    time: Mapping[str, str]
    measure: Callable[[Run[S]], Mapping[str, Any]]
    summary: Callable[[Found[S]], str]
    claims: Sequence[Callable[[Found[S]], Claim | None]]
    sections: Callable[[Found[S]], list[Section]]
    differences: Callable[[Found[S]], list[str]]
    seeds: int = 5
    credit: str = ""

    def __post_init__(self) -> None:
        if not {QUICK, FULL} <= set(self.sizes) <= {QUICK, FULL, LARGE}:
            raise ValueError(f"expected sizes quick and full, and perhaps large, got {', '.join(self.sizes)}")
        if set(self.time) != set(self.sizes) - {QUICK}:
            raise ValueError(f"expected the time of each size but the quick one, got that of {', '.join(self.time)}")
