"""Matrix update equalisation: one step size per weight matrix, so that all matrices change by the same amount."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from vicinal._numbers import check, floating, wide


class MQState(NamedTuple):
    """The number of updates, and the running mean size of the gradient of each group of parameters.

    A schedule of the learning rate has its own count, which rules that call the optimiser several times for a batch
    hold during the batch.
    """

    count: Int[Array, ""]
    scale: dict[str, Float[Array, ""]]
    schedule: optax.ScaleByScheduleState | tuple[()] = ()


def mq(
    learning_rate: optax.ScalarOrSchedule,
    floor: ArrayLike = 0.001,
    eps: ArrayLike = 1e-6,
    cap: ArrayLike = 0.9999,
    labels: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> optax.GradientTransformation:
    """Matrix update equalisation (MQ): gradient descent with one step size for each matrix and its bias.

        step   = learning_rate / (scale + eps) + floor
        update = -step * gradient
        scale <- m * scale + (1 - m) * mean |gradient|                      m = min(N / (N + 1), cap)

    after the `N`-th step, with `scale = learning_rate` before the first. With floor and eps of 0, the mean absolute
    change of every matrix approaches the learning rate, whatever the size of its gradient. The state is one number per
    matrix.

    A matrix and its bias, the parameters of one node of the tree (a layer), share a step size, and the mean is over
    both. Where a node has several matrices, each parameter has its own step size. Use labels to group parameters
    differently, for example if all parameters of a model are in one dictionary.

    Args:
        learning_rate: The mean absolute change of a weight, at least 0; a number or a schedule of the count.
        floor: Part of the step that does not depend on the gradient's size, at least 0 (`rho` in the paper).
        eps: Added to the scale, at least 0 (`r` in the paper).
        cap: Upper limit of `m`, in [0, 1], so that the scale averages over about `1 / (1 - cap)` updates. The published
            code uses 0.999 for convolutional networks.
        labels: A tree of strings like the parameters, or a prefix of it, or a function from the parameters to it;
            parameters with the same label share a step size. None: by layer, as above.

    Returns:
        An optax transformation with an `MQState`.

    Raises:
        ValueError: If a number is out of range; from `init`, if the labels do not match the parameters; from `update`,
            if the gradient does not match them.

    Example:
        >>> layers = {name: {"weight": jnp.ones((2, 3)), "bias": jnp.ones(2)} for name in ("first", "second")}
        >>> gradient = {"first": layers["first"], "second": jax.tree.map(lambda leaf: leaf / 1000, layers["second"])}
        >>> optimizer = mq(0.1, floor=0.0, eps=0.0)
        >>> _, state = optimizer.update(gradient, optimizer.init(layers))
        >>> {name: round(float(scale), 4) for name, scale in state.scale.items()}
        {"['first']": 0.55, "['second']": 0.0505}

    References:
        Alonso, Krichmar and Neftci, Understanding and improving optimization in predictive coding networks, AAAI
        2024, arXiv 2305.13562 (the count of steps and the bias's part in the mean from the published code).
    """
    if not callable(learning_rate):
        check("the learning rate", learning_rate, lambda v: v >= 0, "of at least 0")
    check("floor", floor, lambda v: v >= 0, "of at least 0")
    check("eps", eps, lambda v: v >= 0, "of at least 0")
    check("cap", cap, lambda v: (v >= 0) & (v <= 1), "in [0, 1]")

    scheduled = callable(learning_rate)

    def rate_at(count: Int[Array, ""]) -> Float[Array, ""]:
        with jax.numpy_dtype_promotion("standard"):  # optax's schedules mix integers and floats
            return floating(learning_rate(count) if callable(learning_rate) else learning_rate)

    def init(params: PyTree) -> MQState:
        leaves, count = jax.tree.leaves(params), jnp.zeros((), jnp.int32)
        start = rate_at(count)
        # Copies, so that the buffers of a state may be donated.
        groups = _groups(params, labels).items()
        scale = {name: jnp.array(start, wide(jnp.result_type(leaves[members[0]]))) for name, members in groups}
        return MQState(count, scale, optax.ScaleByScheduleState(jnp.zeros((), jnp.int32)) if scheduled else ())

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        del params
        gradients, structure = jax.tree.flatten(updates)
        groups = _groups(updates, labels)
        if groups.keys() != state.scale.keys():
            raise ValueError(
                f"expected gradients of the parameters that the state was made for, {sorted(state.scale)}, got "
                f"{sorted(groups)}; call init with the parameters that have a gradient"
            )
        rate, n = rate_at(state.schedule.count if scheduled else state.count), floating(state.count + 1)
        kept, changes, scales = jnp.minimum(n / (n + 1), floating(cap)), list(gradients), {}
        for name, members in groups.items():
            scale = floating(state.scale[name])
            divisor = scale + floating(eps)
            # With eps of 0 the divisor is 0 as long as all gradients were 0.
            step = jnp.where(divisor > 0, rate / divisor, 0) + floating(floor)
            for i in members:
                changes[i] = (-step * floating(gradients[i])).astype(gradients[i].dtype)
            size = _mean_size([gradients[i] for i in members])
            scales[name] = (kept * scale + (1 - kept) * size).astype(state.scale[name].dtype)
        further = jax.tree.map(lambda count: jnp.asarray(optax.safe_increment(count)), (state.count, state.schedule))
        return jax.tree.unflatten(structure, changes), MQState(further[0], scales, further[1])

    return optax.GradientTransformation(init, update)


def _groups(params: PyTree, labels: Any) -> dict[str, list[int]]:
    """Groups the indices of leaves that share a step size, by label."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(params)]
    names = [jax.tree_util.keystr(path[:-1]) for path in paths] if labels is None else _names(params, labels)
    together: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        together.setdefault(name, []).append(i)
    if labels is not None:
        return together
    groups = {}
    for name, members in together.items():
        together_shapes = [shapes[i] for i in members]
        several = sum(_is_matrix(shape, together_shapes) for shape in together_shapes) > 1
        groups |= {jax.tree_util.keystr(paths[i]): [i] for i in members} if several else {name: members}
    return groups


def _is_matrix(shape: tuple[int, ...], beside: list[tuple[int, ...]]) -> bool:
    """Whether a parameter is a weight; a bias may have axes of length 1 after that of its units."""
    bias = any(len(other) > len(shape) and other[:1] == shape[:1] for other in beside) and set(shape[1:]) <= {1}
    return len(shape) > 1 and not bias


def _names(params: PyTree, labels: Any) -> list[str]:
    """Returns the label of each leaf."""
    # A module of labels may be callable too; a function alone is a leaf.
    given = labels(params) if callable(labels) and jax.tree_util.all_leaves([labels]) else labels
    try:
        names = jax.tree.leaves(jax.tree.map(lambda name, part: jax.tree.map(lambda _: name, part), given, params))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"expected labels in a tree like the parameters, got {jax.tree.structure(given)}; "
            "make them with jax.tree.map on the parameters"
        ) from error
    bad = [name for name in names if not isinstance(name, str)]
    if bad:
        raise ValueError(f"expected a string as the label of each parameter, got {bad[0]!r}; name it, or leave labels")
    return names


def _mean_size(gradients: list[Array]) -> Float[Array, ""]:
    """Computes the mean absolute value over all entries."""
    whole = sum(jnp.sum(jnp.abs(floating(gradient))) for gradient in gradients)
    return floating(whole) / float(sum(gradient.size for gradient in gradients))
