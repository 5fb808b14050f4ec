"""Sending on change: units that send an event when what they hold differs enough from what they sent.

A receiver adds up events, so that it knows what was sent so far. A code says when a unit sends, and how much.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from vicinal._numbers import check, check_count, number
from vicinal._show import module_text

__all__ = ["Code", "Cyclic", "Events", "Graded", "Lines", "Ternary", "step_size"]


class Events(eqx.Module):
    """Numbers of events while activities settle, for each example.

    Attributes:
        values: Events by which units sent their values upwards, by vertex, `[batch]`.
        errors: Events by which units sent their errors downwards, by vertex and for `"output"`, `[batch]`; not those of
            vertices below which there is no vertex, since nobody receives them.
        sweep: Events of the feedforward sweep before, by vertex, `[batch]`. Every rule has this sweep.
    """

    values: dict[str, Int[Array, " batch"]]
    errors: dict[str, Int[Array, " batch"]]
    sweep: dict[str, Int[Array, " batch"]]


class Lines(eqx.Module):
    """What units have sent so far.

    Attributes:
        sent: The sum of the events of each unit, a tree of arrays `[batch, ...]`.
        peak: The largest magnitude so far that a unit of each array held, `[batch]` each; None unless thresholds are
            relative.
    """

    sent: PyTree
    peak: PyTree = None


class Code(eqx.Module):
    """When units send, and how much: the base of `Graded`, `Ternary` and `Cyclic`.

    Args:
        threshold: The smallest change that is sent, in units of what is held.
        relative: Whether the threshold is a fraction of the largest magnitude that a unit of the same vertex has held
            so far, in the same example.
        initial: The threshold at the first inference step in thresholds of the last; it falls geometrically between.

    Raises:
        ValueError: If the threshold is negative, or `initial` is not above 0.
    """

    threshold: Float[Array, ""] = eqx.field(converter=number)
    relative: bool = eqx.field(static=True, default=False)
    initial: Float[Array, ""] = eqx.field(converter=number, default=1.0)

    def __check_init__(self):
        check("the threshold", self.threshold, lambda v: v >= 0, "of at least 0")
        check("initial", self.initial, lambda v: v > 0, "above 0")
        if not isinstance(self.relative, bool):
            raise ValueError(f"expected relative as True or False, got {self.relative!r}")

    def __repr__(self) -> str:
        return module_text(self)

    def quanta(self, residual: Array, threshold: Array) -> Array:
        """Returns what is sent of a residual, `[...]`; 0 for no event."""
        raise NotImplementedError

    def silent(self, values: PyTree) -> Lines:
        """Returns lines of units that have sent nothing yet, for values `[batch, ...]`."""
        sent = jax.tree.map(jnp.zeros_like, values)
        peak = jax.tree.map(lambda v: jnp.zeros(v.shape[:1], v.dtype), values) if self.relative else None
        return Lines(sent, peak)

    def publish(self, lines: Lines, values: PyTree, t: Int[Array, ""] | int = 0, steps: int = 1) -> Lines:
        """Sends what is due: adds an event for each unit that holds enough more or less than it has sent.

        Args:
            lines: What was sent before.
            values: What is held now, a tree of arrays `[batch, ...]`.
            t: Index of the inference step, from 0.
            steps: Number of inference steps.

        Returns:
            What was sent after.
        """
        lines = self._watched(lines, values)
        thresholds = self._thresholds(lines, values, t, steps)

        def send(sent: Array, value: Array, threshold: Array) -> Array:
            return sent + self.quanta(value - sent, threshold)

        return Lines(jax.tree.map(send, lines.sent, values, thresholds), lines.peak)

    def late(self, lines: Lines, values: PyTree, t: Int[Array, ""] | int = 0, steps: int = 1) -> Bool[Array, " batch"]:
        """Whether some unit of an example moved so fast that its events could not follow; after `publish`."""
        thresholds = self._thresholds(lines, values, t, steps)
        behind = [
            jnp.any((self._behind(v - s, threshold)).reshape(v.shape[0], -1), axis=1)
            for s, v, threshold in zip(*map(jax.tree.leaves, (lines.sent, values, thresholds)), strict=True)
        ]
        return jnp.any(jnp.stack(behind), axis=0) if behind else jnp.zeros((), bool)

    def _behind(self, residual: Array, threshold: Array) -> Array:
        """Whether more is left to send than the code leaves when it can follow."""
        return jnp.zeros(residual.shape, bool)

    def _watched(self, lines: Lines, values: PyTree) -> Lines:
        if not self.relative:
            return lines

        def larger(peak: Array, value: Array) -> Array:
            return jnp.maximum(peak, jnp.max(jnp.abs(value).reshape(len(peak), -1), axis=1, initial=0))

        return Lines(lines.sent, jax.tree.map(larger, lines.peak, values))

    def _thresholds(self, lines: Lines, values: PyTree, t: Int[Array, ""] | int, steps: int) -> PyTree:
        def threshold(value: Array, peak: Array | None = None) -> Array:
            found = self._at(jnp.asarray(t), steps).astype(value.dtype)
            return found if peak is None else found * peak.reshape(-1, *(1,) * (value.ndim - 1))

        return jax.tree.map(threshold, values, *([lines.peak] if self.relative else []))

    def _at(self, t: Int[Array, ""], steps: int) -> Float[Array, ""]:
        """Returns the threshold at a step, before it is scaled by what units hold."""
        left = (jnp.maximum(steps - 1 - t, 0) / max(steps - 1, 1)).astype(self.threshold.dtype)
        return self.threshold * self.initial**left


class Graded(Code):
    """Events of any size: a unit sends the nearest multiple of the threshold once it differs by a threshold or more.

        r = z - sent;    sent += threshold * round(r / threshold)  if |r| >= threshold

    `|z - sent| < threshold` after each turn. A threshold of 0 sends every change exactly.

    Example:
        >>> import jax.numpy as jnp
        >>> code = Graded(0.1)
        >>> lines = code.publish(code.silent(jnp.zeros((1, 3))), jnp.array([[0.05, 0.12, -0.37]]))
        >>> [round(float(sent), 2) for sent in lines.sent[0]]
        [0.0, 0.1, -0.4]
    """

    def quanta(self, residual: Array, threshold: Array) -> Array:
        unit = jnp.where(threshold > 0, threshold, jnp.ones((), residual.dtype))
        # Written so that NaN is sent: otherwise others would never know.
        rounded = jnp.where(jnp.abs(residual) < unit, jnp.zeros_like(residual), unit * jnp.round(residual / unit))
        return jnp.where(threshold > 0, rounded, residual)


class Ternary(Code):
    """Events of one size, up or down: a unit sends when that brings what it sent closer to what it holds.

        r = z - sent;    sent += threshold * sign(r)  if |r| > threshold / 2

    One event per step at most limits how fast a unit can be followed: as the threshold falls at a fixed step, the
    result does *not* tend to that of values that are sent exactly. The limit is reached if the threshold falls in
    proportion to the step. Units that were still behind at the end are reported (`Result.SLEW_LIMITED`).

    Example:
        >>> import jax.numpy as jnp
        >>> code = Ternary(0.1)
        >>> lines = code.publish(code.silent(jnp.zeros((1, 3))), jnp.array([[0.04, 0.06, -0.37]]))
        >>> [round(float(sent), 2) for sent in lines.sent[0]]
        [0.0, 0.1, -0.1]

    References:
        Boerlin, Machens and Denève, Predictive coding of dynamical variables in balanced spiking networks, PLoS
        Computational Biology 9, 2013: for one unit and a decoder without leak, their rule is this one.
    """

    def __check_init__(self):
        check("the threshold, the size of an event,", self.threshold, lambda v: v > 0, "above 0")

    def quanta(self, residual: Array, threshold: Array) -> Array:
        still = jnp.abs(residual) <= threshold / 2  # not where it is NaN, which is sent
        return jnp.where(still, jnp.zeros_like(residual), threshold * jnp.sign(residual))

    def _behind(self, residual: Array, threshold: Array) -> Array:
        slack = 1 + 1e3 * float(jnp.finfo(residual.dtype).eps)  # rounding of sums of events
        return jnp.abs(residual) > threshold / 2 * slack


class Cyclic(Ternary):
    """Ternary events whose size goes through powers of 2, from coarse to fine, again and again.

        threshold_t = threshold * 2^(cycle - 1 - (t mod cycle))

    Args:
        cycle: The number of sizes.

    Raises:
        ValueError: If there is no size.

    Example:
        >>> import jax.numpy as jnp
        >>> code, held = Cyclic(0.1, cycle=4), jnp.array([[1.3]])
        >>> lines = code.silent(held)
        >>> for t in range(4):
        ...     lines = code.publish(lines, held, t)
        >>> round(float(lines.sent[0, 0]), 2)  # 0.8 + 0.4 + 0.2 - 0.1
        1.3

    References:
        DiffPC: predictive coding with differential events, ICLR 2026 (the cycle of sizes).
    """

    cycle: int = eqx.field(static=True, default=4)

    def __check_init__(self):
        check_count("cycle", self.cycle)

    def _at(self, t: Int[Array, ""], steps: int) -> Float[Array, ""]:
        powers = jnp.asarray(2.0 ** np.arange(self.cycle)[::-1], self.threshold.dtype)
        return super()._at(t, steps) * powers[t % self.cycle]


def count(before: PyTree, after: PyTree) -> Int[Array, " batch"]:
    """Counts the units of each example that sent something between two trees of `[batch, ...]`."""
    parts = [
        jnp.sum((a != b).reshape(a.shape[0], -1), axis=1, dtype=jnp.int32)
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    ]
    return jnp.sum(jnp.stack(parts), axis=0, dtype=jnp.int32)


def step_size(dt: Any, tau: Any) -> Float[Array, ""]:
    """Returns the step size of a membrane: `1 - exp(-dt / tau)`.

    Between events the membrane `tau v' = target - v` is linear, and this step is its exact solution over `dt`.

    Args:
        dt: Time between two steps, in s.
        tau: Time constant of the membrane, in s.

    Returns:
        The step size of the activities.

    Raises:
        ValueError: If a time is not above 0.

    Example:
        >>> round(float(step_size(dt=1e-3, tau=10e-3)), 4)
        0.0952
    """
    dt, tau = number(dt), number(tau)
    check("dt", dt, lambda v: v > 0, "above 0")
    check("tau", tau, lambda v: v > 0, "above 0")
    return -jnp.expm1(-dt / tau)
