"""A model of sequences on top of any mixers; its vertices hold the residual stream.

The normalisations have no gain and no bias, for the reason given in `vicinal.nn.transformer`: so every parameter of
the stack multiplies an activity or is added to such a product. Looking up an embedding is such a product too, with a
one-hot vector.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from vicinal._numbers import check_count
from vicinal.attention.base import Mixer
from vicinal.graph import vertex
from vicinal.nn.layers import Linear
from vicinal.nn.padding import if_there, sequence_and_length, step_mask, without_padding


class Block(eqx.Module):
    """A mixer, then a perceptron at each step; vertices `{prefix}mixer` and `{prefix}mlp`, both `[time, features]`.

        x = vertex(x + mixer(norm(x)))
        x = vertex(x + W_2 gelu(W_1 norm(x) + b_1) + b_2)

    where `norm` takes each step's vector to mean 0 and variance 1.

    Args:
        mixer: A `Mixer`.
        features: Length of each vector.
        hidden_features: Hidden units of the perceptron; 0 for none, and no vertex `{prefix}mlp`.
        prefix: Of the vertices' names.
        key: For the initial weights.

    Attributes:
        mixer: As given.
        hidden_layer, output_layer: `Linear` layers of the perceptron, or None.
        norm: Without parameters.

    Raises:
        ValueError: If a size is below its least.
        TypeError: If the mixer is no `Mixer`.

    References:
        Xiong et al., On layer normalization in the transformer architecture, ICML 2020, arXiv 2002.04745 (pre-norm).
    """

    mixer: Mixer
    hidden_layer: Linear | None
    output_layer: Linear | None
    norm: eqx.nn.LayerNorm
    prefix: str = eqx.field(static=True)

    def __init__(self, mixer: Mixer, features: int, hidden_features: int, prefix: str = "", *, key: PRNGKeyArray):
        check_count("features", features, 1)
        check_count("hidden_features", hidden_features, 0)
        if not isinstance(mixer, Mixer):
            raise TypeError(
                f"expected a vicinal.attention.Mixer, got {type(mixer).__name__}; give a function of a key that makes "
                "one, such as functools.partial(Layer, features)"
            )
        hidden_key, output_key = jax.random.split(key)
        self.mixer = mixer
        self.hidden_layer = Linear(features, hidden_features, key=hidden_key) if hidden_features else None
        self.output_layer = Linear(hidden_features, features, key=output_key) if hidden_features else None
        self.norm = _norm(features)
        self.prefix = prefix

    def __call__(
        self, x: Float[Array, "time features"], state: PyTree | None = None, *, length: Int[Array, ""] | None = None
    ) -> tuple[Float[Array, "time features"], Any]:
        """Reads a sequence, or its next piece; arguments and results as for `Mixer`, but for steps of padding."""
        mixed, state = self.mixer(jax.vmap(self.norm)(x), state, length=length)
        mask = step_mask(x, length)
        x = vertex(x + mixed, f"{self.prefix}mixer", mask)
        if self.hidden_layer is None or self.output_layer is None:
            return x, state
        hidden = jax.nn.gelu(jax.vmap(self.hidden_layer)(jax.vmap(self.norm)(x)))
        return vertex(x + jax.vmap(self.output_layer)(hidden), f"{self.prefix}mlp", mask), state


class LanguageModel(eqx.Module):
    """Predicts at each step what comes next; vertices `embedding`, `block1_mixer`, `block1_mlp`, `block2_mixer`, ...

        x = vertex(E[token]),   then the blocks,   then   logits = W norm(x) + b

    at each step. Positions are known only to mixers that encode them. Called with tokens it gives the logits,
    for training by any rule; `read` also takes and returns the mixers' states, for texts in pieces.

    Called with `(tokens, length)` it reads only the first `length` steps: the rest is padding, with logits of 0.
    Vertices there are masked, so that every rule learns as from the text without padding.

    Args:
        vocabulary: Number of tokens; the length of each output.
        features: Length of each vector of the stream.
        mixers: For each block a function that makes its mixer, called as `make(key=...)`, such as
            `functools.partial(Layer, features)`. They may differ from block to block.
        hidden_features: Hidden units of each block's perceptron; by default `4 * features`, 0 for no perceptrons.
        tied: Whether the output layer uses the embedding's weights, `logits = E norm(x) / sqrt(features)`, and no bias.
        in_features: Length of each input vector, for a model that reads vectors instead of tokens.
        key: For the initial weights.

    Attributes:
        embedding: `Linear` layer without bias from a one-hot vector or an input vector. Weights for tokens are
            initially uniform in ±1: one input is active, whatever the vocabulary.
        blocks: `Block` layers.
        norm: Without parameters.
        output_layer: `Linear` layer, or None if tied.

    Raises:
        ValueError: If a size is below its least, there is no mixer, a model of vectors is tied, or an input has
            another shape or type.
        TypeError: If a function returns no `Mixer`.

    Example:
        >>> from functools import partial
        >>> class Sum(Mixer):  # adds up what it has read
        ...     features: int
        ...     def __init__(self, features, *, key):
        ...         self.features = features
        ...     def __call__(self, x, state=None, *, length=None):
        ...         y = (self.empty() if state is None else state)[None] + jnp.cumsum(x, axis=0)
        ...         return y, y[-1]
        ...     def empty(self):
        ...         return jnp.zeros(self.features)
        >>> model = LanguageModel(32, 8, [partial(Sum, 8)] * 2, key=jax.random.key(0))
        >>> model(jnp.array([3, 1, 4, 1, 5])).shape
        (5, 32)
        >>> padded = model((jnp.array([3, 1, 4, 0, 0]), jnp.array(3)))
        >>> bool(jnp.allclose(padded[:3], model(jnp.array([3, 1, 4])), atol=1e-6))
        True
        >>> first, states = model.read(jnp.array([3, 1, 4]))
        >>> rest, states = model.read(jnp.array([1, 5]), states)
        >>> rest.shape
        (2, 32)

    References:
        Vaswani et al., Attention is all you need, NeurIPS 2017, arXiv 1706.03762. Press and Wolf, Using the output
        embedding to improve language models, EACL 2017, arXiv 1608.05859 (tied weights).
    """

    embedding: Linear
    blocks: tuple[Block, ...]
    norm: eqx.nn.LayerNorm
    output_layer: Linear | None
    reads_tokens: bool = eqx.field(static=True)

    def __init__(
        self,
        vocabulary: int,
        features: int,
        mixers: Sequence[Callable[..., Mixer]],
        *,
        hidden_features: int | None = None,
        tied: bool = False,
        in_features: int | None = None,
        key: PRNGKeyArray,
    ):
        for name, size in (("vocabulary", vocabulary), ("features", features), ("the number of mixers", len(mixers))):
            check_count(name, size, 1)
        if tied and in_features is not None:
            raise ValueError("expected tied=False for a model of vectors, whose embedding has no row for each output")
        embedding_key, output_key, *keys = jax.random.split(key, 2 + 2 * len(mixers))
        self.reads_tokens = in_features is None
        if in_features is None:
            drawn = Linear(vocabulary, features, use_bias=False, key=embedding_key)
            self.embedding = eqx.tree_at(lambda layer: layer.weight, drawn, drawn.weight * vocabulary**0.5)
        else:
            self.embedding = Linear(in_features, features, use_bias=False, key=embedding_key)
        hidden = 4 * features if hidden_features is None else hidden_features
        self.blocks = tuple(
            Block(make(key=mixer_key), features, hidden, f"block{i}_", key=block_key)
            for i, (make, mixer_key, block_key) in enumerate(zip(mixers, keys[::2], keys[1::2], strict=True), 1)
        )
        self.norm = _norm(features)
        self.output_layer = None if tied else Linear(features, vocabulary, key=output_key)

    def __call__(
        self, tokens: Int[Array, " time"] | Float[Array, "time in"] | tuple[Array, Int[Array, ""]]
    ) -> Float[Array, "time vocabulary"]:
        tokens, length = sequence_and_length(tokens)
        return if_there(self.read(tokens, length=length)[0], tokens, length)

    def read(
        self,
        tokens: Int[Array, " time"] | Float[Array, "time in"],
        states: PyTree | None = None,
        length: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "time vocabulary"], tuple]:
        """Reads a sequence, or its next piece.

        Args:
            tokens: Tokens, or vectors.
            states: The mixers' states after the earlier pieces; empty by default.
            length: Steps without the padding on the right, whose logits are zero; all by default.

        Returns:
            The logits at each step, and the state of each mixer after the last.
        """
        x = jax.vmap(self.embedding)(self._vectors(without_padding(tokens, length)))
        x = vertex(x, "embedding", step_mask(x, length))
        after = []
        for block, state in zip(self.blocks, [None] * len(self.blocks) if states is None else states, strict=True):
            x, state = block(x, state, length=length)
            after.append(state)
        return without_padding(self._logits(jax.vmap(self.norm)(x)), length), tuple(after)

    def empty(self) -> tuple:
        """The states before the first step."""
        return tuple(block.mixer.empty() for block in self.blocks)

    def _vectors(self, tokens: Array) -> Float[Array, "time in"]:
        inputs, dtype = self.embedding.weight.shape[1], self.embedding.weight.dtype
        if not self.reads_tokens:
            _check_input(tokens, f"at least one vector, [time, {inputs}]", (inputs,), jnp.floating)
            return tokens
        _check_input(tokens, "at least one token, whole numbers [time]", (), jnp.integer)
        tokens = tokens.astype(int)
        known = (tokens >= 0) & (tokens < inputs)
        # An unknown token must not pass as a vector of zeros.
        return jnp.where(known[:, None], jax.nn.one_hot(tokens, inputs, dtype=dtype), jnp.nan)

    def _logits(self, x: Float[Array, "time features"]) -> Float[Array, "time vocabulary"]:
        if self.output_layer is not None:
            return jax.vmap(self.output_layer)(x)
        return (x / x.shape[1] ** 0.5) @ self.embedding.weight


def _check_input(x: Array, wanted: str, shape: tuple[int, ...], kind: Any) -> None:
    if x.ndim < 1 or x.shape[1:] != shape or not len(x) or not jnp.issubdtype(x.dtype, kind):
        raise ValueError(f"expected one sequence of {wanted}, got {x.dtype}{list(x.shape)}")


def _norm(features: int) -> eqx.nn.LayerNorm:
    return eqx.nn.LayerNorm(features, use_weight=False, use_bias=False)
