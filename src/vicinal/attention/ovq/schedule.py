"""The size of the dictionary as a function of the chunks read."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vicinal._numbers import check_count

_GROWTHS = ("plateau", "min", "linear", "constant")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The size of the dictionary as a function of the number `c` of chunks it was made of, or of `t = c L` tokens.

        plateau   n = floor(t N / (t + N)),       which tends to N and has reached N / 2 at t = N
        min       n = min(t, N),                  every token its own centroid while there is room
        linear    n = floor(N min(t, T) / T),     for the length T = max_length, and at least 1
        constant  n = N,                          from the first chunk

    It depends on the position alone, so it is the same for all heads and known before tracing. All but `linear` do
    not depend on the length of the sequence, and so are causal.

    Args:
        growth: One of the names above, or the sizes after chunk 1, 2, ...; the last one stays.
        num_centroids: `N`, the most centroids; at least 2.
        chunk_size: `L`, the tokens of a chunk; at least 2.
        max_length: `T`, which `linear` needs.

    Raises:
        TypeError: If a number is not an integer.
        ValueError: If a number is out of range, or sizes fall, or grow by more than a chunk has tokens.

    Example:
        >>> [Schedule("plateau", num_centroids=48, chunk_size=32).size(c) for c in range(9)]
        [0, 19, 27, 32, 34, 36, 38, 39, 40]

    References:
        Alonso, Figliolia and Millidge, Online vector quantized attention, arXiv 2602.03922, equation 17 (plateau).
    """

    growth: str | Sequence[int]
    num_centroids: int
    chunk_size: int
    max_length: int | None = None

    def __post_init__(self):
        for name, least in (("num_centroids", 2), ("chunk_size", 2), ("max_length", 1)):
            if name != "max_length" or self.max_length is not None:
                check_count(name, getattr(self, name), least)
        if isinstance(self.growth, str):
            self._check_name()
        else:
            sizes = tuple(int(size) for size in self.growth)
            object.__setattr__(self, "growth", sizes)
            self._check_sizes((0, *sizes))

    def _check_name(self):
        if self.growth not in _GROWTHS:
            raise ValueError(f"expected growth as one of {', '.join(_GROWTHS)} or a list of sizes, got {self.growth!r}")
        if self.num_centroids > 46_340:  # its square has to fit an int32
            raise ValueError(
                f"expected num_centroids of at most 46340, got {self.num_centroids}; give growth as a list"
            )
        longest = self.max_length
        if self.growth == "linear" and longest is None:
            raise ValueError("expected max_length with growth='linear', got None; give the longest length to come")
        if self.growth == "linear" and longest is not None and self.num_centroids > longest:
            raise ValueError(
                f"expected num_centroids of at most max_length={longest} with growth='linear', got "
                f"{self.num_centroids}; a chunk makes no more of them than it has tokens"
            )
        if self.growth == "linear" and longest is not None and longest * self.num_centroids >= 2**31:
            raise ValueError(
                f"expected max_length * num_centroids below 2**31, got {longest} * {self.num_centroids}; "
                "give growth as a list of sizes"
            )
        if self.growth == "constant" and self.num_centroids > self.chunk_size:
            raise ValueError(
                f"expected num_centroids of at most chunk_size={self.chunk_size} with growth='constant', "
                f"got {self.num_centroids}: the first chunk makes them all; use growth='min' for more"
            )

    def _check_sizes(self, sizes: tuple[int, ...]):
        steps = np.diff(sizes)
        if len(sizes) < 2 or sizes[1] < 1 or steps.min() < 0 or steps.max() > self.chunk_size:
            raise ValueError(
                "expected sizes of at least 1 that never fall and grow by at most "
                f"chunk_size={self.chunk_size}, got {list(sizes[1:])}"
            )
        if sizes[-1] > self.num_centroids:
            raise ValueError(f"expected sizes of at most num_centroids={self.num_centroids}, got {sizes[-1]}")

    def size(self, chunks: Any) -> Any:
        """The number of centroids after a number of chunks.

        Args:
            chunks: Number of chunks: an integer, or an array of them.

        Returns:
            The number, of the same type and shape.
        """
        traced = isinstance(chunks, jax.Array)
        xp: Any = jnp if traced else np
        most, tokens = self.num_centroids, chunks * self.chunk_size
        if self.growth == "plateau":
            # t N / (t + N) = N - N^2 / (t + N), where no number outgrows an int32.
            size = most - (most * most - 1) // (tokens + most) - 1
        elif self.growth in ("min", "constant"):  # the checks leave a constant no room to differ
            size = xp.minimum(tokens, most)
        elif self.growth == "linear":
            longest = self.max_length or 1
            size = xp.minimum(tokens, longest) * most // longest
            size = xp.maximum(size, xp.minimum(tokens, 1))
        else:
            sizes = xp.asarray((0, *self.growth), "int32")
            size = sizes[xp.minimum(chunks, len(self.growth))]
        return size if traced or np.ndim(chunks) else int(size)

    def sizes(self, used: Any, done: Any, chunks: Any) -> Any:
        """The number of centroids after some more chunks.

        A dictionary that has followed this schedule keeps to it. One that has fewer, because it was made
        for less and then grown, catches up by at most a chunk's tokens per chunk; one that has more stays as it is.

        Args:
            used: Centroids at present.
            done: Chunks read so far.
            chunks: Number of further chunks.

        Returns:
            The number after those, of the type and the broadcast shape of the arguments.
        """
        xp: Any = jnp if any(isinstance(x, jax.Array) for x in (used, done, chunks)) else np
        # Never above both at once: the schedule rises by at most chunk_size, so whoever has caught up stays level.
        reachable = xp.minimum(used + self.chunk_size * chunks, self.size(done + chunks))
        return xp.maximum(used, reachable)
