"""For `DynamicInversion`: finds feedback that makes a loop stable, by descent of the smoothed spectral abscissa.

All of this runs on the host, in double precision.
"""

from typing import NamedTuple

import numpy as np

from vicinal._numbers import check, check_turns
from vicinal.rules.inversion._eigenvalues import ROUNDING, Feedback, Weight, checked, eigenvalues, loop_matrix, worst

MARGIN = 0.01
"""How far below 0 the growth of a loop is to be, in units of its time constant."""
_SMOOTHING, _RATE, _STEPS = 0.05, 0.2, 1000
_SHRINK, _PATIENCE, _LEAST_FALL = 0.9, 50, 1e-4


class Smoothed(NamedTuple):
    """A smoothed spectral abscissa.

    Attributes:
        value: The abscissa, above the real part of every eigenvalue.
        gradient: With respect to the feedback, `[down, up]`.
    """

    value: float
    gradient: Feedback


def smoothed_abscissa(weight: Weight, feedback: Feedback, leak: float, smoothing: float = _SMOOTHING) -> Smoothed:
    """Computes the smoothed spectral abscissa of a loop, and its gradient with respect to the feedback.

    It is the number `s` at which the response of `M - s`, over all time, has a given size:

        (M - s) P + P (M - s)^T + 1 = 0,    trace P = 1 / smoothing
        (M - s)^T Q + Q (M - s) + 1 = 0,    ds/dM = Q P / trace(Q P)

    It lies above the largest real part of the eigenvalues by at least `smoothing / 2`, and unlike that it is
    differentiable everywhere.

    Args:
        weight: `W`, `[up, down]`.
        feedback: `B`, `[down, up]`.
        leak: Leak of the controller.
        smoothing: Above 0; the smaller, the nearer the result is to the largest real part.

    Returns:
        The abscissa and its gradient.

    Raises:
        ValueError: If the matrices do not form a loop or are not finite, or a number is out of its range.

    Example:
        >>> import numpy as np
        >>> found = smoothed_abscissa(np.ones((1, 1)), -np.ones((1, 1)), leak=0.0, smoothing=1e-4)
        >>> round(found.value, 2), found.gradient.shape
        (-0.5, (1, 1))

    References:
        Vanbiervliet, Vandereycken, Michiels, Vandewalle and Diehl, The smoothed spectral abscissa for robust stability
        optimization, SIAM Journal on Optimization 20, 2009.
    """
    weight, feedback = checked(weight, feedback, leak)
    check("the smoothing", smoothing, lambda v: v > 0, "above 0")
    matrix, identity = loop_matrix(weight, feedback, leak), np.eye(sum(weight.shape))
    s = float(np.max(eigenvalues(weight, feedback, leak).real)) + smoothing / 2  # it is no lower
    for _ in range(100):
        shifted = matrix - s * identity
        p = _lyapunov(shifted)
        q = _lyapunov(shifted.T)
        size, slope = float(np.trace(p)), float(np.sum(q * p.T))
        # Newton's method on 1/trace(P), which is nearly straight.
        change = (smoothing - 1 / size) * size**2 / (2 * slope)
        s += change
        if abs(change) < 1e-8 * (1 + abs(s)):  # what is left is the square of this
            break
    down = weight.shape[1]
    return Smoothed(s, (q @ p / slope)[:down, down:])


def _lyapunov(matrix: np.ndarray) -> np.ndarray:
    """Solves `matrix X + X matrix^T + 1 = 0`."""
    from scipy.linalg import solve_continuous_lyapunov  # slow to import

    return np.asarray(solve_continuous_lyapunov(matrix, -np.eye(len(matrix))))


class Stabilised(NamedTuple):
    """The result of `stabilise`.

    Attributes:
        feedback: `B`, `[down, up]`.
        growth: Growth rate of the loop, below 0 if it is stable: the largest real part of its eigenvalues; with a step
            size, the largest of `(|1 + step_size lambda| - 1) / step_size`.
        reached: Whether the loop has its margin.
    """

    feedback: Feedback
    growth: float
    reached: bool


def stabilise(
    weight: Weight,
    feedback: Feedback,
    leak: float,
    *,
    step_size: float | None = None,
    margin: float = MARGIN,
    smoothing: float = _SMOOTHING,
    learning_rate: float = _RATE,
    steps: int = _STEPS,
) -> Stabilised:
    """Changes the feedback until a loop is stable, by descent of the smoothed spectral abscissa.

    If Euler's steps are then too long for the loop, the feedback is scaled down: with small enough feedback, every loop
    is stable that has a leak or is stable in continuous time.

    Without a leak this may fail, which `reached` reports: where weights are near zero, errors fade only if feedback is
    large. With a leak, they fade by the leak, as do errors that have no way back through fewer units below; the margin
    is then at most half the leak. Each step decomposes matrices over all units of the loop, which takes seconds for
    some hundreds of units.

    Args:
        weight: `W`, `[up, down]`.
        feedback: `B`, `[down, up]`, to start from.
        leak: Leak of the controller.
        step_size: Step size of Euler's method. None: continuous time.
        margin: The growth of the loop is to be below minus this.
        smoothing: As in `smoothed_abscissa`.
        learning_rate: Learning rate of the descent.
        steps: Largest number of steps. The descent stops early if fifty steps make no progress.

    Returns:
        The feedback, unchanged if the loop already has its margin; and the stability of the loop with it.

    Raises:
        ValueError: If the matrices do not form a loop or are not finite, or a number is out of its range.

    Example:
        >>> import numpy as np
        >>> generator = np.random.default_rng(0)
        >>> weight, feedback = generator.normal(size=(4, 6)), generator.normal(size=(6, 4))
        >>> found = stabilise(weight, feedback, leak=0.0)
        >>> found.reached
        True
        >>> [bool(np.max(np.linalg.eigvals(weight @ b).real) < 0) for b in (feedback, found.feedback)]
        [False, True]
    """
    numbers = {"margin": margin, "smoothing": smoothing, "learning rate": learning_rate}
    for name, value in numbers.items():
        check(f"the {name}", value, lambda v: v > 0, "above 0")
    check_turns("steps", steps, 1)
    weight, feedback = checked(weight, feedback, leak, step_size)
    alone = leak == 0 and weight.shape[0] <= weight.shape[1]  # nothing but the feedback makes errors fade
    enough = ROUNDING - (margin if alone else min(margin, leak / 2))

    def growth(feedback: Feedback, step_size: float | None) -> float:
        return worst(eigenvalues(weight, feedback, leak), step_size)[1]

    if growth(feedback, step_size) > enough:
        last = np.inf
        for i in range(steps):
            now = growth(feedback, None)
            if now <= enough or (i % _PATIENCE == 0 and now > last - _LEAST_FALL):
                break
            last = now if i % _PATIENCE == 0 else last
            feedback = feedback - learning_rate * smoothed_abscissa(weight, feedback, leak, smoothing).gradient
    found = growth(feedback, step_size)
    can = leak > 0 or growth(feedback, None) <= ROUNDING  # what grows without steps and a leak, it would only slow
    while step_size is not None and can and found > enough:
        after = growth(_SHRINK * feedback, step_size)
        if after >= found:
            break
        feedback, found = _SHRINK * feedback, after
    return Stabilised(feedback, found, found <= enough)
