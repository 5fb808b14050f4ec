"""What a run started with, as digests beside its checkpoint: a resumed run must have the same.

Data are identified by their bytes; rule and model by their contents: classes, numbers, arrays, and the names of
functions. These do not depend on versions. What functions compute is identified by the program that they trace to (the
optimiser's, which holds the rates, the loss's and the model's, with all that they read of modules and closures), and a
user's function by its code too. These change with the versions of JAX and Python, so they are compared only if the
versions are those of the run.
"""

import dataclasses
import enum
import functools
import hashlib
import platform
import re
import types
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend import core
from jaxtyping import PyTree

from vicinal.graph import OUTPUT, Graph
from vicinal.losses.base import Loss, loss_and_error
from vicinal.rules import Rule
from vicinal.rules.base import apply_gradient
from vicinal.train.batches import is_pair
from vicinal.train.programs import digest_of_arrays, digest_of_program

Fingerprint = dict[str, Any]
"""Digests by name, and under `"exact"` those that only compare between equal versions."""

_LIBRARIES = ("vicinal", "jax", "optax", "equinox", "builtins", "numpy")  # known by their versions
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def fingerprint(
    rule: Rule,
    graph: Graph,
    optimizer: optax.GradientTransformation,
    model: PyTree,
    optimizer_state: PyTree,
    data: Mapping[str, PyTree],
) -> Fingerprint:
    """The digests of everything that determines a run, except its key and its settings.

    Args:
        rule: The rule, with all its fields and its loss.
        graph: The captured graph.
        optimizer: The optimiser.
        model: The model: its structure and its static parts; its arrays are in the checkpoint.
        optimizer_state: The initial state, whose single numbers may be rates.
        data: Arrays by name: the training data (for an iterable, its first batch) and the evaluation sets.

    Returns:
        JSON data; the same in every process.
    """
    rules, models = Digest(), Digest(arrays=False)
    rules.add(rule)
    models.add(model)
    rates = [leaf for leaf in jax.tree.leaves(optimizer_state) if eqx.is_array(leaf) and leaf.ndim == 0]
    exact = {"rule": rules.code, "model": models.code, "optimiser": _of_optimizer(optimizer, graph, model, rates)}
    if "training data" in data:
        exact["loss"] = _of_loss(rule.loss, graph, data["training data"][1])
    exact["model's program"] = digest_of_program(graph.program.closed)
    exact["model's gradient"] = _of_gradient(graph, model)
    plain = {"rule": rules.plain, "model": models.plain}
    arrays = {name: digest_of_arrays(tree) for name, tree in data.items()}
    return {**arrays, **plain, "exact": exact, "versions": versions()}


def arrays_in(data: Mapping[str, Any]) -> dict[str, PyTree]:
    """The sets that are arrays; sets in batches are left out, as reading them may use them up."""
    return {name: part for name, part in data.items() if isinstance(part, tuple) and is_pair(part)}


def versions() -> dict[str, str]:
    """The versions that digests of programs and code depend on."""
    from vicinal import __version__

    python = ".".join(platform.python_version_tuple()[:2])
    return {
        "vicinal": __version__,
        "jax": jax.__version__,
        "optax": optax.__version__,
        "equinox": eqx.__version__,
        "python": python,
    }


def difference(stored: Fingerprint | None, own: Fingerprint) -> tuple[str | None, str | None]:
    """Finds what differs from the run to resume.

    Args:
        stored: The fingerprint of that run; None in a checkpoint of a version without fingerprints.
        own: The fingerprint of the arguments now.

    Returns:
        The name of what differs, or None; and None, or a phrase for what was not compared.
    """
    if stored is None:
        return None, None
    exact = {"versions", "exact"}
    names = [name for name in own if name not in exact and name in stored]
    found = next((name for name in names if stored[name] != own[name]), None)
    theirs, ours = stored["versions"], own["versions"]
    if theirs != ours:
        moved = ", ".join(
            f"{name} {theirs.get(name)} (now {ours[name]})" for name in ours if theirs.get(name) != ours[name]
        )
        return found, f"was started with {moved}: its optimiser cannot be compared, and bits may differ from here on"
    theirs, ours = stored["exact"], own["exact"]
    return found or next((name for name in ours if name in theirs and theirs[name] != ours[name]), None), None


