"""What an inference strategy is: it lets the activities settle and says how that ended."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vicinal.graph import Values
from vicinal.inference.problem import Problem
from vicinal.inference.result import Result

Energies = dict[str, Float[Array, "..."]]


class Settled(eqx.Module):
    """Where inference ended.

    Attributes:
        values: What the vertices hold, `[batch, ...]`.
        result: A `Result` code per example, `[batch]`.
        steps: Steps taken, `[batch]`.
        energies: Energy of each vertex, and of `"output"`, at the end, `[batch]` each.
        trace: The same before each step and after the last, `[steps + 1, batch]`; None unless asked for.
    """

    values: Values
    result: Int[Array, " batch"]
    steps: Int[Array, " batch"]
    energies: Energies
    trace: Energies | None = None


class Inference(eqx.Module):
    """A way for activities to settle."""

    def settle(self, problem: Problem, values: Values) -> Settled:
        """Lets the activities settle.

        Args:
            problem: The energy, with input and target held.
            values: Where to start, `[batch, ...]`.

        Returns:
            Where it ended.
        """
        raise NotImplementedError


def total(energies: Energies) -> Float[Array, " batch"]:
    """The sum over the vertices and the output."""
    return sum(energies.values(), start=jnp.zeros((), next(iter(energies.values())).dtype))


def largest(values: Values) -> Float[Array, " batch"]:
    """The largest magnitude in each example, over all vertices; not a number where a value is not."""
    flat = [jnp.abs(value).reshape(value.shape[0], -1) for value in values.values()]
    return jnp.max(jnp.concatenate(flat, axis=1), axis=1)


def judge(
    problem: Problem, start: Values, values: Values, converged: Bool[Array, " batch"] | None
) -> tuple[Int[Array, " batch"], Energies]:
    """The result codes, and the energies at the end, from where inference started and ended."""
    before, energies = total(problem.energies(start)), problem.energies(values)
    after = total(energies)
    finite = jnp.isfinite(after) & (jnp.isfinite(largest(values)) if values else True)
    rounding = 8 * jnp.finfo(after.dtype).eps * jnp.abs(before)
    code = jnp.full(after.shape, Result.STEP_LIMIT, jnp.int32)
    if converged is not None:
        code = jnp.where(converged, jnp.int32(Result.CONVERGED), code)
    code = jnp.where(after > before + rounding, jnp.int32(Result.DIVERGED), code)
    return jnp.where(finite, code, jnp.int32(Result.NON_FINITE)), energies


def select(keep: Bool[Array, " batch"], new: Values, old: Values) -> Values:
    """`new` for the examples where `keep` holds, `old` for the others."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(keep.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)
