"""The conformance suite for learning rules.

`check_rule` runs on every rule of this library, and on yours:

    from vicinal.testing import check_rule
    check_rule(MyRule())

`CHECKS` holds the single checks, so that each can run as a separate test over `cases()`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal import losses, nn
from vicinal.analysis import audit
from vicinal.credit import Credit, local_gradient
from vicinal.graph import Graph, capture, vertex
from vicinal.keys import is_key
from vicinal.rules import Rule


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and a batch to check a rule on.

    Attributes:
        name: What kind of model.
        model: The model.
        x: Inputs, `[batch, ...]`.
        y: Class indices, `[batch]`.
    """

    name: str
    model: PyTree
    x: Array
    y: Array

    @functools.cached_property
    def graph(self) -> Graph:
        """The captured graph."""
        return capture(self.model, self.x[0], batch_size=len(self.x))

    @functools.cached_property
    def inputs(self) -> PyTree:
        """The inputs, with a key for each example if the model takes one."""
        return self.graph.keyed(self.x, jax.random.key(_KEY))


def _plain_function(parameters: dict[str, Array], x: Array) -> Array:
    first = vertex(jnp.tanh(parameters["in"] @ x), "first")
    second = vertex(first + jnp.sin(parameters["hidden"] @ first), "second")  # a residual connection
    return parameters["out"] @ second + parameters["skip"] @ x


def _tied_weights(parameters: dict[str, Array], x: Array) -> Array:
    h = vertex(jnp.tanh(parameters["in"] @ x), "h1")
    h = vertex(jnp.tanh(parameters["shared"] @ h), "h2")
    h = vertex(jnp.tanh(parameters["shared"] @ h), "h3")
    return parameters["in"][:, :3].T @ h


