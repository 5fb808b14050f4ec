"""Under rules without phases: time, noise, filters, and which feedback of a chain of layers can be learned."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.extend import core
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal.credit import presynaptic_norms
from vicinal.graph import OUTPUT, Graph, Values
from vicinal.rules.base import apply_gradient


@dataclasses.dataclass(frozen=True)
class TimeConstants:
    """The times of a network that is simulated in steps, all in milliseconds.

        dt <= xi, high_pass  <  presentation  <  low_pass,      xi and high_pass within a factor of ten

    The noise has to be fast beside a presentation, and the low-pass slow, for the noise to teach feedback and leave
    the weights alone; published settings keep factors of 10, 10 and 100 between them.

    Args:
        dt: Of a step of the simulation.
        xi: Correlation time of the noise.
        high_pass: Of the filter that rates go through before feedback learns from them.
        presentation: How long an example is shown, a whole number of steps.
        low_pass: Of the filter that products go through before weights learn from them.
        membrane: Of the voltages, which nothing else depends on: rates are those of prospective voltages.

    Raises:
        ValueError: If a time is not above zero, or their order is another.

    Example:
        >>> TimeConstants().steps
        100
    """

    dt: float = 0.1
    xi: float = 1.0
    high_pass: float = 1.0
    presentation: float = 10.0
    low_pass: float = 1000.0
    membrane: float = 10.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError(f"expected the time {field.name} as a number of ms above 0, got {value!r}")
        fast, slow = min(self.xi, self.high_pass), max(self.xi, self.high_pass)
        for holds, wanted, got in (
            (self.dt <= fast, "dt of at most xi and high_pass", f"{self.dt:g} beside {fast:g}"),
            (self.dt <= self.membrane, "dt of at most membrane", f"{self.dt:g} beside {self.membrane:g}"),
            (slow <= 10 * fast, "xi and high_pass within a factor of ten", f"{self.xi:g} and {self.high_pass:g}"),
            (slow < self.presentation, "xi and high_pass below presentation", f"{slow:g} beside {self.presentation:g}"),
            (
                self.presentation < self.low_pass,
                "presentation below low_pass",
                f"{self.presentation:g} beside {self.low_pass:g}",
            ),
        ):
            if not holds:
                raise ValueError(f"expected {wanted} (ms), got {got}; dt <= xi, high_pass < presentation < low_pass")
        if abs(self.presentation / self.dt - round(self.presentation / self.dt)) > 1e-6:
            raise ValueError(
                f"expected presentation as a whole number of steps, got {self.presentation:g} with dt {self.dt:g} ms"
            )

    @property
    def steps(self) -> int:
        """Steps of a presentation."""
        return round(self.presentation / self.dt)

    @property
    def variance(self) -> float:
        """Stationary variance of the noise, for `sigma` of 1: `1 / (2 - dt/xi)`."""
        return 1 / (2 - self.dt / self.xi)

    def gain(self, fresh: bool) -> float:
        """`E[xi rhat]` of noise and of the same noise high-passed, for `sigma` of 1: what feedback learns `W^T` by.

        With `a = 1 - dt/xi` and `h = 1 - dt/high_pass`, it is `variance (1 - a) / (1 - a h)`. Where the filter starts
        empty with each presentation, the mean over the presentation is a little smaller.
        """
        a, h = 1 - self.dt / self.xi, 1 - self.dt / self.high_pass
        q = a * h
        missing = q * (1 - q**self.steps) / (self.steps * (1 - q)) if fresh else 0.0
        return self.variance * (1 - a) / (1 - q) * (1 - missing)


# --------------------------------------------------------------------------------------- noise, filters, voltages


def scaled(number: Float[Array, ""] | float, like: Array) -> Array:
    """A number in the dtype of an array."""
    return jnp.asarray(number, like.dtype)


def drift(noise: Array, sigma: Array, times: TimeConstants, key: PRNGKeyArray) -> Array:
    """A step of Ornstein-Uhlenbeck noise: `xi + (sqrt(tau dt) sigma normal - dt xi) / tau`."""
    kick = scaled(sigma, noise) * scaled(math.sqrt(times.dt / times.xi), noise)
    return noise * scaled(1 - times.dt / times.xi, noise) + kick * jax.random.normal(key, noise.shape, noise.dtype)


def high_pass(filtered: Array, now: Array, before: Array, times: TimeConstants) -> Array:
    """A step of a high-pass filter: `rhat + (r(t) - r(t - dt)) - dt/tau rhat`."""
    return filtered * scaled(1 - times.dt / times.high_pass, filtered) + (now - before)


def low_pass(products: PyTree, gradient: PyTree, times: TimeConstants) -> PyTree:
    """A step of the low-pass filter of the weights' products."""
    return jax.tree.map(lambda p, g: p + scaled(times.dt / times.low_pass, p) * (g - p), products, gradient)


