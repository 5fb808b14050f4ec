"""Vertices and graphs: points of a JAX function that may hold a value of their own.

`vertex` marks an array inside an ordinary function and does nothing else. `capture` traces the function once,
cuts the program at the marks, and returns a `Graph` that can run it whole (`feedforward`) or with every vertex
replaced by a value that it is given (`predict`). Everything that the learning rules do is built on these two.

The functions work on one example; `Graph` maps them over the batch, here and nowhere else.
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
from vicinal._program import Program
from vicinal._show import graph_text, names_text
from vicinal._synapses import Synapse
from vicinal._trace import UNROLL_LIMIT, evaluated, trace
from vicinal.clamped import Clamped, Linearized, Values
from vicinal.roles import Where

__all__ = ["OUTPUT", "UNROLL_LIMIT", "Clamped", "Graph", "Linearized", "Values", "capture", "vertex"]


@jax.tree_util.register_static
class Graph(Captured):
    """A function cut at its vertices; made by `capture`.

    A graph holds no parameters: it is given the model at every call, so that the model may change. It is a static
    pytree node, compared by identity, and may be passed into `jax.jit` or closed over.

    Attributes:
        vertices: Names in topological order.
        parents: For each vertex, and for `"output"`, the vertices that its prediction reads directly.
        children: For each vertex the nodes whose predictions read it, `"output"` among them.
        parameters: For each node the paths (`.layers[0].weight`) of the parameters that its prediction reads.
        reads_input: The nodes whose predictions read the input directly.
        shapes: Shape and dtype of one example of each vertex, as `jax.ShapeDtypeStruct`; of `"output"` a tree of them.
        roles: By the path of each array of the model: whether it is a `"parameter"`, learned `"feedback"`, `"fixed"`
            or `"state"` (`vicinal.roles`).
        masked: The vertices with a mask.
        needs_key: Whether the model takes a key (for dropout, say). Inputs then are what `keyed` makes of them.
        batch_size: The examples of a batch, if the model takes statistics of it; None if it takes any number.
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
        self.output_structure = program.output_structure
        self.vertices = program.names
        self._local = {node: program.local(node) for node in (*self.vertices, OUTPUT)}
        self.parents = MappingProxyType({node: parents for node, (parents, _) in self._local.items()})
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
        from vicinal.report.notebook import graph_html  # only where somebody looks

        return graph_html(self)

    def feedforward(self, model: PyTree, x: PyTree) -> tuple[PyTree, Values]:
        """Runs the function: every vertex holds what is predicted for it.

        Args:
            model: The model captured, or one of the same structure.
            x: A batch of inputs, `[batch, ...]` (every leaf, if `x` is a tree).

        Returns:
            `(output, values)`: the function's output and what each vertex holds, `[batch, ...]`, 0 at masked units.

        Raises:
            ValueError: If the model or the input differs in structure, shape or dtype from what was captured.
        """
        leaves, inputs = self._spec.check(model, x)
        return self.unpack(self._over_batch(self._feedforward)(leaves, inputs))

    def predict(self, model: PyTree, values: Values, x: PyTree) -> tuple[PyTree, Values]:
        """Predicts every vertex, and the output, from the values that its parents hold.

        Args:
            model: The model captured, or one of the same structure.
            values: What each vertex holds, `[batch, ...]`; all vertices must be there.
            x: A batch of inputs, `[batch, ...]`.

        Returns:
            `(output, predictions)`, `[batch, ...]`. At `values` of `feedforward`, the predictions equal the values.

        Raises:
            ValueError: If the model, the values or the input differ from what was captured.
        """
        leaves, inputs = self.entered(model, x)
        held = self.ordered(values)
        results = jax.vmap(self._predict, in_axes=(None, 0, 0))(leaves, inputs, held)
        return self.unpack(results)

    def evaluation(self, model: PyTree) -> tuple["Graph", PyTree]:
        """The graph and the model as they are evaluated: with all flags `inference` set, and without a key.

        Layers of Equinox and of `vicinal.nn` have such flags; `model` is called as `model(x)`, or `model(x, key=None)`.
        Both are returned as they are where that changes nothing.
        """
        found, traced = evaluated(self._spec, model)
        if self._evaluation is None:
            self._evaluation = self if traced is None else Graph(Program(traced()))
        return self._evaluation, found

    def clamp(self, model: PyTree, x: PyTree) -> "Clamped":
        """Fixes the model and the input, and computes what depends on them alone once.

        Returns:
            A function `values -> (output, predictions)`, equal to `predict` with this model and input. What no
            vertex can change (the prediction of the first layer, say) is already in it.
        """
        leaves, inputs = self.entered(model, x)
        constants = jax.vmap(self.program.constant, in_axes=(None, 0))(leaves, inputs)
        return Clamped(self, leaves, inputs, constants, self._masks(leaves, inputs))

    def counted(self, model: PyTree, values: Values, x: PyTree) -> Values:
        """The values (or errors) of the units that count, with 0 in place of what is masked."""
        return counted(values, self.masks(model, x)) if self.masked else values

    def masks(self, model: PyTree, x: PyTree) -> dict[str, Bool[Array, "batch ..."]]:
        """Which units of a batch count, in the shape of the values; only of the vertices in `masked`."""
        return self._masks(*self.entered(model, x))

    def _masks(self, leaves: list[Array], inputs: list[Array]) -> dict[str, Bool[Array, "batch ..."]]:
        names, part = self.program.masks
        return dict(zip(names, jax.vmap(part, in_axes=(None, 0))(leaves, inputs), strict=True)) if names else {}

    def prediction(self, node: str, model: PyTree, values: Values, x: PyTree) -> PyTree:
        """Predicts one vertex (or `"output"`) from what its parents hold, touching nothing else.

        Args:
            node: The name of a vertex, or `"output"`.
            model: The model captured, or one of the same structure.
            values: What the vertices hold; only those in `parents[node]` are read, unless some vertex has a mask.
            x: A batch of inputs, `[batch, ...]`.

        Returns:
            The prediction, `[batch, ...]`.
        """
        if node not in self._local:
            raise ValueError(
                f"expected a vertex of the graph ({names_text(self.vertices)}) or '{OUTPUT}', got {node!r}"
            )
        leaves, inputs = self.entered(model, x)
        if self.masked:  # what is masked lets through what vertices below the parents hold
            output, predictions = self.predict(model, values, x)
            return output if node == OUTPUT else predictions[node]
        names, local = self._local[node]
        results = jax.vmap(local, in_axes=(None, 0, 0))(leaves, inputs, [values[name] for name in names])
        return jax.tree.unflatten(self.output_structure, results) if node == OUTPUT else results[0]

    def deviated(self, model: PyTree, x: PyTree, deviations: Values) -> PyTree:
        """The output of a forward pass with each vertex a deviation away from its prediction, statistics included."""
        leaves, inputs = self._spec.check(model, x)
        results = self._over_batch(self.program.deviated, 3)(leaves, inputs, self.ordered(deviations))
        return jax.tree.unflatten(self.output_structure, results)

    def adjoints(self, model: PyTree, values: Values, x: PyTree, output_error: PyTree) -> Values:
        """Carries the output's error back to every vertex, through the predictions' Jacobians at `values`.

        The error of a vertex is the sum over its children `c` of `J_c^T error_c`. At feedforward values, and with
        minus the loss's gradient as output error, these are minus the loss's gradients: backpropagation.

        Args:
            model: The model captured, or one of the same structure.
            values: What the vertices hold, `[batch, ...]`.
            x: A batch of inputs, `[batch, ...]`.
            output_error: A cotangent of the output, `[batch, ...]`.

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
        """The derivatives of the activation functions that vertices go into, at what the vertices hold.

        A vertex goes into an activation if all that reads it reads one non-linear function of it, element by element:
        a potential does, a rate or a residual stream does not. Arguments are those of `predict`.

        Returns:
            The derivatives, `[batch, ...]`, for those vertices that go into an activation.
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
        """The squared norm of what enters each weight, when the vertices hold `values`.

        A weight is a parameter that multiplies an activity, in a product or a convolution; it need not be declared.
        For a convolution, or a layer applied at several positions, the norm is that of one position (over channels),
        the mean over positions. Norms of a weight that is used several times add. A bias that is added to the
        product is one more input, of 1.

        Args:
            model: The model captured, or one of the same structure.
            values: What each vertex holds, `[batch, ...]`.
            x: A batch of inputs, `[batch, ...]`.
            node: A vertex, or `"output"`: only what enters its prediction. None for all.

        Returns:
            The squared norm for each example, `[batch]`, by the path of the weight and again by that of its bias.

        Raises:
            ValueError: If a vertex has a mask: what enters a weight at padding would count.
        """
        if self.masked:
            raise ValueError(NORMS_UNKNOWN)
        leaves, inputs = self.entered(model, x)
        synapses, part = self._synapses(node)
        activities = jax.vmap(part, in_axes=(None, 0, 0))(leaves, inputs, self.ordered(values))
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
        """The squared norm of all that enters the prediction of one node: the sum of `presynaptic` over its weights.

        Raises:
            ValueError: If no parameter multiplies an activity there, or a vertex has a mask.
        """
        norms = self.presynaptic(model, values, x, node)
        # What feedback is taught by is no part of the prediction (`vicinal.feedback`).
        own = {synapse.weight for synapse in self.synapses(node)}
        weights = sorted(weight for weight in own if not weight.endswith(".path.feedback"))
        if not weights:
            raise ValueError(
                f"expected a parameter that multiplies an activity in the prediction of {node!r}, got none"
            )
        return jnp.sum(jnp.stack([norms[weight] for weight in weights]), axis=0)

    def synapses(self, node: str | None = None) -> tuple[Synapse, ...]:
        """The products of a weight with an activity, in the prediction of one node or in all."""
        return tuple(self._synapses(node)[0])

    def _synapses(self, node: str | None) -> tuple[list[Synapse], Callable]:
        if node not in self._found_synapses:
            self._found_synapses[node] = self.program.synapses(node)
        return self._found_synapses[node]

    def ordered(self, values: Values) -> list[Array]:
        """The arrays of all vertices, in the order of `vertices`.

        Raises:
            ValueError: If one is missing or unknown.
        """
        if set(values) != set(self.vertices):
            missing, unknown = set(self.vertices) - set(values), set(values) - set(self.vertices)
            raise ValueError(
                f"expected a value for each of {names_text(self.vertices)}, got missing {sorted(missing)} "
                f"and unknown {sorted(unknown)}; start from the values that feedforward returns"
            )
        return [values[name] for name in self.vertices]

    def unpack(self, results: list[Array]) -> tuple[PyTree, Values]:
        """`(output, values)` from the flat list in which a part of the program returns them."""
        split = len(results) - len(self.vertices)
        output = jax.tree.unflatten(self.output_structure, results[:split])
        return output, dict(zip(self.vertices, results[split:], strict=True))


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
    another role (`Graph.roles`). Trace a new graph when the
    shape of the example changes. Vertices are followed through `jax.jit` and unrolled out of `jax.lax.scan` (up to
    `UNROLL_LIMIT` iterations; all loops of such a model are then unrolled). They are refused where they cannot be
    followed: under `jax.checkpoint`, `jax.lax.while_loop`, a traced `jax.lax.cond`, or a custom derivative.

    Args:
        model: Called as `model(x)`; returns an array, or a tree of arrays. If it has an argument `key` that it uses, it
            is called as `model(x, key=key)`, with a key for each example (`Graph.keyed`): the masks of dropout are
            drawn once for each batch and stay as they are while activities settle.
        x: One example, without the batch axis (arrays or `jax.ShapeDtypeStruct`).
        fixed: From the model to the submodules or arrays that never change, as for `equinox.tree_at`.
        state: The same for what changes as the model runs, and not by an optimiser. What `vicinal.roles.roles_of`
            recognises need not be named.
        batch_size: Examples in a batch. Only a model that takes statistics of the batch needs it: one with collectives
            over the axis `"batch"`, such as batch norm. These statistics are taken in the feedforward pass, and held
            while activities settle; backpropagation alone differentiates them.

    Returns:
        The graph. A model without vertices gives a graph with none: its parameters all feed the output.

    Raises:
        ValueError: If two vertices share a name, a vertex cannot be followed, or a vertex does not influence the
            output.
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
