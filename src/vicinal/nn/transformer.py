"""A small transformer whose vertices hold the residual stream.

The normalisations have no gain and no bias: the linear layer after each of them can represent both. So every
parameter multiplies an activity or is added to such a product, and rules and optimisers that use the inputs of each
weight (`Graph.synapses`, `vicinal.optim.nlms`) work on all of them.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vicinal._memory import check_scores
from vicinal._numbers import check_counts
from vicinal.graph import vertex
from vicinal.nn.layers import Linear
from vicinal.nn.padding import counted_steps, if_there, sequence_and_length, step_mask, without_padding


class SelfAttention(eqx.Module):
    """Multi-head attention of a sequence to itself. It holds no vertex.

        head = softmax(q k^T / sqrt(size)) v,   size = features / heads,   output = W [head_1, head_2, ...] + b

    with `q`, `k` and `v` linear in the step's vector. The keys have no bias: it would shift all scores of a step by
    the same number, which cancels in the softmax. Given a length, no step attends to the padding after it.

    Args:
        features: Length of each vector, in and out.
        heads: Number of heads; divides `features`.
        causal: Whether a step attends only to itself and earlier steps.
        key: For the initial weights.

    Attributes:
        query_layer, key_layer, value_layer, output_layer: `Linear` layers, `[features, features]`.

    Raises:
        ValueError: If a size is below 1, or the heads do not divide the features.

    Example:
        >>> SelfAttention(8, 2, key=jax.random.key(0))(jnp.ones((5, 8))).shape
        (5, 8)

    References:
        Vaswani et al., Attention is all you need, NeurIPS 2017, arXiv 1706.03762.
    """

    query_layer: Linear
    key_layer: Linear
    value_layer: Linear
    output_layer: Linear
    heads: int = eqx.field(static=True)
    causal: bool = eqx.field(static=True)

    def __init__(self, features: int, heads: int, causal: bool = False, *, key: PRNGKeyArray):
        check_counts(features=features, heads=heads)
        if features % heads:
            raise ValueError(f"expected features that heads={heads} divides, got {features}; change one of them")
        query_key, key_key, value_key, output_key = jax.random.split(key, 4)
        self.query_layer = Linear(features, features, key=query_key)
        self.key_layer = Linear(features, features, use_bias=False, key=key_key)
        self.value_layer = Linear(features, features, key=value_key)
        self.output_layer = Linear(features, features, key=output_key)
        self.heads = heads
        self.causal = causal

    def __call__(
        self, x: Float[Array, "time features"], length: Int[Array, ""] | None = None
    ) -> Float[Array, "time features"]:
        layers = (self.query_layer, self.key_layer, self.value_layer)
        query, key, value = (jax.vmap(layer)(x).reshape(len(x), self.heads, -1) for layer in layers)
        check_scores(query, self.heads * len(x) ** 2)
        # Not jax.nn.dot_product_attention, which takes the softmax in float32 whatever the activities' dtype.
        scores = jnp.einsum("qhs,khs->hqk", query, key) / query.shape[-1] ** 0.5
        if self.causal:
            scores = jnp.where(jnp.tril(jnp.ones(scores.shape, bool)), scores, -jnp.inf)
        if length is not None:  # the first step always counts: a softmax over no step is undefined
            counts = counted_steps(x, jnp.maximum(length, 1))
            scores = jnp.where(jnp.broadcast_to(counts, scores.shape), scores, -jnp.inf)
        mixed = jnp.einsum("hqk,khs->qhs", jax.nn.softmax(scores), value)
        return jax.vmap(self.output_layer)(mixed.reshape(x.shape))


class TransformerBlock(eqx.Module):
    """A pre-norm block; vertices `{prefix}attention` and `{prefix}mlp`, both `[time, features]`.

        x = vertex(x + attention(norm(x)))
        x = vertex(x + W_2 gelu(W_1 norm(x) + b_1) + b_2)

    where `norm` scales each step's vector to mean 0 and variance 1. Given a length, later steps are padding.

    Args:
        features: Length of each vector, in and out.
        heads: Heads of the attention; divides `features`.
        hidden_features: Hidden units of the perceptron.
        prefix: Of the vertices' names.
        causal: Whether a step attends only to itself and earlier steps.
        key: For the initial weights.

    Attributes:
        attention: The `SelfAttention`.
        hidden_layer, output_layer: `Linear` layers of the perceptron.
        norm: Without parameters.

    Raises:
        ValueError: If a size is below 1, or the heads do not divide the features.

    Example:
        >>> block = TransformerBlock(8, heads=2, hidden_features=16, prefix="block1_", key=jax.random.key(0))
        >>> block(jnp.ones((5, 8))).shape
        (5, 8)

    References:
        Xiong et al., On layer normalization in the transformer architecture, ICML 2020, arXiv 2002.04745 (pre-norm).
    """

    attention: SelfAttention
    hidden_layer: Linear
    output_layer: Linear
    norm: eqx.nn.LayerNorm
    prefix: str = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        heads: int,
        hidden_features: int,
        prefix: str = "",
        causal: bool = False,
        *,
        key: PRNGKeyArray,
    ):
        check_counts(hidden_features=hidden_features)
        attention_key, hidden_key, output_key = jax.random.split(key, 3)
        self.attention = SelfAttention(features, heads, causal, key=attention_key)
        self.hidden_layer = Linear(features, hidden_features, key=hidden_key)
        self.output_layer = Linear(hidden_features, features, key=output_key)
        self.norm = _norm(features)
        self.prefix = prefix

    def __call__(
        self, x: Float[Array, "time features"], length: Int[Array, ""] | None = None
    ) -> Float[Array, "time features"]:
        mask = step_mask(x, length)
        x = vertex(x + self.attention(jax.vmap(self.norm)(x), length), f"{self.prefix}attention", mask)
        return vertex(x + jax.vmap(self._perceptron)(x), f"{self.prefix}mlp", mask)

    def _perceptron(self, x: Float[Array, " features"]) -> Float[Array, " features"]:
        return self.output_layer(jax.nn.gelu(self.hidden_layer(self.norm(x))))


class Transformer(eqx.Module):
    """A transformer on a sequence of vectors; vertices `embedding`, `block1_attention`, `block1_mlp`, `block2_...`

        x_t = vertex(W input_t + positions_t),   then the blocks,   then  W' mean over t of norm(x_t) + b'

    or `W' norm(x_t) + b'` at each step. Every vertex holds the residual stream at all steps, `[time, features]`.

    Called with `(sequence, length)` it reads only the first `length` steps, at least one: the rest is padding, with
    outputs of 0. Vertices there are masked, so that every rule learns as without padding.

    Args:
        in_features: Length of each input vector.
        features: Length of each vector of the stream.
        out_features: Length of each output vector.
        depth: Number of blocks.
        heads: Heads of each attention; divides `features`.
        hidden_features: Hidden units of each block's perceptron; by default `4 * features`.
        every_step: Whether to return an output at each time step, or one for the whole sequence.
        causal: Whether a step attends only to itself and earlier steps.
        length: The most time steps of an input, which is the number of learned positions.
        key: For the initial weights.

    Attributes:
        embedding: `Linear` layer without bias; the positions take its place.
        positions: `[length, features]`, initially as the biases of a `Linear` layer.
        blocks: `TransformerBlock` layers.
        norm: Without parameters.
        output_layer: `Linear` layer.

    Raises:
        ValueError: If a size is below 1, the heads do not divide the features, or an input has another shape.

    Example:
        >>> model = Transformer(8, 32, 10, depth=2, length=8, key=jax.random.key(0))
        >>> model(jnp.ones((8, 8))).shape
        (10,)

    References:
        Vaswani et al., Attention is all you need, NeurIPS 2017, arXiv 1706.03762. Pinchetti et al., Predictive coding
        beyond Gaussian distributions, NeurIPS 2022, arXiv 2211.03481 (transformers by predictive coding).
    """

    embedding: Linear
    positions: Float[Array, "length features"]
    blocks: tuple[TransformerBlock, ...]
    norm: eqx.nn.LayerNorm
    output_layer: Linear
    every_step: bool = eqx.field(static=True)

    def __init__(
        self,
        in_features: int,
        features: int,
        out_features: int,
        depth: int = 1,
        heads: int = 2,
        hidden_features: int | None = None,
        every_step: bool = False,
        causal: bool = False,
        *,
        length: int,
        key: PRNGKeyArray,
    ):
        check_counts(in_features=in_features, features=features, depth=depth, length=length)
        embedding_key, positions_key, output_key, *block_keys = jax.random.split(key, 3 + depth)
        bound = in_features**-0.5
        self.embedding = Linear(in_features, features, use_bias=False, key=embedding_key)
        self.positions = jax.random.uniform(positions_key, (length, features), minval=-bound, maxval=bound)
        hidden = 4 * features if hidden_features is None else hidden_features
        self.blocks = tuple(
            TransformerBlock(features, heads, hidden, f"block{i}_", causal, key=k) for i, k in enumerate(block_keys, 1)
        )
        self.norm = _norm(features)
        self.output_layer = Linear(features, out_features, key=output_key)
        self.every_step = every_step

    def __call__(
        self, x: Float[Array, "time in"] | tuple[Float[Array, "time in"], Int[Array, ""]]
    ) -> Float[Array, " out"] | Float[Array, "time out"]:
        x, count = sequence_and_length(x)
        length, in_features = len(self.positions), self.embedding.weight.shape[1]
        if x.ndim != 2 or not 1 <= len(x) <= length or x.shape[1] != in_features:
            raise ValueError(
                f"expected an input of shape [time, {in_features}] with 1 to {length} time steps, got {list(x.shape)}; "
                "give one example, or make the model for this length"
            )
        x = jax.vmap(self.embedding)(x) + self.positions[: len(x)]
        x = vertex(x, "embedding", step_mask(x, count))
        for block in self.blocks:
            x = block(x, count)
        x = without_padding(jax.vmap(self.norm)(x), count)
        if self.every_step:
            return if_there(without_padding(jax.vmap(self.output_layer)(x), count), x, count)
        if count is None:
            return self.output_layer(jnp.mean(x, axis=0))
        # The mean over no step is NaN.
        return if_there(self.output_layer(jnp.sum(x, axis=0) / count.astype(x.dtype)), x, count)


def _norm(features: int) -> eqx.nn.LayerNorm:
    return eqx.nn.LayerNorm(features, use_weight=False, use_bias=False)
