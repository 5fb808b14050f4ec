"""The settings of the hardware that a model runs on, as plain data."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal, Self

import jax
import optax
from jaxtyping import PRNGKeyArray, PyTree

from vicinal import hardware
from vicinal._assignment import assignment
from vicinal._nearest import did_you_mean
from vicinal.hardware import Device, Periphery

Pulses = Literal["pulsed", "coincident", "transfer", "thresholded", "exact"]
_MODEL, _CELLS = "model.", "model.cells."
_SIDES = ("adc", "dac", "read_noise", "weight_noise", "repeats")
_BITS_RANGE = 12.0  # of output converters beside an ideal periphery, as by default


@dataclasses.dataclass(frozen=True)
class HardwareSettings:
    """Cells, converters and noise around every weight of the network; by default none."""

    device: str | None = None
    """Cells that hold the weights: gokmen-vlasov, idealized, capacitor, ecram, reram-sb or neurosim; or a table (.csv)
    of measured conductances."""
    cells: tuple[str, ...] = ()
    """Numbers of the cells, each NAME=VALUE: step=0.01, soft=0.5, cycle=0.3, spread=0.3, stuck=0.01, ..."""
    pulses: Pulses | None = None
    """What gives cells the change that the recipe's optimiser asks for; by default pulsed. coincident takes the
    learning rate alone; exact programs any weight."""
    periphery: Literal["default", "preset", "hardware-aware", "ideal"] | None = None
    """Converters and noise around each array, in both directions; by default "default" with a device or one of the
    following."""
    adc: float | None = None
    """Bits of the output converters."""
    dac: float | None = None
    """Bits of the input converters."""
    read_noise: float | None = None
    """Standard deviation of the noise of an output, in units of a full cell and the largest input."""
    weight_noise: float | None = None
    """Standard deviation of the noise of a weight at a read, in units of a full cell."""
    repeats: int | None = None
    """Reads of the same input, whose outputs are averaged."""

    @property
    def is_placed(self) -> bool:
        """Whether the weights lie on arrays."""
        names = ("device", "periphery", *_SIDES)
        return any(getattr(self, name) is not None for name in names)

    def check_hardware(self) -> None:
        """Raises ValueError if a setting has no effect or is out of its range."""
        for name in ("cells", "pulses"):
            if getattr(self, name) and self.device is None:
                raise ValueError(f"expected model.device beside model.{name}, got none; give one, or leave it out")
        if self.device is not None:
            self._device()
        self._periphery()

    def placed(self, model: PyTree, *, key: PRNGKeyArray) -> PyTree:
        """The model with its weights on arrays, if there are any; `key` may be the key of its weights."""
        if not self.is_placed:
            return model
        side = self._periphery()
        device = None if self.device is None else self._device()
        return hardware.place(model, device, forward=side, backward=side, key=hardware_key(key))

    def delivered(
        self, optimizer: optax.GradientTransformation, learning_rate: Any, numbers: Mapping[str, Any]
    ) -> optax.GradientTransformation:
        """The optimiser for the cells, whose changes are those of another one.

        Args:
            optimizer: The other one.
            learning_rate: Its learning rate.
            numbers: Other numbers of the hardware, by their names in `hardware_numbers`; they may be traced.
        """
        if self.device is None or self.pulses == "exact":
            return optimizer
        if self.pulses == "coincident":
            return hardware.coincident(learning_rate)
        if self.pulses == "transfer":
            cells = {name.removeprefix(_CELLS): value for name, value in numbers.items() if name.startswith(_CELLS)}
            return hardware.transfer(optimizer, dataclasses.replace(self._device(), **cells))
        return hardware.thresholded(optimizer) if self.pulses == "thresholded" else hardware.pulsed(optimizer)

    def varied(self, numbers: Mapping[str, Any]) -> Self:
        """The settings with other numbers, by their names in `hardware_numbers`.

        Raises:
            ValueError: If a name is unknown, a number of cells is given without a device or twice, or is out of range.
        """
        cells, others = [], {}
        for name, value in numbers.items():
            if name not in hardware_numbers():
                known = hardware_numbers()
                hint = did_you_mean(name, known)
                raise ValueError(f"expected numbers of the model of {', '.join(known)}, got {name!r}{hint}")
            if name.startswith(_CELLS):
                cells.append(f"{name.removeprefix(_CELLS)}={value}")
            else:
                others[name.removeprefix(_MODEL)] = value
        changed = dataclasses.replace(self, cells=(*self.cells, *cells), **others)
        changed.check_hardware()
        return changed

    def _device(self) -> Device:
        device = _named_device(str(self.device))
        known = [field.name for field in dataclasses.fields(Device)]
        numbers: dict[str, Any] = {}
        for name, values in map(assignment, self.cells):
            if name not in known:
                hint = did_you_mean(name, known)
                raise ValueError(f"expected numbers of cells of {', '.join(known)}, got {name!r}{hint}")
            if len(values) != 1 or isinstance(values[0], str | bool):
                raise ValueError(f"expected one number for {name} of the cells, got {', '.join(map(str, values))}")
            if name in numbers:
                raise ValueError(f"expected {name} of the cells in one place, got it in two; leave one out")
            numbers[name] = values[0]
        return dataclasses.replace(device, **numbers)

    def _periphery(self) -> Periphery:
        base = Periphery.preset(self.periphery or "default")
        numbers = {name: value for name in _SIDES if (value := getattr(self, name)) is not None}
        if base.bound is None and "adc" in numbers:
            numbers["bound"] = _BITS_RANGE
        return dataclasses.replace(base, **numbers)


HARDWARE = tuple(field.name for field in dataclasses.fields(HardwareSettings))
"""The names of these settings."""


def hardware_numbers() -> tuple[str, ...]:
    """The names of the numbers that a sweep can vary."""
    sides = (f"{_MODEL}{name}" for name in _SIDES)
    return (*sides, *(f"{_CELLS}{field.name}" for field in dataclasses.fields(Device)))


def hardware_key(key: PRNGKeyArray) -> PRNGKeyArray:
    """The key of cells and noise, from the key of a model's weights."""
    return jax.random.fold_in(key, 2**31 - 2)  # not that of feedback, 2**31 - 1


@functools.lru_cache(maxsize=16)
def _named_device(name: str) -> Device:
    return hardware.measured(name) if name.lower().endswith(".csv") else Device.preset(name)
