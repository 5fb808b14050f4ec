"""Steps for cells: what pulses make of the change that an optimiser asks for.

pulsed          as many pulses as the change takes, rounded at random
coincident      pulses where random pulses on rows and columns meet, straight from activities and errors
transfer        pulses on a fast array, which is read and programmed into the weight now and then
thresholded     changes add up digitally until they are worth a pulse
"""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from vicinal._numbers import check, check_count
from vicinal.credit import ExampleGradients
from vicinal.hardware._delivery import Delivered, Delivery, Stored, on_cells
from vicinal.hardware._noise import digest, uniform
from vicinal.hardware.cells import Cells, Device

Step = optax.ScalarOrSchedule | optax.GradientTransformation
"""A learning rate of gradient descent, or the optimiser that says which change is wanted."""

_MOST = 31


def pulsed(step: Step, most: int = _MOST) -> optax.GradientTransformationExtraArgs:
    """Gives each cell the pulses that the wanted change takes, rounded at random to a whole number.

        n = floor(|change| / (s step) + U),   U uniform in [0, 1),   at most `most`

    Without asymmetry and bounds the mean change is the wanted one. Biases, and all that lies on no cells, change
    digitally.

    Args:
        step: The learning rate of gradient descent, a schedule, or any optax optimiser (`optax.adam(1e-3)`).
        most: Pulses of one cell in one update, at most.

    Returns:
        An optax transformation for a model from `vicinal.hardware.place`, for `fit`, `sweep` and `Rule.step`. Its state
        counts pulses (`pulse_counts`).

    Raises:
        ValueError: From `init`, if the model has no cells.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.hardware.place(vc.nn.MLP((3, 8, 2), key=jax.random.key(0)), "idealized", key=jax.random.key(1))
        >>> data = jnp.eye(3), jnp.array([0, 1, 1])
        >>> run = vc.train.fit(vc.rules.Backprop(), model, vc.hardware.pulsed(0.1), data, key=jax.random.key(2),
        ...     steps=20, batch_size=3, progress=False)
        >>> [int(count) > 0 for count in vc.hardware.pulse_counts(run.state).values()]
        [True, True]

    References:
        Gokmen and Vlasov, Acceleration of deep neural network training with resistive cross-point devices, Front.
        Neurosci. 2016, arXiv 1603.07341.
    """
    return on_cells(step, _Pulsed(check_count("most", most)))


def thresholded(step: Step) -> optax.GradientTransformationExtraArgs:
    """Adds changes up digitally, and gives a cell pulses once they are worth some (mixed precision).

        H += change / s,   n = trunc(H / step),   H -= n step

    Args:
        step: As for `pulsed`.

    Returns:
        As `pulsed`.

    References:
        Nandakumar et al., Mixed-precision deep learning based on computational memory, Front. Neurosci. 2020, arXiv
        2001.11773.
    """
    return on_cells(step, _Thresholded())


def transfer(
    step: Step,
    device: Device | str,
    gamma: float = 0.1,
    every: int = 1,
    columns: str = "all",
    buffer: bool = True,
    most: int = _MOST,
) -> optax.GradientTransformationExtraArgs:
    """Lets a fast array take the pulses, and the weight learn from what is read there (Tiki-Taka).

        A += pulses(change)                                           at each update
        H += gamma (A - A0);   C += trunc(H / step) pulses            at every `every`-th, with a digital buffer (TTv2)
        C += pulses(gamma (A - A0))                                   without it (TTv1)

    `A0` are the symmetry points of the cells of `A`, which alternating pulses find before training; `A` starts there.
    There noisy pulses up and down cancel, so that what stays in `A` is the mean gradient. `C` is the weight of the
    model, the only array that its reads see.

    Args:
        step: As for `pulsed`, for the fast array.
        device: The cells of the fast arrays, or their name. They differ with the first weights, and so with the seed.
        gamma: The part of `A` that is transferred, above 0.
        every: Updates between two transfers.
        columns: What a transfer reads: `"all"` columns, or `"one"`, the next.
        buffer: Whether a digital buffer sums what is read.
        most: Pulses of one cell in one update, at most.

    Returns:
        As `pulsed`. Counts include the pulses of the fast array, and the columns of it that are read, which a `ledger`
        of the state takes for reads.

    Raises:
        ValueError: If a number or a name is out of range.

    References:
        Gokmen and Haensch, Algorithm for training neural networks on resistive device arrays, Front. Neurosci. 2020,
        arXiv 1909.07908 (TTv1). Gokmen, Enabling training of neural networks on noisy hardware, Front. AI 2021 (TTv2).
    """
    if columns not in ("all", "one"):
        raise ValueError(f"expected columns as 'all' or 'one', got {columns!r}")
    check("gamma", gamma, lambda v: v > 0, "above 0")
    kind = Device.preset(device) if isinstance(device, str) else device
    if not isinstance(kind, Device):
        raise TypeError(f"expected a vicinal.hardware.Device or its name for the fast arrays, got {device!r}")
    counts = check_count("every", every), check_count("most", most)
    return on_cells(step, _Transfer(kind, gamma, counts[0], columns == "one", buffer, counts[1]))


