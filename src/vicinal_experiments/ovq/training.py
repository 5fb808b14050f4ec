"""How the models of sequences are built, trained and evaluated."""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from vicinal.attention import (
    GatedDeltaNet,
    LanguageModel,
    LinearAttention,
    Mamba2,
    MesaLayer,
    Mixer,
    OVQAttention,
    SlidingWindowAttention,
    SoftmaxAttention,
    VQAttention,
    closest_size,
    parameter_count,
    state_bytes as bytes_of,
)
from vicinal.data.sequences import Sequences, token_accuracy
from vicinal.graph import Graph, capture
from vicinal.losses import masked_softmax_cross_entropy
from vicinal.reproduce import Run
from vicinal.rules import Backprop, Rule
from vicinal.train import fit, keys_of

FULL, WINDOW, LINEAR, DELTA, MAMBA, MESA, VQ = (
    "full attention",
    "window alone",
    "linear attention",
    "Gated DeltaNet",
    "Mamba2",
    "Mesa layer",
    "VQ-attention",
)
DIFFERENCES = (
    "Small models of a few layers, at most a few thousand updates; the paper's have 70 to 480 million parameters.",
    "One learning rate for all models, tuned for none; temperatures learn ten times as fast.",
)
"""From the paper, of all trained models."""

MakeMixer = Callable[..., Mixer]


def ovq(num_centroids: int) -> str:
    """The label of OVQ-attention with so many centroids."""
    return f"OVQ {num_centroids}"


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes that all models of an experiment share.

    Attributes:
        vocabulary: Number of tokens.
        features: Length of each vector of the stream.
        window: Of the layers with a sliding window, which have rotary positions.
        chunk_size: Of OVQ- and VQ-attention.
        pairs: Pairs of a layer with a window and another, which has no positions.
        in_features: Length of each input vector, for inputs that are no tokens.
        max_length: Tokens for which full attention has room.
        codes: Of VQ-attention.
        heads: Of each layer.
    """

    vocabulary: int
    features: int = 64
    window: int = 16
    chunk_size: int = 32
    pairs: int = 1
    in_features: int | None = None
    max_length: int = 4096
    codes: int = 64
    heads: int = 1

    def mixers(self, label: str, **options: Any) -> list[MakeMixer]:
        """Functions of a key that make the layers: with a window and another in turn."""
        near = functools.partial(SlidingWindowAttention, self.features, self.heads, window=self.window)
        return [near, self._other(label, options)] * self.pairs

    def _other(self, label: str, options: dict[str, Any]) -> MakeMixer:
        sizes = (self.features, self.heads)
        if label.startswith("OVQ "):
            count = int(label.split()[1])
            chosen = {"chunk_size": self.chunk_size, "num_centroids": count} | options
            return functools.partial(OVQAttention, *sizes, **chosen)
        makers: dict[str, MakeMixer] = {
            FULL: functools.partial(SoftmaxAttention, *sizes, max_length=self.max_length),
            WINDOW: functools.partial(SlidingWindowAttention, *sizes, window=self.window),
            LINEAR: functools.partial(LinearAttention, *sizes),
            DELTA: functools.partial(GatedDeltaNet, *sizes),
            MAMBA: functools.partial(Mamba2, *sizes),
            MESA: functools.partial(MesaLayer, *sizes, iterations=10),
            VQ: functools.partial(VQAttention, *sizes, chunk_size=self.chunk_size, num_codes=self.codes),
        }
        return functools.partial(makers[label], **options)

    def build(self, label: str, *, key: Any, parameters: int | None = None, **options: Any) -> LanguageModel:
        """A model with these layers; with perceptrons of the size that comes closest to a number of parameters."""

        def model(hidden: int) -> LanguageModel:
            mixers = self.mixers(label, **options)
            inputs = self.in_features
            return LanguageModel(
                self.vocabulary, self.features, mixers, hidden_features=hidden, in_features=inputs, key=key
            )

        own = 2 * self.features
        if parameters is None:
            return model(own)
        return model(closest_size(model, parameters, range(self.features // 2, 4 * self.features + 1)))

    def parameters(self) -> int:
        """Of the model with full attention, to which the others are matched."""
        return parameter_count(eqx.filter_eval_shape(lambda key: self.build(FULL, key=key), jax.random.key(0)))


@dataclasses.dataclass(frozen=True)
class Training:
    """How models are trained.

    Attributes:
        steps: Updates.
        batch_size: Examples of an update.
        learning_rate: The highest of AdamW, after a tenth of the updates; it falls along a cosine.
        rule: What gives the gradient.
        warming: How many times as fast temperatures learn, which are not decayed: exact recall takes high ones.
    """

    steps: int
    batch_size: int = 16
    learning_rate: float = 3e-3
    rule: Rule = dataclasses.field(default_factory=lambda: Backprop(loss=masked_softmax_cross_entropy))
    warming: float = 10.0

    def optimizer(self) -> optax.GradientTransformation:
        """AdamW with a warm-up, a cosine and clipped gradients."""
        return _optimizer(self.steps, self.learning_rate, self.warming)


# Runs that share their optimiser and graph share the compiled step: so seeds after the first need not compile.
@functools.cache
def _optimizer(steps: int, learning_rate: float, warming: float) -> optax.GradientTransformation:
    rise = max(1, steps // 10)

    def adam(highest: float, weight_decay: float) -> optax.GradientTransformation:
        rate = optax.warmup_cosine_decay_schedule(0.0, highest, rise, steps, 0.1 * highest)
        return optax.adamw(rate, weight_decay=weight_decay)

    parts: dict[Hashable, optax.GradientTransformation] = {
        "weights": adam(learning_rate, 0.01),
        "temperatures": adam(warming * learning_rate, 0.0),
    }
    return optax.chain(optax.clip_by_global_norm(1.0), optax.partition(parts, _kinds))


def graph_of(model: LanguageModel, inputs: np.ndarray) -> Graph:
    """The graph of a model for sequences like the first of `inputs`; one for all models of the same structure."""
    example = jnp.asarray(inputs[0])
    leaves, structure = jax.tree.flatten((model, example))
    return _graph(_Alike((structure, *(jax.typeof(leaf) for leaf in leaves)), model, example))


@dataclasses.dataclass(frozen=True)
class _Alike:
    """A model and an example, equal to others of the same structure."""

    structure: tuple[Hashable, ...]
    model: LanguageModel = dataclasses.field(compare=False)
    example: Array = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=8)
def _graph(alike: _Alike) -> Graph:
    return capture(alike.model, alike.example)


def _kinds(model: PyTree) -> PyTree:
    """Which parameters are temperatures."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "temperatures" if "log_temperature" in jax.tree_util.keystr(path) else "weights", model
    )


