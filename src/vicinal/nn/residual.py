"""Residual networks whose vertices hold the residual stream."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from vicinal.activations import Activation, activation_function
from vicinal.graph import vertex
from vicinal.nn.layers import Linear
from vicinal.nn.models import Place, _checked_place


class ResidualMLP(eqx.Module):
    """A deep fully connected residual network; vertices `hidden1`, `hidden2`, ... hold the residual stream.

    With `n = depth - 2` residual branches, `s = branch_scale` and `f` the activation,

        "post":  h_1 = f(W_1 x + b_1)   h_{l+1} = h_l + s f(W_{l+1} h_l + b_{l+1})   output = W h + b
        "pre":   h_1 = W_1 x + b_1      h_{l+1} = h_l + s (W_{l+1} f(h_l) + b_{l+1})   output = W f(h) + b

    and every `h_l` is a vertex. The two are different functions, unlike those of an `MLP`.

    The branch scale keeps activities of the same size at any depth. A branch of "pre" ends in weights of either
    sign, so that the `n` branches add like independent noise and their sum grows as `sqrt(n)`: the scale is
    `1/sqrt(n)`, that of depth-muP. A branch of "post" ends in `f`, whose mean need not be zero: branches of
    ReLUs all add with the same sign and their sum grows as `n`, so that the scale is `1/n` (with `1/sqrt(n)`, the mean
    square of the last vertex at depth 64 is 13 times that at depth 4). For an odd `f`, such as tanh, `1/sqrt(n)` is
    right in "post" too; give it as `branch_scale`.

    Args:
        sizes: `(in, width, out)`: length of the input, units of every hidden layer, length of the output.
        depth: Number of weight layers, input and output layers included; at least 3.
        activation: Name or function.
        vertex_at: Where the activation is: `"post"` (after a branch's weights) or `"pre"` (before them).
        branch_scale: Factor of every residual branch, above 0; None for the scale above.
        key: For the initial weights.

    Attributes:
        layers: `Linear` layers, `depth` of them; `layers[i].weight` is `[out, in]`.
        branch_scale: Factor of every residual branch.

    Raises:
        ValueError: If there are not three sizes, the depth is below 3, the scale not above 0, or a name unknown.

    Example:
        >>> model = ResidualMLP((784, 32, 10), depth=64, vertex_at="pre", key=jax.random.key(0))
        >>> model(jax.numpy.ones(784)).shape, len(model.layers), round(model.branch_scale, 4)
        ((10,), 64, 0.127)

    References:
        He et al., Identity mappings in deep residual networks, ECCV 2016, arXiv 1603.05027. Bordelon et al.,
        Depthwise hyperparameter transfer in residual networks, ICLR 2024, arXiv 2309.16620 (the scale `1/sqrt(n)`).
        Innocenti et al., muPC: scaling predictive coding to 100+ layer networks, NeurIPS 2025, arXiv 2505.13124 (the
        stream of "pre" as vertices of predictive coding).
    """

    layers: tuple[Linear, ...]
    activation: Callable = eqx.field(static=True)
    vertex_at: str = eqx.field(static=True)
    branch_scale: float = eqx.field(static=True)

    def __init__(
        self,
        sizes: tuple[int, int, int],
        depth: int,
        activation: Activation = "relu",
        vertex_at: Place = "post",
        branch_scale: float | None = None,
        *,
        key: PRNGKeyArray,
    ):
        if len(sizes) != 3:
            raise ValueError(
                f"expected three sizes, (in, width, out), got {tuple(sizes)}; all hidden layers have one width"
            )
        if isinstance(depth, bool) or not isinstance(depth, int | np.integer) or depth < 3:
            raise ValueError(
                f"expected depth as an integer of at least 3, got {depth!r}; "
                "count the layers of the input and of the output too"
            )
        self.vertex_at = _checked_place(vertex_at)
        self.activation = activation_function(activation)
        branches = int(depth) - 2
        if branch_scale is None:
            branch_scale = 1 / branches if vertex_at == "post" else branches**-0.5
        if not 0 < branch_scale < math.inf:
            raise ValueError(f"expected branch_scale above 0, got {branch_scale!r}; leave it out for the default")
        self.branch_scale = float(branch_scale)
        into, width, out = sizes
        widths = [into, *[width] * (branches + 1), out]
        keys = jax.random.split(key, len(widths) - 1)
        self.layers = tuple(
            Linear(below, above, key=k) for below, above, k in zip(widths[:-1], widths[1:], keys, strict=True)
        )

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        first, *branches, last = self.layers
        post = self.vertex_at == "post"
        h = vertex(self.activation(first(x)) if post else first(x), "hidden1")
        for i, layer in enumerate(branches, 2):
            branch = self.activation(layer(h)) if post else layer(self.activation(h))
            h = vertex(h + self.branch_scale * branch, f"hidden{i}")
        return last(h if post else self.activation(h))
