"""Models and graphs that the tests of a file share."""

import functools

import jax
import jax.numpy as jnp


def once(build):
    """Calls a builder once for each of its arguments; refused while JAX traces, whose arrays must not be kept."""
    kept = functools.cache(build)

    @functools.wraps(build)
    def call(*arguments, **names):
        if isinstance(jnp.zeros(()), jax.core.Tracer):
            raise RuntimeError(f"call {build.__name__} outside functions that JAX traces: its result is kept")
        return kept(*arguments, **names)

    return call