def _weights(key: PRNGKeyArray, **shapes: tuple[int, int]) -> dict[str, Array]:
    keys = jax.random.split(key, len(shapes))
    return {
        name: jax.random.normal(k, shape) / shape[1] ** 0.5
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def cases(key: PRNGKeyArray | None = None, batch: int = 4) -> tuple[Case, ...]:
    """One small model of each kind, with a batch of three classes.

    Args:
        key: For weights and inputs.
        batch: Examples.

    Returns:
        Multilayer perceptrons with vertices at rates and at potentials, a convolutional and a recurrent net, a
        net with tied weights, and a plain function with residual and skip connections.
    """
    key = jax.random.key(0) if key is None else key
    k = jax.random.split(key, 7)
    models = {
        "mlp": (nn.MLP((5, 6, 4, 3), key=k[0]), (5,)),
        "mlp, potentials": (nn.MLP((5, 6, 4, 3), vertex_at="pre", key=k[1]), (5,)),
        "convolutional": (nn.ConvNet((2, 7, 7), [(3, 3, 2)], (5, 3), activation="tanh", key=k[2]), (2, 7, 7)),
        "recurrent": (nn.RNN(2, 4, 3, key=k[3]), (3, 2)),
        "tied weights": (
            jax.tree_util.Partial(_tied_weights, _weights(k[4], **{"in": (4, 5), "shared": (4, 4)})),
            (5,),
        ),
        "function": (
            jax.tree_util.Partial(
                _plain_function, _weights(k[5], **{"in": (4, 5), "hidden": (4, 4), "out": (3, 4), "skip": (3, 5)})
            ),
            (5,),
        ),
    }
    return tuple(
        Case(name, model, jax.random.normal(k[6], (batch, *shape)), jnp.arange(batch) % 3)
        for name, (model, shape) in models.items()
    )


def check_rule(rule: Rule, *, skip: Iterable[str] = (), only: Iterable[Case] | None = None) -> None:
    """Runs the whole suite.

    Args:
        rule: The rule, with settings under which it learns.
        skip: Names of checks that do not apply; say why next to the call. Skip "zero error" and "batch" for a rule
            that starts from random activities, and "zero error" for your own loss.
        only: The cases to run on; by default all of `cases()`.

    Raises:
        AssertionError: If a check fails; lists all failures.
        ValueError: If a name in `skip` is unknown.

    Example:
        >>> import vicinal as vc
        >>> check_rule(vc.rules.Backprop(), only=cases()[:1])
    """
    if not isinstance(rule, Rule):
        raise TypeError(f"expected a rule, an instance of vicinal.rules.Rule, got {rule!r}")
    skip = {skip} if isinstance(skip, str) else set(skip)
    if unknown := skip - set(CHECKS):
        raise ValueError(f"expected checks of {', '.join(CHECKS)}, got {sorted(unknown)[0]!r}")
    failures = []
    for case in cases() if only is None else only:
        for name, check in CHECKS.items():
            if name in skip:
                continue
            try:
                check(rule, case)
            except AssertionError as failure:
                failures.append(f"{name}, on {case.name}: {failure}")
            except Exception as error:
                failures.append(f"{name}, on {case.name}: raised {type(error).__name__}: {error}")
    if failures:
        raise AssertionError("\n".join(failures))


# ------------------------------------------------------------------------------------------------------ the checks

_KEY = 7


def _evaluate(rule: Rule, graph: Graph, model: PyTree, x: Array, y: Array) -> tuple[Float[Array, ""], PyTree]:
    state = rule.init(graph, model, key=jax.random.key(1))
    return rule.value_and_grad(graph, model, state, x, y, key=jax.random.key(_KEY))[:2]


_compiled = eqx.filter_jit(_evaluate)


@eqx.filter_jit
def _step(rule: Rule, graph: Graph, optimizer: Any, model: PyTree, memory: Any, state: Any, x: Any, y: Any, key: Any):
    return rule.step(graph, optimizer, model, memory, state, x, y, key=key)


def _on_host(tree: PyTree) -> PyTree:
    """The arrays of a tree as NumPy's, whose arithmetic needs no compilation; keys stay."""
    return jax.tree.map(lambda leaf: leaf if is_key(leaf) or not eqx.is_array(leaf) else np.asarray(leaf), tree)


def _gradient(rule: Rule, case: Case) -> PyTree:
    return _compiled(rule, case.graph, case.model, case.inputs, case.y)[1]


def _assert_close(found: PyTree, expected: PyTree, what: str, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for a, b in pairs:
        scale = float(np.max(np.abs(b))) if b.size else 0.0
        if not np.allclose(a, b, rtol=rtol, atol=atol + rtol * scale, equal_nan=False):
            raise AssertionError(f"expected {what}, got a difference of {float(np.max(np.abs(a - b))):.2e}")


def check_structure(rule: Rule, case: Case) -> None:
    """The gradient has the tree, shapes and dtypes of the model's floating-point arrays; the loss is a scalar."""
    loss, gradient = _compiled(rule, case.graph, case.model, case.inputs, case.y)
    expected = case.graph.trainable(case.model)
    if jax.tree.structure(gradient) != jax.tree.structure(expected):
        raise AssertionError("expected a gradient of the model's structure, got another")
    for g, p in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        if g.shape != p.shape or g.dtype != p.dtype:
            raise AssertionError(f"expected a gradient {p.dtype}{list(p.shape)}, got {g.dtype}{list(g.shape)}")
    if loss.shape != () or not jnp.isfinite(loss):
        raise AssertionError(f"expected a finite scalar loss, got {loss}")


def check_credit(rule: Rule, case: Case) -> None:
    """`errors` returns the errors of the credit, the gradient is their local product, and both are complete.

    The gradient of a rule that says so (`takes_product_of_credit`) is another.
    """
    graph, key = case.graph, jax.random.key(_KEY)
    state = rule.init(graph, case.model, key=jax.random.key(1))
    # As the audit calls it, so that it is compiled once for both.
    credit, _ = eqx.filter_jit(rule.credit)(graph, case.model, state, case.inputs, case.y, key=key)

    @eqx.filter_jit
    def run(rule: Rule, credit: Credit) -> Any:
        # Unless the vertices hold errors, `errors` must compute them, not return those of the credit.
        blank = dataclasses.replace(credit, errors=jax.tree.map(jnp.zeros_like, credit.errors))
        read = rule.errors(graph, case.model, credit if rule.holds_errors else blank, case.inputs)
        values = graph.feedforward(case.model, case.inputs)[1]
        return read, local_gradient(graph, case.model, credit, case.inputs), values

    read, product, values = run(rule, credit)
    for found, what in ((credit.values, "values"), (credit.errors, "errors")):
        if {n: v.shape for n, v in found.items()} != {n: v.shape for n, v in values.items()}:
            raise AssertionError(f"expected {what} for every vertex, in the shape of its value")
    _assert_close(read, credit.errors, "`errors` to repeat the credit's")
    exact = case.graph.batch_size is not None and not rule.local  # it also differentiates batch statistics
    # Without phases the gradient is a sum over steps, not the final product.
    if rule.phases and rule.takes_product_of_credit and not exact:
        _assert_close(_gradient(rule, case), product, "the local product as gradient")


def check_zero_error(rule: Rule, case: Case) -> None:
    """If the output equals the target, nothing changes."""
    links = {
        losses.squared_error: lambda z: z,
        losses.softmax_cross_entropy: jax.nn.softmax,
        losses.sigmoid_cross_entropy: jax.nn.sigmoid,
    }
    if rule.loss not in links:
        raise AssertionError("expected a loss of vicinal.losses, got another; skip this check")
    link = links[rule.loss]
    target = eqx.filter_jit(lambda model, x: link(case.graph.feedforward(model, x)[0]))(case.model, case.inputs)
    gradient = _compiled(rule, case.graph, case.model, case.inputs, target)[1]
    _assert_close(gradient, jax.tree.map(np.zeros_like, gradient), "no update at zero error", atol=1e-5)


def check_deterministic(rule: Rule, case: Case) -> None:
    """The same key gives the same gradient, bit for bit."""
    first, second = _gradient(rule, case), _gradient(rule, case)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        if not np.array_equal(a, b):
            raise AssertionError("expected the same gradient for the same key, got another")


def check_jit(rule: Rule, case: Case) -> None:
    """Compiled and eager agree."""
    eager = _evaluate(rule, case.graph, case.model, case.inputs, case.y)[1]
    _assert_close(_gradient(rule, case), eager, "compiled and eager gradients to agree")


def check_no_recompilation(rule: Rule, case: Case) -> None:
    """A second call, other data, and other numeric hyper-parameters reuse the compiled step."""
    traces = []
    twice = case.graph.keyed(2 * case.x, jax.random.key(_KEY))

    @eqx.filter_jit
    def run(rule: Rule, x: Array) -> Any:
        traces.append(1)
        return _evaluate(rule, case.graph, case.model, x, case.y)

    # A hyper-parameter kept as a Python number would be a constant of the compiled step.
    changed = jax.tree.map(
        lambda leaf: leaf * 0.99 if eqx.is_inexact_array(leaf) or type(leaf) is float else leaf, rule
    )
    for settings, x in ((rule, case.inputs), (rule, twice), (changed, case.inputs)):
        cast(Any, run).lower(settings, x)  # a step is compiled as often as it is traced
    if len(traces) != 1:
        raise AssertionError(f"expected one compilation in three calls, got {len(traces)}")


def check_vmap(rule: Rule, case: Case) -> None:
    """Mapping over models equals a loop over them."""
    parameters, rest = case.graph.partition(case.model)
    stacked = jax.tree.map(lambda leaf: np.stack([leaf, np.asarray(0.9, leaf.dtype) * leaf]), _on_host(parameters))

    def one(parameters: PyTree) -> PyTree:
        return _compiled(rule, case.graph, eqx.combine(parameters, rest), case.inputs, case.y)[1]

    mapped = jax.vmap(one)(stacked)
    looped = [one(jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[i]), stacked)) for i in range(2)]
    _assert_close(mapped, jax.tree.map(lambda *leaves: np.stack(leaves), *looped), "vmap to equal a loop")


