"""Integrate-and-fire: units send spikes at the rates of what they hold, and receivers low-pass them.

Time is counted in steps. Nothing here is differentiated: a spike has no derivative.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from vicinal._numbers import check, check_count, number, optional_number, wide
from vicinal._show import module_text

__all__ = ["Generator", "Spiking", "count"]

_MARGIN = 1.5  # the most that generators can send, in the largest rate that still lets activities settle


class Spiking(eqx.Module):
    """What the generators of units hold, and what others know of them.

    Attributes:
        charges: The charge of the positive and of the negative generator of each unit, a tree of `[2, batch, ...]`, in
            units of what is sent times steps.
        spikes: The number of spikes of each generator in the last step, a tree of `[2, batch, ...]`.
        traces: The low-pass of positive minus negative spikes, a tree of `[batch, ...]`, in units of what is sent.
    """

    charges: PyTree
    spikes: PyTree
    traces: PyTree


class Generator(eqx.Module):
    """Integrate-and-fire generators, two for each unit: one sends positive values, the other negative ones.

    A generator integrates a rate `u >= 0`, and sends a spike whenever its charge reaches the area of one. That area is
    then subtracted (soft reset), so that nothing is lost:

        V' = u - V / leak;      V >= area:  spike,  V -= area

    In a step it sends at most `most` spikes and keeps the charge of the others. Within a step, during which `u` is
    constant, the times of spikes are exact. Receivers hold the trace of what a pair of generators sends:

        r += (1 - exp(-1 / trace)) (area (n+ - n-) - r)

    whose mean is `rate(u)`: without leak `u`, with it `u - area / (2 leak)` in first order of the area. The charge is
    half the area at first, so that the number of spikes is its mean, rounded to the nearest, however long one counts.
    So the error of a rate falls as one over the number of spikes; it would fall as one over its root if spikes were
    random.

    A rate above `limit`, `most * area`, cannot be sent: the charge then grows without end.

    Args:
        area: The area of a spike, what is sent times steps, above 0: a spike stands for this value during one step.
        most: The most spikes of a generator in a step; None for any number.
        leak: Time constant of the charge, in steps; None without leak.
        trace: Time constant of the traces, in steps, above 0.

    Raises:
        TypeError: If a setting is no number.
        ValueError: If a setting is out of its range.

    Example:
        >>> import jax.numpy as jnp
        >>> generator = Generator(area=1.0)
        >>> held = jnp.array([[0.25, -0.5]])  # one spike in 4 steps, and a negative one in 2
        >>> sent, spikes = generator.silent(held), jnp.zeros((2, 1, 2))
        >>> for _ in range(100):
        ...     sent = generator.send(sent, held)
        ...     spikes += sent.spikes
        >>> spikes[:, 0].tolist()
        [[25.0, 0.0], [0.0, 50.0]]
    """

    area: Float[Array, ""] = eqx.field(converter=number, default=1.0)
    most: int | None = eqx.field(static=True, default=8)
    leak: Float[Array, ""] | None = eqx.field(converter=optional_number, default=None)
    trace: Float[Array, ""] = eqx.field(converter=number, default=5.0)

    def __check_init__(self):
        check("the area of a spike", self.area, lambda v: v > 0, "above 0")
        if self.most is not None:
            check_count("most", self.most)
        check("the leak, a time constant,", self.leak, lambda v: v > 0, "above 0")
        check("the time constant of the trace", self.trace, lambda v: v > 0, "above 0")

    def __repr__(self) -> str:
        return module_text(self)

    @property
    def limit(self) -> Float[Array, ""] | None:
        """The largest rate that can be sent; None if there is none."""
        return None if self.most is None else self.most * self.area

    @property
    def mark(self) -> Float[Array, ""]:
        """What one spike adds to a trace."""
        return self.area * self._share

    @property
    def _share(self) -> Float[Array, ""]:
        """The share of its way to what is sent that a trace goes in a step."""
        return -jnp.expm1(-1 / self.trace)

    def silent(self, values: PyTree) -> Spiking:
        """Returns generators that have sent nothing, for values `[batch, ...]`."""
        return self.sending(jax.tree.map(jnp.zeros_like, values))

    def sending(self, values: PyTree) -> Spiking:
        """Returns generators that have sent the values `[batch, ...]` for long, so that traces are at their means."""

        def charge(value: Array) -> Array:
            kind = wide(value.dtype)  # charges sum up small numbers
            return jnp.full((2, *value.shape), self.area.astype(kind) / 2)

        charges = jax.tree.map(charge, values)
        means = jax.tree.map(lambda v: jnp.sign(v) * self.rate(jnp.abs(v)), values)
        return Spiking(charges, jax.tree.map(jnp.zeros_like, charges), means)

    def send(self, spiking: Spiking, values: PyTree) -> Spiking:
        """Sends values during one step.

        Args:
            spiking: What generators and traces held before.
            values: What is sent, a tree of arrays `[batch, ...]`.

        Returns:
            What they hold after the step, with its spikes.
        """
        leaves, form = jax.tree.flatten(values)
        charges, traces = map(form.flatten_up_to, (spiking.charges, spiking.traces))
        each = [self._sent(*one) for one in zip(leaves, charges, traces, strict=True)]
        return Spiking(*(form.unflatten(part) for part in zip(*each, strict=True)))

    def fire(
        self, charge: Float[Array, "..."], drive: Float[Array, "..."]
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Integrates a rate during one step.

        Args:
            charge: The charge at the start, `[...]`.
            drive: The rate `u`, at least 0, `[...]`.

        Returns:
            The charge at the end, and the number of spikes.
        """
        area = self.area.astype(charge.dtype)
        if self.leak is None:
            due = jnp.floor((charge + drive) / area)
            rest = charge + drive - due * area
        else:
            due, rest = _with_leak(charge, drive, area, self.leak.astype(charge.dtype))
        spikes = due if self.most is None else jnp.minimum(due, jnp.asarray(self.most, due.dtype))
        return rest + (due - spikes) * area, spikes

    def rate(self, drive: Float[Array, "..."]) -> Float[Array, "..."]:
        """Computes the mean of the trace of a generator at a constant rate, from the closed form.

        With `P = -leak log(1 - area / (drive leak))`, the steps between two spikes, it is `area / P`, and 0 where the
        charge does not reach the area, `drive <= area / leak`; at most `limit`.

        Args:
            drive: The rate `u`, at least 0, `[...]`.

        Returns:
            The mean of the trace, `[...]`.

        Example:
            >>> round(float(Generator(area=1.0, leak=20.0).rate(2.0)), 4)  # about 2 - 1 / 40
            1.9749
        """
        drive = jnp.asarray(drive)
        sent = drive
        if self.leak is not None:
            area, leak = self.area.astype(drive.dtype), self.leak.astype(drive.dtype)
            fires, period = _period(drive, area, leak)
            sent = jnp.where(fires, area / period, jnp.zeros_like(drive))
        return sent if self.limit is None else jnp.minimum(sent, self.limit.astype(drive.dtype))

    def crowded(self, values: PyTree) -> Bool[Array, " batch"]:
        """Whether an example holds more than two thirds of `limit` in some unit, near which values do not settle."""
        leaves = jax.tree.leaves(values)
        if self.limit is None or not leaves:
            return jnp.zeros(leaves[0].shape[:1] if leaves else (), bool)
        limit = self.limit
        above = [_MARGIN * jnp.abs(v.reshape(v.shape[0], -1)) > limit.astype(v.dtype) for v in leaves]
        return jnp.any(jnp.concatenate(above, axis=1), axis=1)

    def _sent(self, value: Array, charge: Array, trace: Array) -> tuple[Array, Array, Array]:
        drive = jnp.stack([jnp.maximum(value, 0), jnp.maximum(-value, 0)]).astype(charge.dtype)
        charge, spikes = self.fire(charge, drive)
        read = (self.area.astype(charge.dtype) * (spikes[0] - spikes[1])).astype(trace.dtype)
        return charge, spikes, trace + self._share.astype(trace.dtype) * (read - trace)


