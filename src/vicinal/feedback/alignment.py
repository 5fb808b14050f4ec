"""Feedback that learns to be like the forward weights, from what its own layer sees: one penalty for each layer.

A penalty is made of five parts, of the forward weight `W`, the feedback `B` (in the shape of `W`) and an input `x`:

    decay  = ||B||^2
    own    = -<W, B>
    sparse = ||B x||^2
    amplify = -<B x, W x>
    null   = ||B^T W x||^2

where `W x` is the layer without its bias and `B^T` the transposed one, sums over units (and positions). It is descended
in `B` alone: forward weights and input are held.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

from vicinal._numbers import check
from vicinal.feedback.paths import (
    Layer,
    Path,
    Route,
    Separate,
    check_drawing,
    drawn_like,
    folded,
    needed,
    pulled,
    seed_of,
    with_weight,
)


class Noise(eqx.Module):
    """Noise in place of a layer's input while its feedback learns: independent units, mean 0.

    The draw is a function of a key and of what the layer holds (weight, feedback and input), so that it is a new one
    for each example and each update, and the same when a run is repeated or resumed. A program that is compiled
    otherwise (a member of a sweep, beside a run alone) differs in the last bits of the weights: its noise is another.

    Args:
        deviation: Standard deviation of each unit, above 0.
        distribution: `"normal"` or `"uniform"`.
    """

    deviation: float = eqx.field(static=True, default=1.0)
    distribution: Literal["normal", "uniform"] = eqx.field(static=True, default="normal")

    def __check_init__(self):
        check("the deviation of the noise", self.deviation, lambda v: v > 0, "above 0")
        check_drawing(1.0, self.distribution)

    def draw(self, seed: UInt32[Array, "..."], x: Array, weights: Sequence[Array]) -> Array:
        """Noise in the shape of `x`; another for other weights."""
        key = folded(seed, weights, x)
        if self.distribution == "normal":
            return self.deviation * jax.random.normal(key, x.shape, x.dtype)
        bound = 3**0.5 * self.deviation
        return jax.random.uniform(key, x.shape, x.dtype, -bound, bound)


_WHITE = Noise()


class Alignment(eqx.Module):
    """How much each part of the penalty counts. The four in use are `weight_mirror`, `information_alignment`, ...

    Args:
        decay: Of `||B||^2`.
        own: Of `-<W, B>`.
        sparse: Of `||B x||^2`.
        amplify: Of `-<B x, f(W x)>`.
        null: Of `||B^T W x||^2`.
        noise: What stands in for the input; None for the layer's own input.
        activation: `f` in `amplify`, applied to the layer's output with its bias; None for the bare product.
    """

    decay: float = eqx.field(static=True, default=0.0)
    own: float = eqx.field(static=True, default=0.0)
    sparse: float = eqx.field(static=True, default=0.0)
    amplify: float = eqx.field(static=True, default=0.0)
    null: float = eqx.field(static=True, default=0.0)
    noise: Noise | None = None
    activation: Callable[[Array], Array] | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        for name in ("decay", "own", "sparse", "amplify", "null"):
            check(f"the coefficient {name}", getattr(self, name), lambda v: v >= 0, "of at least 0")

    def penalty(self, layer: Layer, feedback: Float[Array, "..."], x: Array) -> Float[Array, ""]:
        """The penalty of one example.

        Args:
            layer: The layer; its arrays and `x` are held.
            feedback: In the shape of the layer's weight.
            x: The layer's input, or noise in its place.

        Returns:
            A scalar whose derivative is with respect to `feedback` alone.
        """
        layer, x = jax.lax.stop_gradient((layer, x))
        bare = without_bias(layer)
        forward, mirrored = bare(x), with_weight(bare, feedback)(x)
        parts = [
            self.decay * jnp.sum(jnp.square(feedback)) if self.decay else None,
            -self.own * jnp.sum(layer.weight * feedback) if self.own else None,
            self.sparse * jnp.sum(jnp.square(mirrored)) if self.sparse else None,
            -self.amplify * jnp.sum(mirrored * self._projected(layer, x, forward)) if self.amplify else None,
            self.null * jnp.sum(jnp.square(_down(bare, feedback, x, forward))) if self.null else None,
        ]
        return sum((part for part in parts if part is not None), start=jnp.zeros((), feedback.dtype))

    def _projected(self, layer: Layer, x: Array, forward: Array) -> Array:
        return forward if self.activation is None else self.activation(layer(x))


class Aligned(Separate):
    """A weight of its own that descends a penalty of its layer.

    Attributes:
        feedback: In the shape of the layer's weight.
        alignment: The penalty.
        seed: Data of a key, for noise; None without.
    """

    role: ClassVar[Any] = "feedback"

    alignment: Alignment
    seed: UInt32[Array, "..."] | None

    def taught(self, layer: Layer, x: Array, out: Array) -> Array:
        noise = self.alignment.noise
        seen = x if noise is None or self.seed is None else noise.draw(self.seed, x, [layer.weight, self.feedback])
        return pulled(out, self.alignment.penalty(layer, self.feedback, seen))


def aligned(alignment: Alignment, scale: float = 1.0, distribution: Literal["uniform", "normal"] = "uniform") -> Route:
    """Random feedback that learns by a penalty of each layer.

    The gradient of the penalty is the gradient of the feedback weights, whatever the rule; `optimizers` gives them an
    optimiser of their own. That holds for the rules of this library, which carry errors: `jax.grad` of a loss, which
    carries slopes, gives the feedback the penalty's gradient with the other sign, summed over the batch, and so does
    `vicinal.rules.ImplicitSGD`, which descends the loss. In a recurrent net the penalty counts once for each step (and
    once for the whole batch before the first, where nothing enters).

    Args:
        alignment: The penalty.
        scale: Standard deviation at first, in units of that of first weights.
        distribution: `"uniform"` or `"normal"`.

    Returns:
        A route for `attach`, which needs a key.
    """
    check_drawing(scale, distribution)

    def route(name: str, weight: Array, key: PRNGKeyArray | None) -> Path:
        drawing, noise = jax.random.split(needed(key, name))
        feedback = drawn_like(weight, drawing, scale, distribution)
        return Aligned(feedback, alignment, None if alignment.noise is None else seed_of(noise))

    return route


def weight_mirror(
    decay: float = 1e-3,
    amplify: float = 1e-3,
    noise: Noise | None = _WHITE,
    activation: Callable[[Array], Array] | None = None,
    **drawing: Any,
) -> Route:
    """Weight mirror (WM): noise at a layer's input, and the correlation of it with what the layer makes of it.

        penalty = decay * ||B||^2 - amplify * <B x, W x>,      at rest  B = amplify / (2 decay) * W E[x x^T]

    so that white noise leads to the forward weight itself; the network's own activity, which is not white, elsewhere.

    Args:
        decay: Coefficient of the decay.
        amplify: Coefficient of the correlation.
        noise: What stands in for the input; None for the layer's own activity.
        activation: Applied to what the layer makes of the noise, as in the circuit of the first paper.
        **drawing: `scale` and `distribution` of the first feedback, as for `aligned`.

    References:
        Akrout, Wilson, Humphreys, Lillicrap and Tweed, Deep learning without weight transport, NeurIPS 2019, arXiv
        1904.05391. Kunin, Nayebi, Sagastuy-Brena, Ganguli, Bloom and Yamins, Two routes to scalable credit assignment
        without weight symmetry, ICML 2020, arXiv 2003.01513 (this form, and the default coefficients).

    *Differs from the paper*: the mirror phase is not a phase of its own in which the network is driven by noise from
    below; every layer is shown noise of its own, and its feedback learns at the same time as the weights. `alternating`
    makes them take turns.
    """
    return aligned(Alignment(decay=decay, amplify=amplify, noise=noise, activation=activation), **drawing)


def information_alignment(
    amplify: float = 2e-3, null: float = 1e-3, decay: float = 1e-3, noise: Noise | None = None, **drawing: Any
) -> Route:
    """Information alignment (IA): the feedback learns to recover a layer's input from its output.

        penalty = null * ||B^T W x||^2 - amplify * <B x, W x> + decay * ||B||^2

    For white `x` of variance 1 it rests at `B^T = (2 null W^T W + 2 decay)^-1 amplify W^T`: a damped pseudo-inverse.

    Args:
        amplify: Coefficient of the correlation.
        null: Coefficient of what the input is recovered as.
        decay: Coefficient of the decay.
        noise: What stands in for the input; None for the layer's own activity.
        **drawing: `scale` and `distribution` of the first feedback, as for `aligned`.

    References:
        Kunin et al., Two routes to scalable credit assignment without weight symmetry, ICML 2020, arXiv 2003.01513.
    """
    return aligned(Alignment(decay=decay, amplify=amplify, null=null, noise=noise), **drawing)


def symmetric_alignment(decay: float = 1e-3, own: float = 2e-3, **drawing: Any) -> Route:
    """Symmetric alignment (SA): the feedback is pulled to the forward weight, which is estimated somewhere else.

        penalty = decay * ||B||^2 - own * <W, B>,      at rest  B = own / (2 decay) * W

    Args:
        decay: Coefficient of the decay.
        own: Coefficient of the product.
        **drawing: `scale` and `distribution` of the first feedback, as for `aligned`.

    References:
        Kunin et al., Two routes to scalable credit assignment without weight symmetry, ICML 2020, arXiv 2003.01513.
    """
    return aligned(Alignment(decay=decay, own=own), **drawing)


def activation_alignment(
    sparse: float = 1e-3, amplify: float = 2e-3, noise: Noise | None = None, **drawing: Any
) -> Route:
    """Activation alignment (AA): the feedback, run forwards, learns to make what the forward weight makes.

        penalty = sparse * ||B x||^2 - amplify * <B x, W x>,      at rest  B = amplify / (2 sparse) * W for any x

    Args:
        sparse: Coefficient of the sparseness.
        amplify: Coefficient of the correlation.
        noise: What stands in for the input; None for the layer's own activity.
        **drawing: `scale` and `distribution` of the first feedback, as for `aligned`.

    References:
        Kunin et al., Two routes to scalable credit assignment without weight symmetry, ICML 2020, arXiv 2003.01513.
    """
    return aligned(Alignment(sparse=sparse, amplify=amplify, noise=noise), **drawing)


def without_bias(layer: Layer) -> Layer:
    """The layer without its bias: the bare product."""
    bias = layer.bias
    return layer if bias is None else eqx.tree_at(lambda layer: layer.bias, layer, jnp.zeros_like(bias))


def _down(layer: Layer, feedback: Array, x: Array, y: Array) -> Array:
    """`B^T y`: the transpose of the bare layer with the feedback as weight."""
    _, back = jax.vjp(with_weight(layer, feedback), x)
    return back(y)[0]
