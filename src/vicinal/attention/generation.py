"""Generation token by token; the mixers' states keep the earlier tokens."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from vicinal._numbers import check, check_turns
from vicinal.attention.language_model import LanguageModel


def generate(
    model: LanguageModel,
    prompt: Int[Array, " time"],
    steps: int,
    *,
    temperature: float | Float[Array, ""] = 1.0,
    key: PRNGKeyArray | None = None,
    states: PyTree | None = None,
) -> tuple[Int[Array, " steps"], tuple]:
    """Continues a text token by token, reading each token once.

        token = argmax (logits + temperature * g),     g independent standard Gumbel

    which is a draw from `softmax(logits / temperature)`, and at temperature 0 the likeliest token.

    Args:
        model: The model.
        prompt: What to continue, at least one token.
        steps: How many tokens to add.
        temperature: At least 0.
        key: For the draws; not needed at temperature 0.
        states: The mixers' states after the text before the prompt; empty by default.

    Returns:
        The new tokens, and the states after all but the last of them: to continue, pass these states with the last
        token as the next prompt.

    Raises:
        ValueError: If `steps` is below 1, the temperature negative, there is no key for draws, or a mixer's state
            changes its shape from step to step.
    """
    check_turns("steps", steps, 1)
    check("a temperature", temperature, lambda v: v >= 0, "of at least 0")
    if key is None:
        if isinstance(temperature, jax.core.Tracer) or temperature > 0:
            raise ValueError("expected a key for draws at this temperature, got None; pass key=jax.random.key(...)")
        key = jax.random.key(0)  # read by nothing: noise times 0
    return _generate(model, prompt, steps, jnp.asarray(temperature, float), key, states)


@eqx.filter_jit
def _generate(
    model: LanguageModel, prompt: Array, steps: int, temperature: Array, key: PRNGKeyArray, states: PyTree | None
) -> tuple[Array, tuple]:
    def choose(logits: Array, key: PRNGKeyArray) -> Array:
        noise = jax.random.gumbel(key, logits.shape, logits.dtype)
        return jnp.argmax(logits + temperature.astype(logits.dtype) * noise).astype(prompt.dtype)

    def step(carry: tuple, key: PRNGKeyArray) -> tuple[tuple, Array]:
        token, states = carry
        logits, states = model.read(token[None], states)
        token = choose(logits[-1], key)
        return (token, states), token

    keys = jax.random.split(key, steps)
    logits, states = model.read(prompt, states)
    first = choose(logits[-1], keys[0])
    before, after = jax.eval_shape(lambda: states), jax.eval_shape(step, (first, states), key)[0][1]
    if [leaf.shape for leaf in jax.tree.leaves(before)] != [leaf.shape for leaf in jax.tree.leaves(after)]:
        raise ValueError(
            "expected mixers whose states keep their shapes from step to step, got one that changes; give its cache a "
            "fixed size, or read the tokens one by one with model.read"
        )
    (_, states), rest = jax.lax.scan(step, (first, states), keys[1:])
    return jnp.concatenate([first[None], rest]), states
