"""The placement of the members of a sweep: number of waves and group size."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

from vicinal._memory import bytes_of, free_bytes
from vicinal._numbers import check_count
from vicinal.train.compiled import CompiledSteps
from vicinal.train.part import Part
from vicinal.train.wave import Wave

COPIES = 4  # of a member's state: the last good one, the new one, and those that the compiled loop carries

SAVED, MEASURING_SECONDS = 0.5, 0.5
"""The largest share of time that another group size saves; and how long to measure."""


@dataclasses.dataclass(frozen=True)
class Room:
    """The resources of a sweep; the arguments of the same names of `sweep`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If there is no device, or a number is out of range.
    """

    devices: Any
    memory: float | None
    group_size: int | None

    def __post_init__(self):
        if not isinstance(self.devices, list | tuple) or not self.devices:
            raise ValueError(f"expected at least one device, in a list, got {self.devices!r}")
        if self.memory is not None and not isinstance(self.memory, int | float):
            raise TypeError(f"expected memory as a number of bytes, got {self.memory!r}; write int(4e9) for 4 GB")
        if self.memory is not None and not 0 < self.memory < math.inf:
            raise ValueError(f"expected memory as a number of bytes above 0, got {self.memory}")
        if self.group_size is not None:
            check_count("group_size", self.group_size)


def place(part: Part, room: Room, steps: int) -> tuple[list[list[int]], CompiledSteps]:
    """Divides members into waves that fit into memory, and compiles their steps.

    The first guess comes from the size of the states; the compiler's count then tells whether it fits.

    Args:
        part: The members, and what they have in common.
        room: Memory and group size.
        steps: How many each member will take.

    Raises:
        ValueError: If a single member needs too much memory.
    """
    memory = free_bytes(part.devices) if room.memory is None else int(room.memory)
    copies = len(part.devices) if part.devices[0].platform == "cpu" else 1  # of the data, in the same memory
    free = memory - copies * (bytes_of((part.examples.data, part.examples.sets)) + part.order_bytes)
    each = COPIES * bytes_of(part.first(part.members[0]))
    members, needed = min(len(part.members), free // each), each
    while members >= 1:
        waves = in_waves(part.members, members)
        compiled = _compiled(part, waves[0], room.group_size, steps * len(waves))
        needed = Wave(part, compiled, waves[0]).bytes_needed()
        if needed <= free:
            return waves, compiled
        members = min(len(waves[0]) - 1, len(waves[0]) * free // needed)
    raise ValueError(
        f"expected memory of at least {(memory - free + needed) / 1e6:.3g} MB, for the data and one member, "
        f"got {memory / 1e6:.3g} MB; take less data or a smaller model"
    )


def in_waves(members: list[int], most: int) -> list[list[int]]:
    """Divides members into as few waves as possible, of nearly equal length and at most this many members each.

    Example:
        >>> in_waves([0, 1, 2, 3, 4], 3)
        [[0, 1, 2], [3, 4]]
    """
    count = -(-len(members) // most)
    length = -(-len(members) // count)
    return [members[start : start + length] for start in range(0, len(members), length)]


def _compiled(part: Part, members: Sequence[int], size: int | None, steps: int) -> CompiledSteps:
    return calibrate(part, members, steps) if size is None else part.compiled(len(members), size)


def calibrate(part: Part, members: Sequence[int], steps: int) -> CompiledSteps:
    """The compiled steps in groups of the size that takes the least time.

    On a CPU small groups keep their weights in the cache and large ones spend less on each operation; so sizes
    1, 4, 16, ... are tried until one is slower, or the steps ahead are too few to pay for another compilation.
    Other devices want all members at once.

    Args:
        part: What the members have in common.
        members: The members of the first wave.
        steps: The steps ahead, in all waves.
    """
    per_device = -(-len(members) // len(part.devices))
    if part.devices[0].platform != "cpu" or per_device == 1:
        return part.compiled(len(members), per_device)
    best, fastest = part.compiled(len(members), 1), math.inf
    for size in [*itertools.takewhile(lambda n: n < per_device, (4**i for i in range(8))), per_device]:
        compiled = part.compiled(len(members), size)
        wave = Wave(part, compiled, members)
        rough = wave.seconds_per_step(roughly=True)
        if size == 1 and not another_pays(rough, steps, compiled.seconds_to_compile):
            return compiled
        seconds = wave.seconds_per_step()
        if seconds > fastest:
            break
        best, fastest = compiled, seconds
        if not another_pays(fastest, steps, compiled.seconds_to_compile):
            break
    return best


def another_pays(seconds_per_step: float, steps: int, seconds_to_compile: float) -> bool:
    """Whether trying another group size may save more time than it costs.

    A better size usually saves at most half of the time, so that a wrong answer costs little more than a compilation.

    Args:
        seconds_per_step: Seconds per step at the best size so far.
        steps: The steps ahead.
        seconds_to_compile: The time of the last compilation.

    Example:
        >>> another_pays(1e-3, steps=1000, seconds_to_compile=4.0)
        False
        >>> another_pays(1e-3, steps=20_000, seconds_to_compile=4.0)
        True
    """
    return SAVED * seconds_per_step * steps > seconds_to_compile + MEASURING_SECONDS
