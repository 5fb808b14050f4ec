"""Under `DynamicInversion`: is the loop of a controller stable, and if not, what feedback makes it so?

With the units below first, the loop `dv/dt = -v + B u`, `du/dt = W v - leak u - e` has the matrix

    M = [[-1, B], [W, -leak]]

All of this runs on the host, in double precision.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from vicinal._numbers import check, check_count

_SMOOTHING, _RATE, _STEPS, _MARGIN = 0.05, 0.2, 1000, 0.01
_SHRINK, _PATIENCE, _LEAST_FALL = 0.9, 50, 1e-4
_ROUNDING = 1e-9

Weight = Float[np.ndarray, "up down"]
Feedback = Float[np.ndarray, "down up"]


def loop_matrix(weight: Weight, feedback: Feedback, leak: float) -> Float[np.ndarray, "units units"]:
    """`M`."""
    up, down = weight.shape
    return np.block([[-np.eye(down), feedback], [weight, -leak * np.eye(up)]])


def eigenvalues(weight: Weight, feedback: Feedback, leak: float) -> Complex[np.ndarray, " units"]:
    """All eigenvalues of `M`, from those of `W B` or `B W`, whichever is smaller.

    Each eigenvalue `m` of the product gives two, by `(lambda + 1)(lambda + leak) = m`. What is left is -1 below, or
    minus the leak above, as often as one side has more units than the other.
    """
    up, down = weight.shape
    products = np.linalg.eigvals(weight @ feedback if up <= down else feedback @ weight).astype(complex)
    middle, root = -(1 + leak) / 2, np.sqrt((1 - leak) ** 2 / 4 + products)
    rest = np.full(abs(down - up), -1.0 if down > up else -leak, complex)
    return np.concatenate([middle + root, middle - root, rest])


def worst(values: Complex[np.ndarray, " units"], step_size: float | None) -> tuple[complex, float]:
    """The eigenvalue that grows most, and how fast: `(|1 + step_size lambda| - 1) / step_size`; without steps `Re`."""
    rates = values.real if step_size is None else (np.abs(1 + step_size * values) - 1) / step_size
    i = int(np.argmax(rates))
    return complex(values[i]), float(rates[i])


def grows(values: Complex[np.ndarray, " units"], step_size: float | None) -> bool:
    """Whether something grows; what neither grows nor fades, as errors that no unit below can answer, does not."""
    return worst(values, step_size)[1] > _ROUNDING


def longest_step(values: Complex[np.ndarray, " units"]) -> float:
    """Below this Euler's method is stable, as `|1 + h lambda| < 1`; 0 if no step is. What rests (lambda = 0) may."""
    moving = values[np.abs(values) > _ROUNDING]
    return max(0.0, float(np.min(-2 * moving.real / np.abs(moving) ** 2, initial=np.inf)))


class Smoothed(NamedTuple):
    """A smoothed spectral abscissa.

    Attributes:
        value: The abscissa, above the real part of every eigenvalue.
        gradient: With respect to the feedback, `[down, up]`.
    """

    value: float
    gradient: Feedback


