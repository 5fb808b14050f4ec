"""What reads and outer products cost on arrays of cells with converters at their sides."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from vicinal._counting import Use
from vicinal.hardware.constants import Constants
from vicinal.hardware.converters import Bits, Converters

__all__ = ["Conversions", "conversions", "tiles"]

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Conversions:
    """What some reads ask of converters and arrays.

    Attributes:
        activations: Reads of one array each.
        cells: Cells that are read.
        dac: Conversions of a number to a voltage.
        adc: Conversions of a current to a number.
        additions: Digital additions of what several arrays return.
    """

    activations: float = 0.0
    cells: float = 0.0
    dac: float = 0.0
    adc: float = 0.0
    additions: float = 0.0


def tiles(use: Use, array: Size) -> tuple[int, int]:
    """The arrays that one matrix takes, along its inputs and along its outputs."""
    return math.ceil(use.inputs / array[0]), math.ceil(use.outputs / array[1])


def conversions(uses: Sequence[Use], array: Size, fast: Sequence[Use] = ()) -> Conversions:
    """Adds up what the reads of all matrices ask of converters and arrays.

    A matrix `[n_out, n_in]` on arrays of `R x C` cells takes `k_in = ceil(n_in / R)` times `k_out = ceil(n_out / C)`
    arrays. A forward read converts `n_in k_out` inputs and `n_out k_in` outputs, and adds `n_out (k_in - 1)` numbers; a
    transposed read the same with in and out exchanged. A column of a fast array lies on `k_out` arrays: one input and
    `n_out` outputs are converted, and nothing is added.
    """
    parts = [side for use in uses for side in _sides(use, array)] + [_columns(use, array) for use in fast]
    return Conversions(*(sum(each) for each in zip(*map(dataclasses.astuple, parts), strict=True)))


def _sides(use: Use, array: Size) -> tuple[Conversions, Conversions]:
    """What the forward and the transposed reads of a matrix ask for."""
    into, to = tiles(use, array)

    def of(reads: float, inputs: int, outputs: int, along: int, across: int) -> Conversions:
        whole = reads * along * across, reads * inputs * outputs
        return Conversions(*whole, reads * inputs * across, reads * outputs * along, reads * outputs * (along - 1))

    return of(use.forward, use.inputs, use.outputs, into, to), of(use.transposed, use.outputs, use.inputs, to, into)


def _columns(use: Use, array: Size) -> Conversions:
    """What the reads of single columns ask for."""
    arrays = use.forward * tiles(use, array)[1]
    return Conversions(arrays, use.forward * use.outputs, arrays, use.forward * use.outputs)


def bits_of(
    use: Use, converters: Mapping[str, Converters], constants: Constants
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Bits of inputs and outputs, of forward reads and of transposed ones: the constants' where the model has none."""

    def filled(side: Bits) -> tuple[float, float]:
        dac, adc = (
            constants[name] if bits is None else bits for name, bits in zip(("dac_bits", "adc_bits"), side, strict=True)
        )
        return dac, adc

    unknown = Bits(None, None)
    forward, transposed = converters.get(use.name, (unknown, unknown))
    return filled(forward), filled(transposed)


def chain_repeats(
    uses: Sequence[Use], converters: Mapping[str, Converters], constants: Constants
) -> tuple[float, float]:
    """Where inputs are read bit by bit: the least repeats of a read, and the most repeated reads of one array."""
    found = [(use, bits_of(use, converters, constants)) for use in uses]
    read = [
        dac for use, sides in found for n, (dac, _) in zip((use.forward, use.transposed), sides, strict=True) if n > 0
    ]
    busiest = max((use.forward * there[0] + use.transposed * back[0] for use, (there, back) in found), default=0.0)
    return min(read, default=0.0), busiest


def energies(
    uses: Sequence[Use],
    fast: Sequence[Use],
    array: Size,
    converters: Mapping[str, Converters],
    digital: float,
    pulses: float | None,
    constants: Constants,
    bit_serial: bool,
) -> dict[str, float]:
    """The energy of each kind of work, J; pulses only if they are known."""
    of_read = constants["read_voltage"] ** 2 / constants["on_resistance"] * constants["read_time"]
    of_pulse = constants["write_voltage"] ** 2 / constants["on_resistance"] * constants["write_time"]
    parts = dict.fromkeys(("cells", "DAC", "ADC", "additions"), 0.0)
    work = [
        (side, dac if bit_serial else 1.0, 1.0 if bit_serial else dac, adc)
        for use in uses
        for side, (dac, adc) in zip(_sides(use, array), bits_of(use, converters, constants), strict=True)
    ]
    usual = constants["dac_bits"], constants["adc_bits"]
    work += [(_columns(use, array), 1.0, 1.0 if bit_serial else usual[0], usual[1]) for use in fast]  # one input, or 0
    for found, repeats, dac, adc in work:
        parts["cells"] += repeats * found.cells * constants["cells_per_weight"] * of_read
        parts["DAC"] += repeats * found.dac * constants["dac_energy"] * 2**dac
        parts["ADC"] += repeats * found.adc * constants["adc_energy"] * 2**adc
        parts["additions"] += repeats * found.additions * constants["add_energy"]
    parts["digital products"] = digital * (constants["add_energy"] + constants["multiply_energy"])
    return parts if pulses is None else parts | {"pulses": pulses * of_pulse}


def area(uses: Sequence[Use], array: Size, constants: Constants) -> dict[str, int]:
    """Arrays, cells, and converters at the sides that are read."""
    found = dict.fromkeys(("arrays", "cells", "DACs", "ADCs"), 0)
    for use in uses:
        into, to = tiles(use, array)
        found["arrays"] += into * to
        found["cells"] += round(use.inputs * use.outputs * constants["cells_per_weight"])
        for reads, (rows, across), (columns, along) in (
            (use.forward, (use.inputs, to), (use.outputs, into)),
            (use.transposed, (use.outputs, into), (use.inputs, to)),
        ):
            if reads:
                found["DACs"] += rows * across
                found["ADCs"] += math.ceil(columns / constants["columns_per_adc"]) * along
    return found
