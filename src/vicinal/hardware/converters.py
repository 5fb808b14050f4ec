"""The bits of the converters around arrays, as the tiles of a model have them."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import PyTree

from vicinal._counting import Use
from vicinal.hardware.periphery import Periphery
from vicinal.hardware.tile import stored_weights

__all__ = ["Bits", "Converters", "converters_of"]


class Bits(NamedTuple):
    """Bits of the converters on one side of an array; None where the side has none.

    Attributes:
        dac: Of the inputs.
        adc: Of the outputs.
    """

    dac: float | None
    adc: float | None


class Converters(NamedTuple):
    """The converters of the two kinds of reads of an array.

    Attributes:
        forward: Those of forward reads.
        transposed: Those of transposed reads.
    """

    forward: Bits
    transposed: Bits


def converters_of(model: PyTree, uses: Sequence[Use]) -> dict[str, Converters]:
    """Finds the converters of the arrays that lie in tiles, by the name of the array.

    An array of feedback weights, or of a function of the weight such as its signs, is read through the backward
    periphery of its tile, whichever way it is stored.
    """
    tiles = {path: (tile, bar is tile.feedback) for path, bar, tile in stored_weights(model)}
    found = {}
    for use in uses:
        if use.path in tiles:
            tile, is_feedback = tiles[use.path]
            forward, backward = _bits(tile.forward), _bits(tile.backward)
            is_feedback = is_feedback or any(isinstance(part, str) for part in use.part)
            found[use.name] = Converters(backward if is_feedback else forward, backward)
    return found


def _bits(side: Periphery) -> Bits:
    return Bits(*(None if bits is None else float(bits) for bits in (side.dac, side.adc)))
