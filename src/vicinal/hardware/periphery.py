"""Periphery: what converts numbers to voltages and currents to numbers around an array, and one read through it."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vicinal._nearest import did_you_mean
from vicinal._numbers import check, check_count, optional_number
from vicinal._show import module_text
from vicinal.hardware._noise import normal
from vicinal.hardware._repeats import repeated
from vicinal.roles import Part

_HALVINGS = 10  # of the input, at most, before a saturated read is taken as it is


class Periphery(Part):
    """Converters and noise on one side of an array.

    A read of the weight `W` (with scale `s`) for the input `x`, where `alpha = max|x|` and `Q` rounds to `2^b - 1`
    levels and saturates (`quantised`):

        u = Q(x / alpha; dac, 1)
        z = W u / s + sqrt(read_noise^2 + weight_noise^2 ||u||^2) xi          xi ~ N(0, 1), fresh for each read
        y = alpha s Q(z; adc, bound)

    Noise of the weights at a read, `(W/s + weight_noise Xi) u`, has the law of this noise of the outputs. With
    `repeats = k` an input is read `k` times, each time with fresh noise and rounding, and the mean of the outputs is
    taken: the variance of the noise falls by `k`. Numbers are array leaves, so that a grid of them maps; None leaves
    out what the number is for.

    Args:
        dac: Bits of the input converters, at least 2; None for exact inputs.
        adc: Bits of the output converters, at least 2; None for exact outputs.
        bound: Where outputs saturate, in units of the scale `s` and the largest input. None: nowhere.
        read_noise: Standard deviation of the noise of an output, in the same units.
        weight_noise: Standard deviation of the noise of a weight at a read, in units of `s`.
        bound_management: Whether a forward read that saturates is repeated, each time with half the input.
        repeats: Reads of the same input, whose outputs are averaged.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> ideal = Periphery.preset("ideal")
        >>> ideal.read(jnp.eye(2), jnp.array([3.0, -1.0]), key=jax.random.key(0)).tolist()
        [3.0, -1.0]
        >>> coarse = Periphery(dac=2, adc=None, bound=None, read_noise=None)  # three levels: -1, 0, 1
        >>> coarse.read(jnp.eye(2), jnp.array([3.0, -1.0]), key=jax.random.key(0)).tolist()
        [3.0, 0.0]

    References:
        Defaults and presets are those of the IBM Analog Hardware Acceleration Kit (aihwkit 1.1).
    """

    role: ClassVar[Any] = "fixed"
    dac: Float[Array, ""] | None = eqx.field(default=7.0, converter=optional_number)
    adc: Float[Array, ""] | None = eqx.field(default=9.0, converter=optional_number)
    bound: Float[Array, ""] | None = eqx.field(default=12.0, converter=optional_number)
    read_noise: Float[Array, ""] | None = eqx.field(default=0.06, converter=optional_number)
    weight_noise: Float[Array, ""] | None = eqx.field(default=None, converter=optional_number)
    bound_management: bool = eqx.field(default=False, static=True)
    repeats: int = eqx.field(default=1, static=True)

    def __check_init__(self) -> None:
        for name in ("dac", "adc"):
            check(f"{name}, in bits,", getattr(self, name), lambda bits: bits >= 2, "of at least 2")
        check("the bound of the outputs", self.bound, lambda bound: bound > 0, "above 0")
        for name in ("read_noise", "weight_noise"):
            check(name, getattr(self, name), lambda noise: noise >= 0, "of at least 0")
        if self.bound is None and (self.adc is not None or self.bound_management):
            raise ValueError(
                "expected a bound for output converters and for bound management, got none; give one, or adc=None and "
                "bound_management=False"
            )
        if check_count("repeats", self.repeats) > 1 and self.read_noise is None and self.weight_noise is None:
            raise ValueError(
                f"expected noise that {self.repeats} reads of the same input average out, got none; give read_noise or "
                "weight_noise, or repeats=1"
            )

    def __repr__(self) -> str:
        return module_text(self)

    @classmethod
    def preset(cls, name: str) -> "Periphery":
        """Returns a periphery by name: `"default"`, `"preset"`, `"hardware-aware"` or `"ideal"`.

        Args:
            name: The name.

        Raises:
            ValueError: If the name is unknown.
        """
        if name not in _PRESETS:
            raise ValueError(
                f"expected a periphery of {', '.join(_PRESETS)}, got {name!r}{did_you_mean(str(name), _PRESETS)}"
            )
        return cls(**_PRESETS[name])

    @property
    def is_ideal(self) -> bool:
        """Whether a read is the plain product, because every part is left out."""
        return all(part is None for part in (self.dac, self.adc, self.bound, self.read_noise, self.weight_noise))

    def read(
        self, weight: Float[Array, "out in"], x: Float[Array, " in"], *, scale: Any = 1.0, key: PRNGKeyArray
    ) -> Float[Array, " out"]:
        """Reads an array once.

        Args:
            weight: The weight that the array stores.
            x: The input, in any units.
            scale: The weight `s` of a full cell, in the units of the weight.
            key: For the noise.

        Returns:
            The output, in the units of `weight @ x`.
        """
        return read_along(self, weight, x, jnp.asarray(scale, weight.dtype), key, axis=1)


_PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "preset": {"bound": 20.0, "read_noise": 0.1},
    "hardware-aware": {"dac": 8.0, "adc": 8.0, "bound": 10.0, "read_noise": 0.04},
    "ideal": {"dac": None, "adc": None, "bound": None, "read_noise": None},
}


def quantised(z: Array, bits: Array | None, bound: Array | None) -> Array:
    """Rounds to the nearest of `2^bits - 1` levels from `-bound` to `bound`, and saturates there.

    Args:
        z: Any numbers.
        bits: At least 2; None for no rounding.
        bound: Above 0; None for no saturation, and then no rounding.

    Returns:
        The rounded numbers, in the dtype of `z`.

    Example:
        >>> import jax.numpy as jnp
        >>> quantised(jnp.array([0.3, -0.8, 7.0]), jnp.array(2.0), jnp.array(1.0)).tolist()
        [0.0, -1.0, 1.0]
    """
    if bound is None:
        return z
    bound = bound.astype(z.dtype)
    if bits is not None:
        step = 2 * bound / (jnp.exp2(bits.astype(z.dtype)) - 2)
        z = step * jnp.round(z / step)
    return jnp.clip(z, -bound, bound)


def read_along(
    periphery: Periphery, weight: Array, x: Array, scale: Array, key: PRNGKeyArray, axis: int, managed: bool = False
) -> Array:
    """As `Periphery.read`; the input runs along `axis` of the weight, 0 for a transposed read.

    The parameter goes into its product as it is, so that the product is found in the traced program.
    """
    largest = jnp.max(jnp.abs(x))
    one = jnp.ones((), x.dtype)
    alpha = jnp.where(largest > 0, largest, one)

    def attempt(key: PRNGKeyArray, halving: Array) -> Array:
        u = x / (alpha * halving)
        u = u if periphery.dac is None else quantised(u, periphery.dac, one)
        z = jax.lax.dot_general(u, weight, (((0,), (axis,)), ((), ())))
        if periphery.repeats > 1:  # the same product each time: a row for each read
            z = jnp.broadcast_to(repeated(z, periphery.repeats), (periphery.repeats, *z.shape))
        return quantised(_noisy(periphery, z / scale, u, key), periphery.adc, periphery.bound)

    if not managed or not periphery.bound_management:
        return jnp.where(largest > 0, alpha * scale * _averaged(periphery, attempt(key, one)), jnp.zeros((), x.dtype))
    bound = jnp.asarray(periphery.bound, x.dtype)

    def saturated(held: tuple[Array, Array]) -> Array:
        count, z = held
        return (jnp.max(jnp.abs(z)) >= bound) & (count < _HALVINGS)

    def again(held: tuple[Array, Array]) -> tuple[Array, Array]:
        count = held[0] + 1
        return count, attempt(jax.random.fold_in(key, count), jnp.exp2(count.astype(x.dtype)))

    count, z = jax.lax.while_loop(saturated, again, (jnp.int32(0), attempt(key, one)))
    read = alpha * jnp.exp2(count.astype(x.dtype)) * scale * _averaged(periphery, z)
    return jnp.where(largest > 0, read, jnp.zeros((), x.dtype))


def _averaged(periphery: Periphery, outputs: Array) -> Array:
    """The mean over the repeats of a read, if there are any."""
    return outputs if periphery.repeats == 1 else jnp.mean(outputs, axis=0)


def _noisy(periphery: Periphery, z: Array, u: Array, key: PRNGKeyArray) -> Array:
    """Adds the noise of a read to its output; that of the weights grows with the input."""
    variances = []
    if periphery.read_noise is not None:
        variances.append(jnp.square(periphery.read_noise.astype(z.dtype)))
    if periphery.weight_noise is not None:
        variances.append(jnp.square(periphery.weight_noise.astype(z.dtype)) * jnp.sum(jnp.square(u)))
    if not variances:
        return z
    return z + jnp.sqrt(sum(variances[1:], variances[0])) * normal(key, z.shape, z.dtype)
