"""The constants of a machine, each with its unit and its source."""

import dataclasses
import math
import os
import tomllib
from pathlib import Path
from typing import Any

from vicinal._nearest import did_you_mean
from vicinal._numbers import check

__all__ = ["Constant", "Constants"]

_NEUROSIM = "DNN+NeuroSim V2.1, default"
_AIHWKIT = "aihwkit, default of its periphery"
_HOROWITZ = "Horowitz, ISSCC 2014, at second hand"


@dataclasses.dataclass(frozen=True)
class Constant:
    """One number of a machine.

    Args:
        value: The number, in `unit`.
        unit: Its unit; empty for a plain number.
        source: Where it comes from; None for a number without a source, which every output then marks.

    Raises:
        ValueError: If the number is negative or not finite.
        TypeError: If it is no number, or the source no text.
    """

    value: float
    unit: str = ""
    source: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise TypeError(f"expected a number for a constant, got {self.value!r}")
        if not 0 <= self.value < math.inf:
            raise ValueError(f"expected the value of a constant of at least 0, finite, got {self.value!r}")
        if self.source is not None and not isinstance(self.source, str):
            raise TypeError(f"expected a source in words, got {self.source!r}")
        object.__setattr__(self, "value", float(self.value))  # frozen for everybody but the constructor


@dataclasses.dataclass(frozen=True)
class Constants:
    """The constants of a machine, with the default's sources; give your own in place of any of them.

    A plain number keeps the unit, and its source is "given". A read of a cell takes `read_voltage^2 / on_resistance *
    read_time`, an upper bound: the cell fully on, under the full voltage. A pulse takes the same with `write_voltage`
    and `write_time`, again an upper bound, which a cell behind a gate does not reach. A conversion of `b` bits takes
    `2^b` times the energy of a level.

    Args:
        name: The name of the machine, for outputs.
        cells_per_weight: Cells that hold one weight.
        read_voltage: Voltage of a read, V.
        read_time: Time of a read with its conversions, s.
        on_resistance: Resistance of a cell that is fully on, ohm.
        write_voltage: Voltage of a pulse, V.
        write_time: Time of a pulse, s.
        columns_per_adc: Columns that take turns at one converter.
        dac_bits: Bits of what goes into a read.
        adc_bits: Bits of what comes out.
        dac_energy: Energy for each level of a conversion to a voltage, J.
        adc_energy: Energy for each level of a conversion to a number, J.
        add_energy: Energy of an addition, 32-bit float, J.
        multiply_energy: Energy of a multiplication, 32-bit float, J.
        sram_energy: Energy of loading 32 bits from a memory of 8 kB on the chip, J.
        dram_energy: Energy of loading 32 bits from a memory outside of it, J.

    Raises:
        ValueError: If a number is negative or not finite, or has another unit.
        TypeError: If one is no number.

    Example:
        >>> constants = Constants(adc_energy=2e-15)
        >>> constants.adc_energy
        Constant(value=2e-15, unit='J', source='given')
        >>> constants.unsourced
        ('dac_energy', 'dram_energy')
    """

    name: str = "NeuroSim V2.1 and aihwkit defaults"
    cells_per_weight: Constant | float = dataclasses.field(
        default=Constant(2, "", "a pair of conductances for each weight, aihwkit")
    )
    read_voltage: Constant | float = dataclasses.field(default=Constant(0.5, "V", _NEUROSIM))
    read_time: Constant | float = dataclasses.field(default=Constant(10e-9, "s", _NEUROSIM))
    on_resistance: Constant | float = dataclasses.field(default=Constant(240e3, "ohm", _NEUROSIM))
    write_voltage: Constant | float = dataclasses.field(default=Constant(4.0, "V", _NEUROSIM))
    write_time: Constant | float = dataclasses.field(default=Constant(50e-9, "s", _NEUROSIM))
    columns_per_adc: Constant | float = dataclasses.field(default=Constant(8, "", _NEUROSIM))
    dac_bits: Constant | float = dataclasses.field(default=Constant(7, "bit", _AIHWKIT))
    adc_bits: Constant | float = dataclasses.field(default=Constant(9, "bit", _AIHWKIT))
    dac_energy: Constant | float = dataclasses.field(default=Constant(50e-15, "J", None))
    adc_energy: Constant | float = dataclasses.field(default=Constant(50e-15, "J", None))
    add_energy: Constant | float = dataclasses.field(default=Constant(0.9e-12, "J", _HOROWITZ))
    multiply_energy: Constant | float = dataclasses.field(default=Constant(3.7e-12, "J", _HOROWITZ))
    sram_energy: Constant | float = dataclasses.field(default=Constant(5e-12, "J", _HOROWITZ))
    dram_energy: Constant | float = dataclasses.field(default=Constant(640e-12, "J", None))

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"expected a name for the constants, got {self.name!r}")
        for field in dataclasses.fields(self)[1:]:
            found, usual = getattr(self, field.name), _usual(field)
            if not isinstance(found, Constant):
                check(field.name, found, lambda v: v >= 0, "of at least 0")
                found = Constant(found, usual.unit, "given")
            if found.unit != usual.unit:
                raise ValueError(f"expected {field.name} in {usual.unit or 'no unit'}, got {found.unit or 'no unit'}")
            if field.name in _DIVISORS and not found.value:
                raise ValueError(f"expected {field.name} above 0, got 0")
            object.__setattr__(self, field.name, found)

    def __getitem__(self, name: str) -> float:
        """Returns the value of a constant by its name."""
        return getattr(self, name).value

    @property
    def all(self) -> dict[str, Constant]:
        """All constants by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)[1:]}

    @property
    def unsourced(self) -> tuple[str, ...]:
        """The names of the constants without a source."""
        return tuple(name for name, constant in self.all.items() if constant.source is None)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Constants":
        """Reads constants from a TOML file; those that it does not name keep their defaults.

            name = "our chip"
            read_time = 5e-9
            adc_energy = { value = 2e-15, unit = "J", source = "measured, March 2026" }

        Args:
            path: The file.

        Returns:
            The constants. A plain number has the file as its source.

        Raises:
            ValueError: If the file is no TOML, or names an unknown constant, or a constant is out of range.
            OSError: If it cannot be read.
        """
        path = Path(path)
        try:
            given = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"expected constants as TOML in {path}, got something else: {error}") from error
        known = {"name": None, **{field.name: _usual(field) for field in dataclasses.fields(cls)[1:]}}
        for name in given:
            if name not in known:
                raise ValueError(
                    f"expected constants of {', '.join(known)} in {path}, got {name!r}{did_you_mean(name, known)}"
                )
        try:
            found: dict[str, Any] = {"name": path.stem}
            for name, value in given.items():
                found[name] = value if name == "name" else _constant(value, known[name], path)
            return cls(**found)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{error}, in {path}") from error


def _usual(field: Any) -> Constant:
    return field.default


_DIVISORS = ("cells_per_weight", "on_resistance", "columns_per_adc")


def _constant(value: Any, usual: Any, path: Path) -> Constant:
    if not isinstance(value, dict):
        return Constant(value, usual.unit, str(path))
    if unknown := value.keys() - {"value", "unit", "source"}:
        raise ValueError(f"expected value, unit and source of a constant, got {min(unknown)!r}")
    if "value" not in value:
        raise ValueError("expected a constant with a value, got none")
    return Constant(value["value"], value.get("unit", usual.unit), value.get("source"))
