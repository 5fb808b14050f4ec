"""Ledgers of small networks, and programs to count."""

import jax
import jax.numpy as jnp

import vicinal as vc
from vicinal._counting import count, forward_pass
from vicinal.recipes import RECIPES

SIZES = (9, 8, 7, 6, 5, 4, 3)


def network(depth, **options):
    """A network of `depth` weight matrices, with vertices at potentials."""
    return vc.nn.MLP(SIZES[: depth + 1], vertex_at="pre", key=jax.random.key(0), **options)


def data(batch=1, inputs=SIZES[0]):
    return jax.ShapeDtypeStruct((batch, inputs), jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.int32)


def ledger_of(rule, depth, *, batch=1, route=None, **options):
    """The ledger of a rule on a network; `route` names a recipe whose feedback is attached."""
    model = network(depth)
    if route is not None:
        model = RECIPES[route].attach(model, key=jax.random.key(1))
    return vc.hardware.ledger(rule, model, *data(batch), **options)


def uses(ledger, ending):
    """What the arrays whose path has an ending are asked for, for each example, from the input up."""
    found = [use for use in ledger.uses if use.path.endswith(ending) or ending in use.name]
    batch = ledger.batch
    return [(use.forward / batch, use.transposed / batch, use.outer / batch) for use in found]


def counted(function, weights, *inputs, merge=True, turns=None):
    """Counts what leads to the first output of `function(weights, *inputs)`, a dictionary of arrays by name."""
    closed = jax.make_jaxpr(function)(weights, *inputs)
    names = [*sorted(weights)] + [None] * (len(closed.jaxpr.invars) - len(weights))
    forward, _ = forward_pass(closed, names)
    gradients = ["result"] + [None] * (len(closed.jaxpr.outvars) - 1)
    found = count(closed, names, gradients, forward, merge=merge, turns=turns)
    return {use.path: (use.forward, use.transposed) for use in found.uses}, found.depth
