"""Exchange chains of rectified layers with NIR, the neuromorphic intermediate representation, as spiking networks."""

import io
import itertools
import os
import re
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from vicinal._numbers import positive
from vicinal._optional import optional
from vicinal.files import write_atomically
from vicinal.interchange.nir_nodes import (
    FIRING,
    SHAPES,
    TRACE,
    WEIGHTS,
    gain_of,
    nodes_of,
    package,
    parts_of,
    plain,
    settings_of,
    units_of,
    with_parameters,
)
from vicinal.spikes import Generator

_LETTERS = {**dict.fromkeys(WEIGHTS, "W"), **dict.fromkeys(FIRING, "F"), **dict.fromkeys(TRACE, "T")}
_LETTERS |= dict.fromkeys(SHAPES, "S")


def to_nir(
    model: PyTree, example: Array, generator: Generator | None = None, *, dt: float = 1.0, traces: bool = True
) -> Any:
    """Converts a chain of rectified layers to a spiking network in NIR, of integrate-and-fire units.

    The model is a `vicinal.nn.MLP`, `Autoencoder` or `ConvNet` (with an `AvgPool2d` or without) with the activation
    `"relu"`, and its vertices at rates or potentials. The graph is the chain

        Input -> weights -> IF -> LI -> weights -> IF -> LI -> ... -> weights -> Output

    with AvgPool2d and Flatten where the model has them. The input currents are the numbers of an example, held for as
    long as it is presented. A unit (IF) integrates its current and fires when its charge reaches `area * dt`; with a
    leak it is an LIF of time constant `leak * dt`. An LI of time constant `trace * dt` is the trace of a unit, which
    the layer above reads. The rate of a unit times `area * dt` is its activity in the model, and the mean of what
    reaches Output is the model's output, up to a rest that falls as one over the time. With a leak the rate is
    `generator.rate` of the unit's mean current.

    On firing, NIR resets a charge to 0, where `vicinal.spikes.Generator` subtracts the area of a spike. In continuous
    time, in which NIR is defined, these are the same while currents are finite, because a charge then stops exactly at
    its threshold. Traces keep currents finite. Without traces each spike is a jump of the charges above: readers that
    reset to 0 lose what is above the threshold, and readers that subtract the threshold lose nothing.

    NIR has no counterpart of three things: `generator.most` (a unit may send any number of spikes), the charge of half
    an area at the start (here it is 0, so that a unit sends up to one spike less), and learning.

    Args:
        model: The model.
        example: One input, without the batch axis; its numbers do not matter.
        generator: Area of a spike, leak and time constant of the traces, in steps; `Generator()` by default.
        dt: The length of a step in the graph's unit of time. A spike is a pulse whose integral over time is 1. In a
            simulator on a grid where a spike is 1 for one step instead, take 1, and the same for its own step.
        traces: Whether spikes pass an LI before they reach the next weights. Without LI, the weights above the first
            layer are multiplied by `area * dt`; some chips need that.

    Returns:
        The `nir.NIRGraph`.

    Raises:
        ImportError: If nir is not installed.
        TypeError: If the generator is none.
        ValueError: If a part of the model has no counterpart, or the example does not fit it.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 2), activation="relu", key=jax.random.key(0))
        >>> graph = to_nir(model, jnp.ones(3), vc.spikes.Generator(area=0.5, trace=4.0), dt=0.25)
        >>> list(graph.nodes)
        ['input', 'layers_0', 'hidden1', 'hidden1_trace', 'layers_1', 'output']
        >>> graph.nodes["hidden1"].v_threshold.tolist(), graph.nodes["hidden1_trace"].tau.tolist()
        ([0.125, 0.125, 0.125, 0.125], [1.0, 1.0, 1.0, 1.0])

    References:
        Pedersen et al., Neuromorphic intermediate representation: a unified instruction set for interoperable
        brain-inspired computing, Nature Communications 2024, https://doi.org/10.1038/s41467-024-52259-9; the nodes:
        https://neuroir.org/docs/primitives
    """
    generator = Generator() if generator is None else generator
    if not isinstance(generator, Generator):
        raise TypeError(f"expected generator as a vicinal.spikes.Generator, got {generator!r}")
    dt, parts, shape = positive("dt", dt), parts_of(model), jnp.shape(example)
    first = parts.weighing[0].weight
    jax.eval_shape(model, jax.ShapeDtypeStruct(shape, first.dtype))  # raises if the example does not fit
    units = units_of(generator, dt, traces, plain(first).dtype)
    nodes = nodes_of(parts, shape, units, 1.0 if traces else float(generator.area) * dt)
    return package().NIRGraph(nodes, list(itertools.pairwise(nodes)), metadata={"dt": dt})


