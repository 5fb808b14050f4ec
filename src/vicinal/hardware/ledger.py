"""The ledger of a learning rule: what one update asks of arrays that hold the weights, counted from its program."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import PyTree

from vicinal._counting import Counts, UnknownTurns, Use
from vicinal._numbers import check_count
from vicinal.graph import Graph, capture
from vicinal.hardware.constants import Constants
from vicinal.hardware.converters import Converters, converters_of
from vicinal.hardware.costs import Conversions, area, chain_repeats, conversions, energies
from vicinal.hardware.programming import Programmed, programmed
from vicinal.hardware.synaptic import SynapticOperations
from vicinal.hardware.tracing import counts, shapes_of
from vicinal.rules import Rule

__all__ = ["Ledger", "UnknownTurns", "ledger"]


@dataclasses.dataclass(frozen=True)
class Ledger:
    """What one update by a rule asks of the arrays that hold the weights; made by `ledger`.

    A read is one product of a stored matrix with one vector, forward or transposed. Numbers of reads and products are
    those of a whole update, except where they are said to be for each example.

    Attributes:
        name: The name of the rule.
        uses: What each array is asked for: `name`, `inputs`, `outputs`, `forward`, `transposed`, `outer`.
        depth: The longest chain of reads, each of which needs the one before.
        batch: Examples in a batch.
        forward_macs: Multiplications in one forward pass of one example.
        digital: Multiplications in products that no array takes: of two activities, for one.
        array: Rows and columns of an array of cells.
        constants: The constants of the machine.
        bit_serial: Whether inputs are read bit by bit.
        programmed: What the update does to cells; None if it is not known.
        left_out: What is not counted, a sentence each.
        converters: Bits of the converters of each array that lies in a tile, by name; those of `constants` for others,
            and where a tile has none.
        synaptic: Synaptic operations of a rule whose units send events, measured on data; None if they were not.
    """

    name: str
    uses: tuple[Use, ...]
    depth: int
    batch: int
    forward_macs: float
    digital: float
    array: tuple[int, int]
    constants: Constants
    bit_serial: bool
    programmed: Programmed | None
    left_out: tuple[str, ...]
    converters: dict[str, Converters] = dataclasses.field(default_factory=dict)
    synaptic: SynapticOperations | None = None

    def __repr__(self) -> str:
        rows = [["array", "size", "forward", "transposed", "outer"]]
        for use in self.uses:
            each = [f"{reads / self.batch:g}" for reads in (use.forward, use.transposed, use.outer)]
            rows.append([use.name, f"{use.outputs} x {use.inputs}", *each])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"Ledger of {self.name}: reads and outer products for each example of a batch of {self.batch}"]
        lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        unsourced = ", ".join(self.constants.unsourced)
        return "\n".join(
            [
                *lines,
                f"depth {self.depth} reads, busiest array {self.busiest:g} reads",
                *(f"{use.forward:g} columns of {use.name} are read after the update" for use in self._fast),
                f"model estimate by {self.constants.name!r}: {1e9 * self.energy:.4g} nJ and at least "
                f"{1e6 * self.latency:.4g} µs for an update" + f" (without a source: {unsourced})" * bool(unsourced),
                *self.left_out,
            ]
        )

    @property
    def forward(self) -> float:
        """Forward reads for each example, of all arrays."""
        return sum(use.forward for use in self.uses) / self.batch

    @property
    def transposed(self) -> float:
        """Transposed reads for each example, of all arrays."""
        return sum(use.transposed for use in self.uses) / self.batch

    @property
    def outer(self) -> float:
        """Outer products for each example, of all arrays."""
        return sum(use.outer for use in self.uses) / self.batch

    @property
    def busiest(self) -> float:
        """Reads of the busiest array for each example: an array does one at a time."""
        return max((use.forward + use.transposed for use in self.uses), default=0) / self.batch

    @property
    def macs(self) -> float:
        """Multiplications of reads and outer products for each example."""
        return sum(u.inputs * u.outputs * (u.forward + u.transposed + u.outer) for u in self.uses) / self.batch

    @property
    def passes(self) -> float:
        """Multiplications of the reads for each example, in forward passes."""
        reads = sum(use.inputs * use.outputs * (use.forward + use.transposed) for use in self.uses)
        return reads / self.batch / self.forward_macs if self.forward_macs else 0.0

    @property
    def array_counts(self) -> dict[str, float]:
        """The main counts for each example, for `vicinal.report`."""
        names = ("forward", "transposed", "outer", "passes", "depth", "busiest")
        return {name: float(getattr(self, name)) for name in names} | {"digital": self.digital / self.batch}

    @property
    def conversions(self) -> Conversions:
        """Activations of arrays, conversions and additions, of fast arrays too."""
        return conversions(self.uses, self.array, self._fast)

    @property
    def _fast(self) -> tuple[Use, ...]:
        return () if self.programmed is None else self.programmed.fast

    @property
    def energies(self) -> dict[str, float]:
        """The energy of each kind of work, J: an estimate, by `constants`."""
        pulses = None if self.programmed is None else self.programmed.pulses
        return energies(
            self.uses,
            self._fast,
            self.array,
            self.converters,
            self.digital,
            pulses,
            self.constants,
            self.bit_serial,
        )

    @property
    def energy(self) -> float:
        """The energy of an update, J: an estimate, by `constants`."""
        return sum(self.energies.values())

    @property
    def latency(self) -> float:
        """The least time of an update, s: an estimate, by `constants`.

        Reads of a chain come one after another, and so do reads of one array. All arrays are programmed side by side.
        Columns of fast arrays are read after that: those on one array one after another, all arrays side by side.
        """
        least, busiest = 1.0, self.busiest * self.batch
        if self.bit_serial:
            least, busiest = chain_repeats(self.uses, self.converters, self.constants)
        columns = max((min(use.forward, self.array[0]) for use in self._fast), default=0.0)
        reads = (max(least * self.depth, busiest) + columns) * self.constants["read_time"]
        slots = 0 if self.programmed is None else self.programmed.slots or 0
        return reads + slots * self.constants["write_time"]

    @property
    def changeable(self) -> int:
        """The weights that outer products may change."""
        return sum(use.inputs * use.outputs for use in self.uses if use.outer)

    @property
    def area(self) -> dict[str, int]:
        """Arrays, fast ones too, their cells, and the converters at the sides that are read."""
        return area([*self.uses, *self._fast], self.array, self.constants)

    @property
    def processor(self) -> dict[str, float]:
        """The energy of the same multiplications on a processor in 32-bit float, J: an estimate, by `constants`.

        Each multiplication loads a weight from the memory on the chip, and each weight comes from the memory outside of
        it once.
        """
        each, weights = self.constants, sum(use.inputs * use.outputs for use in self.uses)
        macs = self.macs * self.batch + self.digital
        arithmetic = macs * (each["add_energy"] + each["multiply_energy"])
        return {"arithmetic": arithmetic, "SRAM": macs * each["sram_energy"], "DRAM": weights * each["dram_energy"]}

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain data: counts first, then estimates with the constants behind them."""
        plain = {"name": self.name, "batch": self.batch, "array": list(self.array), "bit_serial": self.bit_serial}
        for_each = {
            name: getattr(self, name) for name in ("forward", "transposed", "outer", "busiest", "passes", "macs")
        }
        constants = {name: dataclasses.asdict(constant) for name, constant in self.constants.all.items()}
        return plain | {
            "depth": self.depth,
            "for_each_example": for_each,
            "arrays": [dataclasses.asdict(use) | {"name": use.name, "part": list(use.part)} for use in self.uses],
            "converters": {
                name: {way: side._asdict() for way, side in sides._asdict().items()}
                for name, sides in self.converters.items()
            },
            "digital": self.digital,
            "changeable": self.changeable,
            "conversions": dataclasses.asdict(self.conversions),
            "programmed": None if self.programmed is None else dataclasses.asdict(self.programmed),
            "area": self.area,
            "model_estimate": {
                "energies": self.energies,
                "energy": self.energy,
                "latency": self.latency,
                "processor": self.processor,
                "constants_name": self.constants.name,
                "constants": constants,
                "unsourced": list(self.constants.unsourced),
            },
            "left_out": list(self.left_out),
            "synaptic_operations": None if self.synaptic is None else self.synaptic.to_dict(),
        }

    def to_json(self) -> str:
        """Returns `to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"


def ledger(
    rule: Rule,
    model: PyTree,
    x: PyTree,
    y: PyTree,
    *,
    constants: Constants | None = None,
    array: tuple[int, int] = (128, 128),
    graph: Graph | None = None,
    state: PyTree = None,
    turns: int | None = None,
    merge: bool = True,
    bit_serial: bool = False,
    pulses: PyTree = None,
    changes: PyTree = None,
    name: str | None = None,
) -> Ledger:
    """Counts what one update by a rule asks of arrays that hold the weights.

    The gradient is traced, not computed: from the program of `rule.value_and_grad`, what leads to the gradient is kept,
    and each of its products with a parameter is a read. Losses, energies and records (`Info`) cost nothing. A loop
    counts each of its turns, a branch counts as the dearer one, an example of a batch as one vector. Arrays that the
    rule carries in its state, such as fixed projections, are arrays as well.

    Args:
        rule: The rule, one of the library's or your own.
        model: The model, with or without feedback.
        x: A batch of inputs, `[batch, ...]`: arrays, or `jax.ShapeDtypeStruct`.
        y: Targets, in the same way.
        constants: The constants of the machine; by default those of `Constants()`.
        array: Rows and columns of an array of cells. A larger matrix takes several.
        graph: The captured graph; by default captured here.
        state: The rule's state; by default a fresh one.
        turns: The turns that a `while` takes, such as the mean of `Info.steps` measured on data. A `while` with
            products in it, as inference with a tolerance has, is refused without.
        merge: Whether the same product of the same two values is taken once, and kept: the first layer's prediction of
            a clamped input, or the first step of inference from feedforward values. If False, each is counted.
        bit_serial: Whether inputs are read bit by bit, which takes as many reads as they have bits.
        pulses: The signed number of pulses of every cell in an update, a tree like the gradient with None for what is
            not on an array; or the state of a step for cells (`pulsed` and others), or of a run, which holds the counts
            of its last update. None: not known, and left out.
        changes: In place of pulses, the change of every weight; changed weights are counted as programmed.
        name: A name for the outputs; by default the rule's.

    Returns:
        The ledger.

    Raises:
        vicinal.hardware.UnknownTurns: If a `while` with products has an unknown number of turns (a ValueError).
        ValueError: If model and inputs do not fit, the size of an array is below 1, or both pulses and changes are
            given.
        TypeError: If rule or constants are something else.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.nn.MLP((12, 8, 8, 4), vertex_at="pre", key=jax.random.key(0))
        >>> x, y = jnp.ones((1, 12)), jnp.zeros(1, int)
        >>> backprop = vc.hardware.ledger(vc.rules.Backprop(), model, x, y)
        >>> backprop.forward, backprop.transposed, backprop.outer, backprop.depth
        (3.0, 2.0, 3.0, 5)
    """
    size = _checked(array)
    if not isinstance(rule, Rule):
        raise TypeError(f"expected a rule, got {rule!r}; that of a recipe is vicinal.recipes.recipe(name).make()[0]")
    if constants is not None and not isinstance(constants, Constants):
        raise TypeError(f"expected vicinal.hardware.Constants, got {constants!r}; read a file by Constants.read")
    if turns is not None:
        check_count("turns", turns, 0)
    if pulses is not None and changes is not None:
        raise ValueError("expected pulses or changes, got both; give the pulses alone")
    x, y = shapes_of(x), shapes_of(y)
    if graph is None:
        graph = capture(model, jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x))
    found, macs = counts(rule, graph, model, x, y, state, turns=turns, merge=merge)
    given = changes if pulses is None else pulses
    done = None if given is None else programmed(given, found.uses, size[0], counted=pulses is not None)
    return Ledger(
        type(rule).__name__ if name is None else name,
        found.uses,
        found.depth,
        jax.tree.leaves(x)[0].shape[0],
        macs,
        found.digital,
        size,
        Constants() if constants is None else constants,
        bit_serial,
        done,
        _left_out(found, graph, model, done, turns),
        converters_of(model, found.uses),
    )


def _checked(array: Sequence[int]) -> tuple[int, int]:
    sizes = tuple(array)
    if len(sizes) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes):
        raise ValueError(f"expected rows and columns of an array as two whole numbers above 0, got {array!r}")
    return sizes[0], sizes[1]


def _left_out(
    found: Counts, graph: Graph, model: PyTree, done: Programmed | None, turns: int | None
) -> tuple[str, ...]:
    said = [
        "Buffers, wires and the movement of data are left out, and so is all arithmetic that is no product with a "
        "matrix: biases, activation functions, losses, the optimiser."
    ]
    if done is None:
        said.append("Pulses are not known, and left out.")
    elif done.slots is None:
        said.append("Which cells got pulses is not known: pulses take energy and no time here.")
    elif done.pulses is None:
        said.append(
            "The number of pulses is not known: a changed weight is taken as one pulse in time, none in energy."
        )
    said += [f"Products with a combination of {' and '.join(names)} are taken as digital." for names in found.combined]
    said += [f"What {name} does is not looked into, and left out." for name in found.unseen]
    if turns is not None:
        said.append(f"A loop of unknown length is taken to make {turns} turns.")
    used = {use.path for use in found.uses}
    flat = jax.tree_util.tree_flatten_with_path(graph.trainable(model))[0]
    others = [jax.tree_util.keystr(path) for path, leaf in flat if sum(n > 1 for n in leaf.shape) > 1]
    if unread := [path for path in others if path not in used]:
        said.append(f"On no array, since no activity is multiplied by them as a matrix: {', '.join(unread)}.")
    return tuple(said)
