"""The settings of rules whose units send events, as plain data."""

import dataclasses
from typing import Any, Literal

from vicinal.events import Code, Cyclic, Graded, Ternary
from vicinal.rules import EventBackprop, EventInferenceLearning, Rule, SpikingInferenceLearning

_CODES = {"graded": Graded, "ternary": Ternary, "cyclic": Cyclic}
_OF_CODES = ("threshold", "error_threshold", "code", "relative")
_OF_TIME = ("learn", "part", "steps", "step_size")
_READ_BY = {
    EventInferenceLearning: (*_OF_CODES, *_OF_TIME),
    EventBackprop: ("threshold", "error_threshold", "relative"),  # its units send once, in a graded code
    SpikingInferenceLearning: _OF_TIME,  # its spikes are set by paths, such as --set activity.area=0.5
}
_PLACES = {
    "threshold": ("activity.threshold",),
    "error_threshold": ("error.threshold",),
    "relative": ("activity.relative", "error.relative"),
} | {name: (name,) for name in _OF_TIME}


@dataclasses.dataclass(frozen=True)
class EventSettings:
    """How units send events, for rules in which they do; by default the recipe's settings."""

    threshold: float | None = None
    """The smallest change of a value that is sent; the size of an event in a ternary code, the finest in a cyclic
    one."""
    error_threshold: float | None = None
    """The same for errors; by default the part of the threshold of values that it is in the recipe (a quarter)."""
    code: Literal["graded", "ternary", "cyclic"] | None = None
    """Events of any size, of one size up or down, or of sizes that go from coarse to fine."""
    relative: bool | None = None
    """Whether thresholds are parts of the largest magnitude that a unit of the same vertex has held."""
    learn: Literal["end", "any", "mean", "every"] | None = None
    """When weights learn: when settling ends, at a random one of the last steps, from the mean over them, or at every
    step."""
    part: float | None = None
    """The last part of the steps from which one is drawn, or over which the mean is taken, above 0 to 1."""
    steps: int | None = None
    """Inference steps per update."""
    step_size: float | None = None
    """Step size of the activities."""

    def given(self) -> dict[str, Any]:
        """The settings given here, by name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    def read_by(self, rule: Rule) -> set[str]:
        """The names of the settings given here that the rule uses."""
        return {name for kind, names in _READ_BY.items() if isinstance(rule, kind) for name in names} & {*self.given()}

    def places(self) -> list[str]:
        """Where the settings given here are in a rule, as paths of numbers of a recipe."""
        return [path for name in self.given() for path in _PLACES.get(name, ())]

    def apply(self, rule: Rule) -> Rule:
        """Replaces settings of a rule by those given here; ignores those that the rule does not use.

        Raises:
            ValueError: If a setting is out of its range.
        """
        read, values = self.read_by(rule), self.given()
        changed = {name: values[name] for name in _OF_TIME if name in read}
        if isinstance(rule, EventInferenceLearning | EventBackprop) and read & {*_OF_CODES}:
            activity, error = rule.activity.threshold, rule.error.threshold
            if self.threshold is not None:
                activity, error = self.threshold, error / activity * self.threshold
            error = error if self.error_threshold is None else self.error_threshold
            code = self.code if "code" in read else None
            changed |= {"activity": self._coded(rule.activity, activity, code)}
            changed |= {"error": self._coded(rule.error, error, code)}
        return dataclasses.replace(rule, **changed) if changed else rule

    def _coded(self, own: Code, threshold: Any, code: str | None) -> Code:
        relative = own.relative if self.relative is None else self.relative
        if code is None:
            return dataclasses.replace(own, threshold=threshold, relative=relative)
        return _CODES[code](threshold, relative, own.initial)


def check_begun_anew(rule: Rule) -> None:
    """Raises ValueError if units go on from one batch to the next: here batches are drawn at random, not of streams."""
    if getattr(rule, "carry", False):
        raise ValueError(
            "expected a rule that begins each batch anew, since examples are drawn at random, got carry=true; leave it "
            "out, or train on batches in the order of their streams with vicinal.train.fit"
        )
