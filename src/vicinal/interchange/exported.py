"""Export a model as a program that runs without its Python code: StableHLO, by `jax.export`."""

import os

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from vicinal._optional import optional
from vicinal._trace import inference_mode
from vicinal.files import write_atomically
from vicinal.graph import capture


def export(model: PyTree, example: PyTree, path: str | os.PathLike[str]) -> None:
    """Write a model, with its parameters, as a StableHLO program for batches of any size.

    The program evaluates the model: without dropout, and with the running averages.

    JAX alone runs it, without this library:
    `jax.export.deserialize(bytearray(Path(path).read_bytes())).call(x)`.

    Args:
        model: Any callable pytree; it acts on one example.
        example: One input, without the batch axis: arrays, or a tree of them.
        path: The file; its folder must exist. An existing file is replaced in a single step.

    Raises:
        ImportError: If flatbuffers, which JAX writes with, is not installed.
        OSError: If the file cannot be written; an existing file stays intact.

    Example:
        >>> import jax, jax.numpy as jnp, tempfile, vicinal as vc
        >>> from pathlib import Path
        >>> model = vc.nn.MLP((3, 2), key=jax.random.key(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export(model, jnp.ones(3), Path(folder) / "model.stablehlo")
        ...     program = jax.export.deserialize(bytearray((Path(folder) / "model.stablehlo").read_bytes()))
        >>> program.call(jnp.ones((5, 3))).shape
        (5, 2)

    References:
        https://docs.jax.dev/en/latest/export/export.html
    """
    optional("flatbuffers", "export", "flatbuffers", "export")
    from jax import export as jax_export  # a part that `import jax` leaves out

    (batch,) = jax_export.symbolic_shape("batch")

    def form(leaf: jax.Array) -> jax.ShapeDtypeStruct:
        leaf = jnp.asarray(leaf)
        return jax.ShapeDtypeStruct((batch, *leaf.shape), leaf.dtype)

    inference = inference_mode(model)  # before capture: statistics of a batch would fix the batch's size
    graph, model = capture(inference, example).evaluation(inference)
    program = jax_export.export(jax.jit(lambda x: graph.feedforward(model, x)[0]))(jax.tree.map(form, example))
    write_atomically(path, bytes(program.serialize()))
