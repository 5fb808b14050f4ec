"""Under `graph`: traces a model so that no vertex remains inside another primitive."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array, PyTree

from vicinal._primitive import vertex_p
from vicinal._statistics import BATCH, nested, update_p
from vicinal.keys import Keyed, example_of, needs_keyword, reads_last_input, takes_key
from vicinal.roles import TRAINED, Role, Where, roles_of

UNROLL_LIMIT = 1024
"""A `jax.lax.scan` that holds vertices is unrolled up to this many iterations."""


class Spec:
    """The structure of a captured model and of one example."""

    def __init__(
        self, model: PyTree, x: PyTree, roles: tuple[Role | None, ...], keyed: bool, batch_size: int | None = None
    ):
        self.structure, self.static, leaves = _partition(model)
        self.roles, self.keyed, self._needs_keyword = roles, keyed, needs_keyword(model)
        self.batch_size = batch_size
        x = example_of(x) if keyed else x
        self.leaf_types = [jax.typeof(leaf) for leaf in leaves]
        self.example = jax.tree.map(lambda a: a if isinstance(a, jax.ShapeDtypeStruct) else jax.typeof(a), x)
        paths = jax.tree_util.tree_flatten_with_path(model)[0]
        self.paths = [jax.tree_util.keystr(path) for path, leaf in paths if eqx.is_array(leaf)]

    def rebuild(self, leaves: Iterable[Array]) -> Callable:
        remaining = iter(leaves)
        flat = [next(remaining) if item is _ARRAY else item for item in self.static]
        return jax.tree.unflatten(self.structure, flat)

    def split(self, model: PyTree) -> tuple[PyTree, PyTree]:
        """The trained arrays of the model with None elsewhere, and the rest with None in their place."""
        flat, structure = jax.tree.flatten(model)
        if structure != self.structure:
            raise ValueError("expected a model of the structure that was captured, got another; capture it again")
        trained = [r in TRAINED and eqx.is_inexact_array(leaf) for r, leaf in zip(self.roles, flat, strict=True)]
        first, second = (
            jax.tree.unflatten(structure, [a if own is side else None for own, a in zip(trained, flat, strict=True)])
            for side in (True, False)
        )
        return first, second

    def declare_state(self, arrays: Iterable[int]) -> None:
        """Gives the role `state` to arrays that the model updates itself."""
        places = [i for i, role in enumerate(self.roles) if role is not None]
        state = {places[i] for i in arrays}
        self.roles = tuple("state" if i in state else role for i, role in enumerate(self.roles))

    def replaced(self, model: PyTree, arrays: Mapping[int, Array]) -> PyTree:
        """The model with some of its arrays replaced."""
        flat, structure = jax.tree.flatten(model)
        places = [i for i, leaf in enumerate(flat) if eqx.is_array(leaf)]
        for i, array in arrays.items():
            flat[places[i]] = array
        return jax.tree.unflatten(structure, flat)

    def trace(self) -> tuple[core.ClosedJaxpr, PyTree]:
        def run(leaves: list[Array], x: Any) -> PyTree:
            model = self.rebuild(leaves)
            if self.keyed:
                return model(x.x, key=x.key)
            return model(x, key=None) if self._needs_keyword else model(x)

        axes = None if self.batch_size is None else [(BATCH, self.batch_size)]
        return jax.make_jaxpr(run, axis_env=axes, return_shape=True)(self.leaf_types, self.example)

    def trace_unrolled(self) -> tuple[core.ClosedJaxpr, PyTree]:
        try:
            with jax.disable_jit():
                return self.trace()
        except (jax.errors.ConcretizationTypeError, jax.errors.TracerBoolConversionError) as error:
            raise ValueError(
                "expected a model that can be unrolled around the vertices inside its jit or scan, got a loop or a "
                "branch that depends on values; place the vertices outside jit and scan"
            ) from error

    def check(self, model: PyTree, x: PyTree) -> tuple[list[Array], list[Array]]:
        """The leaves of model and input; raises ValueError if they do not match the captured structure."""
        structure, static, leaves = _partition(model)
        if structure == self.structure and static != self.static:
            changed = next(new for new, old in zip(static, self.static, strict=True) if new != old)
            raise ValueError(
                f"expected a model whose leaves that are no arrays are as captured, got {changed!r} for one of them; "
                "make it an array, or pass the model through equinox.filter_jit rather than jax.jit"
            )
        if structure != self.structure:
            raise ValueError("expected a model of the structure that was captured, got another; capture it again")
        for path, leaf, expected in zip(self.paths, leaves, self.leaf_types, strict=True):
            if leaf.shape != expected.shape or leaf.dtype != expected.dtype:
                raise ValueError(
                    f"expected parameter {path or 'model'} as {expected.dtype}{list(expected.shape)}, got "
                    f"{leaf.dtype}{list(leaf.shape)}; capture the model again"
                )
        if self.keyed and not isinstance(x, Keyed):
            raise ValueError(
                "expected inputs with a key for each example, as the model takes a key (for dropout, say), got none; "
                "give graph.keyed(x, key), or pass key= to a rule's step or value_and_grad"
            )
        inputs, x_structure = jax.tree.flatten(x)
        inputs = [jnp.asarray(item) for item in inputs]
        if x_structure != jax.tree.structure(self.example):
            raise ValueError(
                f"expected an input of structure {jax.tree.structure(self.example)}, got {x_structure}; "
                "capture the model with an example of this structure"
            )
        for item, expected in zip(inputs, jax.tree.leaves(self.example), strict=True):
            if item.ndim == 0 or item.shape[1:] != expected.shape or item.dtype != expected.dtype:
                wanted = ", ".join(["batch", *map(str, expected.shape)])
                raise ValueError(
                    f"expected a batch of inputs {expected.dtype}[{wanted}], got {item.dtype}{list(item.shape)}; "
                    "add the batch axis, or capture the model with an example of this shape and dtype"
                )
            if item.shape[0] == 0:
                raise ValueError("expected at least one example in a batch, got none")
            if self.batch_size not in (None, item.shape[0]):
                raise ValueError(
                    f"expected a batch of {self.batch_size} examples, for which the statistics of the batch were "
                    f"captured, got {item.shape[0]}; capture the model with batch_size={item.shape[0]}, or leave out "
                    "batches of another size"
                )
        return leaves, inputs


_ARRAY = object()  # stands for an array in the list of static leaves


def _partition(model: PyTree) -> tuple[Any, list[Any], list[Array]]:
    flat, structure = jax.tree.flatten(model)
    for leaf in flat:
        if isinstance(leaf, np.ndarray):
            raise TypeError(
                f"expected parameters as JAX arrays, got a NumPy array of shape {leaf.shape}; "
                "convert them with jax.tree.map(jnp.asarray, parameters)"
            )
    static = [_ARRAY if eqx.is_array(leaf) else leaf for leaf in flat]
    return structure, static, [leaf for leaf in flat if eqx.is_array(leaf)]


# ---------------------------------------------------------------------------------------------- finding vertices

Nesting = tuple[tuple[str, int], ...]
"""The primitives around a vertex, outermost first, each with the length of its loop (1 if it is not a loop)."""


def find(jaxpr: core.Jaxpr, path: Nesting = ()) -> Iterator[tuple[core.JaxprEqn, Nesting]]:
    """Yields every vertex, at any depth, with the primitives around it."""
    for eqn in jaxpr.eqns:
        if eqn.primitive is vertex_p:
            yield eqn, path
        length = int(eqn.params["length"]) if eqn.primitive.name == "scan" else 1
        for value in eqn.params.values():
            for item in value if isinstance(value, tuple | list) else (value,):
                if isinstance(item, core.ClosedJaxpr | core.Jaxpr):
                    inner = item.jaxpr if isinstance(item, core.ClosedJaxpr) else item
                    yield from find(inner, (*path, (eqn.primitive.name, length)))


class Traced(NamedTuple):
    """A model's program with no vertex left inside another primitive.

    Attributes:
        spec: What was captured.
        closed: The program.
        output_structure: The tree structure of the output.
        looped: The names of the vertices inside loops, and of those that one marked layer makes by several calls.
    """

    spec: Spec
    closed: core.ClosedJaxpr
    output_structure: Any
    looped: set[str]


def trace(model: PyTree, x: PyTree, fixed: Where | None, state: Where | None, batch_size: int | None) -> Traced:
    """Traces a model on one example; with a key if the model takes one and its output depends on it."""
    roles = roles_of(model, fixed, state)
    if takes_key(model):
        found = _trace_in_batch(model, x, roles, True, batch_size)
        if reads_last_input(found.closed.jaxpr, (update_p,)):
            return found
    return _trace_in_batch(model, x, roles, False, batch_size)


def _trace_in_batch(model: PyTree, x: PyTree, roles: Any, keyed: bool, batch_size: int | None) -> Traced:
    """Traces a model, with the batch axis if it uses that."""
    try:
        return _trace_flat(Spec(model, x, roles, keyed))
    except NameError as error:
        _check_axis(error)
        if batch_size is None:
            raise ValueError(
                "expected the batch size of a model that takes statistics of the batch (as batch norm does), got none; "
                "write vicinal.capture(model, x, batch_size=...)"
            ) from error
    try:
        return _trace_flat(Spec(model, x, roles, keyed, batch_size))
    except NameError as error:
        _check_axis(error)
        raise ValueError(f"expected collectives only over the axis '{BATCH}', got: {error}") from error


def _check_axis(error: NameError) -> None:
    """Raises a NameError again unless it is about an unbound axis."""
    if "axis name" not in str(error):
        raise error


def evaluated(spec: Spec, model: PyTree) -> tuple[PyTree, Callable[[], Traced] | None]:
    """The model with all flags `inference` set, and its trace without a key; None if that changes nothing."""
    still = inference_mode(model)
    if not spec.keyed and spec.batch_size is None and _partition(still)[1] == spec.static:
        return model, None
    example = jax.tree.map(shape_and_type, spec.example.x if spec.keyed else spec.example)

    def traced() -> Traced:
        try:
            return _trace_flat(Spec(still, example, spec.roles, keyed=False))
        except NameError as error:
            _check_axis(error)
            raise ValueError(
                "expected a model that needs no statistics of the batch when it is evaluated, got one that does; let "
                "it read its flag `inference`, or take an argument of that name (vicinal.with_state)"
            ) from error

    return still, traced


def shape_and_type(aval: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


def inference_mode(model: PyTree) -> PyTree:
    """Like `equinox.nn.inference_mode`, but also works through wrappers that forward attributes."""

    def set_flag(path: Any, leaf: Any) -> Any:
        return True if leaf is False and path and path[-1] == jax.tree_util.GetAttrKey("inference") else leaf

    return jax.tree_util.tree_map_with_path(set_flag, model)


def _trace_flat(spec: Spec) -> Traced:
    closed, output_shape = spec.trace()
    vertices = list(find(closed.jaxpr))
    found = [(eqn.params["name"], path) for eqn, path in vertices]
    several = {name: count for name, count in Counter(name for name, _ in found).items() if count > 1}
    explicit = {eqn.params["name"] for eqn, _ in vertices if not eqn.params["repeats"]}
    for name, count in several.items():
        if name in explicit:
            raise ValueError(f"expected one vertex per name, got {name!r} {count} times; give each its own name")
    looped = {name for name, path in found if any(primitive in ("scan", "while") for primitive, _ in path)}
    looped.update(several)
    if any(path for _, path in found) or next(nested(closed.jaxpr), None):
        for name, path in found:
            iterations = int(np.prod([length for _, length in path]))
            if iterations > UNROLL_LIMIT:
                raise ValueError(
                    f"expected at most {UNROLL_LIMIT} iterations around vertex {name!r}, got {iterations}; "
                    "shorten the sequence, or move the vertex out of the scan"
                )
        closed, output_shape = spec.trace_unrolled()
        for eqn, path in find(closed.jaxpr):
            if path:
                raise _cannot_follow(eqn.params["name"], path)
        for eqn, outer in nested(closed.jaxpr):
            raise ValueError(
                f"expected {eqn.primitive.name!r} over the batch where it can be followed, got it inside "
                f"{outer[-1]!r}; place it outside"
            )
    return Traced(spec, closed, jax.tree.structure(output_shape), looped)


def _cannot_follow(name: str, path: Nesting) -> ValueError:
    checkpoint = "remove jax.checkpoint (jax.remat) around it"
    advice = {
        "checkpoint": checkpoint,
        "remat": checkpoint,
        "remat2": checkpoint,
        "while": "write the loop as a Python loop or a jax.lax.scan",
        "cond": "place the vertex before or after the branch",
    }
    primitive = next((p for p, _ in path if p in advice), path[-1][0])
    return ValueError(
        f"expected vertex {name!r} where its value can be replaced, got it inside {primitive!r}; "
        + advice.get(primitive, "place the vertex outside")
    )
