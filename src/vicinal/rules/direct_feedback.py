"""Direct feedback alignment: every vertex receives the error of the output through a fixed projection."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal._numbers import check, optional_number
from vicinal.credit import Credit, Info
from vicinal.graph import OUTPUT, Graph, Values
from vicinal.losses import Loss, check_loss, loss_and_error, softmax_cross_entropy
from vicinal.rules._routes import Route, as_array, check_modules, routes
from vicinal.rules.base import Rule, State
from vicinal.rules.projectors import Dense, Projector


class DirectFeedback(Rule):
    """Direct feedback alignment (DFA): a fixed random matrix carries the error of the output to each vertex directly.

        value_l = prediction_l                                    (feedforward)
        error_L = -dLoss/d output                                 exact, as in backpropagation
        error_l = f'(value_l) * (B_l error_m)                     m: the output, or that of the vertex's module

    No vertex waits for the layer above. The only signal that is not local to a synapse is the broadcast error; with
    `boundary="bp"` or `hybrid` errors also come back through the weights.

    `f'` is the derivative of the activation function that a vertex goes into, if everything that reads the vertex
    reads it through one, as at potentials. At rates the local product contains it, so both placements of a vertex give
    the published rule. A residual stream is also read without an activation, and has no factor (`Graph.slopes`).

    The projections are the state of the rule: `init` draws them, and they never change. Vertices whose names differ
    only in their index (`hidden[0]`, `hidden[1]`, ...), with the same shape and a parameter in common, are one layer at
    several times, and share a projection. If the projected error is then a sequence with one entry per such vertex (a
    recurrent network with an output at each step), the vertex of each step gets the error of that step.

    Args:
        projector: A projector of `vicinal.rules.projectors` for all vertices, or a mapping from names to projectors
            (the name of a vertex, or `hidden` for all `hidden[t]`); vertices without one use `Dense`. One for all must
            fit some vertex, as one for maps does in a convolutional network; the others use `Dense` with its scale.
        modules: Groups of vertices, in the order of the graph and with every vertex in one of them. The last vertex of
            each group is the output of its module; that of the last group is the output (`"output"`), which may be left
            out, or be a module of its own. In a module every vertex gets the projected error of the module's output.
            None: a single module.
        boundary: The errors of the modules' outputs: `"bp"`, by backpropagation through the modules above; or
            `"direct"`, the error of the output of the next module, projected.
        hybrid: Weight `rho` in [0, 1] of the projected errors, relative to the errors that the children carry back,

                error_l = (1 - rho) * (sum over children c of J_c^T error_c)  +  rho * projected

            with the mixed errors of the children; boundaries under `"bp"` stay exact. 0 is backpropagation. None: 1,
            without the backward pass.
        shared: Whether a layer at several times has one projection. If False, each time has its own, as each has its
            own Jacobian; where only the last step has an output, this learns better.
        loss: Loss of one example, `loss(output, target) -> scalar`.

    Raises:
        ValueError: If a setting is out of its range or does not match the graph.
        TypeError: If the projector or the modules have the wrong type.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model, x, y = vc.nn.MLP((3, 4, 4, 2), key=jax.random.key(0)), jnp.ones((5, 3)), jnp.zeros(5, int)
        >>> graph, rule = vc.capture(model, x[0]), vc.rules.DirectFeedback()
        >>> state = rule.init(graph, model, key=jax.random.key(1))
        >>> {name: projection.shape for name, projection in state.items()}
        {'hidden1': (4, 2), 'hidden2': (4, 2)}
        >>> _, gradient, _, _ = rule.value_and_grad(graph, model, state, x, y)
        >>> _, exact, _, _ = vc.rules.Backprop().value_and_grad(graph, model, (), x, y)
        >>> angles = vc.analysis.angles(gradient, exact)
        >>> round(float(angles["layers[2].weight"])), float(angles["layers[0].weight"]) > 5
        (0, True)

    References:
        Nøkland, Direct feedback alignment provides learning in deep neural networks, NeurIPS 2016, arXiv 1609.01596.
        Han, Park, Ryu and Yoo, Extension of direct feedback alignment to convolutional and recurrent neural network
        for bio-plausible deep learning, 2020, arXiv 2006.12830.

    *Differs from the paper*: the extensions of plain DFA follow ideas of arXiv 2006.12830: modules in which the error
    of the module's output goes to every layer, sparse projections (dilated convolutions, and sparse matrices in
    recurrent networks), group convolutions, and mixing with backpropagation. We could not read its text, so the two
    kinds of boundary, the geometry of the convolution, the sharing over time and the mixture above are our reading.
    """

    local: ClassVar[bool] = True
    holds_errors: ClassVar[bool] = True

    projector: Projector | dict[str, Projector]
    modules: tuple[tuple[str, ...], ...] | None = eqx.field(static=True)
    boundary: Literal["bp", "direct"] = eqx.field(static=True)
    hybrid: Float[Array, ""] | None = eqx.field(converter=optional_number)
    shared: bool = eqx.field(static=True)
    loss: Loss = eqx.field(static=True)

    def __init__(
        self,
        projector: Projector | Mapping[str, Projector] | None = None,
        modules: Sequence[Sequence[str]] | None = None,
        boundary: Literal["bp", "direct"] = "bp",
        hybrid: Float[Array, ""] | float | None = None,
        shared: bool = True,
        loss: Loss = softmax_cross_entropy,
    ):
        projector = Dense() if projector is None else projector
        self.projector = dict(projector) if isinstance(projector, Mapping) else projector
        for part in self.projector.values() if isinstance(self.projector, dict) else [self.projector]:
            if not isinstance(part, Projector):
                raise TypeError(f"expected a projector of vicinal.rules.projectors, or some by name, got {part!r}")
        self.modules = check_modules(modules)
        if boundary not in ("bp", "direct"):
            raise ValueError(f"expected boundary as 'bp' or 'direct', got {boundary!r}")
        check("the weight of projected errors, hybrid,", hybrid, lambda v: (v >= 0) & (v <= 1), "in [0, 1]")
        check_loss(loss)
        self.boundary, self.hybrid, self.shared, self.loss = boundary, optional_number(hybrid), shared, loss

    def init(self, graph: Graph, model: PyTree, *, key: PRNGKeyArray | None = None) -> State:
        """Draws the projections.

        Args:
            graph: The captured graph.
            model: The model; not used.
            key: A key for the projections; required.

        Returns:
            The projection of each vertex that gets a projected error, by its name; a shared one, by the name of the
            first vertex.

        Raises:
            ValueError: If there is no key, or projectors or modules do not match the graph.
        """
        del model
        if key is None:
            raise ValueError("expected a key to draw the projections with, got none; rule.init(graph, model, key=key)")
        return {
            name: route.projector.draw(route.source_shape, route.shape, route.dtype, key=jax.random.fold_in(key, i))
            for i, (name, route) in enumerate(self._routes(graph).items())
            if name == route.owner
        }

    def credit(
        self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Credit, State]:
        output, values = graph.feedforward(model, x)
        loss, output_error = loss_and_error(self.loss, output, y)
        direct, slopes = self._routes(graph), graph.slopes(model, values, x)
        _check_state(state, {route.owner for route in direct.values()})
        exact = graph.adjoints(model, values, x, output_error) if len(direct) < len(values) else {}
        errors: Values = {OUTPUT: as_array(output_error)}

        def respond(name: str, carried: Array | None = None) -> Array:
            if name not in direct:
                errors[name] = exact[name]
                return exact[name]
            route = direct[name]
            error = route.project(state[route.owner], errors[route.source])
            error = error * slopes[name].astype(error.dtype) if name in slopes else error
            if self.hybrid is not None and carried is not None:
                rho = self.hybrid.astype(error.dtype)
                error = (1 - rho) * carried + rho * error
            errors[name] = error
            return error

        if self.hybrid is None:
            for name in reversed(graph.vertices):
                respond(name)
        else:
            graph.clamp(model, x).linearize(values).sweep(output_error, respond)
        found = graph.counted(model, {name: errors[name] for name in values}, x)
        return Credit(loss, values, found, output_error, Info(output)), state

    def _routes(self, graph: Graph) -> dict[str, Route]:
        return routes(graph, self.modules, self.projector, self.shared, with_boundaries=self.boundary == "direct")


def _check_state(state: State, names: set[str]) -> None:
    if not isinstance(state, dict) or set(state) != names:
        got = f"those of {', '.join(sorted(state)) or 'none'}" if isinstance(state, dict) else repr(state)
        raise ValueError(
            f"expected the projections of {', '.join(sorted(names)) or 'none'} as state, got {got}; "
            "take what rule.init returns for this graph"
        )
