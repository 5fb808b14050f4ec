"""Learning on compute-in-memory hardware: weights on arrays of cells, read through converters, changed by pulses.

And what a rule asks of such arrays, counted from its program.
"""

from vicinal.hardware._delivery import CellsState, PulseCount, pulse_counts
from vicinal.hardware.cells import Cells, Device
from vicinal.hardware.constants import Constant, Constants
from vicinal.hardware.curves import life_of, measured, nonlinear, nonlinearity
from vicinal.hardware.ledger import Ledger, UnknownTurns, ledger
from vicinal.hardware.periphery import Periphery, quantised
from vicinal.hardware.printing import ledger_study, undecided
from vicinal.hardware.pulses import coincident, pulsed, thresholded, transfer
from vicinal.hardware.synaptic import SynapticOperations, synaptic_operations
from vicinal.hardware.tile import Crossbar, Tile, place, remove

__all__ = [
    "Cells",
    "CellsState",
    "Constant",
    "Constants",
    "Crossbar",
    "Device",
    "Ledger",
    "Periphery",
    "PulseCount",
    "SynapticOperations",
    "Tile",
    "UnknownTurns",
    "coincident",
    "ledger",
    "ledger_study",
    "life_of",
    "measured",
    "nonlinear",
    "nonlinearity",
    "place",
    "pulse_counts",
    "pulsed",
    "quantised",
    "remove",
    "synaptic_operations",
    "thresholded",
    "transfer",
    "undecided",
]
