"""Matrix update equalisation: one step size per weight matrix, so that all matrices move by the same amount."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from vicinal._numbers import check, number


class MQState(NamedTuple):
    """How many updates there were, and for each group of parameters the running size of its gradient.

    A schedule of the learning rate counts for itself, as rules that call the optimiser several times for a batch hold
    it there.
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
    """Matrix update equalisation (MQ): gradient descent with a step size for each matrix, which its bias shares.

        step   = learning_rate / (scale + eps) + floor
        update = -step * gradient
        scale <- m * scale + (1 - m) * mean |gradient|                      m = min(N / (N + 1), cap)

    after the `N`-th step, with `scale = learning_rate` before the first. Without floor and eps the mean absolute change
    of every matrix comes to be the learning rate, however large its gradient is. The memory is one number per matrix.

    A matrix and its bias share a step size, and the mean is over both: the parameters of one node of the tree (a
    layer). Where a node has several matrices, each parameter has a step size of its own. Labels say it otherwise, as
    they should where all parameters of a model stand in one dictionary.

    Args:
        learning_rate: The mean absolute change of a weight, at least 0; a number or a schedule of the count.
        floor: Part of the step that no gradient's size takes away, at least 0 (`rho` in the paper).
        eps: Added to the scale, at least 0 (`r` in the paper).
        cap: Share of the scale that an update keeps at most, in [0, 1]: it averages over some `1 / (1 - cap)` updates.
            The published code has 0.999 for convolutional networks.
        labels: Which parameters share a step size: a tree like the parameters, or a prefix of it, with a string for
            each; or a function from the parameters to it.

    Returns:
        An optax transformation with an `MQState`.

    Raises:
        ValueError: If a number is out of range; from `init`, if the labels do not fit the parameters; from `update`,
            if the gradient does not fit them.

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
            return number(learning_rate(count) if callable(learning_rate) else learning_rate)

    def init(params: PyTree) -> MQState:
        leaves, count = jax.tree.leaves(params), jnp.zeros((), jnp.int32)
        start = rate_at(count)
        # Copies, so that a program may be given the buffers of a state to reuse.
        groups = _groups(params, labels).items()
        scale = {name: jnp.array(start, _dtype(leaves[members[0]])) for name, members in groups}
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
        rate, n = rate_at(state.schedule.count if scheduled else state.count), number(state.count + 1)
        kept, changes, scales = jnp.minimum(n / (n + 1), number(cap)), list(gradients), {}
        for name, members in groups.items():
            scale = number(state.scale[name])
            divisor = scale + number(eps)
            # Without eps there is nothing to divide by where no gradient has been.
            step = jnp.where(divisor > 0, rate / divisor, 0) + number(floor)
            for i in members:
                changes[i] = (-step * number(gradients[i])).astype(gradients[i].dtype)
            size = _mean_size([gradients[i] for i in members])
            scales[name] = (kept * scale + (1 - kept) * size).astype(state.scale[name].dtype)
        further = jax.tree.map(lambda count: jnp.asarray(optax.safe_increment(count)), (state.count, state.schedule))
        return jax.tree.unflatten(structure, changes), MQState(further[0], scales, further[1])

    return optax.GradientTransformation(init, update)


def _groups(params: PyTree, labels: Any) -> dict[str, list[int]]:
    """Which leaves share a step size, by label."""
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
    """Whether a parameter is a weight; a bias may have axes of length 1 behind that of its units."""
    bias = any(len(other) > len(shape) and other[:1] == shape[:1] for other in beside) and set(shape[1:]) <= {1}
    return len(shape) > 1 and not bias


def _names(params: PyTree, labels: Any) -> list[str]:
    """The label of each leaf."""
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
    """The mean absolute entry of all."""
    whole = sum(jnp.sum(jnp.abs(number(gradient))) for gradient in gradients)
    return number(whole) / float(sum(gradient.size for gradient in gradients))


def _dtype(leaf: Any) -> Any:
    """The dtype of a scale: a running mean needs more digits than half precision has."""
    dtype = jnp.result_type(leaf)
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)
