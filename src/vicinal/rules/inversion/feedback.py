"""The feedback `B` that a loop of `DynamicInversion` starts with."""

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from vicinal._numbers import check, number
from vicinal._show import module_text


class LoopFeedback(eqx.Module):
    """What `B` is before the first update."""

    def __repr__(self) -> str:
        return module_text(self)

    def initial(self, weight: Float[Array, "up down"], *, key: PRNGKeyArray | None) -> Float[Array, "down up"]:
        """Returns `B` for a loop.

        Args:
            weight: `W` of the loop, `[units above, units below]`.
            key: For feedback that is drawn.

        Returns:
            `B`, `[units below, units above]`.

        Raises:
            ValueError: If the feedback is drawn and there is no key.
        """
        raise NotImplementedError


class MinusTranspose(LoopFeedback):
    """`B = -W^T` of the first weights.

    The loop is stable if it has a leak, or if `W` has full row rank; it comes to rest at the damped least-squares step.
    """

    def initial(self, weight: Float[Array, "up down"], *, key: PRNGKeyArray | None) -> Float[Array, "down up"]:
        return -weight.T


class Uniform(LoopFeedback):
    """`B` uniform in `±scale`, independent of `W`. Such a loop is seldom stable: see `Stabilise`.

    Args:
        scale: Half the width of the distribution, at least 0.

    Raises:
        ValueError: If the scale is negative.
    """

    scale: Float[Array, ""] = eqx.field(converter=number, default=0.5)

    def __check_init__(self):
        check("the scale of the feedback", self.scale, lambda v: v >= 0, "of at least 0")

    def initial(self, weight: Float[Array, "up down"], *, key: PRNGKeyArray | None) -> Float[Array, "down up"]:
        if key is None:
            raise ValueError("expected a key to draw the feedback with, got none; rule.init(graph, model, key=key)")
        drawn = jax.random.uniform(key, weight.T.shape, weight.dtype, -1.0)
        return self.scale.astype(weight.dtype) * drawn
