"""Paths: the weights that carry the error of a layer back, in place of its own, and how they learn."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

from vicinal._numbers import check
from vicinal.roles import Part


class Layer(Protocol):
    """A linear or convolutional layer."""

    @property
    def weight(self) -> Array: ...

    @property
    def bias(self) -> Array | None: ...

    def __call__(self, x: Array) -> Array: ...


class Path(Part):
    """The way of an error back through a layer; `attach` gives a layer its path.

    The arrays of a path are arrays of the model, in the shape and dtype of the layer's weight.
    """

    role: ClassVar[Literal["fixed", "parameter", "feedback"]] = "fixed"
    """The optimiser of its arrays (`vicinal.feedback.optimizers`): none, that of the forward weights, or their own."""

    def weight(self, forward: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns the weight whose transpose carries the error, for a layer with the weight `forward`."""
        raise NotImplementedError

    def taught(self, layer: Layer, x: Array, out: Array) -> Array:
        """Returns the output `out` of the layer unchanged; its backward pass gives the path a gradient."""
        del layer, x
        return out


Route = Callable[[str, Array, PRNGKeyArray | None], Path | None]
"""Chooses the path of a layer: `route(name of the weight, weight, key)`; None leaves the layer unchanged."""


class Tied(Path):
    """The forward weight itself, as in backpropagation; a control."""

    def weight(self, forward: Array) -> Array:
        return forward


class Separate(Path):
    """A separate, fixed weight (feedback alignment).

    Attributes:
        feedback: The weight, in the shape of the layer's weight.
    """

    feedback: Float[Array, "..."]

    def weight(self, forward: Array) -> Array:
        return self.feedback


class KolenPollack(Separate):
    """A separate weight with the gradient of the forward weight: both get the same updates, and decay aligns them."""

    role: ClassVar[Any] = "parameter"

    def taught(self, layer: Layer, x: Array, out: Array) -> Array:
        return _alike(out, with_weight(jax.lax.stop_gradient(layer), self.feedback)(x))


class SignSymmetric(Path):
    """The signs of the forward weight, with other magnitudes.

    Attributes:
        magnitude: Fixed magnitudes, in the shape of the weight. None: all are 1, or drawn from `seed`.
        seed: Data of a key for magnitudes that are redrawn whenever the weight changes. None: nothing is redrawn.
        scale: Standard deviation of the feedback.
    """

    magnitude: Float[Array, "..."] | None
    seed: UInt32[Array, "..."] | None
    scale: float = eqx.field(static=True)

    def weight(self, forward: Array) -> Array:
        magnitude = jnp.ones((), forward.dtype)
        if self.magnitude is not None:
            magnitude = self.magnitude
        elif self.seed is not None:
            magnitude = jnp.abs(jax.random.normal(folded(self.seed, [forward]), forward.shape, forward.dtype))
        return jnp.asarray(self.scale, forward.dtype) * magnitude * jnp.sign(forward)


def tied() -> Route:
    """Feedback through the forward weights, as without `attach`; a control."""
    return lambda name, weight, key: Tied()


def given(weights: Mapping[str, Float[Array, "..."]], learned: bool = False) -> Route:
    """Feedback through given matrices or kernels.

    Args:
        weights: Feedback weights by the name of the weight that they replace (`"layers[1].weight"`), in its shape.
            Other layers are unchanged.
        learned: Whether each gets the gradient of the weight that it replaces (Kolen and Pollack).

    Returns:
        A route for `attach`.
    """
    kind = KolenPollack if learned else Separate

    def route(name: str, weight: Array, key: PRNGKeyArray | None) -> Path | None:
        return kind(jnp.asarray(weights[name])) if name in weights else None

    route.names = tuple(weights)  # type: ignore[attr-defined]
    return route