def train(run: Run, label: str, model: LanguageModel, data: Any, how: Training, seed: int) -> LanguageModel:
    """The model after training on sequences; `data` is a `Sequences` or a pair of arrays."""
    inputs, targets = (data.inputs, data.targets) if isinstance(data, Sequences) else data
    run.say(f"{label}, {how.steps} updates, seed {seed}")
    done = fit(
        how.rule,
        model,
        how.optimizer(),
        (inputs, targets),
        key=keys_of(seed)[1],
        steps=how.steps,
        batch_size=how.batch_size,
        evaluate_every=how.steps,
        graph=graph_of(model, inputs),
        progress=run.progress,
    )
    return done.model


def accuracy(model: LanguageModel, data: Sequences, batch_size: int = 8) -> float:
    """The share of the counted steps that a model predicts."""
    return token_accuracy(predictions(model, data, batch_size), data)


def predictions(model: LanguageModel, data: Sequences, batch_size: int = 8) -> Int[np.ndarray, "examples time"]:
    """The most likely token at each step."""
    found = []
    for x in batches(data.inputs, batch_size):
        found.append(np.concatenate([np.asarray(jnp.argmax(y, axis=-1)) for y in logits(model, x)], axis=1))
    return np.concatenate(found)


def batches(x: np.ndarray, size: int) -> list[Array]:
    """Rows of an array, so many at a time."""
    if len(x) % size:
        raise ValueError(f"expected a number of examples that the batch size, {size}, divides, got {len(x)}")
    return [jnp.asarray(x[i : i + size]) for i in range(0, len(x), size)]


def logits(model: LanguageModel, x: Array, piece: int = 1024) -> Iterator[Float[Array, "batch piece vocabulary"]]:
    """What a model says at each step of `x`, `[batch, time, ...]`, in pieces.

    A long sequence is read piece by piece with the state in between, so that full attention does not need memory for
    the square of the length.
    """
    states = None
    for start in range(0, x.shape[1], piece):
        said, states = _read(model, x[:, start : start + piece], states)
        yield said


@eqx.filter_jit
def _read(model: LanguageModel, x: Array, states: PyTree) -> tuple[Array, PyTree]:
    return jax.vmap(model.read)(x, states)


def temperatures(model: LanguageModel) -> list[float]:
    """The temperature of each head of each layer that has one, `q . k` being a cosine."""
    found = []
    for block in model.blocks:
        theta, heads = getattr(block.mixer, "log_temperature", None), getattr(block.mixer, "projections", None)
        if theta is not None and heads is not None:
            found += (np.exp(np.asarray(theta)) * heads.size**0.5).tolist()
    return found


def state_bytes(shape: Shape, label: str, length: int) -> int:
    """How many bytes the layers of a model keep of a sequence of some length; full attention has room for no more."""
    fitting = dataclasses.replace(shape, max_length=length)

    def read(key: PRNGKeyArray, tokens: Int[Array, " time"]) -> PyTree:
        return fitting.build(label, key=key).read(tokens)[1]

    states = eqx.filter_eval_shape(read, jax.random.key(0), jax.ShapeDtypeStruct((length,), jnp.int32))
    return bytes_of(states)
