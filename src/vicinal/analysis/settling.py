"""Whether inference has settled, and the largest step size at which it settles."""

import dataclasses
import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from vicinal._counted import counted
from vicinal._masking import refuse_masks
from vicinal._memory import check_room, devices_of
from vicinal.graph import Values
from vicinal.inference import Problem
from vicinal.inference.base import largest as largest_magnitude, total


def equilibrium_residual(problem: Problem, values: Values) -> Float[Array, " batch"]:
    """The largest gradient entry `max |dF/da|` over all activities of an example: 0 at equilibrium.

    A fixed number of steps does not imply convergence; this measures the distance from it. With a proximal output, the
    gradient is the one that inference follows: it treats the output's gain as a constant.

    Args:
        problem: The inference problem: `InferenceLearning.problem`, or your own.
        values: The values of the vertices, `[batch, ...]`, for instance `Credit.values`.

    Returns:
        One residual per example, `[batch]`, in units of activity.

    Raises:
        ValueError: If there are no vertices.

    Example:
        >>> import vicinal as vc
        >>> model = vc.nn.MLP((2, 3, 1), key=jax.random.key(0))
        >>> x, y, rule = jnp.ones((1, 2)), jnp.ones((1, 1)), vc.rules.InferenceLearning(loss=vc.losses.squared_error)
        >>> problem = rule.problem(vc.capture(model, x[0]), model, x, y)
        >>> feedforward = problem.graph.feedforward(model, x)[1]
        >>> settled = vc.inference.Simultaneous(steps=100, step_size=0.5).settle(problem, feedforward)
        >>> float(equilibrium_residual(problem, feedforward)[0]) > 0.1
        True
        >>> float(equilibrium_residual(problem, settled.values)[0]) < 1e-6
        True
    """
    _check_vertices(problem)
    feedback, own, _ = problem.descent(values)
    return largest_magnitude({name: feedback[name] - own[name] for name in values})


class Conditioning(eqx.Module):
    """The extreme eigenvalues of the activity Hessian `d2F/da2`, for each example.

    Attributes:
        smallest: The smallest eigenvalue, `[batch]`; the slowest direction settles as `exp(-smallest * time)`. If it
            is below 0, the energy is not convex there.
        largest: The largest eigenvalue, `[batch]`.
    """

    smallest: Float[Array, " batch"]
    largest: Float[Array, " batch"]

    @property
    def condition(self) -> Float[Array, " batch"]:
        """`largest / smallest`; infinite where the energy is not convex."""
        return jnp.where(self.smallest > 0, self.largest / self.smallest, jnp.inf)

    @property
    def step_bound(self) -> Float[Array, " batch"]:
        """`2 / largest`: near an equilibrium, gradient descent with a larger step size diverges."""
        return jnp.where(self.largest > 0, 2 / self.largest, jnp.inf)


def conditioning(problem: Problem, values: Values, *, dense_below: int = 512) -> Conditioning:
    """The conditioning of inference at given values: extreme eigenvalues of `d2F/da2` over all vertices together.

    In a linear network with unit precisions and squared error this is the block tridiagonal matrix

        diagonal: I + W_{l+1}^T W_{l+1}        off-diagonal: -W_{l+1}

    Gradient descent on the energy (`Simultaneous` with `pull = 1`, without momentum and decay) settles if its step size
    is below `step_bound`. The bound does not apply to another `pull`: its dynamics do not descend `F`. With a proximal
    output the gain depends on the activities, but inference treats it as a constant at every step. It is therefore held
    at its value for `values`; otherwise the matrix of the dynamics would not be symmetric.

    Args:
        problem: The inference problem: `InferenceLearning.problem`, or your own.
        values: Where to evaluate, `[batch, ...]`; irrelevant for a linear network.
        dense_below: With fewer activities per example than this, takes all eigenvalues of the dense matrix. Otherwise
            uses Lanczos iteration (ARPACK), one example after another, accurate to some 1e-5 of the largest eigenvalue
            in single precision and 1e-10 in double; this does not run under `jax.jit`.

    Returns:
        The smallest and largest eigenvalue of each example, with condition number and step size bound.

    Raises:
        ValueError: If there are no vertices, or one has a mask.
        MemoryError: If the dense matrices certainly do not fit into memory.

    Example:
        >>> import vicinal as vc
        >>> model = jax.tree.map(jnp.ones_like, vc.nn.MLP((1, 1, 1), "identity", key=jax.random.key(0)))
        >>> rule, x = vc.rules.InferenceLearning(loss=vc.losses.squared_error), jnp.ones((1, 1))
        >>> graph = vc.capture(model, x[0])
        >>> found = conditioning(rule.problem(graph, model, x, x), graph.feedforward(model, x)[1])
        >>> found.largest.tolist(), found.step_bound.tolist()  # 1 + 1^2
        ([2.0], [1.0])
    """
    _check_vertices(problem)
    refuse_masks(problem.graph.masked, "conditioning: energies are flat in units that do not count")
    size = sum(math.prod(value.shape[1:]) for value in values.values())
    if size < max(dense_below, 3):  # ARPACK needs a few dimensions
        like = next(iter(values.values()))
        needed = like.shape[0] * size**2 * like.dtype.itemsize
        what = f"{counted(like.shape[0], 'Hessian')} of shape [{size}, {size}]"
        check_room(needed, what, "take fewer examples, or a smaller dense_below", devices_of(values))
        eigenvalues = _dense(problem, values)
        return Conditioning(eigenvalues[:, 0], eigenvalues[:, -1])
    held = _with_gain_held(problem, values)
    pairs = np.array([_lanczos(held, values, i, size) for i in range(held.nudge.shape[0])])
    smallest, largest = pairs.astype(next(iter(values.values())).dtype).T
    return Conditioning(jnp.asarray(smallest), jnp.asarray(largest))