def check_batch(rule: Rule, case: Case) -> None:
    """The gradient of a batch is the mean of the gradients of its examples, each taken as a batch of one."""
    whole = _compiled(rule, case.graph, case.model, case.inputs, case.y)
    if case.graph.batch_size is not None:  # these examples depend on each other
        return
    batch = _on_host((case.inputs, case.y))
    ones = (jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[i : i + 1]), batch) for i in range(len(case.x)))
    each = [_compiled(rule, case.graph, case.model, *one) for one in ones]
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *each)
    _assert_close(whole, mean, "the batch mean of the examples' loss and gradients")


def check_step(rule: Rule, case: Case) -> None:
    """A step with plain gradient descent moves the model against the gradient of the rule.

    For a rule without phases that holds to first order in the learning rate.
    """
    graph, rate = case.graph, 1.0 if rule.phases else 1e-3
    optimizer, state = optax.sgd(rate), rule.init(case.graph, case.model, key=jax.random.key(1))
    parameters = graph.trainable(case.model)
    memory, key = optimizer.init(parameters), jax.random.key(_KEY)
    new, *_ = _step(rule, graph, optimizer, case.model, memory, state, case.inputs, case.y, key)
    change = jax.tree.map(lambda a, b: (np.asarray(b) - np.asarray(a)) / rate, parameters, graph.trainable(new))
    expected = jax.tree.map(lambda leaf: -np.asarray(leaf), _gradient(rule, case))
    tolerance = {} if rule.phases else {"rtol": 3e-2, "atol": 1e-3}
    _assert_close(change, expected, "a step against the gradient", **tolerance)


