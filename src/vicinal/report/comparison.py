"""The results of a comparison of learning rules, as plain Python data that can be stored as JSON.

Nothing here needs JAX: the stored file alone is enough to draw the report again. The three classes clean their
arguments when they are built (numpy scalars and arrays become Python numbers and lists, every number that is not finite
becomes `math.nan`), so two results are equal exactly when their JSON is.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from vicinal.report.outline import Node
from vicinal.report.palette import check_color
from vicinal.report.presentation import Presentation
from vicinal.report.storage import check_lengths, number, numbers, plain, read_json, set_field, texts, write_json

__all__ = ["CONCATENATED", "Comparison", "Curve", "RuleResult"]

CONCATENATED = "concatenated"
"""The key of `RuleResult.angles` for the angle between all weights at once, joined into one vector."""

_FORMAT = "vicinal-comparison-1"


@dataclasses.dataclass(frozen=True)
class Curve:
    """Measurements along training: one row per seed, one column per recorded step.

    The row of a seed that stopped early ends in `nan`. A quantity that was not recorded is an empty list.

    Args:
        steps: The training steps at which something was recorded, in increasing order; `[points]`.
        test_accuracy: Fraction of the test set classified correctly; `[seeds][points]`.
        test_loss: Mean output loss per test example; `[seeds][points]`.
        train_loss: Mean output loss per training example; `[seeds][points]`.
        more: Other quantities by name (`"test_rmse"`); `[seeds][points]` each.

    Raises:
        ValueError: If a row does not have one number per recorded step.
    """

    steps: list[int]
    test_accuracy: list[list[float]]
    test_loss: list[list[float]]
    train_loss: list[list[float]] = dataclasses.field(default_factory=list)
    more: dict[str, list[list[float]]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        set_field(self, "steps", [int(step) for step in self.steps])
        for name in ("test_accuracy", "test_loss", "train_loss"):
            set_field(self, name, self._cleaned(name, getattr(self, name)))
        set_field(self, "more", {str(name): self._cleaned(name, rows) for name, rows in self.more.items()})
        _check_fractions("Curve.test_accuracy", [value for row in self.test_accuracy for value in row])

    def _cleaned(self, name: str, rows: Iterable[Any]) -> list[list[float]]:
        cleaned = [numbers(row) for row in rows]
        for seed, row in enumerate(cleaned):
            if len(row) != len(self.steps):
                raise ValueError(
                    f"Curve.{name}: seed {seed} has {len(row)} points, but there are {len(self.steps)} "
                    "steps. Fill up a seed that stopped early with nan."
                )
        return cleaned

    def rows(self, name: str) -> list[list[float]]:
        """Return a quantity by its name, a field or a key of `more`; empty if it was not recorded."""
        if name in self.more:
            return self.more[name]
        return {"test_accuracy": self.test_accuracy, "test_loss": self.test_loss, "train_loss": self.train_loss}.get(
            name, []
        )


@dataclasses.dataclass(frozen=True)
class RuleResult:
    """The results of one learning rule, on every seed.

    Args:
        name: Short name, unique within a comparison, such as `"il-prox"`.
        label: Name for people, such as `"inference learning"`.
        paper: The source of the rule, in words; may be empty.
        test_accuracy: Test accuracy at the end of training, as a fraction; `[seeds]`.
        test_loss: Mean output loss per test example at the end of training; `[seeds]`.
        angles: Layer name (and `CONCATENATED`) -> angle in degrees between this rule's update and
            backpropagation's; `[seeds]` each.
        milliseconds_per_step: Median wall time of one training step in milliseconds, or None if not measured.
        steps_to_90: The first training step at which the test accuracy reached 90 %, or None; `[seeds]`.
        curve: Measurements along training.
        energies: Vertex name -> mean energy per example at each inference step, counted from 0; empty for a
            rule that does not settle.
        stopped: One sentence if training ended before its last step, else None.
        stopped_by: The hook that ended training, or None, for example if training diverged.
        color: `"#rrggbb"`, or None to take one from the colour-blind-safe palette.
        paper_link: Address of the paper (`https://...`), or None.
        norm_ratios: As `angles`, the norm of this rule's update over that of backpropagation's; empty in results that
            were stored before it was measured.
        confusion: How many test examples of a class (row) were taken for a class (column) at the end, the mean over the
            seeds that got there; `[classes][classes]`, empty where there are no classes or it was not counted.
        more: Other quantities by name (`"test_rmse"`), at the end of training; `[seeds]` each.
        array_counts: What an update asks of arrays that hold the weights (`ARRAY_COUNTS`), for each example; empty if
            it was not counted.
        presentation: What units sent and held for one test example after training; None for rules without events.

    Raises:
        ValueError: If the seeds do not agree, or a number is outside its range.
    """

    name: str
    label: str
    paper: str
    test_accuracy: list[float]
    test_loss: list[float]
    angles: dict[str, list[float]]
    milliseconds_per_step: float | None
    steps_to_90: list[int | None]
    curve: Curve
    energies: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    stopped: str | None = None
    stopped_by: str | None = None
    color: str | None = None
    paper_link: str | None = None
    norm_ratios: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    confusion: list[list[float]] = dataclasses.field(default_factory=list)
    more: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    array_counts: dict[str, float] = dataclasses.field(default_factory=dict)
    presentation: Presentation | None = None

    def __post_init__(self) -> None:
        milliseconds = number(self.milliseconds_per_step)
        set_field(self, "test_accuracy", numbers(self.test_accuracy))
        set_field(self, "test_loss", numbers(self.test_loss))
        for name in ("angles", "norm_ratios", "more"):
            set_field(self, name, {str(key): numbers(row) for key, row in getattr(self, name).items()})
        set_field(self, "milliseconds_per_step", None if math.isnan(milliseconds) else milliseconds)
        set_field(self, "array_counts", {str(key): number(value) for key, value in self.array_counts.items()})
        set_field(self, "steps_to_90", [_whole(value) for value in self.steps_to_90])
        set_field(self, "confusion", [numbers(row) for row in self.confusion])
        set_field(self, "energies", {str(key): numbers(row) for key, row in self.energies.items()})
        self._check()

    @property
    def seeds(self) -> int:
        """The number of seeds."""
        return len(self.test_accuracy)

    def _check(self) -> None:
        if not self.test_accuracy:
            raise ValueError(f"Rule {self.name!r} has no seeds: test_accuracy is empty. Give one value per seed.")
        per_seed = {"test_loss": self.test_loss, "steps_to_90": self.steps_to_90}
        per_seed |= {f"angles[{key!r}]": row for key, row in self.angles.items()}
        per_seed |= {f"norm_ratios[{key!r}]": row for key, row in self.norm_ratios.items()}
        per_seed |= {f"more[{key!r}]": row for key, row in self.more.items()}
        recorded = ("test_accuracy", "test_loss", "train_loss", *self.curve.more)
        per_seed |= {f"curve.{name}": self.curve.rows(name) or self.test_accuracy for name in recorded}
        for name, row in per_seed.items():
            if len(row) != self.seeds:
                raise ValueError(
                    f"Rule {self.name!r}: test_accuracy has {self.seeds} seeds, {name} has {len(row)}. "
                    "Give one entry per seed, nan where there is none."
                )
        check_lengths(f"Rule {self.name!r}: confusion", self.confusion, len(self.confusion), "count per class", "0")
        _check_fractions(f"Rule {self.name!r}: test_accuracy", self.test_accuracy)
        check_color(f"Rule {self.name!r}", self.color)
        if self.paper_link is not None and not re.match(r"https?://", self.paper_link):
            raise ValueError(
                f"Rule {self.name!r}: paper_link must start with https://, got {self.paper_link!r}. "
                "Use None if there is no link."
            )


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Several learning rules on the same task: everything that the report shows.

    Args:
        title: Heading of the report.
        command: The command line that reproduces these numbers.
        settings: Resolved settings of the run; a value that JSON cannot hold is kept as text.
        environment: Versions, number of cores, machine and the like.
        rules: One result per rule, in the order in which to show them.
        data_credit: Source and licence of the data.
        when: Date and time of the run, as text.
        graph: The nodes of the model that the rules trained (`outline`); empty if it was not stored.
        class_names: Names of the classes; empty if they have none.

    Raises:
        ValueError: If there is no rule, two rules share a name, or a class has a count but no name.

    Example:
        >>> curve = Curve(steps=[0, 10], test_accuracy=[[0.1, 0.9]], test_loss=[[2.3, float("inf")]])
        >>> rule = RuleResult("bp", "backpropagation", "", [0.9], [0.3], {}, 0.5, [10], curve)
        >>> comparison = Comparison("Digits", "vicinal compare", {}, {}, [rule], "", "")
        >>> Comparison.from_json(comparison.to_json()) == comparison
        True
    """

    title: str
    command: str
    settings: dict[str, Any]
    environment: dict[str, Any]
    rules: list[RuleResult]
    data_credit: str
    when: str
    graph: list[Node] = dataclasses.field(default_factory=list)
    class_names: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        set_field(self, "graph", list(self.graph))
        set_field(self, "class_names", texts("Comparison.class_names", self.class_names))
        set_field(self, "settings", plain(self.settings))
        set_field(self, "environment", plain(self.environment))
        set_field(self, "rules", list(self.rules))
        names = [rule.name for rule in self.rules]
        if not names:
            raise ValueError("A comparison needs at least one rule, got none.")
        if len(set(names)) < len(names):
            raise ValueError(f"Rule names must differ within a comparison, got {', '.join(names)}.")
        for rule in self.rules:
            if self.class_names and len(rule.confusion) not in (0, len(self.class_names)):
                raise ValueError(
                    f"Rule {rule.name!r}: expected counts of {len(self.class_names)} classes, as many as there are "
                    f"names, got {len(rule.confusion)}."
                )

    def to_json(self) -> str:
        """Write the comparison as strict JSON, in which a number that is not finite is `null`.

        Returns:
            Text that `from_json` reads.
        """
        return write_json(_FORMAT, self)

    @staticmethod
    def from_json(text: str) -> "Comparison":
        """Read what `to_json` wrote; `null` in place of a number becomes `nan`.

        Args:
            text: The JSON text.

        Returns:
            The comparison.

        Raises:
            ValueError: If the text is not a comparison.
        """
        return read_json(_FORMAT, "comparison", text, _comparison)


def _comparison(fields: dict[str, Any]) -> Comparison:
    nodes = [Node(**node) for node in fields.pop("graph", [])]
    return Comparison(rules=[_rule(rule) for rule in fields.pop("rules")], graph=nodes, **fields)


def _rule(fields: dict[str, Any]) -> RuleResult:
    found = fields.pop("presentation", None)
    presentation = None if found is None else Presentation.from_fields(found)
    return RuleResult(curve=Curve(**fields.pop("curve")), presentation=presentation, **fields)


def _whole(value: Any) -> int | None:
    return None if math.isnan(number(value)) else int(value)


def _check_fractions(name: str, values: Sequence[float]) -> None:
    for value in values:
        if not math.isnan(value) and not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} must hold fractions between 0 and 1, got {value:g} (percent?).")