def save_nir(
    path: str | os.PathLike[str],
    model: PyTree,
    example: Array,
    generator: Generator | None = None,
    *,
    dt: float = 1.0,
    traces: bool = True,
) -> None:
    """Write a chain of rectified layers to a file of NIR (HDF5), which `nir.read` and spiking simulators read.

    Args:
        path: The file; its folder must exist. An existing file is replaced in a single step.
        model: As for `to_nir`.
        example: As for `to_nir`.
        generator: As for `to_nir`.
        dt: As for `to_nir`.
        traces: As for `to_nir`.

    Raises:
        ImportError: If nir is not installed.
        TypeError: As `to_nir`.
        ValueError: As `to_nir`.
        OSError: If the file cannot be written; an existing file stays intact.
    """
    graph, content = to_nir(model, example, generator, dt=dt, traces=traces), io.BytesIO()
    package().write(content, graph)
    h5py = optional("h5py", "A file of NIR", "nir", "nir")
    with h5py.File(content, "r+") as file:
        for node in file["node/nodes"].values():
            if "v_reset" in node:  # 0, as where it is missing; nir before 1.0.6 refuses what it does not know
                del node["v_reset"]
    write_atomically(path, content.getvalue())


def from_nir(graph: Any, like: PyTree) -> PyTree:
    """Put the parameters of a NIR graph into a model of rectified units.

    The graph is a chain as `to_nir` writes it, with or without traces, perhaps written by another program. Units of
    resistance `R` and threshold `theta` send spikes at `R / theta` times their current, and a trace of resistance `r`
    makes `r` times their rate of that; where the product is not 1, it goes into the weights above. A leak is left out.

    Args:
        graph: The `nir.NIRGraph`, from `nir.read` or `to_nir`.
        like: A model built like the graph, as for `to_nir`; the values of its parameters do not matter.

    Returns:
        The model with the new parameters, in its own dtypes; everything else is as in `like`.

    Raises:
        ImportError: If nir is not installed.
        TypeError: If this is no graph of NIR.
        ValueError: If the graph is no such chain, or does not fit the model.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model, other = (vc.nn.MLP((3, 4, 2), activation="relu", key=jax.random.key(seed)) for seed in (0, 1))
        >>> same = from_nir(to_nir(model, jnp.ones(3)), like=other)
        >>> bool((same.layers[1].weight == model.layers[1].weight).all())
        True
    """
    if not isinstance(graph, package().NIRGraph):
        raise TypeError(f"expected a nir.NIRGraph, as nir.read returns, got {type(graph).__name__}")
    chain, parts = _chain(graph), parts_of(like)
    shape = tuple(map(int, graph.nodes[next(iter(graph.inputs))].input_type["input"]))
    expected = list(nodes_of(parts, shape, lambda name, shape: {}, 1.0).values())[1:-1]
    given, gain = [], 1.0
    layers = [node for _, node in chain if type(node).__name__ not in FIRING + TRACE]
    for wanted, got in itertools.zip_longest(map(settings_of, expected), map(settings_of, layers), fillvalue="no more"):
        if wanted != got:
            raise ValueError(f"expected {wanted}, as in the model, got {got}; build the model like the graph")
    for name, node in chain:
        gain *= gain_of(name, node)
        if type(node).__name__ in WEIGHTS:
            given.append((node.weight * node.weight.dtype.type(gain), getattr(node, "bias", None)))
            gain = 1.0
    return with_parameters(like, given)


def _chain(graph: Any) -> list[tuple[str, Any]]:
    """Returns the nodes between Input and Output, in order."""
    after = dict(graph.edges)
    names = list(graph.inputs)[:1]
    while names and names[-1] in after and len(names) <= len(after):
        names.append(after[names[-1]])
    whole = len(graph.edges) == len(after) == len(graph.nodes) - 1 and sorted(names) == sorted(graph.nodes)
    kinds = [type(graph.nodes[name]).__name__ for name in names]
    letters = "".join(_LETTERS.get(kind, "?") for kind in kinds[1:-1])
    if not whole or kinds[-1] != "Output" or not re.fullmatch("W(FT?S*W)*", letters):
        got = " -> ".join(kinds) if whole else f"{len(graph.nodes)} nodes with {len(graph.edges)} edges"
        raise ValueError(
            f"expected a chain Input -> weights -> IF or LIF -> LI -> weights -> ... -> Output, where LI may be absent "
            f"and AvgPool2d and Flatten may stand before weights, got {got}"
        )
    return [(name, graph.nodes[name]) for name in names[1:-1]]
