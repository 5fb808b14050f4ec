"""The result of every task on sequences, and draws that the tasks share."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vicinal._counted import counted

NOT_COUNTED = -1
"""The target at a step where the loss does not count (`vicinal.losses.masked_softmax_cross_entropy`)."""


@dataclass(frozen=True, eq=False, repr=False)
class Sequences:
    """Examples of one length: what a model reads at each step, and its target there.

    Args:
        inputs: Tokens `[examples, time]`, int32; or vectors `[examples, time, features]`, float32.
        targets: The token to predict at each step `[examples, time]`, int32; `NOT_COUNTED` where none is.
        mask: Where the loss counts, `[examples, time]`.
        value_tokens: How many counted steps, one after the other, spell one value.

    Raises:
        ValueError: If shapes do not belong together, the mask and the targets disagree, or values are cut.

    Example:
        >>> tokens, targets = np.array([[5, 6, 7]]), np.array([[-1, 7, 8]])
        >>> Sequences(tokens, targets, targets >= 0)
        Sequences(1 example of 3 steps, 2 of them counted)
    """

    inputs: Int[np.ndarray, "examples time"] | Float[np.ndarray, "examples time features"]
    targets: Int[np.ndarray, "examples time"]
    mask: Bool[np.ndarray, "examples time"]
    value_tokens: int = 1

    def __post_init__(self) -> None:
        if not self.inputs.shape[:2] == self.targets.shape == self.mask.shape:
            raise ValueError(
                "expected inputs [examples, time, ...] with targets and mask [examples, time], got "
                f"{self.inputs.shape}, {self.targets.shape} and {self.mask.shape}; give one target for each step"
            )
        if not np.array_equal(self.mask, self.targets != NOT_COUNTED):
            raise ValueError(f"expected targets of {NOT_COUNTED} exactly where the mask is False")
        counted = self.mask.sum(axis=1)
        if np.any(counted % self.value_tokens):
            raise ValueError(
                f"expected values of {self.value_tokens} tokens, got {counted[counted % self.value_tokens > 0][0]} "
                "counted steps in an example; count all tokens of a value"
            )

    def __repr__(self) -> str:
        examples, time = self.targets.shape
        steps = self.mask.sum(axis=1)
        least, most = (steps.min(), steps.max()) if examples else (0, 0)
        which = f"{least}" if least == most else f"{least} to {most}"
        return f"Sequences({counted(examples, 'example')} of {time} steps, {which} of them counted)"


def distinct(generator: np.random.Generator, examples: int, count: int, low: int, high: int) -> np.ndarray:
    """For each example, `count` different integers from `low` to `high - 1`, in random order; `[examples, count]`."""
    rows = [generator.choice(high - low, count, replace=False) for _ in range(examples)]
    return low + np.array(rows, np.int64).reshape(examples, count)


def passes(generator: np.random.Generator, examples: int, count: int, length: int) -> np.ndarray:
    """Indices below `count`, all of them in a random order, then all in another, ...; `[examples, length]`."""
    rounds = np.tile(np.arange(count), (examples, -(-length // count), 1))
    return generator.permuted(rounds, axis=2).reshape(examples, -1)[:, :length]


def next_token(stream: np.ndarray, counted: np.ndarray, value_tokens: int) -> Sequences:
    """Sequences whose counted tokens are predicted one step earlier; both arrays `[examples, time + 1]`."""
    mask = counted[:, 1:]
    targets = np.where(mask, stream[:, 1:], NOT_COUNTED)
    return Sequences(stream[:, :-1].astype(np.int32), targets.astype(np.int32), mask, value_tokens)
