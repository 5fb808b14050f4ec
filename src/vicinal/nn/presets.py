"""The architectures of the papers, by name."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
from jaxtyping import PRNGKeyArray

from vicinal._nearest import did_you_mean
from vicinal.nn.models import MLP, Autoencoder, ConvNet, Place

_IL_THEORY = "Alonso et al., NeurIPS 2022, arXiv 2206.00164"
_MQ = "Alonso, Krichmar and Neftci, AAAI 2024, arXiv 2305.13562"
_CONVOLUTIONS = ((64, 5, 2), (128, 5, 2), (256, 3, 2))


@dataclasses.dataclass(frozen=True)
class Preset:
    """An architecture of a paper.

    Attributes:
        name: Its name in `preset`.
        description: Layers, and what it was used for.
        paper: Its source.
        inputs: `"flat"` vectors, or `"images"`, channels first.
        reconstructs: Whether its targets are its inputs.
        build: Makes the model.
    """

    name: str
    description: str
    paper: str
    inputs: str
    reconstructs: bool
    build: Callable[..., eqx.Module]


def _mlp(*sizes: int) -> Callable[..., eqx.Module]:
    return lambda **settings: MLP(sizes, activation="relu", **settings)


def _autoencoder(*sizes: int) -> Callable[..., eqx.Module]:
    return lambda **settings: Autoencoder(sizes, activation="relu", **settings)


def _cifar_conv(**settings) -> eqx.Module:
    return ConvNet((3, 32, 32), _CONVOLUTIONS, (10,), activation="relu", **settings)


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("mnist-mlp", "784-256-256-10, ReLU", _IL_THEORY, "flat", False, _mlp(784, 256, 256, 10)),
        Preset(
            "cifar-mlp", "3072-1024-1024-1024-10, ReLU", _IL_THEORY, "flat", False, _mlp(3072, 1024, 1024, 1024, 10)
        ),
        Preset(
            "cifar-conv",
            "convolutions 64 (5x5), 128 (5x5), 256 (3x3), stride 2, then 1024-10, ReLU",
            _IL_THEORY,
            "images",
            False,
            _cifar_conv,
        ),
        Preset(
            "cifar-autoencoder-100",
            "3072-1024-256-100-256-1024-3072, ReLU, logits out",
            _IL_THEORY,
            "flat",
            True,
            _autoencoder(3072, 1024, 256, 100, 256, 1024, 3072),
        ),
        Preset(
            "cifar-autoencoder-20",
            "3072-1024-256-20-256-1024-3072, ReLU, logits out",
            _MQ,
            "flat",
            True,
            _autoencoder(3072, 1024, 256, 20, 256, 1024, 3072),
        ),
    )
}
"""All presets by name."""


def preset(name: str, *, vertex_at: Place = "pre", key: PRNGKeyArray) -> eqx.Module:
    """Makes the architecture of a paper, with PyTorch's initial weights, as the papers use them.

    Args:
        name: A name in `PRESETS`.
        vertex_at: `"pre"` (as in the papers' main results) or `"post"`.
        key: For the initial weights.

    Returns:
        The model.

    Raises:
        ValueError: If there is no preset of this name.

    Example:
        >>> import jax
        >>> model = preset("mnist-mlp", key=jax.random.key(0))
        >>> [layer.weight.shape for layer in model.layers]
        [(256, 784), (256, 256), (10, 256)]
    """
    if name not in PRESETS:
        raise ValueError(f"expected a preset of {', '.join(PRESETS)}, got {name!r}{did_you_mean(name, PRESETS)}")
    return PRESETS[name].build(vertex_at=vertex_at, key=key)
