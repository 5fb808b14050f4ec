"""A single run, as `fit` passes it to the training loop."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from vicinal.train.advance import Parts, TrainingState, advance, may_be_infinite
from vicinal.train.batches import ArraySource, IterableSource
from vicinal.train.files import CHECKPOINT
from vicinal.train.members import Members
from vicinal.train.needs import check_steps
from vicinal.train.options import Schedule


class Single(Members):
    """A single run, on arrays or on batches from any iterable.

    Args:
        parts: Rule, graph, optimiser, and the metrics in training.
        source: The source of batches.
        first: The state before the first step.
        evaluators: For each evaluation set, by its name in records, a function that measures a model on it.
        schedule: When the run ends.
    """

    ids, numbers, file, has_pace = (None,), ({},), CHECKPOINT, True

    def __init__(
        self,
        parts: Parts,
        source: ArraySource | IterableSource,
        first: TrainingState,
        evaluators: dict[str, Callable[[PyTree], dict[str, float]]],
        schedule: Schedule,
    ):
        self._parts, self._source, self._evaluators, self._steps = parts, source, evaluators, schedule.steps
        self._state, self._live, self._exempt = first, True, may_be_infinite(first)
        self.metrics, self.examples_per_step, self._fits = parts[3], 0, False

    @property
    def live(self) -> np.ndarray:
        return np.array([self._live])

    def steps(self) -> np.ndarray:
        return np.array([int(self._state.step)])

    def state(self, row: int = 0) -> TrainingState:
        return self._state

    def advance(self, step: int, count: int) -> tuple[int, dict[int, str]]:
        """Takes up to `count` steps, or as many as the data and finite numbers allow."""
        found = self._source.chunk(step, count)
        if found is None:
            self._live = False
            return 0, {0: f"the data ended after {step} of {self._steps} steps; give an iterable that can start again"}
        batches, index, count = found
        self.examples_per_step = self._source.examples_in(batches)
        if not self._fits:
            check_steps((*self._parts, batches), self._state, self._exempt, self.examples_per_step)
            self._fits = True
        self._state, reason = advance((*self._parts, batches), self._state, index, count, self._exempt)
        self._live = reason is None
        return int(self._state.step) - step, {} if reason is None else {0: reason}

    def sums(self) -> list[dict[str, Any]]:
        return [self._state.sums]

    def reset_sums(self) -> None:
        self._state = dataclasses.replace(self._state, sums=jax.tree.map(jnp.zeros_like, self._state.sums))

    def evaluate(self) -> list[dict[str, float]]:
        model = self._state.model
        measured = {name: evaluate(model) for name, evaluate in self._evaluators.items()}
        return [{f"{name}_{metric}": value for name, found in measured.items() for metric, value in found.items()}]

    def stop(self, rows: list[int]) -> None:
        self._live = False

    def mark(self) -> Any:
        return self._state, self._live

    def back_to(self, mark: Any) -> None:
        self._state, self._live = mark

    def saved(self) -> tuple[PyTree, dict[str, Any]]:
        return self._state, {}

    def restore(self, saved: PyTree, metadata: dict[str, Any]) -> None:
        """Restores a state; a run that stopped may continue with other hooks or data."""
        self._state, self._live = saved, True
