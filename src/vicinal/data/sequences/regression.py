"""Linear regression in context: several linear functions are learned from examples within one sequence."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vicinal._numbers import check, check_counts


@dataclass(frozen=True, eq=False)
class Regression:
    """Examples of `linear_regression`. Steps come in pairs: a point, then the value there.

    Args:
        inputs: `[examples, 2 * pairs, features + 1 + functions]`, float32: the point or zeros, the value or zero,
            and a one-hot vector that names the function.
        targets: The value at each point's step, NaN at the others (`vicinal.losses.masked_squared_error`);
            `[examples, 2 * pairs, 1]`, float32.
        mask: Where the loss counts: at the steps of points; `[examples, 2 * pairs]`.
        points: `[examples, pairs, features]`, float64.
        values: `[examples, pairs]`, float64, noise included.
        function: Which function each pair is of, `[examples, pairs]`.
        earlier: How many earlier pairs are of the same function, `[examples, pairs]`.
        weights: Of each function, `[examples, functions, features]`, float64.
        noise: Standard deviation of the noise.
    """

    inputs: Float[np.ndarray, "examples time in"]
    targets: Float[np.ndarray, "examples time 1"]
    mask: Bool[np.ndarray, "examples time"]
    points: Float[np.ndarray, "examples pairs features"]
    values: Float[np.ndarray, "examples pairs"]
    function: Int[np.ndarray, "examples pairs"]
    earlier: Int[np.ndarray, "examples pairs"]
    weights: Float[np.ndarray, "examples functions features"]
    noise: float


def linear_regression(
    examples: int, pairs: int, functions: int = 1, *, features: int = 8, noise: float = 0.0, seed: int
) -> Regression:
    """Points and values of several linear functions, mixed: what is the value at the next point?

        y = w_f . x + noise * e,     w_f ~ N(0, I / features),     x ~ N(0, I),    e ~ N(0, 1)

    so that values have variance `1 + noise^2`. The function of each pair is drawn uniformly, and named in the input.

    Args:
        examples: How many examples.
        pairs: Pairs of a point and its value; an example has twice as many steps.
        functions: How many functions an example mixes.
        features: Length of a point.
        noise: Standard deviation of the noise, at least 0.
        seed: Of the draw.

    Returns:
        The examples.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> data = linear_regression(2, 16, 4, features=3, seed=0)
        >>> data.inputs.shape, data.targets.shape
        ((2, 32, 8), (2, 32, 1))

    *Differs from the paper*: that of OVQ-attention (arXiv 2602.03922) has a task of this name with up to 128
    functions, whose layout we do not know; this layout is ours.
    """
    check_counts(examples=examples, pairs=pairs, functions=functions, features=features)
    check("noise", noise, lambda v: v >= 0, "of at least 0")
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(examples, functions, features)) / np.sqrt(features)
    points = rng.normal(size=(examples, pairs, features))
    function = rng.integers(functions, size=(examples, pairs))
    chosen = np.take_along_axis(weights, function[..., None], axis=1)
    values = np.sum(chosen * points, axis=2) + noise * rng.normal(size=(examples, pairs))
    named = np.eye(functions)[function]
    so_far = np.take_along_axis(np.cumsum(named, axis=1), function[..., None], axis=2)[..., 0]
    inputs = np.zeros((examples, pairs, 2, features + 1 + functions), np.float32)
    inputs[:, :, 0, :features] = points
    inputs[:, :, 1, features] = values
    inputs[..., features + 1 :] = named[:, :, None]
    targets = np.full((examples, pairs, 2, 1), np.nan, np.float32)
    targets[:, :, 0, 0] = values
    inputs, targets = (array.reshape(examples, 2 * pairs, -1) for array in (inputs, targets))
    mask = ~np.isnan(targets[..., 0])
    return Regression(
        inputs, targets, mask, points, values, function, so_far.astype(np.int32) - 1, weights, float(noise)
    )


def ridge_oracle(data: Regression, ridge: float | None = None) -> Float[np.ndarray, "examples pairs"]:
    """The prediction at each point of ridge regression on the earlier pairs of its function.

        w = argmin  sum over earlier pairs of the function of (y - w . x)^2  +  ridge ||w||^2

    With `ridge = features * noise^2` this is the posterior mean given the sequence so far: no model has a smaller
    expected squared error. Without noise it is the shortest of the functions that fit.

    Args:
        data: The examples.
        ridge: At least 0; by default `features * noise^2`.

    Returns:
        The predicted values; 0 at the first point of each function.

    Raises:
        ValueError: If `ridge` is negative or not finite.

    Example:
        >>> data = linear_regression(1, 9, features=8, seed=0)
        >>> abs(ridge_oracle(data) - data.values)[0, [0, 7, 8]].round(6) == 0  # exact after 8 pairs
        array([False, False,  True])
    """
    check("ridge", ridge, lambda v: v >= 0, "of at least 0")
    examples, functions, features = data.weights.shape
    ridge = features * data.noise**2 if ridge is None else ridge
    squares = np.zeros((examples, functions, features, features))
    products = np.zeros((examples, functions, features))
    predicted = np.zeros(data.values.shape)
    every = np.arange(examples)
    for t in range(data.values.shape[1]):
        f, x, y = data.function[:, t], data.points[:, t], data.values[:, t]
        # The pseudo-inverse gives the shortest solution where there are too few pairs for only one.
        inverse = np.linalg.pinv(squares[every, f] + ridge * np.eye(features), rcond=1e-12, hermitian=True)
        predicted[:, t] = np.einsum("ni,nij,nj->n", x, inverse, products[every, f])
        squares[every, f] += x[:, :, None] * x[:, None, :]
        products[every, f] += x * y[:, None]
    return predicted


def normalized_error(
    predictions: Float[np.ndarray, "examples pairs"], data: Regression
) -> Float[np.ndarray, " earlier"]:
    """The mean squared error over the variance of the values, by the number of earlier pairs of the same function.

        error_j = mean of (prediction - y)^2 where earlier = j   /   (1 + noise^2)

    Args:
        predictions: At each point. Of a model's outputs `[examples, 2 * pairs, 1]` they are `outputs[:, ::2, 0]`.
        data: The examples.

    Returns:
        The error for 0, 1, ... earlier pairs; NaN for a number that does not occur.

    Raises:
        ValueError: If the predictions have another shape.

    Example:
        >>> data = linear_regression(500, 12, features=4, seed=0)
        >>> normalized_error(ridge_oracle(data), data).round(2)[:6]  # 1 - j/4 is expected after j pairs
        array([0.92, 0.79, 0.46, 0.26, 0.  , 0.  ])
    """
    predictions = np.asarray(predictions)
    if predictions.shape != data.values.shape:
        raise ValueError(f"expected predictions of shape {data.values.shape}, got {predictions.shape}")
    squares = np.square(predictions.astype(float) - data.values)
    count = np.bincount(data.earlier.ravel())
    total = np.bincount(data.earlier.ravel(), squares.ravel())
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0) / (1 + data.noise**2)
