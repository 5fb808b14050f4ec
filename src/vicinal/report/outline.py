"""Describe a graph as plain data that JSON can hold: nodes with their shapes, inputs and parameters."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vicinal.report.storage import texts

__all__ = ["INPUT", "Node", "outline", "parameter_words"]

INPUT = "input"
_PARTIAL = "[<flat index 0>]"  # how JAX names the parameters bound by a `Partial`


@dataclasses.dataclass(frozen=True)
class Node:
    """A vertex, or the output.

    Args:
        name: Its name.
        shape: Of one example, as text: `"64"`, `"16 x 4 x 4"`, or `"2 arrays"`; `"1"` for a single number.
        reads: The nodes that its prediction reads directly; `"input"` may be one.
        parameters: Paths of the parameters that its prediction reads.
    """

    name: str
    shape: str
    reads: list[str] = dataclasses.field(default_factory=list)
    parameters: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("reads", "parameters"):
            object.__setattr__(self, name, texts(f"Node {self.name!r}: {name}", getattr(self, name)))


def outline(graph: Any) -> list[Node]:
    """Describe the structure of a graph.

    Args:
        graph: A `vicinal.Graph`.

    Returns:
        Its nodes in topological order, the output last.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 2), key=jax.random.key(0))
        >>> for node in outline(vc.capture(model, jnp.ones(3))):
        ...     print(node.name, node.shape, node.reads, node.parameters)
        hidden1 4 ['input'] ['layers[0].weight', 'layers[0].bias']
        output 2 ['hidden1'] ['layers[1].weight', 'layers[1].bias']
    """
    return [
        Node(
            name,
            _shape(graph.shapes[name]),
            [INPUT] * (name in graph.reads_input) + list(graph.parents[name]),
            [path.removeprefix(_PARTIAL).lstrip(".") for path in graph.parameters[name]],
        )
        for name in graph.parents
    ]


def parameter_words(paths: Sequence[str]) -> str:
    """Shorten the paths of parameters to their owners; of a single owner, name its parameters.

    Example:
        >>> parameter_words(["layers[0].weight", "layers[0].bias"])
        'layers[0]: weight, bias'
        >>> parameter_words(["blocks[1].norm.scale", "blocks[1].linear.weight"])
        'blocks[1].norm, blocks[1].linear'
        >>> parameter_words(["weight"])
        'weight'
    """
    owners = dict.fromkeys(path.rpartition(".")[0] for path in paths)
    if len(owners) == 1 and "" not in owners:
        return f"{next(iter(owners))}: {', '.join(path.rpartition('.')[2] for path in paths)}"
    return ", ".join(dict.fromkeys(path.rpartition(".")[0] or path for path in paths))


def _shape(shapes: Any) -> str:
    leaves = _leaves(shapes)
    return (" x ".join(map(str, leaves[0].shape)) or "1") if len(leaves) == 1 else f"{len(leaves)} arrays"


def _leaves(tree: Any) -> list[Any]:
    """List the arrays in the output of a model; a tree that is neither dictionary nor sequence counts as one."""
    if isinstance(tree, Mapping):
        return [leaf for entry in tree.values() for leaf in _leaves(entry)]
    return [leaf for entry in tree for leaf in _leaves(entry)] if isinstance(tree, list | tuple) else [tree]
