"""How `DynamicInversion` inverts a loop: by a controller, or by the references that no neuron could compute."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vicinal._numbers import check, check_turns, optional_number
from vicinal._show import module_text
from vicinal.activations import Activation, activation_function
from vicinal.inference import Result
from vicinal.rules.inversion._chain import Loop
from vicinal.rules.inversion._eigenvalues import LoopMatrices
from vicinal.rules.inversion.stability import Stability


class Inverted(NamedTuple):
    """The result of an inversion.

    Attributes:
        rates: The rates of the units below, `[batch, down]`.
        result: A `vicinal.inference.Result` code per example, `[batch]`; None where nothing settles.
        steps: Steps taken, `[batch]`; None where nothing settles.
    """

    rates: Float[Array, "batch down"]
    result: Int[Array, " batch"] | None = None
    steps: Int[Array, " batch"] | None = None


class Inversion(eqx.Module):
    """A way to find the rates below a loop that answer the error above it."""

    has_feedback: ClassVar[bool] = True
    """Whether it reads the feedback `B`."""

    def __repr__(self) -> str:
        return module_text(self)

    def activated(self, rates: Float[Array, "batch units"]) -> Float[Array, "batch units"]:
        """Returns `f(v)`, by which the units below act on the layers of the loop; by default `v`."""
        return rates

    def invert(self, loop: Loop, error: Float[Array, "batch up"]) -> Inverted:
        """Inverts a loop.

        Args:
            loop: The loop, with its feedback, leak and step size.
            error: The error of the product above, `[batch, up]`.

        Returns:
            The rates below, and how inference ended.
        """
        raise NotImplementedError

    def check(self, loop: LoopMatrices, stability: Stability) -> None:
        """Raises ValueError if a loop cannot be inverted in this way; by default any can be."""


class Dynamic(Inversion):
    """Dynamic inversion (DI): a controller drives the units below until the error is answered.

        du/dt = W f(v) - leak u - e                                  controller, beside the units above; from 0
        dv/dt = -v + B u                                             the units below; from 0

    by Euler's method, with the rule's step size.

    Args:
        steps: Number of steps; an upper limit if there is a tolerance.
        tolerance: An example stops once `dv/dt` and `B du/dt`, which may still move `v`, are together below this share
            of `B e`. None: take all steps.
        activation: `f`, a name or a function.

    Raises:
        ValueError: If the activation is unknown or a number is out of its range.

    Example:
        >>> import vicinal as vc
        >>> vc.rules.DynamicInversion(inversion=Dynamic(steps=200), leak=0.1).inversion.steps
        200

    References:
        Podlaski and Machens, NeurIPS 2020, arXiv 2007.05112.
    """

    steps: int = eqx.field(static=True, default=1000)
    tolerance: Float[Array, ""] | None = eqx.field(converter=optional_number, default=1e-4)
    activation: Activation = eqx.field(static=True, default="identity")

    def __check_init__(self):
        check_turns("steps", self.steps, 1)
        check("the tolerance", self.tolerance, lambda v: v > 0, "above 0")
        activation_function(self.activation)

    def check(self, loop: LoopMatrices, stability: Stability) -> None:
        stability.check(loop)

    def activated(self, rates: Float[Array, "batch units"]) -> Float[Array, "batch units"]:
        return activation_function(self.activation)(rates)

    def invert(self, loop: Loop, error: Float[Array, "batch up"]) -> Inverted:
        leak, step_size, back = loop.leak.astype(error.dtype), loop.step_size.astype(error.dtype), loop.feedback

        def velocity(u: Array, v: Array) -> tuple[Array, Array]:
            return loop.forward(v, self.activated)[-1] - leak * u - error, u @ back.T - v

        def restless(du: Array, dv: Array) -> Float[Array, " batch"]:
            return _speed(du @ back.T, dv)  # a controller that drifts beside what `B` sends down moves nothing below

        nothing = jnp.zeros((error.shape[0], 0), error.dtype)
        start = _speed(error, nothing)
        tolerance = None if self.tolerance is None else self.tolerance.astype(error.dtype) * restless(error, nothing)

        def step(carry: Any) -> Any:
            t, u, v, moving, steps = carry
            du, dv = velocity(u, v)
            now = restless(du, dv)
            if tolerance is not None:
                moving = moving & (now > tolerance) & jnp.isfinite(now)
            u, v = (jnp.where(moving[:, None], held + step_size * change, held) for held, change in ((u, du), (v, dv)))
            return t + 1, u, v, moving, steps + moving.astype(jnp.int32)

        batch, (down, up) = error.shape[0], back.shape
        zeros = jnp.zeros((batch, up), error.dtype), jnp.zeros((batch, down), error.dtype)
        carry = (jnp.int32(0), *zeros, jnp.ones(batch, bool), jnp.zeros(batch, jnp.int32))
        _, u, v, _, steps = jax.lax.while_loop(lambda carry: (carry[0] < self.steps) & jnp.any(carry[3]), step, carry)
        du, dv = velocity(u, v)
        rested = None if tolerance is None else restless(du, dv) <= tolerance
        return Inverted(v, _result(start, _speed(du, dv), rested), steps)


def _speed(du: Float[Array, "batch up"], dv: Float[Array, "batch down"]) -> Float[Array, " batch"]:
    return jnp.sqrt(jnp.sum(jnp.square(du), axis=1) + jnp.sum(jnp.square(dv), axis=1))


def _result(start: Float[Array, " batch"], end: Float[Array, " batch"], rested: Array | None) -> Int[Array, " batch"]:
    """The `Result` codes of loops that moved at a speed `start` at first and at `end` when they were stopped."""
    code = jnp.full(end.shape, Result.STEP_LIMIT, jnp.int32)
    if rested is not None:
        code = jnp.where(rested, jnp.int32(Result.CONVERGED), code)
    rounding = 1 + 64 * jnp.finfo(end.dtype).eps
    code = jnp.where(end > rounding * start, jnp.int32(Result.DIVERGED), code)
    return jnp.where(jnp.isfinite(end), code, jnp.int32(Result.NON_FINITE))


class ClosedForm(Inversion):
    """Non-dynamic inversion (NDI): where the controller comes to rest.

    v = B (W B - leak)^-1 e  =  (B W - leak)^-1 B e              whichever is smaller
    """

    def check(self, loop: LoopMatrices, stability: Stability) -> None:
        least = min(loop.weight.shape)
        if loop.leak == 0 and np.linalg.matrix_rank(loop.weight @ loop.feedback) < least:
            raise ValueError(
                f"expected a leak above 0 at vertex {loop.vertex!r} with ClosedForm, got 0: the product of its weights "
                f"and feedback has a rank below {least}, and no inverse"
            )

    def invert(self, loop: Loop, error: Float[Array, "batch up"]) -> Inverted:
        weight, feedback, leak = loop.matrix(), loop.feedback, loop.leak.astype(error.dtype)
        up, down = weight.shape
        if up <= down:
            inner = weight @ feedback - leak * jnp.eye(up, dtype=weight.dtype)
            return Inverted(jnp.linalg.solve(inner, error.T).T @ feedback.T)
        inner = feedback @ weight - leak * jnp.eye(down, dtype=weight.dtype)
        return Inverted(jnp.linalg.solve(inner, feedback @ error.T).T)


class PseudoInverse(Inversion):
    """Pseudo-backpropagation (PBP): `v = W^+ e`, without feedback."""

    has_feedback: ClassVar[bool] = False

    def invert(self, loop: Loop, error: Float[Array, "batch up"]) -> Inverted:
        return Inverted(error @ jnp.linalg.pinv(loop.matrix()).T)
