"""Vertices and graphs: points of a JAX function that may hold a value of their own.

`vertex` marks an array inside an ordinary function. `capture` traces the function once, cuts the program at the marks,
and returns a `Graph`, which can run it as a whole (`feedforward`) or with a given value at every vertex (`predict`).
The learning rules are built on these two.

Models act on one example; only `Graph` maps them over the batch.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from vicinal._captured import Captured
from vicinal._given import check_example, check_module
from vicinal._masking import NORMS_UNKNOWN, counted
from vicinal._primitive import OUTPUT, vertex
from vicinal._program import Program, Values
from vicinal._show import graph_text, names_text
from vicinal._synapses import Synapse
from vicinal._trace import UNROLL_LIMIT, evaluated, trace
from vicinal.clamped import Clamped, Linearized
from vicinal.roles import Where

__all__ = ["OUTPUT", "UNROLL_LIMIT", "Clamped", "Graph", "Linearized", "Values", "capture", "vertex"]


@jax.tree_util.register_static
class Graph(Captured):
    """A function cut at its vertices; made by `capture`.

    A graph holds no parameters: every call takes the model, which may change in between. A graph is a static pytree
    node, compared by identity; pass it into `jax.jit` or close over it.

    Attributes:
        vertices: The names of the vertices, in topological order.
        parents: For each vertex, and for `"output"`, the vertices that its prediction reads directly.
        children: For each vertex, the nodes whose predictions read it; one may be `"output"`.
        parameters: For each node, the paths (`.layers[0].weight`) of the parameters that its prediction reads.
        reads_input: The nodes whose predictions read the input directly.
        shapes: For each vertex, shape and dtype of one example (`jax.ShapeDtypeStruct`); for `"output"`, a tree.
        roles: For each array of the model, by its path: `"parameter"`, `"feedback"` (learned), `"fixed"` or `"state"`
            (`vicinal.roles`).
        masked: The vertices with a mask.
        needs_key: Whether the model takes a key, for dropout for example. Its inputs are then those of `keyed`.
        batch_size: The number of examples in a batch, if the model takes statistics of it. None: any number.
    """

    vertices: tuple[str, ...]
    parents: Mapping[str, tuple[str, ...]]
    children: Mapping[str, tuple[str, ...]]
    parameters: Mapping[str, tuple[str, ...]]
    reads_input: frozenset[str]
    shapes: Mapping[str, PyTree]
    masked: tuple[str, ...]

    def __init__(self, program: Program):
        super().__init__(program)
        self._found_synapses: dict[str | None, tuple[list[Synapse], Callable]] = {}
        self.vertices = program.names
        self.parents = program.parents
        self._local = {node: program.prediction(node) for node in self.parents}
        children: dict[str, list[str]] = {name: [] for name in self.vertices}
        for node, parents in self.parents.items():
            for parent in parents:
                children[parent].append(node)
        self.children = MappingProxyType({name: tuple(nodes) for name, nodes in children.items()})
        reads = {node: program.reads(node) for node in self.parents}
        self.parameters = MappingProxyType({node: paths for node, (paths, _) in reads.items()})
        self.reads_input = frozenset(node for node, (_, from_input) in reads.items() if from_input)
        self.shapes = MappingProxyType(program.shapes())
        self.masked = program.masks[0]
        self._evaluation: Graph | None = None
        self._feedforward = program.feedforward()
        self._predict = program.predict()

    def __repr__(self) -> str:
        return graph_text(self)

    def _repr_html_(self) -> str:
        from vicinal.report.notebook import graph_html  # imports matplotlib, needed in notebooks only

        return graph_html(self)

    def feedforward(self, model: PyTree, x: PyTree) -> tuple[PyTree, Values]:
        """Runs the function: every vertex holds its prediction.

        Args:
            model: The model captured, or one of the same structure.
            x: A batch of inputs, `[batch, ...]` (every leaf, if `x` is a tree).

        Returns:
            `(output, values)`: the output and the value of each vertex, `[batch, ...]`; values are 0 at masked units.

        Raises:
            ValueError: If the model or the input differs in structure, shape or dtype from what was captured.
        """
        leaves, inputs = self._spec.check(model, x)
        return self.program.unpack(self._over_batch(self._feedforward)(leaves, inputs))

    def predict(self, model: PyTree, values: Values, x: PyTree) -> tuple[PyTree, Values]:
        """Predicts every vertex, and the output, from the values of their parents.

        Args:
            model: The model captured, or one of the same structure.
            values: The value of every vertex, `[batch, ...]`.
            x: A batch of inputs, `[batch, ...]`.

        Returns:
            `(output, predictions)`, `[batch, ...]`. The predictions equal the values at those of `feedforward`.

        Raises:
            ValueError: If the model, the values or the input differ from what was captured.
        """
        leaves, inputs = self.entered(model, x)
        held = self.program.ordered(values)
        results = jax.vmap(self._predict, in_axes=(None, 0, 0))(leaves, inputs, held)
        return self.program.unpack(results)

    def evaluation(self, model: PyTree) -> tuple["Graph", PyTree]:
        """Returns graph and model for evaluation: with all flags `inference` set, and without a key.

        Layers of Equinox and of `vicinal.nn` have such flags. The model is called as `model(x)`, or as
        `model(x, key=None)`. Both are returned unchanged if this makes no difference.

        Args:
            model: The model captured, or one of the same structure.

        Returns:
            `(graph, model)`.
        """
        found, traced = evaluated(self._spec, model)
        if self._evaluation is None:
            self._evaluation = self if traced is None else Graph(Program(traced()))
        return self._evaluation, found

    def clamp(self, model: PyTree, x: PyTree) -> Clamped:
        """Fixes the model and the input, and computes once what depends on them alone.

        Args:
            model: The model captured, or one of the same structure.
            x: A batch of inputs, `[batch, ...]`.

        Returns:
            A function `values -> (output, predictions)`, equal to `predict` with this model and input. What does not
            depend on a vertex, such as the prediction of the first layer, is precomputed.
        """
        leaves, inputs = self.entered(model, x)
        constants = jax.vmap(self.program.constant, in_axes=(None, 0))(leaves, inputs)
        return Clamped(self.program, leaves, inputs, constants, self._masks(leaves, inputs))

    def counted(self, model: PyTree, values: Values, x: PyTree) -> Values:
        """Replaces the values (or errors) of masked units by 0; arguments are those of `predict`."""
        return counted(values, self.masks(model, x)) if self.masked else values

    def masks(self, model: PyTree, x: PyTree) -> dict[str, Bool[Array, "batch ..."]]:
        """Computes the masks of the vertices in `masked`, `[batch, ...]`: True for units that count."""
        return self._masks(*self.entered(model, x))

    def _masks(self, leaves: list[Array], inputs: list[Array]) -> dict[str, Bool[Array, "batch ..."]]:
        names, part = self.program.masks
        return dict(zip(names, jax.vmap(part, in_axes=(None, 0))(leaves, inputs), strict=True)) if names else {}

    def prediction(self, node: str, model: PyTree, values: Values, x: PyTree) -> PyTree:
        """Predicts one vertex, or `"output"`, from the values of its parents, and computes nothing else.

        Args:
            node: The name of a vertex, or `"output"`.
            model: The model captured, or one of the same structure.
            values: The values of the vertices in `parents[node]`; of all vertices, if some vertex has a mask.
            x: A batch of inputs, `[batch, ...]`.

        Returns:
            The prediction, `[batch, ...]`.

        Raises:
            ValueError: If there is no such node, or the model or the input differ from what was captured.
        """
        if node not in self._local:
            raise ValueError(
                f"expected a vertex of the graph ({names_text(self.vertices)}) or '{OUTPUT}', got {node!r}"
            )
        leaves, inputs = self.entered(model, x)
        if self.masked:  # masked units pass on values from below the parents
            output, predictions = self.predict(model, values, x)
            return output if node == OUTPUT else predictions[node]
        below = [values[name] for name in self.parents[node]]
        results = jax.vmap(self._local[node], in_axes=(None, 0, 0))(leaves, inputs, below)
        return jax.tree.unflatten(self.program.output_structure, results) if node == OUTPUT else results[0]

    def deviated(self, model: PyTree, x: PyTree, deviations: Values) -> PyTree:
        """Runs a forward pass in which each vertex holds its prediction plus a deviation; statistics see it too.

        Args:
            model: The model captured, or one of the same structure.
            x: A batch of inputs, `[batch, ...]`.
            deviations: The deviation of every vertex, `[batch, ...]`.

        Returns:
            The output, `[batch, ...]`.
        """
        leaves, inputs = self._spec.check(model, x)
        results = self._over_batch(self.program.deviated, 3)(leaves, inputs, self.program.ordered(deviations))
        return jax.tree.unflatten(self.program.output_structure, results)

    def adjoints(self, model: PyTree, values: Values, x: PyTree, output_error: PyTree) -> Values:
        """Carries the error of the output back to every vertex, through the Jacobians of the predictions at `values`.

        The error of a vertex is the sum over its children `c` of `J_c^T error_c`. At feedforward values, with minus the
        gradient of the loss as output error, these are minus the gradients of the loss: backpropagation.

        Args:
            model: The model captured, or one of the same structure.
            values: The value of every vertex, `[batch, ...]`.
            x: A batch of inputs, `[batch, ...]`.
            output_error: The error of the output, `[batch, ...]`.

        Returns:
            An error for each vertex, `[batch, ...]`.
        """
        errors: Values = {}

        def respond(name: str, carried: Array) -> Array:
            errors[name] = carried
            return carried

        self.clamp(model, x).linearize(values).sweep(output_error, respond)
        return {name: errors[name] for name in self.vertices}

    def slopes(self, model: PyTree, values: Values, x: PyTree) -> Values:
        """Computes the derivatives of the activation functions that vertices go into, at their values.

        A vertex goes into an activation if everything that reads the vertex reads the same non-linear elementwise
        function of it. A potential does; a rate or a residual stream does not. Arguments are those of `predict`.

        Returns:
            The derivatives, `[batch, ...]`, by vertex; only for vertices that go into an activation.
        """
        leaves, inputs = self.entered(model, x)
        names, part = self.program.activations
        run = jax.vmap(part, in_axes=(None, 0, 0))
        rates, back = jax.vjp(lambda held: run(leaves, inputs, held), [values[name] for name in names])
        (slopes,) = back([jnp.ones_like(rate) for rate in rates])
        return dict(zip(names, slopes, strict=True))

    def presynaptic(
        self, model: PyTree, values: Values, x: PyTree, node: str | None = None
    ) -> dict[str, Float[Array, " batch"]]:
        """Computes the squared norm of the input of each weight, when the vertices hold `values`.

        A weight is a parameter that multiplies an activity, in a product or a convolution; it is found in the program.
        For a convolution, or a layer applied at several positions, the squared norm is that over the channels of one
        position, averaged over positions. Squared norms of a weight that is used several times add up. A bias that is
        added to the product counts as one more input, of 1.

        Args:
            model: The model captured, or one of the same structure.
            values: The value of every vertex, `[batch, ...]`.
            x: A batch of inputs, `[batch, ...]`.
            node: A vertex, or `"output"`, for the weights of its prediction only. None: all weights.

        Returns:
            The squared norms, `[batch]`, by the path of the weight, and again by that of its bias.

        Raises:
            ValueError: If a vertex has a mask, since inputs at padding would count.
        """
        if self.masked:
            raise ValueError(NORMS_UNKNOWN)
        leaves, inputs = self.entered(model, x)
        synapses, part = self._synapses(node)
        activities = jax.vmap(part, in_axes=(None, 0, 0))(leaves, inputs, self.program.ordered(values))
        norms: dict[str, Array] = {}
        for synapse, activity in zip(synapses, activities, strict=True):
            square = jax.vmap(synapse.square)(activity)
            if synapse.bias is not None:
                square = square + jnp.ones((), square.dtype)
            for path in (synapse.weight, synapse.bias):
                if path is not None:
                    norms[path] = norms[path] + square if path in norms else square
        return norms

    def entering(self, node: str, model: PyTree, values: Values, x: PyTree) -> Float[Array, " batch"]:
        """Computes the squared norm of all inputs of one node: the sum of `presynaptic` over its weights.

        Args:
            node: A vertex, or `"output"`.
            model: The model captured, or one of the same structure.
            values: The value of every vertex, `[batch, ...]`.
            x: A batch of inputs, `[batch, ...]`.

        Returns:
            The squared norms, `[batch]`.

        Raises:
            ValueError: If no parameter multiplies an activity there, or a vertex has a mask.
        """
        norms = self.presynaptic(model, values, x, node)
        # The layers that teach feedback (`vicinal.feedback`) are not part of the prediction.
        own = {synapse.weight for synapse in self.synapses(node)}
        weights = sorted(weight for weight in own if not weight.endswith(".path.feedback"))
        if not weights:
            raise ValueError(
                f"expected a parameter that multiplies an activity in the prediction of {node!r}, got none"
            )
        return jnp.sum(jnp.stack([norms[weight] for weight in weights]), axis=0)

    def synapses(self, node: str | None = None) -> tuple[Synapse, ...]:
        """Returns the products of a weight with an activity, in the prediction of one node or, for None, in all."""
        return tuple(self._synapses(node)[0])

    def _synapses(self, node: str | None) -> tuple[list[Synapse], Callable]:
        if node not in self._found_synapses:
            self._found_synapses[node] = self.program.synapses(node)
        return self._found_synapses[node]


def capture(
    model: Callable,
    x: PyTree,
    *,
    fixed: Where | None = None,
    state: Where | None = None,
    batch_size: int | None = None,
) -> Graph:
    """Traces `model` on one example and cuts it at its vertices.

    `model` is any callable pytree: an Equinox module, or a function with its parameters bound by
    `jax.tree_util.Partial(function, parameters)`. Its floating-point arrays are the parameters, but for those that have
    another role (`Graph.roles`). Capture a new graph when the shape of the example changes. Vertices inside `jax.jit`
    are supported, and inside `jax.lax.scan` too, by unrolling (up to `UNROLL_LIMIT` iterations; all loops of such a
    model are then unrolled). They are refused inside `jax.checkpoint`, `jax.lax.while_loop`, a traced `jax.lax.cond`,
    or a function with a custom derivative.

    Args:
        model: A callable, called as `model(x)`, that returns an array or a tree of arrays. If it has an argument `key`
            and uses it, it is called as `model(x, key=key)`, with one key per example (`Graph.keyed`): the masks of
            dropout are drawn once for each batch and held while activities settle.
        x: One example, without the batch axis (arrays or `jax.ShapeDtypeStruct`).
        fixed: Returns the submodules or arrays of the model that never change, as for `equinox.tree_at`.
        state: Returns those that change as the model runs, not by an optimiser. Those that `vicinal.roles.roles_of`
            recognises need not be included.
        batch_size: The number of examples in a batch. It is needed only by models with statistics of the batch, that
            is, with collectives over the axis `"batch"`, as in batch norm. The statistics are those of the feedforward
            pass, and are held while activities settle; only backpropagation differentiates them.

    Returns:
        The graph. In a graph without vertices, all parameters belong to the prediction of the output.

    Raises:
        ValueError: If two vertices share a name, a vertex is where it is not supported, or a vertex does not influence
            the output.
        TypeError: If a parameter is a NumPy array, or the model is not callable.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> def network(weights, x):
        ...     hidden = vc.vertex(jnp.tanh(weights[0] @ x), "hidden")
        ...     return weights[1] @ hidden
        >>> model = jax.tree_util.Partial(network, [jnp.ones((3, 2)), jnp.ones((1, 3))])
        >>> graph = vc.capture(model, jnp.ones(2))
        >>> graph.vertices, graph.parents["output"], graph.children["hidden"]
        (('hidden',), ('hidden',), ('output',))
        >>> output, values = graph.feedforward(model, jnp.ones((5, 2)))
        >>> output.shape, values["hidden"].shape
        ((5, 1), (5, 3))
    """
    check_module(model)
    if not callable(model):
        raise TypeError(
            f"expected a callable model, got {type(model).__name__}; "
            "bind a function's parameters with jax.tree_util.Partial(function, parameters)"
        )
    if isinstance(model, jax.tree_util.Partial) and any(map(eqx.is_array, jax.tree.leaves(model.func))):
        raise TypeError(
            "expected a function in jax.tree_util.Partial, got a module, whose arrays it would hide; "
            "bind its arguments with equinox.Partial(module, ...)"
        )
    check_example(x)
    return Graph(Program(trace(model, x, fixed, state, batch_size)))