def count(spikes: PyTree) -> Int[Array, " batch"]:
    """Counts the spikes of each example in a tree of `[2, batch, ...]`."""
    each = [jnp.sum(n.astype(jnp.int32), axis=0).reshape(n.shape[1], -1) for n in jax.tree.leaves(spikes)]
    return jnp.sum(jnp.concatenate(each, axis=1), axis=1, dtype=jnp.int32)


def _period(drive: Array, area: Array, leak: Array) -> tuple[Array, Array]:
    """Returns whether a generator fires at all, and the steps from one spike to the next."""
    fires = drive * leak > area
    reached = jnp.where(fires, drive * leak, 2 * area)
    return fires, -leak * jnp.log1p(-area / reached)


def _with_leak(charge: Array, drive: Array, area: Array, leak: Array) -> tuple[Array, Array]:
    """Returns the number of spikes that are due at the end of a step, and the charge if all of them are sent."""
    kept = jnp.floor(charge / area)  # more than could be sent before
    charge = charge - kept * area
    end = drive * leak  # of the charge, without spikes
    fires, period = _period(drive, area, leak)
    first = leak * jnp.log1p((area - charge) / (jnp.where(fires, end, 2 * area) - area))
    spikes = jnp.where(fires & (first <= 1), 1 + jnp.floor((1 - first) / period), jnp.zeros_like(charge))
    since = jnp.maximum(1 - first - (spikes - 1) * period, 0)  # the last spike, after which the charge was 0
    quiet = charge - (end - charge) * jnp.expm1(-1 / leak)
    return kept + spikes, jnp.where(spikes > 0, -end * jnp.expm1(-since / leak), quiet)
