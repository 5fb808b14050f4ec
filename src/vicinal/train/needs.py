"""The least memory that training takes, from shapes alone, so that what certainly does not fit is refused at once.

A run holds its last good state while it computes the next one, and a rule the activities of a batch when it takes the
local product. Gradients are not counted, since the compiler may never store one whole.
"""

import contextlib
from collections.abc import Callable

import equinox as eqx
import jax
import optax
from jaxtyping import PRNGKeyArray, PyTree

from vicinal._memory import bytes_of, check_room, devices_of, free_bytes, largest, size_text
from vicinal.graph import Graph
from vicinal.rules import Rule
from vicinal.train.advance import TrainingState, bytes_of_steps

ADVICE = "take a smaller model or a smaller batch"
_DOUBT = 64  # the compiler is asked where this many times the least memory is more than is free


def check_build(build: Callable[[PRNGKeyArray], PyTree], count: int, what: str) -> None:
    """Raises MemoryError if models certainly do not fit, before one is made.

    Args:
        build: From a key to a model. One that cannot be traced is not checked.
        count: How many are held at once: in training the last good one and the next.
        what: These, in words.
    """
    model: PyTree = ()
    with contextlib.suppress(Exception):  # a user's may read files; what else is wrong shows when the model is made
        model = eqx.filter_eval_shape(build, jax.random.key(0))
    check_room(
        count * bytes_of(model),
        f"{what} (the largest array is {largest(model)})",
        "take a smaller model" if count <= 2 else "take fewer, or a smaller model",
        devices_of(()),
    )


def state_shapes(
    rule: Rule, graph: Graph, optimizer: optax.GradientTransformation, model: PyTree, key: PRNGKeyArray
) -> tuple[PyTree, PyTree]:
    """The shapes of the states of optimiser and rule.

    Args:
        rule: The rule.
        graph: The captured graph.
        optimizer: The optimiser.
        model: The model, or its shapes.
        key: For `rule.init`.

    Returns:
        Both in turn; `()` for a state that cannot be made from shapes.
    """
    found: list[PyTree] = [(), ()]
    # A user's may look at numbers; what else is wrong shows when it is made.
    with contextlib.suppress(Exception), jax.numpy_dtype_promotion("standard"):  # as in `Rule.step`
        found[0] = eqx.filter_eval_shape(lambda model: optimizer.init(graph.trainable(model)), model)
    with contextlib.suppress(Exception):
        found[1] = eqx.filter_eval_shape(lambda model, key: rule.init(graph, model, key=key), model, key)
    return found[0], found[1]


def activity_bytes(graph: Graph, batch_size: int) -> int:
    """The memory of the values of all vertices for a batch."""
    return batch_size * bytes_of([graph.shapes[name] for name in graph.vertices])


def check_training(
    rule: Rule,
    graph: Graph,
    optimizer: optax.GradientTransformation,
    model: PyTree,
    batch_size: int,
    key: PRNGKeyArray,
) -> None:
    """Raises MemoryError if the states and the activities of a batch certainly do not fit beside a model.

    Args:
        rule: The rule.
        graph: The captured graph.
        optimizer: The optimiser.
        model: The model, in memory.
        batch_size: Examples in a batch.
        key: For `rule.init`.
    """
    arrays = eqx.filter(model, eqx.is_array)
    states = state_shapes(rule, graph, optimizer, model, key)
    held = {"model": arrays, "optimizer_state": states[0], "rule_state": states[1]}
    state, activities = bytes_of(states), activity_bytes(graph, batch_size)
    check_room(
        bytes_of(arrays) + 2 * state + activities,
        f"training beside the model (the next model {size_text(bytes_of(arrays))}, states of optimiser and rule "
        f"{size_text(state)}, and the next ones, activities of a batch of {batch_size} {size_text(activities)}; the "
        f"largest array is {largest(held)})",
        ADVICE,
        devices_of(arrays),
    )


def check_steps(fixed: PyTree, state: TrainingState, exempt: tuple[str, ...], batch_size: int) -> None:
    """Raises MemoryError if the compiled steps need more memory than is free; compiles them if that is in doubt.

    Args:
        fixed: As for `advance`.
        state: The first state.
        exempt: As for `advance`.
        batch_size: Examples in a batch.
    """
    devices = devices_of(state)
    least = bytes_of(state) + activity_bytes(fixed[1], batch_size)
    if _DOUBT * least > free_bytes(devices):
        needed = bytes_of_steps(fixed, state, exempt)
        check_room(needed, f"a step with a batch of {batch_size}, by the compiler's count", ADVICE, devices)