class Digest:
    """Two digests of any object: of its contents, and of the code of the functions in it.

    Args:
        arrays: Whether the numbers in arrays count, or only their shapes and dtypes.
    """

    def __init__(self, arrays: bool = True):
        self._arrays, self._seen = arrays, set[int]()
        self._plain, self._code = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)

    @property
    def plain(self) -> str:
        """The digest of classes, numbers, arrays and names."""
        return self._plain.hexdigest()

    @property
    def code(self) -> str:
        """The digest of code."""
        return self._code.hexdigest()

    def add(self, value: Any) -> None:
        """Adds a value and everything in it."""
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            self._say(type(value).__name__, repr(value))
        elif isinstance(value, enum.Enum):
            self._say(type(value).__qualname__, value.name)
        elif isinstance(value, type):
            self._say("class", value.__qualname__)
        elif isinstance(value, jax.Array | np.ndarray | np.generic):
            self._say("array", digest_of_arrays(value) if self._arrays else f"{value.dtype}{value.shape}")
        elif isinstance(value, Mapping):
            self._each("mapping", [item for key in value for item in (key, value[key])])
        elif isinstance(value, set | frozenset):
            self._each("set", sorted(value, key=repr))
        elif isinstance(value, tuple | list):
            self._each(type(value).__name__, value)
        elif isinstance(value, functools.partial):
            self._each("partial", [value.func, value.args, value.keywords])
        elif isinstance(value, types.MethodType):
            self._each("method", [value.__self__, value.__func__])
        elif dataclasses.is_dataclass(value):
            fields = dataclasses.fields(value)
            self._each(type(value).__qualname__, [x for f in fields for x in (f.name, getattr(value, f.name, None))])
        else:
            self._add_function(value)

    def _say(self, *words: str) -> None:
        self._plain.update("\0".join((*words, "\1")).encode())

    def _each(self, kind: str, values: Any) -> None:
        self._say(kind, str(len(values)))
        for value in values:
            self.add(value)

    def _add_function(self, value: Any) -> None:
        """A function by its name, and a user's function by its code too; other objects by their class."""
        value = getattr(value, "__wrapped__", value)  # within jax.jit and the like
        if not isinstance(value, types.FunctionType):
            self._say("object", getattr(value, "__qualname__", type(value).__qualname__))
            return
        self._say("function", value.__qualname__)
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        inside = [cell.cell_contents for cell in value.__closure__ or () if cell != types.CellType()]
        # Mutable objects, such as a list that counts calls, do not identify the function.
        self._each("closure", [held for held in inside if not isinstance(held, list | dict | set)])
        self._each("defaults", [*(value.__defaults__ or ()), value.__kwdefaults__])
        if (value.__module__ or "").split(".")[0] not in _LIBRARIES:
            self._add_code(value.__code__)

    def _add_code(self, code: types.CodeType) -> None:
        self._code.update(code.co_code + repr(code.co_names).encode())
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._add_code(constant)
            else:
                self._code.update(
                    repr(sorted(constant, key=repr) if isinstance(constant, frozenset) else constant).encode()
                )


