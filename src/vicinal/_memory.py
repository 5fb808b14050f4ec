"""The memory that is free, what arrays need, and one sentence where it does not suffice.

JAX is imported where it is needed: readers of small files and the command line do not wait for it.
"""

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax

SMALL = 2**28
"""Bytes for which nobody looks whether they are free."""


class OutOfMemory(MemoryError):
    """Memory does not suffice; the text says for what, and what to do."""


# ------------------------------------------------------------------------------------------------- what is free


def free_bytes(devices: "list[jax.Device]", *, swap: bool = False) -> int:
    """The free memory of the devices if they report it, otherwise of the machine, with its swap space if wanted."""
    stats = [device.memory_stats() if device.platform != "cpu" else None for device in devices]
    if all(found and "bytes_limit" in found for found in stats):
        return sum(found["bytes_limit"] - found["bytes_in_use"] for found in stats if found)
    return free_host_bytes(swap=swap)


def free_host_bytes(root: str | Path = "/", *, swap: bool = False) -> int:
    """The free memory of the machine, or what is left to this process or its group.

    Args:
        root: Where the system's files are.
        swap: Whether swap space counts as free.

    Returns:
        Bytes; all that the machine has, or 4 GiB, if the system does not say.
    """
    root = Path(root)
    free = _read_bytes(root / "proc/meminfo", "MemAvailable:", 1024)
    if free is None:
        return _total_bytes() or 2**32
    if swap:
        free += _read_bytes(root / "proc/meminfo", "SwapFree:", 1024) or 0
    return max(0, min([free, *_left_in_groups(root), *_left_to_process(root)]))


def _left_in_groups(root: Path) -> Iterator[int]:
    """What the control groups of this process may still take; pages of files that can be dropped count as free."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            base, limit, used = "sys/fs/cgroup", "memory.max", "memory.current"
            if controllers:  # the first version of control groups
                base, limit, used = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            own = Path(path.lstrip("/"))
            for group in (own, *own.parents) if own.parts else (own,):
                folder = root / base / group
                most, taken = _read_bytes(folder / limit), _read_bytes(folder / used)
                if most is not None and taken is not None:
                    files = [_read_bytes(folder / "memory.stat", f"{kind}_file ") for kind in ("inactive", "active")]
                    yield most - taken + sum(value or 0 for value in files)


def _left_to_process(root: Path) -> Iterator[int]:
    """The address space that this process may still take, if it is limited (`ulimit -v`)."""
    with contextlib.suppress(ImportError, OSError):
        import resource  # not on Windows

        most, _ = resource.getrlimit(resource.RLIMIT_AS)
        taken = _read_bytes(root / "proc/self/statm", "", resource.getpagesize())
        if most != resource.RLIM_INFINITY and taken is not None:
            yield most - taken


def _total_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _read_bytes(path: str | Path, name: str = "", unit: int = 1) -> int | None:
    """The number on the line that starts with a name, in a system file; None if it is missing."""
    with contextlib.suppress(OSError):
        for line in Path(path).read_text().splitlines():
            words = line.removeprefix(name).split()
            if line.startswith(name) and words and words[0].isdigit():
                return unit * int(words[0])
    return None


# --------------------------------------------------------------------------------------------- what arrays need


def bytes_of(tree: Any) -> int:
    """The memory of the arrays of a tree, which may be only shapes.

    Example:
        >>> import jax
        >>> bytes_of((jax.numpy.ones((2, 3)), jax.ShapeDtypeStruct((10**12, 10**12), "float32"), "word"))
        4000000000000000000000024
    """
    import jax

    return sum(_leaf_bytes(leaf) for leaf in jax.tree.leaves(tree))


def _leaf_bytes(leaf: Any) -> int:
    if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
        return 0
    return math.prod(leaf.shape) * leaf.dtype.itemsize


def largest(tree: Any) -> str:
    """The largest array of a tree, in words.

    Example:
        >>> import jax
        >>> largest({"a": jax.numpy.ones((2, 3)), "b": jax.numpy.ones(5)})
        "['a'], float32[2, 3]"
    """
    import jax

    leaves = [found for found in jax.tree_util.tree_flatten_with_path(tree)[0] if _leaf_bytes(found[1])]
    if not leaves:
        return "none"
    path, leaf = max(leaves, key=lambda found: _leaf_bytes(found[1]))
    shape = ", ".join(map(str, leaf.shape))
    return f"{jax.tree_util.keystr(path).lstrip('.') or 'it'}, {leaf.dtype}[{shape}]"


def devices_of(tree: Any) -> "list[jax.Device]":
    """The devices that hold the arrays of a tree; for none, JAX's first one."""
    import jax

    arrays = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    held = {device for leaf in arrays if not isinstance(leaf, jax.core.Tracer) for device in leaf.devices()}
    return list(held) or jax.local_devices()[:1]


