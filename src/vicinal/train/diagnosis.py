"""Why a run stopped: finds the first non-finite number of its next update, and its cause.

The message names a cause only if the numbers show it. It gives the size of inputs, weights and outputs. It says whether
the same update is finite in float32, and which of loss, inference, backward pass and optimiser first turns finite
numbers into a non-finite one.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from vicinal._numbers import is_finite, widened
from vicinal.graph import Graph, capture
from vicinal.losses import Loss, kind_of, loss_and_error
from vicinal.rules import Rule

Facts = dict[str, Any]
"""The result of `look`: arrays on the device or on the host."""

_LARGE = 1 / 8  # of the digits before the point that a dtype has: ordinary numbers do not reach that


def look(
    rule: Rule, graph: Graph, model: PyTree, state: PyTree, x: PyTree, y: PyTree, key: PRNGKeyArray | None
) -> Facts:
    """Finds what is finite in an update, in the order of its computation, and its magnitudes; can be compiled.

    Args:
        rule: The rule.
        graph: The captured graph.
        model: The model before the update.
        state: The rule's state before it.
        x: The batch of inputs.
        y: The targets of the batch.
        key: Of the update.
    """
    x, key = graph.with_keys(x, key)
    output, values = graph.feedforward(model, x)
    loss, slope = loss_and_error(rule.loss, output, y)
    gradient, credit, _ = rule.assign(graph, model, state, x, y, key=key)
    weights = _named(graph.trainable(model))
    return {
        "finite": {
            "input": is_finite(x),
            "target": is_finite(y) | _ignored(rule.loss, y),
            "feedforward": {name: is_finite(values[name]) for name in graph.vertices} | {"": is_finite(output)},
            "loss": is_finite(loss),
            "slope": is_finite(slope),
            "values": {name: is_finite(credit.values[name]) for name in graph.vertices},
            "output error": is_finite(credit.output_error),
            "errors": {name: is_finite(credit.errors[name]) for name in graph.vertices},
            "gradient": {name: is_finite(leaf) for name, leaf in _named(gradient).items()},
        },
        "wrong": jnp.argmax(~jnp.isfinite(loss)),
        "undefined": jnp.any(jnp.isnan(loss)),
        "size": {"input": _size(x), "target": _size(y), "output": _size(output)},
        "weights": {name: _size(leaf) for name, leaf in weights.items()},
    }


look_compiled = eqx.filter_jit(look)

Look = Callable[..., Facts]
"""`look` of a rule, as a function of its other arguments."""


def diagnosis(
    see: Look, graph: Graph, model: PyTree, state: PyTree, batch: tuple[PyTree, PyTree], key: PRNGKeyArray, step: int
) -> str | None:
    """A sentence about an update that makes a number non-finite; None if values, errors and gradients are finite.

    Args:
        see: `look` of the rule.
        graph: The captured graph.
        model: The model before the update.
        state: The rule's state before it.
        batch: Inputs and targets.
        key: Of the update.
        step: Updates before it.
    """
    facts = jax.device_get(see(graph, model, state, *batch, key))
    found = explain(facts, graph, step)
    if found is not None and not facts["finite"]["input"]:
        cleared = jax.tree.map(_cleared, batch[0])
        if explain(jax.device_get(see(graph, model, state, cleared, batch[1], key)), graph, step) is None:
            return _data("input")
    if found is None or not _in_half(model):
        return found
    wide = jax.tree.map(widened, (model, state, batch))
    same = capture(wide[0], jax.tree.map(lambda leaf: leaf[0], wide[2][0]), batch_size=graph.batch_size)
    if explain(jax.device_get(see(same, *wide[:2], *wide[2], key)), same, step) is None:
        where = found.split(":")[0]
        return f"{where}: it is beyond 65504, the range of float16, and finite in float32; use bfloat16 or float32"
    return found


def explain(facts: Facts, graph: Graph, step: int) -> str | None:
    """A sentence about the result of `look`, on the host; None if everything is finite."""
    finite = facts["finite"]
    order = list(graph.vertices)
    for name in (*order, ""):
        if not finite["feedforward"][name]:
            place = f"value at vertex {name!r}" if name else "output"
            return f"the next update meets a non-finite {place}: {_of_the_model(facts, graph, step)}"
    if not finite["loss"] or not finite["slope"]:
        if not finite["target"]:
            return _data("target")
        what = "error" if finite["loss"] else "loss"
        return f"the next update meets a non-finite {what} at the output: {_of_the_loss(facts, graph, step)}"
    unsettled = next((name for name in order if not finite["values"][name]), None)
    if unsettled is not None:
        place = f"value at vertex {unsettled!r}"
        return f"the next update meets a non-finite {place}: inference diverges; {_of_inference(facts, step)}"
    back = [] if finite["output error"] else ["the output"]
    back += [f"vertex {name!r}" for name in reversed(order) if not finite["errors"][name]]
    if back:
        return f"the next update meets a non-finite error at {back[0]}: {_of_the_way_back(facts, graph, step)}"
    gradient = next((name for name, good in finite["gradient"].items() if not good), None)
    if gradient is not None:
        place = f"gradient of model{gradient}"
        return f"the next update meets a non-finite {place}: {_of_the_way_back(facts, graph, step)}"
    return None


def after_the_rule(name: str | None, model: PyTree = None) -> str:
    """A sentence for a rule with finite numbers whose update makes a leaf of the state non-finite.

    Args:
        name: Of the leaf; None if it is not known, for looking took other roundings than the update.
        model: The model before the update, which says in what precision the optimiser computes.
    """
    if name is None:
        return "the next update makes a number that is not finite, just beyond what is; lower the learning rate"
    if _in_half(model) and not name.startswith("rule_state"):
        return (
            f"the next update makes {name} non-finite, though every vertex is finite: the optimiser makes it of a "
            "finite gradient in float16, where numbers below 6e-8 are 0 (as Adam's eps is: give it eps=1e-4) and those "
            "above 65504 infinite; use bfloat16 or float32 otherwise"
        )
    if name.startswith("rule_state"):
        return f"the next update makes {name} non-finite, though every vertex is finite; lower the rates of the rule"
    return (
        f"the next update makes {name} non-finite, though every vertex is finite: the optimiser makes it of a finite "
        "gradient; lower the learning rate, or check the optimiser"
    )


# --------------------------------------------------------------------------------------------------------- the causes


def _data(name: str) -> str:
    return f"the next batch holds an infinite or undefined {name}; check the data"


def _of_the_model(facts: Facts, graph: Graph, step: int) -> str:
    (name, weight), entering = _largest(facts), facts["size"]["input"]
    limit = _limit(graph)
    if weight >= limit and step > 0:
        return f"weights have grown to {weight:.2g} (model{name}), training diverges; lower the learning rate"
    if weight >= limit:
        return f"weights begin as large as {weight:.2g} (model{name}); begin with smaller ones"
    if entering >= limit:
        return f"inputs are as large as {entering:.2g}; scale them"
    return (
        f"the model makes it of inputs up to {entering:.2g} and weights up to {weight:.2g}; "
        "check it for an exponential, a division by 0 or a logarithm of 0"
    )


def _of_the_loss(facts: Facts, graph: Graph, step: int) -> str:
    (name, weight), limit = _largest(facts), _limit(graph)
    output, target = facts["size"]["output"], facts["size"]["target"]
    if output >= limit and weight >= limit**0.5 and step > 0:
        return (
            f"outputs have grown to {output:.2g} and weights to {weight:.2g} (model{name}), training diverges; "
            "lower the learning rate"
        )
    if target >= limit:
        return f"targets are as large as {target:.2g}; scale them"
    if output >= limit:
        return f"outputs are as large as {output:.2g}; scale the inputs, or begin with smaller weights"
    if not facts["finite"]["loss"]:
        is_ = "undefined (NaN)" if facts["undefined"] else "infinite"
        return (
            f"the loss of example {int(facts['wrong'])} of the batch is {is_} for outputs up to {output:.2g} and "
            "finite targets; check the loss, and that targets are what it reads (labels in range, no logarithm of 0)"
        )
    return "the loss is finite, and its slope is not; check the loss for a root or a norm at 0"


def _of_inference(facts: Facts, step: int) -> str:
    name, weight = _largest(facts)
    if step == 0:
        return "lower the step size of the activities"
    return f"lower the step size of the activities, or the learning rate: weights are up to {weight:.2g} (model{name})"


def _of_the_way_back(facts: Facts, graph: Graph, step: int) -> str:
    (name, weight), output, limit = _largest(facts), facts["size"]["output"], _limit(graph)
    if max(weight, output) >= limit and step > 0:
        return (
            f"outputs are up to {output:.2g} and weights up to {weight:.2g} (model{name}), training diverges; "
            "lower the learning rate"
        )
    return (
        f"all values are finite, outputs up to {output:.2g} and weights up to {weight:.2g}; check what carries errors "
        "back, and the model for a function without a derivative there, such as a root or a norm at 0"
    )


# ----------------------------------------------------------------------------------------------------------- its parts


def _named(tree: PyTree) -> dict[str, Array]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves if eqx.is_inexact_array(leaf)}


def _size(tree: PyTree) -> Array:
    """The largest magnitude of the finite floating-point numbers of a tree; 0 if there are none."""
    leaves = [jnp.abs(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)]
    sizes = [jnp.max(jnp.where(jnp.isfinite(leaf), leaf, 0), initial=0) for leaf in leaves]
    return jnp.max(jnp.stack(sizes)) if sizes else jnp.zeros(())


def _largest(facts: Facts) -> tuple[str, float]:
    return max(((name, float(size)) for name, size in facts["weights"].items()), key=lambda pair: pair[1])


def _limit(graph: Graph) -> float:
    """A magnitude that ordinary numbers do not reach, for the dtype of the outputs."""
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(graph.shapes["output"]) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    largest = float(jnp.finfo(dtypes[0]).max) if dtypes else float(np.finfo(np.float32).max)
    return largest**_LARGE


def _in_half(tree: PyTree) -> bool:
    return any(leaf.dtype == jnp.float16 for leaf in jax.tree.leaves(tree) if eqx.is_array(leaf))


def _ignored(loss: Loss, y: PyTree) -> Array:
    """Whether targets that are not finite are all NaN, and the loss ignores those."""
    kind = kind_of(loss)
    ignores = kind is not None and kind.numbers and kind.ignores
    return ~jnp.any(_infinite(y)) if ignores else jnp.asarray(False)


def _infinite(tree: PyTree) -> Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)]
    return jnp.stack([jnp.any(jnp.isinf(leaf)) for leaf in leaves])


def _cleared(leaf: Any) -> Any:
    return jnp.where(jnp.isfinite(leaf), leaf, 0) if eqx.is_inexact_array(leaf) else leaf