def coincident(learning_rate: optax.ScalarOrSchedule, most: int = _MOST) -> optax.GradientTransformationExtraArgs:
    """Changes cells where random pulses on a row and a column meet: gradient descent without an outer product.

        length   BL = min(ceil(lr max|x| max|d| / (s step)), most)
        rows     p_j = min(1, A k |x_j|)        A = sqrt(lr / (s step BL)),  k = sqrt(max|d| / max|x|)
        columns  q_i = min(1, A |d_i| / k)
        pulses   n_ij = sum over BL slots of [row j fires] [column i fires],  in the direction of x_j d_i

    While no probability saturates, the mean change is `lr d x^T`. The examples of a batch are taken one after another,
    each with the learning rate divided by their number.

    Args:
        learning_rate: The learning rate, or a schedule.
        most: Slots of one update, at most.

    Returns:
        As `pulsed`. It needs the gradient of each example, which rules with phases give it.

    Raises:
        ValueError: From `update`, if the rule has no gradient for each example, or a weight is used at several places;
            `pulsed` does not need that.

    References:
        As `pulsed`.
    """
    return on_cells(learning_rate, _Coincident(check_count("most", most)))


# --------------------------------------------------------------------------------------------- what each delivers


def _rounded(change: Array, step: Array, most: int, key: PRNGKeyArray) -> Array:
    """Signed pulses for a change, rounded at random."""
    count = jnp.floor(jnp.abs(change) / step + uniform(key, change.shape, change.dtype))
    return jnp.sign(change) * jnp.minimum(count, jnp.asarray(most, change.dtype))


def _one(stored: Stored, count: Array, key: PRNGKeyArray, most: int | None = None) -> Delivered:
    weight, scale, cells = stored
    return Delivered(cells.pulsed(weight, count, key, most, scale), count, ())


class _Pulsed(Delivery):
    most: int = eqx.field(static=True)

    def deliver(self, stored: Stored, change: Array, state: Any, count: Array, key: PRNGKeyArray) -> Delivered:
        rounding, noise = jax.random.split(key)
        return _one(stored, _rounded(change, stored.cells.step, self.most, rounding), noise, self.most)


class _Thresholded(Delivery):
    def first(self, weight: Array) -> Any:
        return jnp.zeros_like(weight)

    def deliver(self, stored: Stored, change: Array, state: Any, count: Array, key: PRNGKeyArray) -> Delivered:
        held, step = state + change, stored.cells.step
        number = jnp.trunc(held / step)
        return _one(stored, number, key)._replace(state=held - number * step)


class _Fast(eqx.Module):
    """The fast array of a weight: its cells, their weights and symmetry points, and the rest of what was read."""

    cells: Cells
    weights: Float[Array, "..."]
    symmetry: Float[Array, "..."]
    buffer: Float[Array, "..."] | None


