"""Learning on arrays of memory cells: which rule survives which imperfection, and what its updates cost."""

from vicinal_experiments.hardware.devices import DEVICES
from vicinal_experiments.hardware.ledger import LEDGER
from vicinal_experiments.hardware.periphery import PERIPHERY
from vicinal_experiments.hardware.transfer import TRANSFER

__all__ = ["DEVICES", "LEDGER", "PERIPHERY", "TRANSFER"]