def check_learns(rule: Rule, case: Case) -> None:
    """Sixty steps of Adam on one batch at least halve the loss."""
    history = np.asarray(_losses(rule, case.graph, optax.adam(0.03), case.model, case.inputs, case.y, 60))
    if not history[-1] < 0.5 * history[0]:
        raise AssertionError(f"expected the loss to halve, got {float(history[0]):.3f} -> {float(history[-1]):.3f}")


@eqx.filter_jit
def _losses(
    rule: Rule, graph: Graph, optimizer: Any, model: PyTree, x: PyTree, y: Array, steps: int
) -> Float[Array, " steps"]:
    """The loss before each of some steps on one batch."""
    arrays, static = eqx.partition(model, eqx.is_array)
    carry = (arrays, optimizer.init(graph.trainable(model)), rule.init(graph, model, key=jax.random.key(1)))

    def body(carry: Any, key: PRNGKeyArray) -> Any:
        arrays, memory, state = carry
        model = eqx.combine(arrays, static)
        model, memory, state, loss, _ = rule.step(graph, optimizer, model, memory, state, x, y, key=key)
        return (eqx.filter(model, eqx.is_array), memory, state), loss

    return jax.lax.scan(body, carry, jax.random.split(jax.random.key(2), steps))[1]


def check_locality(rule: Rule, case: Case) -> None:
    """The audit agrees with the rule's claim to be local or not."""
    if case.graph.batch_size is not None:  # see `audit`
        return
    found = audit(rule, case.graph, case.model, case.inputs, case.y, key=jax.random.key(3))
    if found.local != rule.local:
        claim = "local" if rule.local else "not local"
        seen = found.violations[0] if found.violations else "every error depends only on its two ends"
        raise AssertionError(f"expected a rule that is {claim}, as it claims, got: {seen}")


CHECKS: dict[str, Callable[[Rule, Case], None]] = {
    "structure": check_structure,
    "credit": check_credit,
    "zero error": check_zero_error,
    "deterministic": check_deterministic,
    "jit": check_jit,
    "no recompilation": check_no_recompilation,
    "vmap": check_vmap,
    "batch": check_batch,
    "step": check_step,
    "learns": check_learns,
    "locality": check_locality,
}
"""All checks by name."""
