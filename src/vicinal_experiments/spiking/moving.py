"""Streams of slowly moving digits."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vicinal.data import Dataset

REACH = {28: 3.0, 8: 1.0}
"""How far a digit moves from its place, in pixels, by the side of its image."""

_PERIODS = (41.0, 59.0)  # frames of a full turn in either direction: a pixel takes two frames or more


class Streams(eqx.Module):
    """Several streams, each of which shows one digit after another, moving along a path of its own.

    Attributes:
        images: Images, `[images, side, side]`.
        labels: Their labels, `[images]`.
        order: The image of each stream in each turn, `[turns, streams]`.
        phases: Where each stream is on its path at first, `[2, streams]`, in turns.
        shown: The frames for which an image is shown.
    """

    images: Float[Array, "images side side"]
    labels: Int[Array, " images"]
    order: Int[Array, "turns streams"]
    phases: Float[Array, "2 streams"]
    shown: int = eqx.field(static=True)

    @property
    def frames(self) -> int:
        """The number of frames of each stream."""
        return len(self.order) * self.shown

    def frame(self, t: Int[Array, ""]) -> tuple[Float[Array, "streams pixels"], Int[Array, " streams"]]:
        """Returns inputs and labels of all streams at a frame."""
        chosen = self.order[t // self.shown]
        return self.moved(self.images[chosen], t), self.labels[chosen]

    def moved(self, images: Float[Array, "streams side side"], t: Int[Array, ""]) -> Float[Array, "streams pixels"]:
        """Moves images to where their streams are at a frame; their margins are empty."""
        reach = REACH[images.shape[-1]]
        turns = self.phases + t.astype(self.phases.dtype) / jnp.asarray(_PERIODS, self.phases.dtype)[:, None]
        rows, columns = jnp.round(reach * jnp.sin(2 * jnp.pi * turns)).astype(jnp.int32)
        shift = jax.vmap(lambda image, row, column: jnp.roll(image, (row, column), (0, 1)))
        return shift(images, rows, columns).reshape(len(images), -1)


def streams(data: Dataset, part: str, *, number: int, turns: int, shown: int, seed: int) -> Streams:
    """Makes streams of the training or test examples of a data set of square images.

    Args:
        data: The data set, flattened.
        part: `"train"` or `"test"`.
        number: The number of streams.
        turns: Images of each stream.
        shown: Frames for which an image is shown.
        seed: Of order and phases.

    Returns:
        The streams.
    """
    random = np.random.default_rng(seed)
    x, y = (np.asarray(getattr(data, f"{name}_{part}")) for name in "xy")
    side = round(np.sqrt(x.shape[1]))
    phases: Any = random.uniform(size=(2, number))
    order = random.integers(len(x), size=(turns, number))
    return Streams(
        jnp.asarray(x.reshape(-1, side, side)),
        jnp.asarray(y),
        jnp.asarray(order),
        jnp.asarray(phases, jnp.float32),
        shown,
    )
