"""For `DynamicInversion`: whether the loop of a controller is stable, by its eigenvalues.

With the units below first, the loop `dv/dt = -v + B u`, `du/dt = W v - leak u - e` has the matrix

    M = [[-1, B], [W, -leak]]

All of this runs on the host, in double precision.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Complex, Float

from vicinal._memory import check_room
from vicinal._numbers import check

ROUNDING = 1e-9
"""Rates below this count as 0."""

Weight = Float[np.ndarray, "up down"]
Feedback = Float[np.ndarray, "down up"]


class LoopMatrices(NamedTuple):
    """A loop on the host, in double precision.

    Attributes:
        vertex: The lowest vertex of the loop.
        weight: `W`, `[up, down]`.
        feedback: `B`, `[down, up]`.
        leak: Leak of the controller.
        step_size: Of Euler's method, in time constants of the units below.
    """

    vertex: str
    weight: Weight
    feedback: Feedback
    leak: float
    step_size: float


def loop_matrix(weight: Weight, feedback: Feedback, leak: float) -> Float[np.ndarray, "units units"]:
    """Returns `M`; raises MemoryError if it certainly does not fit into memory."""
    up, down = weight.shape
    units = up + down
    check_room(8 * units**2, f"the matrix of a loop, [{units}, {units}]", "take smaller layers")
    return np.block([[-np.eye(down), feedback], [weight, -leak * np.eye(up)]])


def eigenvalues(weight: Weight, feedback: Feedback, leak: float) -> Complex[np.ndarray, " units"]:
    """Computes all eigenvalues of `M`, from those of `W B` or `B W`, whichever is smaller.

    Each eigenvalue `m` of the product gives two, by `(lambda + 1)(lambda + leak) = m`. Each further unit on the wider
    side gives one more: -1 below, or minus the leak above.
    """
    up, down = weight.shape
    check_room(8 * min(up, down) ** 2, f"the product of a loop of {up} and {down} units", "take smaller layers")
    products = np.linalg.eigvals(weight @ feedback if up <= down else feedback @ weight).astype(complex)
    middle, root = -(1 + leak) / 2, np.sqrt((1 - leak) ** 2 / 4 + products)
    rest = np.full(abs(down - up), -1.0 if down > up else -leak, complex)
    return np.concatenate([middle + root, middle - root, rest])


def worst(values: Complex[np.ndarray, " units"], step_size: float | None) -> tuple[complex, float]:
    """Finds the fastest-growing eigenvalue and its rate: `(|1 + step_size lambda| - 1) / step_size`, or `Re lambda`."""
    rates = values.real if step_size is None else (np.abs(1 + step_size * values) - 1) / step_size
    i = int(np.argmax(rates))
    return complex(values[i]), float(rates[i])


def grows(values: Complex[np.ndarray, " units"], step_size: float | None) -> bool:
    """Whether a loop grows. Modes that neither grow nor fade, as errors that no unit below can answer, do not."""
    return worst(values, step_size)[1] > ROUNDING


def longest_step(values: Complex[np.ndarray, " units"]) -> float:
    """Returns the step size below which `|1 + h lambda| < 1` for all eigenvalues but 0; 0 if there is none."""
    moving = values[np.abs(values) > ROUNDING]
    return max(0.0, float(np.min(-2 * moving.real / np.abs(moving) ** 2, initial=np.inf)))


def checked(
    weight: Any, feedback: Any, leak: float = 0.0, step_size: float | None = None, name: str | None = None
) -> tuple[Weight, Feedback]:
    """Checks the matrices of a loop and returns them in double precision."""
    where = "" if name is None else f" at vertex {name!r}"
    matrices = np.asarray(weight, float), np.asarray(feedback, float)
    if matrices[0].ndim != 2 or matrices[1].shape != matrices[0].shape[::-1]:
        raise ValueError(
            f"expected a weight [up, down] and feedback [down, up] of the loop{where}, got shapes "
            f"{matrices[0].shape} and {matrices[1].shape}"
        )
    for words, matrix in zip(("weights", "feedback"), matrices, strict=True):
        if not np.all(np.isfinite(matrix)):
            raise ValueError(
                f"expected finite {words} in the loop{where}, got {np.sum(~np.isfinite(matrix))} numbers that are not; "
                "a loop with them has no eigenvalues"
            )
    check("the leak", leak, lambda v: v >= 0, "of at least 0")
    check("the step size", step_size, lambda v: v > 0, "above 0")
    return matrices
