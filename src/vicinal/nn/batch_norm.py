"""Batch norm: statistics of the batch in training, running averages afterwards."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vicinal._numbers import check, check_count, widened
from vicinal.roles import Part
from vicinal.state import update


class Running(Part):
    """Running averages; state, which no optimiser sees."""

    role: ClassVar[Any] = "state"

    mean: Float[Array, " features"]
    variance: Float[Array, " features"]


class BatchNorm(eqx.Module):
    """Batch norm of one example, with statistics of its batch.

        y = weight * (x - mean) / sqrt(variance + eps) + bias

    In training, mean and variance are those of the batch, for each feature over examples and all further axes; running
    averages change by `average <- momentum * average + (1 - momentum) * statistic` with each step. With `inference` set
    (`equinox.nn.inference_mode`, or `Graph.evaluation`) the running averages take their place. The variance is the mean
    square, without Bessel's correction, in both.

    Statistics are taken in the feedforward pass and held while activities settle. `vicinal.capture` needs the batch
    size; `vicinal.train.fit` and `sweep` give it.

    Args:
        features: Length of the first axis of an example.
        momentum: Share of a running average that a step keeps, in [0, 1).
        eps: Added to the variance, above 0.
        dtype: Of all arrays; float32 by default.

    Attributes:
        weight: `[features]`, initially 1.
        bias: `[features]`, initially 0.
        running: The averages, `[features]` each, initially 0 and 1.
        inference: Whether running averages are used.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> layer, x = vc.nn.BatchNorm(1, momentum=0.9), jnp.array([[1.0], [3.0]])
        >>> graph = vc.capture(layer, x[0], batch_size=2)
        >>> [round(float(y), 3) for y in graph.feedforward(layer, x)[0][:, 0]]
        [-1.0, 1.0]
        >>> running = graph.updated(layer, x).running
        >>> round(float(running.mean[0]), 3), round(float(running.variance[0]), 3)
        (0.2, 1.0)

    References:
        Ioffe and Szegedy, Batch normalization, ICML 2015, arXiv 1502.03167.
    """

    weight: Float[Array, " features"]
    bias: Float[Array, " features"]
    running: Running
    inference: bool
    momentum: float = eqx.field(static=True)
    eps: float = eqx.field(static=True)

    def __init__(self, features: int, momentum: float = 0.9, eps: float = 1e-5, dtype: Any = None):
        check_count("features", features, 1)
        check("momentum", momentum, lambda v: (v >= 0) & (v < 1), "in [0, 1)")
        check("eps", eps, lambda v: v > 0, "above 0")
        self.momentum, self.eps, self.inference = float(momentum), float(eps), False
        self.weight, self.bias = jnp.ones(features, dtype), jnp.zeros(features, dtype)
        self.running = Running(jnp.zeros(features, dtype), jnp.ones(features, dtype))

    def __call__(self, x: Float[Array, "features ..."]) -> Float[Array, "features ..."]:
        if x.shape[:1] != self.weight.shape:
            raise ValueError(f"expected an example of {self.weight.size} features first, got shape {list(x.shape)}")
        mean, variance = self.running.mean, self.running.variance
        if not self.inference:
            mean = _mean_of_batch(x)
            variance = _mean_of_batch(jnp.square(x - _beside(mean, x)))
            for old, new in ((self.running.mean, mean), (self.running.variance, variance)):
                update(old, self.momentum * old + (1 - self.momentum) * new.astype(old.dtype))
        scale = self.weight * jax.lax.rsqrt(variance.astype(self.weight.dtype) + self.eps)
        normal = (x - _beside(mean, x)) * _beside(scale, x)
        return normal + _beside(self.bias, x)


def _mean_of_batch(x: Float[Array, "features ..."]) -> Float[Array, " features"]:
    """The mean over further axes and the batch, in single precision at least: half precision overflows in the sum."""
    return jax.lax.pmean(jnp.mean(widened(x).reshape(x.shape[0], -1), axis=1), "batch")


def _beside(values: Float[Array, " features"], x: Float[Array, "features ..."]) -> Array:
    return values.astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