def random(scale: float = 1.0, distribution: Literal["uniform", "normal"] = "uniform") -> Route:
    """Fixed random feedback (feedback alignment, FA).

    Args:
        scale: Standard deviation, in units of that of initial weights, `1/sqrt(3 fan_in)`. It scales the learning rate
            of the layers below.
        distribution: `"uniform"`, as for initial weights, or `"normal"`.

    Returns:
        A route for `attach`, which needs a key.

    References:
        Lillicrap, Cownden, Tweed and Akerman, Random synaptic feedback weights support error backpropagation for deep
        learning, Nature Communications 7, 2016, arXiv 1411.0247.
    """
    return _drawn(Separate, scale, distribution)


def kolen_pollack(scale: float = 1.0, distribution: Literal["uniform", "normal"] = "uniform") -> Route:
    """Random feedback that gets the same updates as the forward weights (Kolen and Pollack).

    Under plain gradient descent the difference of the two stays constant. Under an optimiser with weight decay
    (`optax.add_decayed_weights`, `optax.adamw`) it falls by a factor `1 - decay` in each step. Without decay they align
    only as far as the common updates outgrow the initial values.

    Args:
        scale: Standard deviation, in units of that of initial weights.
        distribution: `"uniform"` or `"normal"`.

    Returns:
        A route for `attach`, which needs a key.

    References:
        Kolen and Pollack, Backpropagation without weight transport, ICNN 1994. Akrout, Wilson, Humphreys, Lillicrap and
        Tweed, Deep learning without weight transport, NeurIPS 2019, arXiv 1904.05391.
    """
    return _drawn(KolenPollack, scale, distribution)


def sign_symmetric(
    magnitude: Literal["uniform", "batch-random", "fixed-random"] = "uniform", scale: float = 1.0
) -> Route:
    """Feedback with the signs of the forward weights and other magnitudes. The signs are transported at every use.

        B = scale * s * M * sign(W),      s = 1/sqrt(3 fan_in), the standard deviation of initial weights

    Args:
        magnitude: `"uniform"`, `M = 1` (uSF); `"batch-random"`, `M = |normal|`, redrawn whenever the weight changes
            (brSF); `"fixed-random"`, `M = |normal|`, drawn once (frSF).
        scale: Scale of the magnitudes, above 0.

    Returns:
        A route for `attach`, which needs a key for random magnitudes.

    Raises:
        ValueError: If the magnitude is unknown, or the scale is not above 0.

    References:
        Liao, Leibo and Poggio, How important is weight symmetry in backpropagation?, AAAI 2016, arXiv 1510.05067. Xiao,
        Chen, Liao and Poggio, Biologically-plausible learning algorithms can scale to large datasets, ICLR 2019, arXiv
        1811.03567.
    """
    if magnitude not in ("uniform", "batch-random", "fixed-random"):
        raise ValueError(f"expected magnitude as 'uniform', 'batch-random' or 'fixed-random', got {magnitude!r}")
    check("the scale of the feedback", scale, lambda v: v > 0, "above 0")

    def route(name: str, weight: Array, key: PRNGKeyArray | None) -> Path:
        size = scale * deviation(weight)
        if magnitude == "uniform":
            return SignSymmetric(None, None, size)
        if magnitude == "batch-random":
            return SignSymmetric(None, seed_of(needed(key, name)), size)
        drawn = jnp.abs(jax.random.normal(needed(key, name), weight.shape, weight.dtype))
        return SignSymmetric(drawn, None, size)

    return route


# ------------------------------------------------------------------------------------------------ what paths share


def with_weight(layer: Any, weight: Array) -> Any:
    """Replaces the weight of a layer."""
    return eqx.tree_at(lambda layer: layer.weight, layer, weight)


def deviation(weight: Array) -> float:
    """Returns the standard deviation of initial weights, uniform in `±1/sqrt(fan_in)`: `1/sqrt(3 fan_in)`."""
    return 1 / math.sqrt(3 * max(1, math.prod(weight.shape[1:])))