def leak(voltages: Values, prospective: Values, times: TimeConstants) -> Values:
    """A step of `tau du/dt = -u + drive`, whose prospective voltage `u + tau du/dt` is the drive."""
    rate = times.dt / times.membrane
    return {name: u + scaled(rate, u) * (prospective[name] - u) for name, u in voltages.items()}


# ------------------------------------------------------------------------------------------------ chains of layers


@dataclasses.dataclass(frozen=True)
class Link:
    """A dense layer above a vertex: its feedback can be learned.

    Attributes:
        node: What the layer predicts.
        below: The vertex it reads.
        weight: Path of its weight, `[above, below]`.
        shape: Of the weight.
    """

    node: str
    below: str
    weight: str
    shape: tuple[int, int]


def links(graph: Graph, rule: str) -> tuple[Link, ...]:
    """The dense layers above vertices, from the lowest up.

    Raises:
        ValueError: If the graph is no chain, its output no vector, or a dense layer of another form.
    """
    nodes = (*graph.vertices, OUTPUT)
    for i, node in enumerate(nodes):
        chained = graph.parents[node] == nodes[max(i - 1, 0) : i] and (node in graph.reads_input) == (i == 0)
        if not chained:
            reads = [*graph.parents[node], *(["the input"] if node in graph.reads_input else [])]
            raise ValueError(
                f"expected a chain of layers for {rule}, each reading the one below, got {node!r} that reads "
                f"{' and '.join(reads)}; take a network without skips or recurrence"
            )
    shape = getattr(graph.shapes[OUTPUT], "shape", None)
    if shape is None or len(shape) != 1:
        raise ValueError(f"expected a vector as output for {rule}, got {graph.shapes[OUTPUT]}")
    found = [_layer(graph, node, rule) for node in nodes if len(graph.shapes[node].shape) == 1]
    return tuple(link for link in found if link is not None)


def _layer(graph: Graph, node: str, rule: str) -> Link | None:
    """The dense layer of a node; None if it reads the input."""
    parents, local = graph.program.local(node)
    spec = graph.program.spec
    held = [graph.shapes[name] for name in parents]
    jaxpr = jax.make_jaxpr(local)(spec.leaf_types, jax.tree.leaves(spec.example), held).jaxpr
    leaf = dict(zip(jaxpr.invars, spec.paths, strict=False))
    weights = [path for eqn in _products(jaxpr) if (path := _weight(eqn, leaf)) is not None]
    if len(weights) != 1 or len(graph.synapses(node)) != 1:
        raise ValueError(
            f"expected {node!r} as weight @ rates (+ bias) for {rule}, with the vertices at potentials and weights "
            'of [out, in], got another form; take vc.nn.MLP(..., vertex_at="pre"), without feedback attached to it'
        )
    shape = spec.leaf_types[spec.paths.index(weights[0])].shape
    return Link(node, parents[0], weights[0], shape) if parents else None


def _products(jaxpr: core.Jaxpr) -> list[core.JaxprEqn | None]:
    """The products that a result is the sum of; None among them for anything else that makes it."""
    producer = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}
    found, pending = [], list(jaxpr.outvars)
    while pending:
        eqn = producer.get(pending.pop())
        name = None if eqn is None else eqn.primitive.name
        if eqn is None:
            continue
        if name == "dot_general":
            found.append(eqn)
        elif name in ("add", "reshape", "broadcast_in_dim", "squeeze", "transpose", "convert_element_type"):
            pending += [v for v in eqn.invars if not isinstance(v, core.Literal)]
        else:
            found.append(None)
    return found


def _weight(eqn: core.JaxprEqn | None, leaf: Mapping[Any, str]) -> str | None:
    """The path of the matrix of a product `weight @ activity`; empty for another product."""
    if eqn is None:
        return ""
    contracted = eqn.params["dimension_numbers"][0]
    for v, axes in zip(eqn.invars, contracted, strict=True):
        if v in leaf and len(v.aval.shape) == 2:
            return leaf[v] if tuple(axes) == (1,) else ""
    return ""


