"""What `DynamicInversion` does about loops that are unstable: refuse them, allow them, or change their feedback."""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from vicinal._show import module_text
from vicinal.rules.inversion._abscissa import MARGIN, stabilise
from vicinal.rules.inversion._chain import Loop
from vicinal.rules.inversion._eigenvalues import ROUNDING, LoopMatrices, eigenvalues, grows, longest_step, worst


class Stability(eqx.Module):
    """What is done about a loop that is unstable.

    A loop is stable if all eigenvalues of `[[-1, B], [W, -leak]]` have real parts below 0, and Euler's method if
    `|1 + step_size eigenvalue| < 1` for all. `B = -W^T` is stable if there is a leak or `W` has full row rank; a random
    `B` seldom is. Where a layer has more units above than below, and no leak, the controller drifts without end and the
    units below come to rest. The same happens where the layers of a single loop narrow in between.
    """

    def __repr__(self) -> str:
        return module_text(self)

    def at_first(self, loop: Loop) -> Float[Array, "down up"]:
        """Returns the feedback of a loop before the first update; by default the one it has."""
        return loop.feedback

    def before_update(self, loop: Loop) -> Float[Array, "down up"]:
        """Returns the feedback of a loop for an update; by default the one it has."""
        return loop.feedback

    def check(self, loop: LoopMatrices) -> None:
        """Raises ValueError if a loop is not acceptable."""
        raise NotImplementedError


class Refuse(Stability):
    """`init` refuses loops that are unstable. A loop that becomes unstable in training stays so."""

    def check(self, loop: LoopMatrices) -> None:
        _refuse(loop, "feedback=MinusTranspose() or stability=Stabilise()")


class Allow(Stability):
    """All loops are allowed."""

    def check(self, loop: LoopMatrices) -> None:
        del loop


class Stabilise(Stability):
    """Changes `B`, by `vicinal.analysis.stabilise`, until the loop is stable; `init` refuses it if that fails.

    The host does it. The eigenvalues of a loop with 400 units on both sides take some tenths of a second, so this is
    for small loops.

    Args:
        repair: Whether loops are looked at before every update, too, and `B` is changed again where weights have made
            a loop unstable, or nearly so. Otherwise `B` is fixed once training starts.

    Raises:
        ValueError: If `repair` is not True or False.
    """

    repair: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if not isinstance(self.repair, bool):
            raise ValueError(f"expected repair as True or False, got {self.repair!r}")

    def at_first(self, loop: Loop) -> Float[Array, "down up"]:
        return repaired(loop.matrix(), loop.feedback, loop.leak, loop.step_size)

    def before_update(self, loop: Loop) -> Float[Array, "down up"]:
        return self.at_first(loop) if self.repair else loop.feedback

    def check(self, loop: LoopMatrices) -> None:
        _refuse(loop, "a larger leak (its feedback was changed already, and to no avail)")


def _refuse(loop: LoopMatrices, otherwise: str) -> None:
    """Raises ValueError if a loop grows; `otherwise` is the advice where no step is short enough."""
    found = eigenvalues(loop.weight, loop.feedback, loop.leak)
    if not grows(found, loop.step_size):
        return
    value, growth = worst(found, loop.step_size)
    longest = longest_step(found)
    advice = f"a step_size below {longest:.3g}" if longest > 0 else otherwise
    raise ValueError(
        f"expected a stable loop at vertex {loop.vertex!r}, got the eigenvalue {value:.3g}, by which an error grows by "
        f"{100 * loop.step_size * growth:.2g} % in each step of {loop.step_size:g}; take {advice}, or stability=Allow()"
    )


def repaired(
    weight: Float[Array, "up down"], feedback: Float[Array, "down up"], leak: Array, step_size: Array
) -> Float[Array, "down up"]:
    """The feedback, changed by `stabilise` where its loop grows or fades by less than a quarter of the leak.

    The arguments may be traced: the host computes the result. Feedback of a loop that is not finite is unchanged.
    """

    def on_host(weight: Array, feedback: Array, leak: Array, step_size: Array) -> np.ndarray:
        before, leak_, step_size_ = np.asarray(feedback), float(leak), float(step_size)
        matrices = np.asarray(weight, float), np.asarray(before, float)
        if not all(np.isfinite(matrix).all() for matrix in matrices):
            return before
        if worst(eigenvalues(*matrices, leak_), step_size_)[1] <= ROUNDING - min(MARGIN, leak_ / 2) / 2:
            return before
        return stabilise(*matrices, leak_, step_size=step_size_).feedback.astype(before.dtype)

    result = jax.ShapeDtypeStruct(feedback.shape, feedback.dtype)
    return jax.pure_callback(on_host, result, weight, feedback, leak, step_size, vmap_method="sequential")
