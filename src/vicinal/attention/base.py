"""The interface of all sequence layers."""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, Int, PyTree


class Mixer(eqx.Module):
    """A causal layer that mixes a sequence over time, and can continue from a state.

    A layer acts on one sequence; `jax.vmap` makes the batch. Splitting a sequence anywhere changes nothing:

        y, state = layer(x)
        first, state = layer(x[:n]);   rest, state = layer(x[n:], state)          # y = [first, rest]

    so that one call trains on a whole sequence, reads a prompt, or generates token by token.
    """

    @abc.abstractmethod
    def __call__(
        self, x: Float[Array, "time features"], state: PyTree | None = None, *, length: Int[Array, ""] | None = None
    ) -> tuple[Float[Array, "time features"], Any]:
        """Reads a sequence.

        Args:
            x: The sequence, or its next piece.
            state: The state after the earlier steps; empty by default.
            length: Steps without the padding on the right, which is not read and whose outputs are zero; all by
                default.

        Returns:
            The output at each step, and the state after the last.
        """

    @abc.abstractmethod
    def empty(self) -> Any:
        """The state before the first step."""
