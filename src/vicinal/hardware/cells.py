"""Cells: how a conductance answers a pulse, how cells differ, and which are broken."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from vicinal._nearest import did_you_mean
from vicinal._numbers import check, number, optional_number
from vicinal._show import module_text
from vicinal.hardware._noise import normal
from vicinal.roles import Part


class Device(eqx.Module):
    """A kind of cell. `w` is its weight in units of the scale of the array.

        up      w += a+ (1 - soft w / b+)          then clipped to [b-, b+]
        down    w -= a- (1 - soft_down w / b-)

        a+- = step |1 + spread xi| (1 +- (up_down + up_down_spread xi'))       drawn once for each cell
        b+  = upper |1 + bound_spread xi|,   b- = lower |1 + bound_spread xi|

    With `soft = 0` each step is the same (linear cells), with `soft = 1` steps vanish at the bounds (soft bounds). The
    exponential curve `G(P) = Gmin + B (1 - exp(-P/A))` of other simulators is that of soft bounds between `Gmin` and
    `Gmin + B`. Numbers are array leaves, so that a grid of them maps.

    Args:
        step: The mean step of a pulse, above 0.
        soft: How much steps shrink towards the bounds, from 0 to 1.
        soft_down: The same for steps down; None: as `soft`.
        up_down: Mean relative difference of steps up and down.
        up_down_spread: Its standard deviation over cells.
        cycle: Standard deviation of a step from pulse to pulse, in units of `step`.
        spread: Relative standard deviation of the step over cells.
        bound_spread: Relative standard deviation of the bounds over cells.
        upper: Upper bound, above 0.
        lower: Lower bound, below 0.
        write_noise: Standard deviation of what a read sees around the weight that was programmed, in units of `step`,
            drawn anew whenever the cell gets pulses. None: no such noise.
        stuck: Fraction of cells that are stuck at 0.
        stuck_low: Fraction of cells that are stuck at their lower bound.
        stuck_high: Fraction of cells that are stuck at their upper bound.

    Example:
        >>> device = Device(step=0.01, cycle=0.3)
        >>> round(float(device.states))
        200
        >>> round(float(Device.preset("gokmen-vlasov").states))
        1250
    """

    step: Float[Array, ""] = eqx.field(converter=number)
    soft: Float[Array, ""] = eqx.field(default=0.0, converter=number)
    soft_down: Float[Array, ""] | None = eqx.field(default=None, converter=optional_number)
    up_down: Float[Array, ""] = eqx.field(default=0.0, converter=number)
    up_down_spread: Float[Array, ""] = eqx.field(default=0.0, converter=number)
    cycle: Float[Array, ""] = eqx.field(default=0.0, converter=number)
    spread: Float[Array, ""] = eqx.field(default=0.0, converter=number)
    bound_spread: Float[Array, ""] = eqx.field(default=0.0, converter=number)
    upper: Float[Array, ""] = eqx.field(default=1.0, converter=number)
    lower: Float[Array, ""] = eqx.field(default=-1.0, converter=number)
    write_noise: Float[Array, ""] | None = eqx.field(default=None, converter=optional_number)
    stuck: Float[Array, ""] = eqx.field(default=0.0, converter=number)
    stuck_low: Float[Array, ""] = eqx.field(default=0.0, converter=number)
    stuck_high: Float[Array, ""] = eqx.field(default=0.0, converter=number)

    def __check_init__(self) -> None:
        check("the step of a pulse", self.step, lambda step: step > 0, "above 0")
        check("the upper bound", self.upper, lambda bound: bound > 0, "above 0")
        check("the lower bound", self.lower, lambda bound: bound < 0, "below 0")
        for name in ("soft", "soft_down", "stuck", "stuck_low", "stuck_high"):
            if getattr(self, name) is not None:
                check(name, getattr(self, name), lambda part: (part >= 0) & (part <= 1), "from 0 to 1")
        check("up_down", self.up_down, lambda part: abs(part) < 1, "between -1 and 1")
        for name in ("up_down_spread", "cycle", "spread", "bound_spread", "write_noise"):
            if getattr(self, name) is not None:
                check(name, getattr(self, name), lambda size: size >= 0, "of at least 0")
        check(
            "the stuck cells together", self.stuck + self.stuck_low + self.stuck_high, lambda all_: all_ <= 1, "up to 1"
        )

    def __repr__(self) -> str:
        return module_text(self)

    @classmethod
    def preset(cls, name: str) -> "Device":
        """Returns a device by name.

        `"gokmen-vlasov"` (Gokmen and Vlasov, Front. Neurosci. 2016), `"idealized"`, `"capacitor"` (Li et al., VLSI
        2018), `"ecram"` (Tang et al., IEDM 2018) and `"reram-sb"` (soft bounds, after Gong et al., Nat. Commun. 2018)
        have the numbers of aihwkit's presets, in units of the scale. Leakage and the spread of `soft` are left out.
        `"neurosim"` has 32 states, non-linearity and noise as DNN+NeuroSim V2.1 trains with.

        Args:
            name: The name.

        Raises:
            ValueError: If the name is unknown.
        """
        if name not in DEVICES:
            raise ValueError(f"expected a device of {', '.join(DEVICES)}, got {name!r}{did_you_mean(name, DEVICES)}")
        return cls(**DEVICES[name])

    @property
    def states(self) -> Float[Array, ""]:
        """The number of steps between the bounds."""
        return (self.upper - self.lower) / self.step

    def draw(self, shape: tuple[int, ...], dtype: Any = None, *, key: PRNGKeyArray) -> "Cells":
        """Draws the cells of an array.

        Args:
            shape: The shape of the weight.
            dtype: Its dtype; None for the default one.
            key: For what differs from cell to cell.

        Returns:
            The cells.
        """
        dtype = jnp.result_type(float) if dtype is None else dtype
        own: Any = jax.tree.map(lambda leaf: leaf.astype(dtype), self)
        steps, tilts, uppers, lowers, broken = jax.random.split(key, 5)
        one = jnp.ones((), dtype)

        def around(key: PRNGKeyArray, spread: Array) -> Array:
            return jnp.abs(one + spread * jax.random.normal(key, shape, dtype))

        step = own.step * around(steps, own.spread)
        tilt = own.up_down + own.up_down_spread * jax.random.normal(tilts, shape, dtype)
        upper, lower = own.upper * around(uppers, own.bound_spread), own.lower * around(lowers, own.bound_spread)
        at = jax.random.uniform(broken, shape, dtype)
        is_zero = at < own.stuck
        is_low = ~is_zero & (at < own.stuck + own.stuck_low)
        is_high = ~is_zero & ~is_low & (at < own.stuck + own.stuck_low + own.stuck_high)
        zero = jnp.zeros((), dtype)
        lowest = jnp.where(is_zero, zero, jnp.where(is_high, upper, lower))
        highest = jnp.where(is_zero, zero, jnp.where(is_low, lower, upper))
        moves = lowest < highest
        return Cells(
            up=jnp.where(moves, step * jnp.maximum(one + tilt, zero), zero),
            down=jnp.where(moves, step * jnp.maximum(one - tilt, zero), zero),
            upper=highest,
            lower=lowest,
            step=own.step,
            soft_up=own.soft,
            soft_down=own.soft if own.soft_down is None else own.soft_down,
            cycle=own.cycle,
            write_noise=jnp.zeros((), dtype) if own.write_noise is None else own.write_noise,
            writes_noisily=own.write_noise is not None,
        )


class Cells(Part):
    """The cells of one array; made by `Device.draw`. They are arrays of the model that no optimiser trains.

    A stuck cell has both its bounds at the weight where it is stuck.

    Attributes:
        up: The step of a pulse up at 0, in the shape of the weight.
        down: The step of a pulse down at 0.
        upper: The upper bounds.
        lower: The lower bounds.
        step: The mean step.
        soft_up: How much steps up shrink towards the upper bound.
        soft_down: How much steps down shrink towards the lower bound.
        cycle: Noise of a pulse, in units of `step`.
        write_noise: Noise of what is programmed, in units of `step`.
        writes_noisily: Whether there is such noise.
    """

    role: ClassVar[Any] = "fixed"
    up: Float[Array, "..."]
    down: Float[Array, "..."]
    upper: Float[Array, "..."]
    lower: Float[Array, "..."]
    step: Float[Array, ""]
    soft_up: Float[Array, ""]
    soft_down: Float[Array, ""]
    cycle: Float[Array, ""]
    write_noise: Float[Array, ""]
    writes_noisily: bool = eqx.field(static=True)

    def pulsed(
        self,
        w: Float[Array, "..."],
        count: Float[Array, "..."],
        key: PRNGKeyArray | None = None,
        most: int | None = None,
        scale: Float[Array, ""] | None = None,
    ) -> Float[Array, "..."]:
        """Applies pulses to each cell.

        Args:
            w: Weights.
            count: Pulses: up where positive, down where negative.
            key: For the noise from pulse to pulse; None for no noise.
            most: The largest number of pulses of a cell, if it is known: a small one saves time.
            scale: The unit of the weights, the weight of a full cell; None for 1.

        Returns:
            The new weights, in the same unit. A cell without pulses keeps its weight.
        """
        number = jnp.abs(count)

        def answer(grown: Callable[[Array, Array], Array] | None) -> Array:
            up, sign, zero, one = count > 0, jnp.sign(count), jnp.zeros((), w.dtype), jnp.ones((), w.dtype)
            held, step = w if scale is None else w / scale, jnp.where(up, self.up, self.down)
            change = count * step
            if grown is not None:  # n steps of v += step - shrink v, at once
                bound, soft = jnp.where(up, self.upper, -self.lower), jnp.where(up, self.soft_up, self.soft_down)
                part = step * soft / jnp.where(bound > 0, bound, one)
                shrink = jnp.clip(jnp.where(bound > 0, part, zero), zero, 1 - _TINY)
                change = sign * grown(shrink, number) * (step - shrink * sign * held)
            if key is not None:
                change += self.cycle * self.step * jnp.sqrt(number) * normal(key, w.shape, w.dtype)
            new = self.clipped(held + change)
            return jnp.where(number > 0, new if scale is None else scale * new, w)

        # Branches, of which one runs: where no cell has pulses, where cells are linear, and where they are not.
        ways = [lambda: w, lambda: answer(None), lambda: answer(_grown)]
        largest, soft = jnp.max(number, initial=0), (self.soft_up > 0) | (self.soft_down > 0)
        way = jnp.where(largest > 0, jnp.where(soft, 2, 1), 0)
        if most is None or most > _FEW:
            ways.append(lambda: answer(_grown_at_once))
            way = jnp.where((way == 2) & (largest > _FEW), 3, way)
        return jax.lax.switch(way, ways)

    def clipped(self, w: Float[Array, "..."]) -> Float[Array, "..."]:
        """The nearest weights that the cells can have; stuck cells have one only."""
        return jnp.clip(w, self.lower, self.upper)

    @property
    def is_stuck(self) -> Bool[Array, "..."]:
        """Which cells are stuck."""
        return self.lower == self.upper

    @property
    def symmetry_points(self) -> Float[Array, "..."]:
        """The weights at which a pulse up and a pulse down cancel, as far as the cells reach.

        w = (a+ - a-) / (a+ soft_up / b+ - a- soft_down / b-)
        """
        zero, one = jnp.zeros((), self.up.dtype), jnp.ones((), self.up.dtype)
        highest, lowest = (jnp.where(bound == 0, one, bound) for bound in (self.upper, self.lower))
        slope, height = self.up * self.soft_up / highest - self.down * self.soft_down / lowest, self.up - self.down
        linear = jnp.where(height == 0, zero, jnp.sign(height) * jnp.inf)
        found = jnp.where(slope > 0, height / jnp.where(slope > 0, slope, one), linear)
        return self.clipped(found)


_FEW = 31  # pulses whose steps are summed digit by digit
_TINY = 1e-6  # a step may shrink to this part of itself with one pulse


def _grown(shrink: Array, number: Array) -> Array:
    """The sum of `(1 - shrink)^i` over `i < number`, at most `_FEW`: from the upper binary digit of the number down.

    S(2m) = S(m) (1 + q^m),   S(m + 1) = 1 + q S(m),   q = 1 - shrink
    """
    keep, one = 1 - shrink, jnp.ones((), shrink.dtype)
    total, power, left = jnp.zeros_like(shrink), jnp.ones_like(shrink), number.astype(shrink.dtype)
    for digit in reversed(range(_FEW.bit_length())):
        total, power = total * (one + power), power * power
        value = jnp.asarray(2**digit, shrink.dtype)
        odd = left >= value
        left = jnp.where(odd, left - value, left)
        total, power = jnp.where(odd, one + keep * total, total), jnp.where(odd, keep * power, power)
    return total


def _grown_at_once(shrink: Array, number: Array) -> Array:
    """The same sum for any number: `(1 - (1 - shrink)^number) / shrink`."""
    curved, one = shrink > 0, jnp.ones((), shrink.dtype)
    sum_ = -jnp.expm1(number * jnp.log1p(-shrink)) / jnp.where(curved, shrink, one)
    return jnp.where(curved, sum_, number.astype(shrink.dtype))


DEVICES: dict[str, dict[str, float]] = {
    "gokmen-vlasov": {"step": 0.0016, "cycle": 0.3, "spread": 0.3, "up_down_spread": 0.01, "bound_spread": 0.3},
    "idealized": {"step": 0.0002, "cycle": 0.3, "spread": 0.3, "bound_spread": 0.3},
    "capacitor": {
        "step": 0.005,
        "soft": 0.05,
        "cycle": 0.3,
        "spread": 0.1,
        "up_down_spread": 0.06,
        "bound_spread": 0.07,
    },
    "ecram": {
        "step": 0.002,
        "soft": 0.1153,
        "soft_down": 0.5085,
        "cycle": 0.3,
        "spread": 0.1,
        "up_down_spread": 0.01,
        "bound_spread": 0.05,
        "upper": 1.1724,
        "lower": -0.8276,
    },
    "reram-sb": {
        "step": 0.002,
        "soft": 1.0,
        "cycle": 3.75,
        "write_noise": 56.0,
        "spread": 0.3,
        "up_down_spread": 0.01,
        "bound_spread": 0.3,
        "upper": 1.25,
        "lower": -0.75,
    },
    "neurosim": {  # nonlinear(32, up=1.75, down=1.46), and noise of .003 of the range
        "step": 0.069718,
        "up_down": 0.020275,
        "soft": 0.612059,
        "soft_down": 0.529308,
        "cycle": 0.08606,
    },
}
"""The numbers of the devices that have names."""
