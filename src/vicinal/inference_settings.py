"""The settings of how activities settle, as plain data."""

import dataclasses
from typing import Any, Literal

from vicinal.inference import Adaptive, ErrorBased, Inference, Sequential, Simultaneous
from vicinal.rules import Rule


@dataclasses.dataclass(frozen=True)
class InferenceSettings:
    """How activities settle, for rules that settle; by default the recipe's settings."""

    strategy: Literal["simultaneous", "sequential", "error-based", "adaptive"] | None = None
    """Strategy of inference learning; settings that both strategies share are taken from the recipe's."""
    steps: int | None = None
    """Inference steps per update."""
    step_size: float | None = None
    """Step size of the activities."""
    decay: bool | None = None
    """Whether to divide step t, counted from 0, by 1 + t."""
    momentum: float | None = None
    """Momentum of the activities, in [0, 1)."""
    tolerance: float | None = None
    """Stop inference for an example when none of its activities moves faster than this."""
    order: Literal["sequential", "simultaneous"] | None = None
    """Whether errors relax from the output down or all at once (fixed prediction, activation relaxation)."""
    nudge: float | None = None
    """How far the output is pulled to the target, in (0, 1]; 1 clamps it."""
    start: Literal["feedforward", "random"] | None = None
    """Initial values of the activities."""
    precision: float | None = None
    """Precision of every vertex."""
    average: float | None = None
    """The last part of the inference steps over which the local product is averaged, from 0 to 1; by default 0, the end
    alone."""
    positive: bool | None = None
    """Whether activities are firing rates, which cannot be negative."""
    output_norm: Literal["example", "mean", "sum"] | None = None
    """How a proximal output takes its presynaptic norm; summing over the batch is a slip of the published code."""

    def given(self) -> dict[str, Any]:
        """The settings given here, by name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    def apply(self, rule: Rule) -> Rule:
        """Replaces settings of a rule by those given here; ignores those that the rule does not use.

        Raises:
            ValueError: If the chosen strategy does not use a setting of the recipe.
        """
        chosen = self.given()
        changed = _read(type(rule), chosen)
        if (inference := getattr(rule, "inference", None)) is not None:
            kind = self._strategy(inference)
            settled = kind(**_read(kind, vars(inference) | chosen))
            changed |= {"inference": settled} if self.strategy or _read(kind, chosen) else {}
        if (inversion := getattr(rule, "inversion", None)) is not None:
            changed |= {"inversion": dataclasses.replace(inversion, **_read(type(inversion), chosen))}
        if self.output_norm and (proximal := getattr(rule, "proximal", None)) is not None:
            changed |= {"proximal": dataclasses.replace(proximal, norm=self.output_norm)}
        return dataclasses.replace(rule, **changed) if changed else rule

    def read_by(self, rule: Rule) -> set[str]:
        """The names of the settings given here that the rule uses."""
        inference = getattr(rule, "inference", None)
        names = {*_read(type(rule), self.given())}
        names |= set() if inference is None else {"strategy", *_read(self._strategy(inference), self.given())}
        inversion = getattr(rule, "inversion", None)
        names |= set() if inversion is None else {*_read(type(inversion), self.given())}
        names |= {"output_norm"} if getattr(rule, "proximal", None) is not None else set()
        return names & set(self.given())

    def _strategy(self, inference: Inference) -> type[Inference]:
        kind = _STRATEGIES[self.strategy] if self.strategy else type(inference)
        reads = {field.name for field in dataclasses.fields(kind)}
        for name, neutral in (("pull", 1.0), ("momentum", None), ("positive", False)):
            own = getattr(inference, name, neutral)
            if name not in reads and own is not None and own != neutral:
                raise ValueError(f"expected a strategy that reads {name}, which the recipe sets, got {self.strategy}")
        return kind


_STRATEGIES = {
    "simultaneous": Simultaneous,
    "sequential": Sequential,
    "error-based": ErrorBased,
    "adaptive": Adaptive,
}


def _read(kind: Any, values: dict[str, Any]) -> dict[str, Any]:
    """The values whose names are fields of a dataclass."""
    return {field.name: values[field.name] for field in dataclasses.fields(kind) if field.name in values}