def _check_vertices(problem: Problem) -> None:
    if not problem.graph.vertices:
        raise ValueError("expected a graph with vertices, got one without; mark the activities that should settle")


@eqx.filter_jit
def _with_gain_held(problem: Problem, values: Values) -> Problem:
    loss = jax.vmap(problem.loss)(problem.predict(values)[0], problem.y)
    gain = problem.gain(values, loss)
    return _with(problem, problem.x, problem.y, gain)


def _rows(problem: Problem, values: Values) -> Float[Array, "batch n"]:
    """The activities of each example in one row, in the order of the vertices."""
    rows = (values[name] for name in problem.graph.vertices)
    return jnp.concatenate([row.reshape(row.shape[0], -1) for row in rows], axis=1)


def _product(problem: Problem, values: Values, vectors: Float[Array, "batch n"]) -> Float[Array, "batch n"]:
    """The Hessian of each example times a vector; examples do not mix."""
    names = problem.graph.vertices
    ends = np.cumsum([math.prod(values[name].shape[1:]) for name in names])[:-1]
    parts = jnp.split(vectors, ends, axis=1)
    tangents = {name: part.reshape(values[name].shape) for name, part in zip(names, parts, strict=True)}
    slope = jax.grad(lambda values: jnp.sum(total(problem.energies(values))))
    return _rows(problem, jax.jvp(slope, (values,), (tangents,))[1])


@eqx.filter_jit
def _dense(problem: Problem, values: Values) -> Float[Array, "batch n"]:
    """All eigenvalues of each example, in ascending order."""
    problem, like = _with_gain_held(problem, values), _rows(problem, values)
    columns = jax.lax.map(  # one column of all examples at a time: little memory
        lambda unit: _product(problem, values, jnp.broadcast_to(unit, like.shape)),
        jnp.eye(like.shape[1], dtype=like.dtype)[:, None],
    )
    return jnp.linalg.eigvalsh(jnp.moveaxis(columns, 1, 0))


@eqx.filter_jit
def _product_of_one(problem: Problem, values: Values, i: Array, vector: Float[Array, " n"]) -> Float[Array, " n"]:
    """The Hessian of example `i` times a vector; compiled once for all examples."""
    held = (problem.x, problem.y, problem.nudge, values)
    x, y, gain, values = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, i, 1), held)
    return _product(_with(problem, x, y, gain), values, vector[None])[0]


def _with(problem: Problem, x: PyTree, y: PyTree, gain: Array) -> Problem:
    """The same problem for other examples, with the gain of their losses."""
    energy = problem.vertex_energy
    return Problem(problem.graph, problem.model, x, y, problem.loss, gain, energy.precision, encoding=energy.encoding)


@dataclasses.dataclass(frozen=True)
class _Symmetric:
    """A symmetric matrix given by its products with vectors, as SciPy expects it."""

    matvec: Callable[[np.ndarray], np.ndarray]
    shape: tuple[int, int]
    dtype: type = np.float64


def _lanczos(problem: Problem, values: Values, i: int, size: int) -> tuple[float, float]:
    """The smallest and the largest eigenvalue of one example."""
    from scipy.sparse.linalg import eigsh  # slow to import

    dtype = next(iter(values.values())).dtype
    index, start = jnp.int32(i), np.random.default_rng(0).standard_normal(size)  # the same start in every call
    tolerance = float(np.finfo(dtype).eps) ** (2 / 3)  # below this, rounding of the products dominates

    def times(vector: np.ndarray) -> np.ndarray:
        product = _product_of_one(problem, values, index, jnp.asarray(vector.reshape(-1), dtype))
        return np.asarray(product, np.float64)

    def top(times: Callable[[np.ndarray], np.ndarray]) -> float:
        found = eigsh(
            _Symmetric(times, (size, size)),
            1,
            which="LA",
            v0=start,
            ncv=min(size, 40),
            tol=tolerance,
            return_eigenvectors=False,
        )
        return float(found[0])

    largest = top(times)
    # Find the smallest as the largest of a shifted matrix: the tolerance is then relative to the largest.
    shift = 2 * abs(largest)
    return shift - top(lambda vector: shift * vector.reshape(-1) - times(vector)), largest