def smoothed_abscissa(weight: Weight, feedback: Feedback, leak: float, smoothing: float = _SMOOTHING) -> Smoothed:
    """The smoothed spectral abscissa of a loop, and its gradient with respect to the feedback.

    It is the number `s` at which the response of `M - s`, over all time, has a given size:

        (M - s) P + P (M - s)^T + 1 = 0,    trace P = 1 / smoothing
        (M - s)^T Q + Q (M - s) + 1 = 0,    ds/dM = Q P / trace(Q P)

    It lies above the largest real part by at least `smoothing / 2`, and unlike that it has a gradient everywhere.

    Args:
        weight: `W`, `[up, down]`.
        feedback: `B`, `[down, up]`.
        leak: Of the controller.
        smoothing: Above 0; with less, it lies nearer to the largest real part.

    Returns:
        The abscissa and its gradient.

    Raises:
        ValueError: If the matrices make no loop or are not finite, or a number is out of its range.

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
    """`X` with `matrix X + X matrix^T + 1 = 0`."""
    from scipy.linalg import solve_continuous_lyapunov  # slow to import, and only needed here

    return np.asarray(solve_continuous_lyapunov(matrix, -np.eye(len(matrix))))


class Stabilised(NamedTuple):
    """What `stabilise` came to.

    Attributes:
        feedback: `B`, `[down, up]`.
        growth: What the loop grows by in a unit of time, below 0 if it is stable: the largest real part of its
            eigenvalues; with steps, the largest of `(|1 + step_size lambda| - 1) / step_size`.
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
    margin: float = _MARGIN,
    smoothing: float = _SMOOTHING,
    learning_rate: float = _RATE,
    steps: int = _STEPS,
) -> Stabilised:
    """Changes the feedback until a loop is stable, where it can: it descends the smoothed spectral abscissa.

    Where Euler's steps are too long for the loop, the feedback then shrinks: if it is short enough, a loop is stable
    that has a leak, or is stable in continuous time.

    Without a leak this may fail, and says so: what weights near zero should answer fades by long feedback alone. With
    one, it is the leak by which that fades, as does what has no way back through fewer units below; then the margin is
    half the leak at most. Each step decomposes matrices of all units of the loop, in seconds for some hundreds.

    Args:
        weight: `W`, `[up, down]`.
        feedback: `B`, `[down, up]`, where to start.
        leak: Of the controller.
        step_size: Of Euler's method; None for continuous time.
        margin: How far below 0 the loop's growth is to be.
        smoothing: As in `smoothed_abscissa`.
        learning_rate: Of the descent.
        steps: At most so many. It ends before where fifty of them make no difference.

    Returns:
        The feedback, which is that given if the loop has its margin; and how stable the loop is with it.

    Raises:
        ValueError: If the matrices make no loop or are not finite, or a number is out of its range.

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
    check_count("steps", steps, 1)
    weight, feedback = checked(weight, feedback, leak, step_size)
    alone = leak == 0 and weight.shape[0] <= weight.shape[1]  # nothing but the feedback makes errors fade
    enough = _ROUNDING - (margin if alone else min(margin, leak / 2))

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
    can = leak > 0 or growth(feedback, None) <= _ROUNDING  # what grows without steps and a leak, it would only slow
    while step_size is not None and can and found > enough:
        after = growth(_SHRINK * feedback, step_size)
        if after >= found:
            break
        feedback, found = _SHRINK * feedback, after
    return Stabilised(feedback, found, found <= enough)


def checked(
    weight: Any, feedback: Any, leak: float = 0.0, step_size: float | None = None, name: str | None = None
) -> tuple[Weight, Feedback]:
    """The matrices of a loop in double precision, once they are seen to make one."""
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


def repaired(
    weight: Float[Array, "up down"], feedback: Float[Array, "down up"], leak: Array, step_size: Array
) -> Float[Array, "down up"]:
    """The feedback, changed by `stabilise` where its loop grows, or fades by less than a quarter of the leak.

    May be traced: the host does it. What is not finite is left as it is.
    """

    def on_host(weight: Array, feedback: Array, leak: Array, step_size: Array) -> np.ndarray:
        before, leak_, step_size_ = np.asarray(feedback), float(leak), float(step_size)
        matrices = np.asarray(weight, float), np.asarray(before, float)
        if not all(np.isfinite(matrix).all() for matrix in matrices):
            return before
        if worst(eigenvalues(*matrices, leak_), step_size_)[1] <= _ROUNDING - min(_MARGIN, leak_ / 2) / 2:
            return before
        return stabilise(*matrices, leak_, step_size=step_size_).feedback.astype(before.dtype)

    result = jax.ShapeDtypeStruct(feedback.shape, feedback.dtype)
    return jax.pure_callback(on_host, result, weight, feedback, leak, step_size, vmap_method="sequential")


def closed_form(
    weight: Float[Array, "up down"], feedback: Float[Array, "down up"], leak: Array, error: Float[Array, "batch up"]
) -> Float[Array, "batch down"]:
    """Where the controller comes to rest: `B (W B - leak)^-1 e`, or `(B W - leak)^-1 B e` where that is smaller."""
    up, down = weight.shape
    if up <= down:
        return jnp.linalg.solve(weight @ feedback - leak * jnp.eye(up, dtype=weight.dtype), error.T).T @ feedback.T
    return jnp.linalg.solve(feedback @ weight - leak * jnp.eye(down, dtype=weight.dtype), feedback @ error.T).T
