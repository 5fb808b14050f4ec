"""What an inference strategy is: it lets the activities settle and says how that ended."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

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


def conclude(
    problem: Problem,
    start: Values,
    values: Values,
    steps: Int[Array, " batch"] | int,
    *,
    converged: Bool[Array, " batch"] | None = None,
    stuck: Bool[Array, " batch"] | None = None,
    trace: Energies | None = None,
) -> Settled:
    """Says how inference from `start` to `values` ended.

    Args:
        problem: The energy.
        start: Where inference began.
        values: Where it ended.
        steps: Steps taken.
        converged: Whether the tolerance was met, if there was one.
        stuck: Whether the slope of the energy was infinite or undefined, so that the values could not move.
        trace: Energies before each step, `[steps, batch]`.

    Returns:
        The end of inference, with its result codes and energies.
    """
    # With the weights of one energy at both ends: a proximal output changes its own along the way.
    before, energies = total(problem.energies(start, gain_at=values)), problem.energies(values)
    after = total(energies)
    finite = jnp.isfinite(after) & (jnp.isfinite(largest(values)) if values else True)
    if stuck is not None:
        finite = finite & ~stuck
    rounding = _rounding(before, problem.predict(values)[0], values)
    code = jnp.full(after.shape, Result.STEP_LIMIT, jnp.int32)
    if converged is not None:
        code = jnp.where(converged, jnp.int32(Result.CONVERGED), code)
    code = jnp.where(after > before + rounding, jnp.int32(Result.DIVERGED), code)
    code = jnp.where(finite, code, jnp.int32(Result.NON_FINITE))
    if trace is not None:
        trace = {name: jnp.concatenate([rows, energies[name][None]]) for name, rows in trace.items()}
    return Settled(values, code, jnp.broadcast_to(jnp.asarray(steps, jnp.int32), code.shape), energies, trace)


def _rounding(energy: Float[Array, " batch"], output: PyTree, values: Values) -> Float[Array, " batch"]:
    """How much an energy may seem to rise by rounding alone.

    An error is the difference of two numbers and so is wrong by `eps` times their size, not its own: with `s` the
    norm of values and output, the energy is wrong by some `eps * (energy + sqrt(2 energy) s + s)`.
    """
    eps = 64 * jnp.finfo(energy.dtype).eps
    leaves = [leaf for leaf in jax.tree.leaves((output, values)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    squares = [jnp.sum(jnp.square(leaf.reshape(leaf.shape[0], -1)), axis=1).astype(energy.dtype) for leaf in leaves]
    size = jnp.sqrt(jnp.sum(jnp.stack(squares), axis=0))
    return eps * (energy + (jnp.sqrt(2 * energy) + 1) * size)


def select(keep: Bool[Array, " batch"], new: PyTree, old: PyTree) -> PyTree:
    """`new` for the examples where `keep` holds, `old` for the others; trees of arrays `[batch, ...]`."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(keep.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)
