"""The length and straightness of training: the path of the weights, or of the outputs."""

import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from vicinal._numbers import widened
from vicinal.analysis._parts import arrays, norm, whole
from vicinal.roles import trained


class Path(NamedTuple):
    """The state of `measure_path`: number, mean and spread of the norms of all updates so far.

    Attributes:
        steps: Updates measured.
        mean: Mean norm of an update; 0 before the first.
        squared_deviations: The sum over the updates of `(norm - mean)^2`, by Welford's recursion.
    """

    steps: Int[Array, ""]
    mean: Float[Array, ""]
    squared_deviations: Float[Array, ""]

    @property
    def length(self) -> Float[Array, ""]:
        """The sum of the norms: `sum over t of ||theta_{t+1} - theta_t||`."""
        return self.steps.astype(self.mean.dtype) * self.mean

    @property
    def variance(self) -> Float[Array, ""]:
        """Variance of the norm over the updates, as in `numpy.var`; NaN before the first."""
        return self.squared_deviations / self.steps.astype(self.mean.dtype)


def measure_path() -> optax.GradientTransformation:
    """Measures the norm of every update and passes the update on unchanged; chain it last.

        optimizer = optax.chain(optax.sgd(0.1), measure_path())

    The norm is that of the change of all parameters, biases included. It costs three numbers and one pass over the
    update, in single precision or more; a norm whose square overflows counts as the largest whose square does not.
    `path_of` finds the result in the optimiser's state.

    Returns:
        An optax transformation whose state is a `Path`.

    Example:
        >>> optimizer = optax.chain(optax.sgd(1.0), measure_path())
        >>> state = optimizer.init(jnp.zeros(2))
        >>> for gradient in ([3.0, 4.0], [0.0, 7.0]):
        ...     _, state = optimizer.update(jnp.array(gradient), state)
        >>> path = path_of(state)
        >>> float(path.length), float(path.mean), float(path.variance)
        (12.0, 6.0, 1.0)

    References:
        Welford, Note on a method for calculating corrected sums of squares and products, Technometrics 4, 1962.
    """

    def init(params: PyTree) -> Path:
        del params
        zero = jnp.zeros((), jnp.result_type(float))
        return Path(jnp.zeros((), jnp.int32), zero, zero)

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        del params
        size = _size(updates, state.mean.dtype)
        steps = state.steps + 1
        deviation = size - state.mean
        mean = state.mean + deviation / steps.astype(size.dtype)
        return updates, Path(steps, mean, state.squared_deviations + deviation * (size - mean))

    return optax.GradientTransformation(init, update)


def _size(updates: PyTree, dtype: Any) -> Float[Array, ""]:
    """The norm of an update, by one pass over it, at most the largest number whose square is finite."""
    squares = [jnp.vdot(leaf, leaf).astype(dtype) for leaf in map(widened, arrays(updates).values())]
    return jnp.sqrt(jnp.minimum(sum(squares, start=jnp.zeros((), dtype)), jnp.finfo(dtype).max))


def path_of(optimizer_state: PyTree) -> Path:
    """Finds the `Path` of `measure_path` in the state of any optimiser that contains it.

    Args:
        optimizer_state: The optimiser's state, or any tree that holds it.

    Returns:
        The path so far.

    Raises:
        ValueError: If there is none, or more than one.

    Example:
        >>> int(path_of(optax.chain(optax.adam(1e-3), measure_path()).init(jnp.zeros(2))).steps)
        0
    """
    nodes = jax.tree.leaves(optimizer_state, is_leaf=lambda node: isinstance(node, Path))
    found = [node for node in nodes if isinstance(node, Path)]
    if len(found) != 1:
        raise ValueError(
            f"expected one measured path in the optimiser's state, got {len(found)}; "
            "chain measure_path() last, once: optax.chain(optimizer, measure_path())"
        )
    return found[0]


def displacement(before: PyTree, after: PyTree) -> Float[Array, ""]:
    """The distance between two points, `||after - before||`, with all floating-point arrays in one vector.

    Arrays that are recognised as not trained are left out (see `vicinal.roles`). If the model has other fixed arrays,
    pass `graph.trainable(model)`.

    The straightness of a long run is `displacement(first, last) / path_of(optimizer_state).length`.

    Args:
        before: A tree: a model, or outputs.
        after: One of the same structure.

    Returns:
        The distance.

    Raises:
        ValueError: If the structures or shapes differ.

    Example:
        >>> displacement({"w": jnp.zeros((1, 2))}, {"w": jnp.array([[3.0, 4.0]])}).item()
        5.0
    """
    ours, theirs = (arrays(trained(point)) for point in (before, after))
    shapes = [{name: jnp.shape(leaf) for name, leaf in side.items()} for side in (ours, theirs)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"expected two points of the same structure and shapes, got {shapes[0]} and {shapes[1]}; "
            "compare one model's parameters, or one probe set's outputs"
        )
    return norm(whole({name: theirs[name] - ours[name] for name in ours}))


def path_length(points: Iterable[PyTree]) -> Float[Array, ""]:
    """The length of a path through given points, `sum over t of ||p_{t+1} - p_t||`.

    Args:
        points: Trees of one structure: models, for the path of the weights; or outputs on a probe set, for the path in
            function space. Skipping points makes the path shorter.

    Returns:
        The length; 0 for a single point.

    Raises:
        ValueError: If there is no point, or the structures or shapes differ.

    Example:
        >>> path_length([jnp.array([0.0, 0.0]), jnp.array([3.0, 4.0]), jnp.array([3.0, 0.0])]).item()
        9.0
    """
    points = _checked(points)
    steps = [displacement(before, after) for before, after in itertools.pairwise(points)]
    return jnp.sum(jnp.stack(steps)) if steps else jnp.zeros_like(norm(whole(points[0])))


def straightness(points: Iterable[PyTree]) -> Float[Array, ""]:
    """The straightness of a path: `||p_T - p_0|| / path_length`, 1 for a straight line, 0 if it returns.

    Args:
        points: As for `path_length`.

    Returns:
        The ratio, in [0, 1]; NaN if the path did not move.

    Raises:
        ValueError: If there is no point, or the structures or shapes differ.

    Example:
        >>> round(straightness([jnp.array([0.0, 0.0]), jnp.array([1.0, 0.0]), jnp.array([1.0, 1.0])]).item(), 4)
        0.7071

    References:
        Alonso et al., A theoretical framework for inference learning, NeurIPS 2022, arXiv 2206.00164.
    """
    points = _checked(points)
    return displacement(points[0], points[-1]) / path_length(points)


def _checked(points: Iterable[PyTree]) -> list[PyTree]:
    points = list(points)
    if not points:
        raise ValueError("expected at least one point, got none; record the parameters or outputs along the way")
    return points