def _of_loss(loss: Loss, graph: Graph, targets: PyTree) -> str:
    """The digest of the program of a loss and its gradient, of one example."""

    def one(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((1, *shape), jax.dtypes.canonicalize_dtype(dtype))

    output = jax.tree.map(lambda leaf: one(leaf.shape, leaf.dtype), graph.shapes[OUTPUT])
    target = jax.tree.map(lambda leaf: one(leaf.shape[1:], leaf.dtype), targets)
    return digest_of_program(jax.make_jaxpr(functools.partial(loss_and_error, loss))(output, target))


def _of_gradient(graph: Graph, model: PyTree) -> str:
    """The digest of the program of a model's gradient, which may differ from that of its values (surrogates)."""
    arrays, static = eqx.partition(model, eqx.is_array)
    size = graph.batch_size or 1
    x = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype), graph.program.spec.example)

    def gradient(arrays: PyTree, x: PyTree) -> PyTree:
        trained, rest = graph.partition(eqx.combine(arrays, static))

        def floats(trained: PyTree) -> list[jax.Array]:
            found = graph.feedforward(eqx.combine(trained, rest), x)
            return [leaf for leaf in jax.tree.leaves(found) if jnp.issubdtype(leaf.dtype, jnp.inexact)]

        values, back = jax.vjp(floats, trained)
        return back([jnp.ones_like(value) for value in values])

    try:
        closed = jax.make_jaxpr(gradient)(arrays, x)
    except (TypeError, ValueError, NotImplementedError):
        return "none"  # a rule that needs it says so itself
    return digest_of_program(closed)


def _of_optimizer(optimizer: optax.GradientTransformation, graph: Graph, model: PyTree, rates: list[Any]) -> str:
    """The digest of the program of an update, with its constants, and of the single numbers in the first state."""
    parts = [eqx.filter(part, eqx.is_array) for part in graph.partition(model)]
    flat = [jax.tree.flatten(part) for part in parts]
    forms = tuple((tuple((leaf.shape, leaf.dtype) for leaf in leaves), structure) for leaves, structure in flat)
    return hashlib.blake2b((_program(optimizer, *forms) + digest_of_arrays(rates)).encode(), digest_size=16).hexdigest()


@jax.tree_util.register_static
class _OneExample:
    """The examples of a batch of one, whose gradient is that of the batch; as `vicinal.credit.ExampleGradients`."""

    count = 1

    def __init__(self, gradient: PyTree):
        self._gradient = gradient

    def __call__(self, i: Any) -> PyTree:
        return self._gradient

    def uses(self, path: str) -> int:
        return 1


@functools.lru_cache(maxsize=64)
def _program(optimizer: optax.GradientTransformation, parameters: Any, fixed: Any) -> str:
    form, rest = (
        structure.unflatten([jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in leaves])
        for leaves, structure in (parameters, fixed)
    )

    def update(gradient: PyTree, state: PyTree, parameters: PyTree, rest: PyTree) -> PyTree:
        extra = {"presynaptic": jax.tree.map(lambda leaf: jnp.ones((), leaf.dtype), gradient), "value": jnp.ones(())}
        extra |= {"grad": gradient, "value_fn": jax.tree_util.Partial(_value), "examples": _OneExample(gradient)}
        return apply_gradient(optimizer, gradient, state, eqx.combine(parameters, rest), **extra)

    with jax.numpy_dtype_promotion("standard"):
        state = jax.eval_shape(optimizer.init, form)
    closed = jax.make_jaxpr(update)(form, state, form, rest)
    constants = digest_of_arrays([np.asarray(constant) for constant in _constants(closed)])
    return _ADDRESS.sub("", str(closed)) + constants


def _value(parameters: PyTree, presynaptic: PyTree = None, examples: Any = None, model_fn: Any = None) -> jax.Array:
    """The function that a line search calls; the same for every model, so that it does not affect the digest."""
    del presynaptic, examples, model_fn
    return sum((jnp.sum(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(parameters)), jnp.zeros(()))


def _constants(closed: Any) -> list[Any]:
    """The constants of a program and of those within it."""
    found = list(closed.consts)
    for eqn in closed.jaxpr.eqns:
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda v: isinstance(v, core.ClosedJaxpr)):
            if isinstance(value, core.ClosedJaxpr):
                found += _constants(value)
    return found
