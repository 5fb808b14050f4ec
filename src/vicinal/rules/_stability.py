"""Under `DynamicInversion`: is the loop of a controller stable, and if not, what feedback makes it so?

With the units below first, the loop `dv/dt = -v + B u`, `du/dt = W v - leak u - e` has the matrix

    M = [[-1, B], [W, -leak]]

All of this runs on the host, in double precision.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Complex, Float

_SMOOTHING, _RATE, _STEPS, _MARGIN = 0.05, 0.2, 1000, 0.01
_SHRINK = 0.9
_ROUNDING = 1e-9


def loop_matrix(
    weight: Float[np.ndarray, "up down"], feedback: Float[np.ndarray, "down up"], leak: float
) -> Float[np.ndarray, "units units"]:
    """`M`."""
    up, down = weight.shape
    return np.block([[-np.eye(down), feedback], [weight, -leak * np.eye(up)]])


def eigenvalues(
    weight: Float[np.ndarray, "up down"], feedback: Float[np.ndarray, "down up"], leak: float
) -> Complex[np.ndarray, " units"]:
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
    """The eigenvalue that a step of Euler's method amplifies most, and by how much; without steps, that of `exp`."""
    sizes = np.exp(values.real) if step_size is None else np.abs(1 + step_size * values)
    i = int(np.argmax(sizes))
    return complex(values[i]), float(sizes[i])


def grows(values: Complex[np.ndarray, " units"], step_size: float | None) -> bool:
    """Whether something grows; what neither grows nor fades, as errors that no unit below can answer, does not."""
    return worst(values, step_size)[1] > 1 + _ROUNDING


class Smoothed(NamedTuple):
    """A smoothed spectral abscissa.

    Attributes:
        value: The abscissa, above the real part of every eigenvalue.
        gradient: With respect to the feedback, `[down, up]`.
    """

    value: float
    gradient: Float[np.ndarray, "down up"]


def smoothed_abscissa(
    weight: Float[np.ndarray, "up down"],
    feedback: Float[np.ndarray, "down up"],
    leak: float,
    smoothing: float = _SMOOTHING,
) -> Smoothed:
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

    Example:
        >>> import numpy as np
        >>> found = smoothed_abscissa(np.ones((1, 1)), -np.ones((1, 1)), leak=0.0, smoothing=1e-4)
        >>> round(found.value, 2), found.gradient.shape
        (-0.5, (1, 1))

    References:
        Vanbiervliet, Vandereycken, Michiels, Vandewalle and Diehl, The smoothed spectral abscissa for robust stability
        optimization, SIAM Journal on Optimization 20, 2009.
    """
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
        if abs(change) < 1e-12 * (1 + abs(s)):
            break
    down = weight.shape[1]
    return Smoothed(s, (q @ p / slope)[:down, down:])


def _wanted(shape: tuple[int, ...], leak: float, margin: float) -> float:
    """Where all real parts are to be: more units above than below fade by the leak, whatever the feedback."""
    up, down = shape
    return -margin if up <= down else -min(margin, leak / 2)


def _lyapunov(matrix: np.ndarray) -> np.ndarray:
    """`X` with `matrix X + X matrix^T + 1 = 0`."""
    return np.asarray(scipy.linalg.solve_continuous_lyapunov(matrix, -np.eye(len(matrix))))


def stabilise(
    weight: Float[np.ndarray, "up down"],
    feedback: Float[np.ndarray, "down up"],
    leak: float,
    *,
    step_size: float | None = None,
    margin: float = _MARGIN,
    smoothing: float = _SMOOTHING,
    learning_rate: float = _RATE,
    steps: int = _STEPS,
) -> Float[np.ndarray, "down up"]:
    """Changes the feedback as far as it takes for the loop to be stable: it descends the smoothed spectral abscissa.

    Where the loop is stable but Euler's steps are too long for it, the feedback shrinks. A leak alone holds what has
    no way back through fewer units below; then the margin is at most half the leak.

    Args:
        weight: `W`, `[up, down]`.
        feedback: `B`, `[down, up]`, where to start.
        leak: Of the controller.
        step_size: Of Euler's method; None for continuous time.
        margin: How far below 0 all real parts are to be; with steps, how much of what is wrong each unit of time is to
            take away.
        smoothing: As in `smoothed_abscissa`.
        learning_rate: Of the descent.
        steps: At most so many.

    Returns:
        Feedback with which the loop is stable; what it was if that is so already. After the last step, where it got.

    Example:
        >>> import numpy as np
        >>> generator = np.random.default_rng(0)
        >>> weight, feedback = generator.normal(size=(4, 6)), generator.normal(size=(6, 4))
        >>> before, after = feedback, stabilise(weight, feedback, leak=0.0)
        >>> [bool(np.max(np.linalg.eigvals(weight @ b).real) < 0) for b in (before, after)]
        [False, True]
    """
    wanted = _wanted(weight.shape, leak, margin)
    for _ in range(steps):
        found = eigenvalues(weight, feedback, leak)
        if np.max(found.real) > wanted:
            feedback = feedback - learning_rate * smoothed_abscissa(weight, feedback, leak, smoothing).gradient
        elif step_size is not None and worst(found, step_size)[1] > 1 + step_size * wanted + _ROUNDING:
            feedback = _SHRINK * feedback
        else:
            break
    return feedback


def repaired(
    weight: Float[Array, "up down"], feedback: Float[Array, "down up"], leak: Array, step_size: Array
) -> Float[Array, "down up"]:
    """The feedback, changed by `stabilise` where less than half its margin is left; may be traced: the host does it."""

    def on_host(weight: Array, feedback: Array, leak: Array, step_size: Array) -> np.ndarray:
        matrices, dtype = (np.asarray(weight, float), np.asarray(feedback, float)), np.asarray(feedback).dtype
        leak_, step_size_ = float(leak), float(step_size)
        finite = all(np.isfinite(matrix).all() for matrix in matrices)
        limit = 1 + step_size_ * _wanted(weight.shape, leak_, _MARGIN) / 2
        if finite and worst(eigenvalues(*matrices, leak_), step_size_)[1] > limit + _ROUNDING:
            return stabilise(*matrices, leak_, step_size=step_size_).astype(dtype)
        return np.asarray(feedback)

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