def size_text(size: int) -> str:
    """A number of bytes, in words.

    Example:
        >>> size_text(0), size_text(25_600_000_000), size_text(256 * 10**12)
        ('0 MB', '25.6 GB', '256 TB')
    """
    units = ("MB", "GB", "TB", "PB", "EB")
    power = min(max(len(str(size)) - 1, 6) // 3 - 2, len(units) - 1)
    return f"{float(f'{size / 10 ** (6 + 3 * power):.3g}'):g} {units[power]}"


# -------------------------------------------------------------------------------------------- one sentence


def check_room(needed: int, what: str, advice: str, devices: "list[jax.Device] | None" = None) -> None:
    """Raises OutOfMemory if memory certainly does not suffice.

    Args:
        needed: The least memory needed, in bytes.
        what: What it is for.
        advice: What to do.
        devices: Where it is needed; None for the memory of the machine.
    """
    if needed <= SMALL:
        return
    free = free_host_bytes(swap=True) if devices is None else free_bytes(devices, swap=True)
    if needed > free:
        raise OutOfMemory(
            f"expected memory of at least {size_text(needed)} for {what}, got {size_text(free)} free; {advice}"
        )


def check_scores(queries: Any, scores: int) -> None:
    """Raises OutOfMemory if the scores of attention certainly do not fit beside its queries.

    Args:
        queries: On the device of the scores. Traced ones pass: where they will be computed, and how, is unknown.
        scores: The number of scores.
    """
    import jax

    if not isinstance(queries, jax.core.Tracer):
        needed = scores * queries.dtype.itemsize
        check_room(needed, f"{scores} scores of attention", "take shorter sequences", devices_of(queries))


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of the machine or of a device."""
    of_jax = "jax" in sys.modules and isinstance(error, sys.modules["jax"].errors.JaxRuntimeError)
    return isinstance(error, MemoryError) or (of_jax and "RESOURCE_EXHAUSTED" in str(error))


def exhausted(error: BaseException, doing: str, advice: str) -> OutOfMemory:
    """The sentence for memory that ran out; the error itself if it is one.

    Args:
        error: What was raised.
        doing: What the memory was for.
        advice: What to do.
    """
    if isinstance(error, OutOfMemory):
        return error
    said = " ".join(str(error).split("\n")[0].split()).removeprefix("RESOURCE_EXHAUSTED: ").rstrip(".")
    got = f"none left ({said})" if said else "none left"
    free = size_text(free_host_bytes() if isinstance(error, MemoryError) else free_bytes(devices_of(())))
    return OutOfMemory(f"expected memory for {doing}, got {got}; {free} are free now; {advice}")


@contextlib.contextmanager
def explained(doing: str, advice: str) -> Iterator[None]:
    """Turns an error that says that memory ran out into one sentence; arguments as for `exhausted`.

    Raises:
        OutOfMemory: In its place.
    """
    try:
        yield
    except Exception as error:
        if not is_exhausted(error) or isinstance(error, OutOfMemory):
            raise
        raise exhausted(error, doing, advice) from error
