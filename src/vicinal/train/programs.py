"""The digest of a traced program: of its equations and the bytes of its constants.

Names of variables and functions, addresses, and shared parts of the text do not affect what is computed,
and may change from one process to another; so a program is read equation by equation, not printed.
"""

import enum
import hashlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.extend import core
from jaxtyping import PyTree

from vicinal.keys import is_key

_ADDRESS = re.compile(r"0x[0-9a-f]+")
_CALLS = ("jit", "pjit", "closed_call", "core_call")  # the name of the called function does not matter


def digest_of_program(closed: core.ClosedJaxpr) -> str:
    """The digest of a program with its constants.

    Args:
        closed: The result of `jax.make_jaxpr`.

    Returns:
        Hexadecimal digits; the same in every process with the same versions.

    Example:
        >>> import jax.numpy as jnp
        >>> once, again, other = (
        ...     jax.make_jaxpr(lambda x, factor=factor: factor * x)(jnp.ones(2)) for factor in (2.0, 2.0, 3.0))
        >>> digest_of_program(once) == digest_of_program(again), digest_of_program(once) == digest_of_program(other)
        (True, False)
    """
    reading = _Reading()
    reading.value(closed)
    return reading.digest


def digest_of_arrays(tree: PyTree) -> str:
    """The digest of the shapes, dtypes and bytes of the arrays of a tree."""
    found = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if is_key(leaf):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)}{array.dtype}{array.shape}".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


class _Reading:
    """The digest of a program so far."""

    def __init__(self):
        self._found = hashlib.blake2b(digest_size=16)

    @property
    def digest(self) -> str:
        return self._found.hexdigest()

    def value(self, value: Any) -> None:
        """Adds a program or a parameter of an equation: its contents, but nothing of functions."""
        if isinstance(value, core.ClosedJaxpr):
            self._program(value.jaxpr)
            self.value(list(value.consts))
        elif isinstance(value, core.Jaxpr):
            self._program(value)
        elif isinstance(value, Mapping):
            self.value(sorted(value.items(), key=lambda item: str(item[0])))
        elif isinstance(value, tuple | list):
            self._say("sequence", str(len(value)))
            for item in value:
                self.value(item)
        elif isinstance(value, set | frozenset):
            self._say("set", *sorted(map(repr, value)))
        elif isinstance(value, enum.Enum | str | int | float | complex | None):
            self._say(type(value).__name__, repr(value))
        elif isinstance(value, type):
            self._say("class", value.__qualname__)
        elif isinstance(value, jax.Array | np.ndarray | np.generic):
            self._say("array", digest_of_arrays(value))
        elif callable(value):
            self._say("function")
        else:
            self._say(type(value).__qualname__, _ADDRESS.sub("", repr(value)))

    def _program(self, jaxpr: core.Jaxpr) -> None:
        """Adds the equations, with each variable replaced by the number of its first appearance."""
        numbers: dict[Any, int] = {}

        def atoms(found: Any) -> None:
            for atom in found:
                if isinstance(atom, core.Literal):
                    self._say(str(atom.aval))
                    self.value(np.asarray(atom.val))
                else:
                    self._say(str(atom.aval), str(numbers.setdefault(atom, len(numbers))))
            self._say("end")

        atoms(jaxpr.constvars)
        atoms(jaxpr.invars)
        for eqn in jaxpr.eqns:
            name = eqn.primitive.name
            self._say("equation", name)
            self.value({key: value for key, value in eqn.params.items() if key != "name" or name not in _CALLS})
            atoms(eqn.invars)
            atoms(eqn.outvars)
        atoms(jaxpr.outvars)

    def _say(self, *words: str) -> None:
        self._found.update("\0".join((*words, "\1")).encode())