def with_weights(model: PyTree, weights: Mapping[str, Array]) -> PyTree:
    """The model with other arrays at these paths."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: weights.get(jax.tree_util.keystr(path), leaf), model)


def rates_and_slopes(graph: Graph, model: PyTree, values: Values, x: PyTree) -> tuple[Values, Values]:
    """What each vertex's activation makes of its value, and the derivative; a vertex without one is linear."""
    leaves, inputs = graph.program.spec.check(model, x)
    names, part = graph.program.activations
    run = jax.vmap(part, in_axes=(None, 0, 0))
    rates, back = jax.vjp(lambda held: run(leaves, inputs, held), [values[name] for name in names])
    (slopes,) = back([jnp.ones_like(rate) for rate in rates])
    linear = {name: jnp.ones_like(value) for name, value in values.items()}
    return values | dict(zip(names, rates, strict=True)), linear | dict(zip(names, slopes, strict=True))


def arriving(graph: Graph, model: PyTree, link: Link, values: Values, noise: Array, x: PyTree) -> Array:
    """The noise of the vertex below as it reaches the layer, `[batch, below]`.

    It is itself, or where pooling stands between what the derivative of what lies between makes of it.
    """
    if math.prod(noise.shape[1:]) == link.shape[1]:
        return noise.reshape(noise.shape[0], -1)
    leaves, inputs = graph.program.spec.check(model, x)
    _, part = graph.program.synapses(link.node)

    def entering(value: Array) -> Array:
        held = graph.ordered(values | {link.below: value})
        return jax.vmap(part, in_axes=(None, 0, 0))(leaves, inputs, held)[0]

    return jax.jvp(entering, (values[link.below],), (noise,))[1]


def mean_outer(above: Float[Array, "batch above"], below: Float[Array, "batch below"]) -> Float[Array, "above below"]:
    """The batch mean of `above below^T`."""
    return jnp.dot(above.T, below) / scaled(above.shape[0], above)


# --------------------------------------------------------------------------------------------------- presentations

Moving = TypeVar("Moving", bound=Any)
"""What moves in a presentation: a pytree with `products`, the low-passed gradient, and `values`."""

Advance = Callable[[PyTree, Moving], Moving]
"""A step of `dt`: from the model and what moves to what has moved."""


def with_weights_held(advance: Advance, model: PyTree, moving: Moving, times: TimeConstants) -> tuple[Moving, PyTree]:
    """A presentation; returns what has moved, and the mean of the low-passed products along the way."""

    def body(carry: tuple[Moving, PyTree], _: None) -> tuple[tuple[Moving, PyTree], None]:
        moving, total = carry
        moving = advance(model, moving)
        return (moving, jax.tree.map(jnp.add, total, moving.products)), None

    start = (moving, jax.tree.map(jnp.zeros_like, moving.products))
    (moving, total), _ = jax.lax.scan(body, start, length=times.steps)
    return moving, jax.tree.map(lambda t: t / scaled(times.steps, t), total)


def with_weights_moving(
    advance: Advance,
    graph: Graph,
    optimizer: optax.GradientTransformation,
    model: PyTree,
    optimizer_state: optax.OptState,
    moving: Moving,
    x: PyTree,
    loss: Float[Array, ""],
    times: TimeConstants,
) -> tuple[PyTree, optax.OptState, Moving]:
    """A presentation in which the optimiser is called at every step, each time with that step's share."""
    arrays, static = eqx.partition(model, eqx.is_array)
    memory, fixed = eqx.partition(optimizer_state, eqx.is_array_like)

    def body(carry: Any, _: None) -> tuple[Any, None]:
        arrays, memory, moving = carry
        model = eqx.combine(arrays, static)
        moving = advance(model, moving)
        gradient = jax.tree.map(lambda p: p / scaled(times.steps, p), moving.products)
        presynaptic = presynaptic_norms(graph, model, moving.values, x)
        model, state = apply_gradient(
            optimizer, gradient, eqx.combine(memory, fixed), model, presynaptic=presynaptic, value=loss
        )
        return (eqx.filter(model, eqx.is_array), eqx.filter(state, eqx.is_array_like), moving), None

    (arrays, memory, moving), _ = jax.lax.scan(body, (arrays, memory, moving), length=times.steps)
    return eqx.combine(arrays, static), eqx.combine(memory, fixed), moving
