"""For rules without phases: time constants, noise, filters and voltages."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal._numbers import all_positive, check
from vicinal.graph import Values


@dataclasses.dataclass(frozen=True)
class TimeConstants:
    """The time constants of a network that is simulated in steps, all in milliseconds.

        dt <= xi, high_pass  <  presentation  <  low_pass,      xi and high_pass within a factor of ten

    The noise has to be fast relative to a presentation, and the low-pass slow, so that noise teaches feedback but does
    not enter the weights; published settings keep factors of 10, 10 and 100 between them.

    Args:
        dt: Length of a simulation step.
        xi: Correlation time of the noise.
        high_pass: Time constant of the filter of the rates that feedback learns from.
        presentation: Duration of an example, a whole number of steps.
        low_pass: Time constant of the filter of the products that weights learn from.
        membrane: Time constant of the voltages. Nothing depends on it, as rates are those of prospective voltages.

    Raises:
        ValueError: If a time is not above zero or not finite, or the times are not in this order.

    Example:
        >>> TimeConstants().steps
        100
    """

    dt: float = 0.1
    xi: float = 1.0
    high_pass: float = 1.0
    presentation: float = 10.0
    low_pass: float = 1000.0
    membrane: float = 10.0

    def __post_init__(self) -> None:
        all_positive(self, "the time", " of ms")
        fast, slow = min(self.xi, self.high_pass), max(self.xi, self.high_pass)
        for holds, wanted, got in (
            (self.dt <= fast, "dt of at most xi and high_pass", f"{self.dt:g} beside {fast:g}"),
            (self.dt <= self.membrane, "dt of at most membrane", f"{self.dt:g} beside {self.membrane:g}"),
            (slow <= 10 * fast, "xi and high_pass within a factor of ten", f"{self.xi:g} and {self.high_pass:g}"),
            (slow < self.presentation, "xi and high_pass below presentation", f"{slow:g} beside {self.presentation:g}"),
            (
                self.presentation < self.low_pass,
                "presentation below low_pass",
                f"{self.presentation:g} beside {self.low_pass:g}",
            ),
        ):
            if not holds:
                raise ValueError(f"expected {wanted} (ms), got {got}; dt <= xi, high_pass < presentation < low_pass")
        if abs(self.presentation / self.dt - self.steps) > 1e-6 * self.steps:
            raise ValueError(
                f"expected presentation as a whole number of steps, got {self.presentation:g} with dt {self.dt:g} ms"
            )

    @property
    def steps(self) -> int:
        """Number of steps in a presentation."""
        return round(self.presentation / self.dt)

    @property
    def variance(self) -> float:
        """Stationary variance of the noise, for `sigma` of 1: `1 / (2 - dt/xi)`."""
        return 1 / (2 - self.dt / self.xi)

    def gain(self, fresh: bool) -> float:
        """Returns `E[xi rhat]` of noise and of the same noise high-passed, for `sigma` of 1: the feedback gain.

        With `a = 1 - dt/xi` and `h = 1 - dt/high_pass`, it is `variance (1 - a) / (1 - a h)`. Where the filter starts
        empty with each presentation, the mean over the presentation is a little smaller.
        """
        a, h = 1 - self.dt / self.xi, 1 - self.dt / self.high_pass
        q = a * h
        missing = q * (1 - q**self.steps) / (self.steps * (1 - q)) if fresh else 0.0
        return self.variance * (1 - a) / (1 - q) * (1 - missing)


def check_decay(times: TimeConstants, feedback_rate: Array, decay: Array) -> None:
    """Raises ValueError if the decay alone, `B -= dt * feedback_rate * decay B`, makes feedback grow."""
    words = "below 2, beyond which feedback flips and grows in every step (take a smaller feedback_rate or decay)"
    check("dt * feedback_rate * decay", times.dt * feedback_rate * decay, lambda v: v < 2, words)


# --------------------------------------------------------------------------------------- noise, filters, voltages


def scaled(number: Float[Array, ""] | float, like: Array) -> Array:
    """Casts a number to the dtype of an array."""
    return jnp.asarray(number, like.dtype)


def drift(noise: Array, sigma: Array, times: TimeConstants, key: PRNGKeyArray) -> Array:
    """Takes a step of Ornstein-Uhlenbeck noise: `xi + (sqrt(tau dt) sigma normal - dt xi) / tau`."""
    kick = scaled(sigma, noise) * scaled(math.sqrt(times.dt / times.xi), noise)
    return noise * scaled(1 - times.dt / times.xi, noise) + kick * jax.random.normal(key, noise.shape, noise.dtype)


def stationary(like: Array, sigma: Array, times: TimeConstants, key: PRNGKeyArray) -> Array:
    """Draws noise from its stationary distribution, in the shape of an array."""
    size = scaled(sigma, like) * scaled(math.sqrt(times.variance), like)
    return size * jax.random.normal(key, like.shape, like.dtype)


def high_pass(filtered: Array, now: Array, before: Array, times: TimeConstants) -> Array:
    """Takes a step of a high-pass filter: `rhat + (r(t) - r(t - dt)) - dt/tau rhat`."""
    return filtered * scaled(1 - times.dt / times.high_pass, filtered) + (now - before)


def low_pass(products: PyTree, gradient: PyTree, times: TimeConstants) -> PyTree:
    """Takes a step of the low-pass filter of the products."""
    return jax.tree.map(lambda p, g: p + scaled(times.dt / times.low_pass, p) * (g - p), products, gradient)


def leak(voltages: Values, prospective: Values, times: TimeConstants) -> Values:
    """Takes a step of `tau du/dt = -u + drive`, whose prospective voltage `u + tau du/dt` is the drive."""
    rate = times.dt / times.membrane
    return {name: u + scaled(rate, u) * (prospective[name] - u) for name, u in voltages.items()}
