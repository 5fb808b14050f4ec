"""Adds vertices to an existing model."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from vicinal._primitive import bind_vertex


class Marked(eqx.nn.StatefulLayer):
    """A callable whose output is a vertex; made by `mark`. Other attributes are those of the wrapped module.

    If the layer returns `(output, state)`, only the output is a vertex. Each call in a forward pass makes a vertex:
    `name[0]`, `name[1]`, ... if there are several.
    """

    module: Callable
    name: str = eqx.field(static=True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self.module(*args, **kwargs)
        if isinstance(output, tuple):  # a layer with state: (output, state)
            return bind_vertex(output[0], self.name, repeats=True), *output[1:]
        return bind_vertex(output, self.name, repeats=True)

    def is_stateful(self) -> bool:
        """Whether the wrapped layer takes a state, for `equinox.nn.Sequential`."""
        return isinstance(self.module, eqx.nn.StatefulLayer) and self.module.is_stateful()

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__") or attribute in ("module", "name"):
            raise AttributeError(attribute)
        return getattr(self.module, attribute)


def mark(model: PyTree, where: Callable[[PyTree], Any], names: Sequence[str] | None = None) -> PyTree:
    """Makes the outputs of chosen submodules of an existing model vertices.

    Args:
        model: An Equinox module (or any pytree).
        where: Takes the model and returns one callable submodule or a sequence of them, as for `equinox.tree_at`.
        names: A name for each; by default the path of the submodule, such as `layers[0]`.

    Returns:
        A copy of the model in which each chosen submodule is wrapped in `Marked`. A submodule that is called several
        times in a forward pass makes a vertex for each call, numbered as in a loop: `layers[0][0]`, `layers[0][1]`, ...

    Raises:
        ValueError: If `where` chooses nothing, a submodule twice or one that is not in the model, or the number of
            names differs from that of the submodules.
        TypeError: If a chosen submodule is not callable.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp, vicinal as vc
        >>> mlp = eqx.nn.MLP(4, 2, width_size=8, depth=2, key=jax.random.key(0))
        >>> marked = vc.mark(mlp, lambda mlp: mlp.layers[:-1])
        >>> vc.capture(marked, jnp.ones(4)).vertices
        ('layers[0]', 'layers[1]')
    """
    chosen = where(model)
    modules = list(chosen) if isinstance(chosen, list | tuple) else [chosen]
    if not modules:
        raise ValueError("expected `where` to choose at least one submodule, got none; return a submodule or a list")
    for module in modules:
        if not callable(module):
            raise TypeError(f"expected callable submodules from `where`, got {type(module).__name__}")
        if not _is_in(module, model):
            raise ValueError(
                f"expected submodules of the model from `where`, got a {type(module).__name__} that is not in it; "
                "return attributes of its argument"
            )
    if len(set(map(id, modules))) < len(modules):
        raise ValueError("expected different submodules from `where`, got one twice; name each once")
    if names is None:
        names = [_path_of(module, model) for module in modules]
    if len(names) != len(modules):
        raise ValueError(f"expected {len(modules)} names, one per chosen submodule, got {len(names)}")
    wrapped = [Marked(module, name) for module, name in zip(modules, names, strict=True)]
    flat_where = (lambda m: list(where(m))) if isinstance(chosen, list | tuple) else (lambda m: [where(m)])
    return eqx.tree_at(flat_where, model, wrapped)


def _is_in(module: Any, model: PyTree) -> bool:
    return any(node is module for node in jax.tree.leaves(model, is_leaf=lambda node: node is module))


def _path_of(module: Any, model: PyTree) -> str:
    found = jax.tree_util.tree_flatten_with_path(model, is_leaf=lambda node: node is module)[0]
    path = next((path for path, node in found if node is module), ())
    return jax.tree_util.keystr(path).lstrip(".") or type(module).__name__
