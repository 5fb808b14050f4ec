"""Feedback that learns to align with the forward weights by a penalty of each layer.

A penalty has five parts, functions of the forward weight `W`, the feedback `B` (in the shape of `W`) and an input `x`:

    decay  = ||B||^2
    own    = -<W, B>
    sparse = ||B x||^2
    amplify = -<B x, W x>
    null   = ||B^T W x||^2

where `W x` is the layer without its bias and `B^T` the transpose; the parts are sums over units and positions. Only `B`
descends the penalty: forward weights and input are held.
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
    """Noise that replaces the input of a layer for the learning of its feedback: independent units of mean 0.

    The noise is a function of a key and of the weight, feedback and input of the layer. So it differs between examples
    and updates, and is the same when a run is repeated or resumed. Programs that are compiled differently (a member of
    a sweep and a single run) differ in the last bits of the weights, and so in their noise.

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
        """Draws noise in the shape of `x`; it depends on `x` and `weights`."""
        key = folded(seed, weights, x)
        if self.distribution == "normal":
            return self.deviation * jax.random.normal(key, x.shape, x.dtype)
        bound = 3**0.5 * self.deviation
        return jax.random.uniform(key, x.shape, x.dtype, -bound, bound)


_WHITE = Noise()


class Alignment(eqx.Module):
    """A penalty: the coefficients of its parts, and the input that it is computed from.

    See `weight_mirror`, `information_alignment`, `symmetric_alignment` and `activation_alignment` for those in use.

    Args:
        decay: Coefficient of `||B||^2`, at least 0, as all are.
        own: Coefficient of `-<W, B>`.
        sparse: Coefficient of `||B x||^2`.
        amplify: Coefficient of `-<B x, f(W x)>`.
        null: Coefficient of `||B^T W x||^2`.
        noise: Replaces the input. None: the layer's own input.
        activation: `f`, applied to the output of the layer with its bias. None: the bare product `W x`.

    Raises:
        ValueError: If a coefficient is negative.
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
        """Computes the penalty of one example.

        Args:
            layer: The layer; its arrays and `x` are held.
            feedback: `B`, in the shape of the layer's weight.
            x: The input of the layer, or noise in its place.

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
    """A separate weight that descends a penalty of its layer.

    Attributes:
        feedback: The weight, in the shape of the layer's weight.
        alignment: The penalty.
        seed: Data of a key for the noise. None: no noise.
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

    Under every rule, the gradient of the feedback weights is that of the penalty; `optimizers` gives them an optimiser
    of their own. This holds for the rules of this library, which carry errors. `jax.grad` of a loss carries gradients
    instead, and gives the feedback the gradient of the penalty with the opposite sign, summed over the batch; so does
    `vicinal.rules.ImplicitSGD`, which descends the loss. In a recurrent network the penalty counts once for each step
    (and once for the whole batch before the first step, where nothing enters).

    Args:
        alignment: The penalty.
        scale: Initial standard deviation, in units of that of initial weights.
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
    """Weight mirror (WM): correlates noise at the input of a layer with the layer's response.

        penalty = decay * ||B||^2 - amplify * <B x, W x>,      at rest  B = amplify / (2 decay) * W E[x x^T]

    so that white noise leads to the forward weight itself; the network's own activity is not white and does not.

    Args:
        decay: Coefficient of the decay.
        amplify: Coefficient of the correlation.
        noise: Replaces the input. None: the layer's own input.
        activation: Applied to the response of the layer to the noise, as in the circuit of the first paper.
        **drawing: `scale` and `distribution` of the initial feedback, as for `aligned`.

    References:
        Akrout, Wilson, Humphreys, Lillicrap and Tweed, Deep learning without weight transport, NeurIPS 2019, arXiv
        1904.05391. Kunin, Nayebi, Sagastuy-Brena, Ganguli, Bloom and Yamins, Two routes to scalable credit assignment
        without weight symmetry, ICML 2020, arXiv 2003.01513 (this form, and the default coefficients).

    *Differs from the paper*: there is no separate mirror phase in which noise drives the network from below. Every
    layer is shown its own noise, and its feedback learns at the same time as the weights; `alternating` lets them
    learn in turn.
    """
    return aligned(Alignment(decay=decay, amplify=amplify, noise=noise, activation=activation), **drawing)


def information_alignment(
    amplify: float = 2e-3, null: float = 1e-3, decay: float = 1e-3, noise: Noise | None = None, **drawing: Any
) -> Route:
    """Information alignment (IA): the feedback learns to recover the input of a layer from its output.

        penalty = null * ||B^T W x||^2 - amplify * <B x, W x> + decay * ||B||^2

    For white `x` of variance 1 it rests at `B^T = (2 null W^T W + 2 decay)^-1 amplify W^T`: a damped pseudo-inverse.

    Args:
        amplify: Coefficient of the correlation.
        null: Coefficient of the norm of the recovered input.
        decay: Coefficient of the decay.
        noise: Replaces the input. None: the layer's own input.
        **drawing: `scale` and `distribution` of the initial feedback, as for `aligned`.

    References:
        Kunin et al., Two routes to scalable credit assignment without weight symmetry, ICML 2020, arXiv 2003.01513.
    """
    return aligned(Alignment(decay=decay, amplify=amplify, null=null, noise=noise), **drawing)


def symmetric_alignment(decay: float = 1e-3, own: float = 2e-3, **drawing: Any) -> Route:
    """Symmetric alignment (SA): the feedback is pulled to the forward weight, which is taken to be known.

        penalty = decay * ||B||^2 - own * <W, B>,      at rest  B = own / (2 decay) * W

    Args:
        decay: Coefficient of the decay.
        own: Coefficient of the product.
        **drawing: `scale` and `distribution` of the initial feedback, as for `aligned`.

    References:
        Kunin et al., Two routes to scalable credit assignment without weight symmetry, ICML 2020, arXiv 2003.01513.
    """
    return aligned(Alignment(decay=decay, own=own), **drawing)


def activation_alignment(
    sparse: float = 1e-3, amplify: float = 2e-3, noise: Noise | None = None, **drawing: Any
) -> Route:
    """Activation alignment (AA): the feedback, run forwards, learns to reproduce the output of the forward weight.

        penalty = sparse * ||B x||^2 - amplify * <B x, W x>,      at rest  B = amplify / (2 sparse) * W for any x

    Args:
        sparse: Coefficient of the sparseness.
        amplify: Coefficient of the correlation.
        noise: Replaces the input. None: the layer's own input.
        **drawing: `scale` and `distribution` of the initial feedback, as for `aligned`.

    References:
        Kunin et al., Two routes to scalable credit assignment without weight symmetry, ICML 2020, arXiv 2003.01513.
    """
    return aligned(Alignment(sparse=sparse, amplify=amplify, noise=noise), **drawing)


def without_bias(layer: Layer) -> Layer:
    """Sets the bias of a layer to zero, which leaves the bare product."""
    bias = layer.bias
    return layer if bias is None else eqx.tree_at(lambda layer: layer.bias, layer, jnp.zeros_like(bias))


def _down(layer: Layer, feedback: Array, x: Array, y: Array) -> Array:
    """Computes `B^T y`: the transpose of the bare layer with the feedback as weight."""
    _, back = jax.vjp(with_weight(layer, feedback), x)
    return back(y)[0]
