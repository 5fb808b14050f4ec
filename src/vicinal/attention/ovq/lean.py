"""The scan over chunks with a backward pass that keeps no dictionary but the last."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vicinal.attention.ovq.chunked import Chunks, Plan, of_document, read_chunk, scan_dictionary, with_document
from vicinal.attention.ovq.dictionary import Rule, Sums, gather


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def scan_lean(
    rule: Rule, chunks: Chunks, beta: Float[Array, " heads"], sums: Sums, plan: Plan
) -> tuple[Float[Array, "chunks batch heads chunk e"], Sums]:
    """As `scan_dictionary`, without the rows; its gradient takes memory for the inputs and one dictionary.

    A dictionary is a sum over tokens, `S' = S + P^T [k, v]` with the one-hot rows `P`, so the backward pass can go back
    through them. With `G = dloss/dS'`, from the last chunk to the first:

        S = S' - P^T [k, v]                                      the dictionary that the chunk read
        dloss/d[k, v] = P G + (what the read gives)              adding has gradient 1
        dloss/dS = G + (what the read gives)

    Automatic differentiation would keep all `S` instead: memory that grows with the length times the dictionary. The
    subtraction rounds: after 512 chunks in float32 the first dictionary is back to some 1e-6.

    Args:
        rule: The choices. A constant learning rate is not a sum, so it cannot be undone.
        chunks: The sequences.
        beta: The temperature of each head.
        sums: The dictionaries before the first chunk.
        plan: What to do with each chunk.

    Returns:
        The outputs, and the dictionaries after the last chunk.
    """
    outputs, sums, _ = scan_dictionary(rule, chunks, beta, sums, plan)
    return outputs, sums


def _forward(rule, chunks, beta, sums, plan):
    outputs, sums, z = scan_dictionary(rule, chunks, beta, sums, plan)
    return (outputs, sums), (chunks, beta, sums, plan, z)


def _backward(rule, residuals, cotangents):
    chunks, beta, sums, plan, z = residuals
    output_cotangents, sums_cotangent = cotangents

    def step(carry, inputs):
        sums, sums_cotangent, beta_cotangent = carry
        chunk, document, z, output_cotangent = inputs
        before = of_document(sums, document).subtract(z, chunk.keys, chunk.values)
        of_sums = of_document(sums_cotangent, document)
        _, pull = jax.vjp(functools.partial(read_chunk, rule), chunk, beta, before)
        of_chunk, of_beta, through_read = pull(output_cotangent)
        of_chunk = Chunks(
            of_chunk.queries,
            of_chunk.keys + gather(of_sums.keys, z).astype(chunk.keys.dtype),
            of_chunk.values + gather(of_sums.values, z).astype(chunk.values.dtype),
        )
        of_sums = jax.tree.map(jnp.add, of_sums, through_read)
        sums = with_document(sums, document, before)
        sums_cotangent = with_document(sums_cotangent, document, of_sums)
        return (sums, sums_cotangent, beta_cotangent + of_beta), of_chunk

    carry = (sums, sums_cotangent, jnp.zeros_like(beta))
    inputs = (chunks, plan.document, z, output_cotangents)
    (_, of_sums, of_beta), of_chunks = jax.lax.scan(step, carry, inputs, reverse=True)
    return of_chunks, of_beta, of_sums._replace(counts=jnp.zeros_like(of_sums.counts)), None


scan_lean.defvjp(_forward, _backward)
