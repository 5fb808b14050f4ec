"""From an optimiser's changes to the changes of cells: what all steps for cells have in common."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, UInt32

from vicinal._numbers import check
from vicinal.credit import ExampleGradients
from vicinal.hardware._noise import normal
from vicinal.hardware.cells import Cells
from vicinal.hardware.tile import Crossbar, is_tile, stored_weights


class Stored(NamedTuple):
    """A weight, the scale of its array, and the cells that hold it."""

    weight: Float[Array, "..."]
    scale: Float[Array, ""]
    cells: Cells


class Delivered(NamedTuple):
    """The new weight that an array holds, the pulses of each cell, of either sign, and the state of the step.

    `elsewhere` are pulses of cells of another array, which the step keeps in its state, and `columns` are those of its
    columns that were read.
    """

    weight: Float[Array, "..."]
    pulses: Float[Array, "..."]
    state: Any
    elsewhere: Float[Array, "..."] | None = None
    columns: Int[Array, ""] | None = None


class Delivery(eqx.Module):
    """How an array gets the change that is wanted."""

    by_example: ClassVar[bool] = False
    """Whether the examples of a batch are taken one after another."""
    has_fast_array: ClassVar[bool] = False
    """Whether a fast array stands beside each array, and is read."""

    def first(self, weight: Array) -> Any:
        """The state of the step for an array, before the first update."""
        del weight
        return ()

    def deliver(self, stored: Stored, change: Array, state: Any, count: Array, key: PRNGKeyArray) -> Delivered:
        """Changes the weight of an array by `change`, in units of its scale, after `count` updates."""
        raise NotImplementedError

    def check(self, name: str, weight: Array, examples: ExampleGradients | None) -> None:
        """Raises ValueError if the step cannot change this weight."""


class PulseCount(NamedTuple):
    """How many pulses an array got, with those of the fast array that `transfer` keeps beside it.

    Attributes:
        last: Pulses of the last update.
        cells: Cells that got pulses in the last update.
        columns: Columns of the fast array that were read in the last update; None without a fast array.
        total: Pulses of all updates, in two halves of 32 bits, the lower one first; `int(count)` is their number.
    """

    last: Int[Array, ""]
    cells: Int[Array, ""]
    columns: Int[Array, ""] | None
    total: tuple[UInt32[Array, ""], UInt32[Array, ""]]

    def __int__(self) -> int:
        return int(self.total[0]) + (int(self.total[1]) << 32)


class CellsState(NamedTuple):
    """The state of a step for cells: updates, the optimiser's state, and each array's state and counts, by weight."""

    count: Int[Array, ""]
    asked: Any
    arrays: dict[str, Any]
    hidden: dict[str, Array]
    pulses: dict[str, PulseCount]


def pulse_counts(state: PyTree) -> dict[str, PulseCount]:
    """Finds the pulses in the state of an optimiser, by the path of the weight.

    Args:
        state: The state of an optimiser in which there are steps for cells, or anything that holds it, such as the
            state of a run.

    Returns:
        The counts; empty if there are none.
    """
    found: dict[str, PulseCount] = {}
    for node in jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, CellsState)):
        if isinstance(node, CellsState):
            found |= node.pulses
    return found


def on_cells(step: Any, delivery: Delivery) -> optax.GradientTransformationExtraArgs:
    """Makes an optimiser for models with cells.

    Args:
        step: A learning rate, a schedule, or an optimiser: the change that is wanted.
        delivery: What becomes of it in cells; elsewhere it is taken as it is.

    Raises:
        ValueError: If the learning rate is infinite or undefined.
    """
    is_optimizer = isinstance(step, optax.GradientTransformation)
    if not is_optimizer and not callable(step):
        check("the step, a learning rate,", step)
    asked = optax.with_extra_args_support(step if is_optimizer else optax.sgd(step))

    def init(params: PyTree) -> CellsState:
        weights = _named(params)
        bars = {name: bar for name, bar in crossbars(params).items() if name in weights}
        if not any(is_tile(node) and node.crossbar.cells is not None for node in _nodes(params)):
            raise ValueError(
                "expected a model with cells, got one without; place it first: "
                "vicinal.hardware.place(model, 'gokmen-vlasov', key=key)"
            )
        none, low = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.uint32)
        return CellsState(
            none,
            asked.init(params),
            {name: delivery.first(weights[name]) for name in bars},
            {name: weights[name] for name, bar in bars.items() if bar.cells is not None and bar.cells.writes_noisily},
            {name: PulseCount(none, none, none if delivery.has_fast_array else None, (low, low)) for name in bars},
        )

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree = None,
        *,
        model_fn: Callable[[], PyTree] | None = None,
        examples: Any = None,  # `vicinal.credit.ExampleGradients`
        **extra: Any,
    ) -> tuple[PyTree, CellsState]:
        if model_fn is None or params is None:
            raise ValueError(
                "expected the parameters and the model with its cells, got none; call the optimiser through Rule.step "
                "or fit, or as optimizer.update(gradient, state, parameters, model_fn=lambda: model)"
            )
        changes, inner = asked.update(updates, state.asked, params, **extra)
        weights, bars = _named(params), crossbars(model_fn())
        for name in state.arrays:
            delivery.check(name, weights[name], examples)
        held = {name: state.hidden.get(name, weights[name]) for name in state.arrays}

        def deliver(held: dict[str, Array], changes: PyTree, count: Array, slot: Array) -> dict[str, Delivered]:
            wanted = _named(changes)
            return {
                name: delivery.deliver(
                    Stored(held[name], bars[name].scale, bars[name].cells),
                    wanted[name] / bars[name].scale,
                    own,
                    count,
                    _key(bars[name], count, slot),
                )
                for name, own in state.arrays.items()
            }

        def of_example(i: Array) -> PyTree:
            found, _ = asked.update(examples(i), state.asked, params, **extra)
            return jax.tree.map(lambda change: change / jnp.asarray(examples.count, change.dtype), found)

        if delivery.by_example and examples is not None:
            done = _one_by_one(lambda held, i: deliver(held, of_example(i), state.count, i), held, examples.count)
        else:
            done = deliver(held, changes, state.count, jnp.int32(0))
        flat, hidden, pulses = _named(changes), {}, {}
        for name, new in done.items():
            key = _key(bars[name], state.count, jnp.int32(-1))
            flat[name] = _change(bars[name], weights[name], new, key)
            pulses[name] = _counted(state.pulses[name], new)
            hidden |= {name: new.weight} if name in state.hidden else {}
        arrays = {name: new.state for name, new in done.items()}
        return jax.tree.unflatten(jax.tree.structure(changes), list(flat.values())), CellsState(
            state.count + 1, inner, arrays, hidden, pulses
        )

    return optax.GradientTransformationExtraArgs(init, update)


def crossbars(model: PyTree) -> dict[str, Any]:
    """The arrays with cells of a model, by the path of the weight that each stores."""
    return {path: bar for path, bar, _ in stored_weights(model) if bar.cells is not None}


def _nodes(model: PyTree) -> list[Any]:
    return jax.tree.leaves(model, is_leaf=is_tile)


def _named(tree: PyTree) -> dict[str, Array]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _key(bar: Crossbar, count: Array, slot: Array) -> PRNGKeyArray:
    key = jax.random.fold_in(jax.random.wrap_key_data(bar.seed), count)
    return jax.random.fold_in(key, slot)


def _one_by_one(
    deliver: Callable[[dict[str, Array], Array], dict[str, Delivered]], held: dict[str, Array], count: int
) -> dict[str, Delivered]:
    """Delivers the changes of one example after another, by a step without state."""

    def body(i: Array, carry: tuple[dict[str, Array], dict[str, Array]]) -> Any:
        done = deliver(carry[0], i)
        pulses = {name: carry[1][name] + jnp.abs(new.pulses) for name, new in done.items()}
        return {name: new.weight for name, new in done.items()}, pulses

    weights, pulses = jax.lax.fori_loop(0, count, body, (held, jax.tree.map(jnp.zeros_like, held)))
    return {name: Delivered(weight, pulses[name], ()) for name, weight in weights.items()}


def _change(bar: Crossbar, weight: Array, new: Delivered, key: PRNGKeyArray) -> Array:
    """The change of a weight as reads see it, 0 without pulses."""
    cells = cast(Cells, bar.cells)
    if not cells.writes_noisily:
        return new.weight - weight
    noise = bar.scale * cells.write_noise * cells.step * normal(key, weight.shape, weight.dtype)
    return jnp.where(new.pulses != 0, new.weight + noise - weight, jnp.zeros((), weight.dtype))


def _counted(before: PulseCount, new: Delivered) -> PulseCount:
    """The counts after an update."""
    arrays = [new.pulses] if new.elsewhere is None else [new.pulses, new.elsewhere]
    last, cells = (sum(each, jnp.int32(0)) for each in zip(*map(_totals, arrays), strict=True))
    low = before.total[0] + last.astype(jnp.uint32)
    return PulseCount(last, cells, new.columns, (low, before.total[1] + (low < before.total[0]).astype(jnp.uint32)))


def _totals(pulses: Array) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """The number of pulses and of cells that got some.

    On a CPU it takes longer to convert each number to an integer than all else. So rows are summed in floating point,
    where this is exact.
    """
    number = jnp.abs(pulses.reshape(len(pulses), -1))
    rows = jnp.sum(number, axis=1), jnp.sum((number > 0).astype(pulses.dtype), axis=1)
    exact = jnp.max(rows[0]) < 2 ** jnp.finfo(pulses.dtype).nmant
    return jax.lax.cond(
        exact & (number.shape[1] < 2 ** jnp.finfo(pulses.dtype).nmant),
        lambda: tuple(jnp.sum(row.astype(jnp.int32), dtype=jnp.int32) for row in rows),
        lambda: (jnp.sum(number.astype(jnp.int32), dtype=jnp.int32), jnp.sum(number > 0, dtype=jnp.int32)),
    )