class _Transfer(Delivery):
    device: Device
    gamma: Any
    every: int = eqx.field(static=True)
    one_column: bool = eqx.field(static=True)
    buffered: bool = eqx.field(static=True)
    most: int = eqx.field(static=True)
    has_fast_array: ClassVar[bool] = True

    def first(self, weight: Array) -> _Fast:
        key = jax.random.fold_in(jax.random.key(0), digest(weight))
        cells = self.device.draw(weight.shape, weight.dtype, key=key)
        symmetry = cells.symmetry_points
        return _Fast(cells, symmetry, symmetry, jnp.zeros_like(weight) if self.buffered else None)

    def deliver(self, stored: Stored, change: Array, state: _Fast, count: Array, key: PRNGKeyArray) -> Delivered:
        keys, step, most = jax.random.split(key, 4), stored.cells.step, None
        wanted = _rounded(change, state.cells.step, self.most, keys[0])
        fast = state.cells.pulsed(state.weights, wanted, keys[1], self.most)
        is_read = self._is_read(fast.shape, count + 1)
        read = jnp.asarray(self.gamma, fast.dtype) * (fast - state.symmetry)
        read = jnp.where(is_read, read, jnp.zeros((), fast.dtype))
        if state.buffer is None:
            number, buffer, most = _rounded(read, step, self.most, keys[2]), None, self.most
        else:
            held = state.buffer + read
            number = jnp.trunc(held / step)
            buffer = held - number * step
        kept = _Fast(state.cells, fast, state.symmetry, buffer)
        columns = jnp.sum(is_read[:1], dtype=jnp.int32)
        return _one(stored, number, keys[3], most)._replace(state=kept, elsewhere=wanted, columns=columns)

    def _is_read(self, shape: tuple[int, ...], count: Array) -> Array:
        """Which cells of the fast array are read after this many updates."""
        now = count % self.every == 0
        if not self.one_column:
            return jnp.broadcast_to(now, shape)
        number = math.prod(shape[1:])
        column = jnp.arange(number, dtype=count.dtype).reshape(1, *shape[1:])
        return jnp.broadcast_to(now & (column == (count // self.every - 1) % number), shape)


class _Coincident(Delivery):
    most: int = eqx.field(static=True)
    by_example: ClassVar[bool] = True

    def deliver(self, stored: Stored, change: Array, state: Any, count: Array, key: PRNGKeyArray) -> Delivered:
        rows, columns, noise = jax.random.split(key, 3)
        size, dtype, step = jnp.abs(change), change.dtype, stored.cells.step
        largest = jnp.max(size)
        zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)
        safe = jnp.where(largest > 0, largest, one)
        # The change is -lr d x^T: the row and the column of its largest entry are x and d, up to their sizes.
        at = jnp.argmax(size)
        x, d = size[at // size.shape[1]] / safe, size[:, at % size.shape[1]] / safe
        slots = jnp.minimum(jnp.ceil(largest / step), jnp.asarray(self.most, dtype))
        height = jnp.sqrt(largest / (step * jnp.maximum(slots, one)))  # A sqrt(max|x| max|d|)
        exists = jnp.arange(self.most, dtype=dtype)[:, None] < slots
        fired = [
            (jax.random.uniform(key, (self.most, len(side)), dtype) < jnp.minimum(one, height * side[None])) & exists
            for key, side in ((rows, x), (columns, d))
        ]
        met = fired[1].astype(dtype).T @ fired[0].astype(dtype)
        return _one(stored, jnp.where(largest > 0, jnp.sign(change) * met, zero), noise, self.most)

    def check(self, name: str, weight: Array, examples: ExampleGradients | None) -> None:
        if examples is None:
            raise ValueError(
                "expected a rule that gives `coincident` the gradient of each example, got one without; take `pulsed`"
            )
        if weight.ndim != 2 or examples.uses(name) > 1:
            why = "the kernel of a convolution" if weight.ndim != 2 else "a matrix that is used more than once"
            raise ValueError(
                f"expected matrices that one vector of each example enters, got {name.lstrip('.')}, {why}; take "
                "`pulsed`"
            )
