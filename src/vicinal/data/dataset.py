"""What every loader returns: training and test examples in memory, ready for a device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import numpy as np
from jaxtyping import Float, Key, Shaped


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Examples and targets of one data set, as NumPy arrays.

    Two data sets compare equal only when they are the same object: arrays have no single answer to `==`.

    Args:
        name: A short name, for tables and file names.
        x_train: Inputs for training, `[train, *shape]`, float32. Images of bytes lie in [0, 1]; other numbers keep
            their range.
        y_train: Targets for training: class labels `[train]`, int32 from 0 to `classes - 1`, or any array
            whose first axis runs over the examples.
        x_test: Inputs for testing, `[test, *shape]`.
        y_test: Targets for testing, like `y_train`.
        classes: How many classes the labels name; None when the targets are not labels.
        credit: Whom to name when results made with the data are published, and how examples for testing were
            drawn, where the data do not say it themselves.
        class_names: What the classes are called, in the order of their labels; None if they have no names.
        feature_names: What the numbers of an input are called, where they come from the columns of a table.

    Raises:
        ValueError: A split is empty, or lengths or shapes do not belong together, or names do not fit the classes.

    Example:
        >>> from vicinal.data import load
        >>> load("digits")
        Dataset('digits': 1437 training and 360 test examples of shape (8, 8), 10 classes)
    """

    name: str
    x_train: Float[np.ndarray, "train ..."]
    y_train: Shaped[np.ndarray, "train ..."]
    x_test: Float[np.ndarray, "test ..."]
    y_test: Shaped[np.ndarray, "test ..."]
    classes: int | None = None
    credit: str = ""
    class_names: tuple[str, ...] | None = None
    feature_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for split, x, y in (("train", self.x_train, self.y_train), ("test", self.x_test, self.y_test)):
            if np.ndim(x) < 2 or np.ndim(y) < 1 or len(x) != len(y) or len(x) == 0:
                raise ValueError(
                    f"{self.name}: expected x_{split} of shape [n, ...] and y_{split} of shape [n, ...] with "
                    f"n >= 1, got {np.shape(x)} and {np.shape(y)}; give one target for each example."
                )
        for kind, train, test in (("x", self.x_train, self.x_test), ("y", self.y_train, self.y_test)):
            if train.shape[1:] != test.shape[1:]:
                raise ValueError(
                    f"{self.name}: expected {kind}_train and {kind}_test to agree in all axes but the first, "
                    f"got {train.shape} and {test.shape}; reshape one of them."
                )
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise ValueError(
                f"{self.name}: expected a name for each class, got {len(self.class_names)} for {self.classes} classes"
            )

    def __repr__(self) -> str:
        classes = "" if self.classes is None else f", {self.classes} classes"
        return (
            f"Dataset({self.name!r}: {len(self.x_train)} training and {len(self.x_test)} test examples "
            f"of shape {self.shape}{classes})"
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input, without the example axis."""
        return self.x_train.shape[1:]

    @property
    def features(self) -> int:
        """The number of entries of one input."""
        return math.prod(self.shape)

    @property
    def outputs(self) -> int:
        """The number of output units a network needs: one for each class, or for each number of a target."""
        return self.classes if self.classes is not None else math.prod(self.y_train.shape[1:])

    def flattened(self) -> Dataset:
        """Return the data set with inputs of shape `[n, features]`.

        Targets made by `as_autoencoding` are reshaped alike; labels stay as they are.

        Example:
            >>> from vicinal.data import load
            >>> load("digits").flattened().shape
            (64,)
        """
        return self._reshaped(lambda x: x.reshape(len(x), -1))

    def channels_first(self) -> Dataset:
        """Return the data set with images of shape `[n, channels, height, width]`.

        Grey images `[n, height, width]` get one channel; colour images are taken to be
        `[n, height, width, channels]`, as `load` gives them. Targets made by `as_autoencoding` are reshaped
        alike.

        Raises:
            ValueError: The inputs are not images in one of these two shapes.

        Example:
            >>> from vicinal.data import load
            >>> load("digits").channels_first().shape
            (1, 8, 8)
        """
        axes = len(self.shape)
        if axes not in (2, 3):
            raise ValueError(
                f"{self.name}: expected images [n, height, width] or [n, height, width, channels], got "
                f"inputs of shape {self.shape}; call channels_first before flattened."
            )
        if axes == 2:
            return self._reshaped(lambda x: x[:, None])
        return self._reshaped(lambda x: np.ascontiguousarray(np.moveaxis(x, -1, 1)))

    def subset(self, train: int, test: int) -> Dataset:
        """Return the first examples of each split, without copying them.

        Some files list their examples class by class; `shuffled` first makes the subset a fair sample.

        Args:
            train: How many training examples to keep, at least 1.
            test: How many test examples to keep, at least 1.

        Raises:
            ValueError: A number is below 1 or above what the split holds.

        Example:
            >>> from vicinal.data import load
            >>> load("digits").subset(100, 20)
            Dataset('digits': 100 training and 20 test examples of shape (8, 8), 10 classes)
        """
        for split, wanted, held in (("train", train, len(self.x_train)), ("test", test, len(self.x_test))):
            if not 1 <= wanted <= held:
                raise ValueError(
                    f"{self.name}: expected {split} between 1 and {held}, got {wanted}; ask for a number in that range."
                )
        return self._indexed(slice(train), slice(test))

    def shuffled(self, *, key: Key[jax.Array, ""]) -> Dataset:
        """Return the data set with each split in a random order, inputs and targets together.

        Args:
            key: A JAX random key; the same key gives the same order.

        Example:
            >>> import jax
            >>> from vicinal.data import load
            >>> digits = load("digits").shuffled(key=jax.random.key(0))
            >>> len(digits.x_train), len(digits.x_test)
            (1437, 360)
        """
        key_train, key_test = jax.random.split(key)
        return self._indexed(
            np.asarray(jax.random.permutation(key_train, len(self.x_train))),
            np.asarray(jax.random.permutation(key_test, len(self.x_test))),
        )

    def standardized(self, *, targets: bool = False) -> Dataset:
        """Return the data set with inputs of mean 0 and standard deviation 1, each number of an input by itself.

        Means and deviations are those of the training examples; a number that never changes becomes 0.

        Args:
            targets: Whether targets that are numbers are standardized too. Losses are then in units of the training
                targets' variance.

        Raises:
            ValueError: The targets are labels, and should be standardized.

        Example:
            >>> import numpy as np
            >>> x = np.array([[1.0, 5.0], [3.0, 5.0]], np.float32)
            >>> data = Dataset("two", x, np.array([0, 1]), x[:1], np.array([0]), 2).standardized()
            >>> data.x_train.tolist(), data.x_test.tolist()
            ([[-1.0, 0.0], [1.0, 0.0]], [[-1.0, 0.0]])
        """
        x_train, x_test = _standardized(self.x_train, self.x_test)
        if not targets:
            return replace(self, x_train=x_train, x_test=x_test)
        if self.classes is not None:
            raise ValueError(f"{self.name}: expected targets that are numbers, got labels; standardize only inputs")
        y_train, y_test = _standardized(self.y_train, self.y_test)
        return replace(self, x_train=x_train, x_test=x_test, y_train=y_train, y_test=y_test)

    def as_autoencoding(self) -> Dataset:
        """Return the data set whose targets are its inputs, and which has no classes.

        Example:
            >>> from vicinal.data import load
            >>> load("digits").flattened().as_autoencoding().y_train.shape
            (1437, 64)
        """
        return replace(self, y_train=self.x_train, y_test=self.x_test, classes=None, class_names=None)

    def _reshaped(self, change: Callable[[np.ndarray], np.ndarray]) -> Dataset:
        x_train, x_test = change(self.x_train), change(self.x_test)
        if self.classes is None and self.y_train.shape == self.x_train.shape:
            y_train, y_test = change(self.y_train), change(self.y_test)
        else:
            y_train, y_test = self.y_train, self.y_test
        return replace(self, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)

    def _indexed(self, train: slice | np.ndarray, test: slice | np.ndarray) -> Dataset:
        return replace(
            self,
            x_train=self.x_train[train],
            y_train=self.y_train[train],
            x_test=self.x_test[test],
            y_test=self.y_test[test],
        )


def _standardized(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, deviation = (np.asarray(f(train, axis=0, dtype=np.float64)) for f in (np.mean, np.std))
    scale = np.where(deviation > 1e-12 * np.abs(mean), deviation, np.inf)
    return ((train - mean) / scale).astype(train.dtype), ((test - mean) / scale).astype(test.dtype)