def needed(key: PRNGKeyArray | None, name: str) -> PRNGKeyArray:
    """Returns the key.

    Raises:
        ValueError: If the key is None.
    """
    if key is None:
        raise ValueError(f"expected a key to draw the feedback of {name} with, got none; give attach a key")
    return key


def drawn_like(
    weight: Array, key: PRNGKeyArray, scale: float, distribution: Literal["uniform", "normal"]
) -> Float[Array, "..."]:
    """Draws a weight with `scale` times the standard deviation of initial weights."""
    size = jnp.asarray(scale * deviation(weight), weight.dtype)
    if distribution == "normal":
        return size * jax.random.normal(key, weight.shape, weight.dtype)
    root = math.sqrt(3)
    return size * jax.random.uniform(key, weight.shape, weight.dtype, -root, root)


def check_drawing(scale: float, distribution: str) -> None:
    """Raises ValueError if the scale or the distribution of random feedback is invalid."""
    check("the scale of the feedback", scale, lambda v: v >= 0, "of at least 0")
    if distribution not in ("uniform", "normal"):
        raise ValueError(f"expected distribution as 'uniform' or 'normal', got {distribution!r}")


def seed_of(key: PRNGKeyArray) -> UInt32[Array, "..."]:
    """Returns the data of a key of the default implementation, drawn from `key` if that has another one."""
    usual = jax.random.key(0)
    if jax.random.key_impl(key) == jax.random.key_impl(usual):
        return jax.random.key_data(key)
    return jax.random.bits(key, jax.random.key_data(usual).shape, jnp.uint32)


def folded(seed: UInt32[Array, "..."], exact: Sequence[Array], x: Array | None = None) -> PRNGKeyArray:
    """Derives a key from the contents of arrays and of an input, so that no counter has to be carried along.

    The input is rounded to half precision first, so that rounding errors seldom change the key.

    Args:
        seed: Data of a key.
        exact: Arrays of which every bit counts.
        x: An input, rounded first; None for no input.

    Returns:
        A key.
    """
    held = [(array, jnp.float32, jnp.uint32) for array in exact]
    held += [] if x is None else [(x, jnp.bfloat16, jnp.uint16)]
    key = jax.random.wrap_key_data(seed)
    for array, dtype, bits in held:
        found = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(array).astype(dtype), bits).reshape(-1)
        places = jnp.arange(found.size, dtype=jnp.uint32) * jnp.uint32(0x9E3779B9)
        key = jax.random.fold_in(key, jnp.sum(_mixed(found.astype(jnp.uint32) ^ places), dtype=jnp.uint32))
    return key


def _mixed(bits: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """Mixes bits so that each depends on all others (the last steps of MurmurHash3)."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


def _drawn(kind: Callable[[Array], Path], scale: float, distribution: Literal["uniform", "normal"]) -> Route:
    check_drawing(scale, distribution)
    return lambda name, weight, key: kind(drawn_like(weight, needed(key, name), scale, distribution))


@jax.custom_vjp
def _alike(out: Array, other: Array) -> Array:
    """Returns the first of two outputs, and gives its error to both in the backward pass."""
    del other
    return out


_alike.defvjp(lambda out, other: (out, None), lambda _, error: (error, error))


@jax.custom_vjp
def pulled(out: Array, penalty: Float[Array, ""]) -> Array:
    """Returns the output; the backward pass also descends a penalty of one example, whatever the error of the output.

    Where the output is the same for all examples (a recurrent layer before its first step), the penalty counts once for
    the whole batch.
    """
    del penalty
    return out


def _pull(penalty: Float[Array, ""], error: Array) -> tuple[Array, Array]:
    # A slope of 1 for each example, also where the penalty is the same for all; hence computed from the error.
    first = error.reshape(-1)[0]
    return error, -((first == first) | (first != first)).astype(penalty.dtype)


pulled.defvjp(lambda out, penalty: (out, penalty), _pull)
