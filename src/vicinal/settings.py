"""The settings of a run as plain data, which the command line reads and `config.json` stores."""

import collections
import dataclasses
from collections.abc import Collection
from typing import Any, Literal, Self

import optax
from jaxtyping import PRNGKeyArray, PyTree

from vicinal import feedback, losses, nn
from vicinal._assignment import assignment as assignment
from vicinal._memory import check_room
from vicinal._nearest import did_you_mean
from vicinal._numbers import check, check_count, check_counts, check_seconds, positive
from vicinal.config import (
    CONFIG as CONFIG,
    kept_config as kept_config,
    last_files as last_files,
    read_config as read_config,
)
from vicinal.data import Dataset, load
from vicinal.data.targets import TaskKind
from vicinal.event_settings import EventSettings as EventSettings, check_begun_anew
from vicinal.feedback import Route
from vicinal.feedback.named import ROUTES, FeedbackName
from vicinal.hardware_settings import HARDWARE, HardwareSettings, hardware_numbers
from vicinal.inference_settings import InferenceSettings as InferenceSettings
from vicinal.recipes import Made, recipe, with_route
from vicinal.rules import Rule

PAGE, RESULTS, CURVES = "report.html", "results.json", "curves.csv"
"""The file of results that a comparison, a sweep or an experiment writes into its folder."""

_LAYER_BYTES = 10_000  # at the least, of a layer's equations while it is captured and compiled

LossName = Literal["softmax_cross_entropy", "squared_error", "sigmoid_cross_entropy", "sigmoid_squared_error"]
_READ_BY = {
    "preset": ("vertex_at",),
    "mlp": ("sizes", "activation", "shift", "vertex_at"),
    "autoencoder": ("sizes", "activation", "shift", "vertex_at"),
    "recurrent": ("sizes", "activation", "shift", "vertex_at"),
    "convolutional": ("sizes", "activation", "shift", "vertex_at", "channels", "kernel_size", "stride"),
    "residual": ("sizes", "activation", "shift", "vertex_at", "depth"),
    "transformer": ("sizes", "depth"),
}


@dataclasses.dataclass(frozen=True)
class ModelSettings(HardwareSettings):
    """The network."""

    kind: Literal["mlp", "convolutional", "autoencoder", "recurrent", "residual", "transformer"] = "mlp"
    """Family of the network."""
    preset: str | None = None
    """An architecture of a paper instead (mnist-mlp, cifar-mlp, cifar-conv, cifar-autoencoder-100, ...)."""
    sizes: tuple[int, ...] = ()
    """Units of each layer, input and output included; by default two hidden layers of 64. For a convolutional net, the
    units of the layers after the convolutions, output included; for a recurrent or residual net, only the units of a
    hidden layer (64); for a transformer, the features of its stream (32)."""
    depth: int | None = None
    """Total weight layers, input and output layers included (residual; by default 8); blocks (transformer; by default
    1)."""
    channels: tuple[int, ...] = (16, 32)
    """Output channels of each convolution (convolutional)."""
    kernel_size: int = 3
    """Side of the kernels, in pixels (convolutional)."""
    stride: int = 2
    """Stride of the convolutions, in pixels (convolutional)."""
    activation: str = "tanh"
    """Activation function: tanh, relu, sigmoid, gelu, silu, softplus, leaky_relu or identity; not for a transformer."""
    vertex_at: Literal["post", "pre"] = "post"
    """Whether a vertex holds the firing rate (post) or the potential (pre)."""
    feedback: FeedbackName | None = None
    """What carries errors back in every linear and convolutional layer; by default the recipe's feedback, or the
    layer's transposed weight."""

    feedback_learning_rate: float = 0.003
    """Learning rate of feedback that is set here and learns from its own penalty (Adam)."""
    shift: float = 0.0
    """Constant added to every firing rate, so that rates are positive."""

    @property
    def reconstructs(self) -> bool:
        """Whether the targets are the inputs."""
        return self._preset().reconstructs if self.preset else self.kind == "autoencoder"

    def check(self) -> None:
        """Checks the settings that do not depend on the data.

        Raises:
            ValueError: If a setting is given that this kind of model does not use.
            MemoryError: If there are more layers than memory can hold.
        """
        check_room((self.depth or 0) * _LAYER_BYTES, f"{self.depth} layers", "take fewer")
        family = "preset" if self.preset else self.kind
        self.check_hardware()
        read = {"preset", "kind", "feedback", *HARDWARE, *_READ_BY[family]}
        if self.feedback is not None:
            read.add("feedback_learning_rate")
        for field in dataclasses.fields(self):
            if field.name not in read and getattr(self, field.name) != field.default:
                raise ValueError(
                    f"expected only settings that the model ({family}) reads, got model.{field.name}; leave it out"
                )
        if self.preset and self.kind != "mlp":
            raise ValueError("expected either a preset or a kind of model, got both; leave one out")

    def shaped(self, data: Dataset) -> Dataset:
        """Returns the data set in the shape that the network reads."""
        self.check()
        if self.preset:
            data = data.channels_first() if self._preset().inputs == "images" else data.flattened()
        elif self.kind == "convolutional":
            data = data.channels_first()
        elif self.kind not in ("recurrent", "transformer"):
            data = data.flattened()
        elif len(data.shape) == 3:  # colour images are also read row by row
            rows = [x.reshape(*x.shape[:2], -1) for x in (data.x_train, data.x_test)]
            data = dataclasses.replace(data, x_train=rows[0], x_test=rows[1])
        return data.as_autoencoding() if self.reconstructs else data

    def build(self, data: Dataset, route: Route | None = None, *, key: PRNGKeyArray) -> PyTree:
        """Builds the network for a data set from `shaped`; `route` is a recipe's feedback, used unless set here."""
        if self.feedback is not None:
            route = ROUTES[self.feedback]()
        return self.placed(with_route(self._build(data, key), route, key=key), key=key)

    def _build(self, data: Dataset, key: PRNGKeyArray) -> PyTree:
        if self.preset:
            return nn.preset(self.preset, vertex_at=self.vertex_at, key=key)
        activation = nn.shifted(self.activation, self.shift) if self.shift else self.activation
        common: dict[str, Any] = {"activation": activation, "vertex_at": self.vertex_at, "key": key}
        if self.reconstructs:
            return nn.Autoencoder(self.sizes or (data.features, 64, 16, 64, data.features), **common)
        outputs = data.outputs
        if self.kind == "convolutional":
            layers = [(channels, self.kernel_size, self.stride) for channels in self.channels]
            channels, height, width = data.shape
            return nn.ConvNet((channels, height, width), layers, self.sizes or (outputs,), **common)
        if self.kind == "recurrent":
            return nn.RNN(data.shape[-1], self._one_size("the hidden units", 64), outputs, **common)
        if self.kind == "residual":
            sizes = (data.features, self._one_size("the width", 64), outputs)
            return nn.ResidualMLP(sizes, 8 if self.depth is None else self.depth, **common)
        if self.kind == "transformer":
            sizes = (data.shape[-1], self._one_size("the features", 32), outputs)
            return nn.Transformer(*sizes, depth=1 if self.depth is None else self.depth, length=data.shape[0], key=key)
        return nn.MLP(self.sizes or (data.features, 64, 64, outputs), **common)

    def _one_size(self, which: str, default: int) -> int:
        if len(self.sizes) > 1:
            raise ValueError(f"expected one size, {which}, for a {self.kind} network, got {self.sizes}")
        return self.sizes[0] if self.sizes else default

    def _preset(self) -> nn.Preset:
        if self.preset not in nn.PRESETS:
            hint = did_you_mean(str(self.preset), nn.PRESETS)
            raise ValueError(f"expected a preset of {', '.join(nn.PRESETS)}, got {self.preset!r}{hint}")
        return nn.PRESETS[self.preset]


_INFERENCE, _EVENTS = InferenceSettings(), EventSettings()


@dataclasses.dataclass(frozen=True)
class TaskSettings:
    """Model, data and training, independent of the rule."""

    data: str = "digits"
    """A data set: digits (built in), mnist, fashion_mnist, cifar10; or a path: an .npz file, a table (.csv, .parquet),
    or a folder with a subfolder of images for each class."""
    target: str | None = None
    """Column of a table to predict; by default one called target, label, y or class, otherwise the last."""
    inputs: tuple[str, ...] = ()
    """Columns of a table to predict it from; by default all others."""
    task: TaskKind | None = None
    """Whether ambiguous targets are labels or numbers to predict; by default integers from 0 are labels."""
    test_share: float | None = None
    """Share of the examples for testing, if the data have no test set (by default 0.2 of each class)."""
    validation: float | None = None
    """Share of the training examples to hold out for validation."""
    standardize: Literal["inputs", "all"] | None = None
    """Standardise inputs (or also numeric targets) to mean 0 and standard deviation 1 over the training examples."""
    image_size: tuple[int, int] | None = None
    """Height and width that the images of a folder are resized to, in pixels."""
    model: ModelSettings = ModelSettings()
    loss: LossName | None = None
    """Loss; by default softmax_cross_entropy for labels, squared_error for numbers, sigmoid_cross_entropy for
    reconstruction."""
    inference: InferenceSettings = _INFERENCE
    events: EventSettings = _EVENTS
    learning_rate: float | None = None
    """Learning rate of the weights; by default the recipe's."""
    clip: float | None = None
    """Largest global norm of a gradient; a larger gradient is scaled down to it."""
    set: tuple[str, ...] = ()
    """Other hyper-parameters of the recipes, each NAME=VALUE: eps=0.5, b1=0.95, inference.pull=0.5, ..."""
    epochs: int = 30
    """Passes through the training examples."""
    batch_size: int = 32
    """Examples in a batch."""
    evaluate_every: int | None = None
    """Steps between evaluations on the test examples; by default an epoch
    (a quarter of one in a comparison)."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints; one is also written at the end and when the run is interrupted."""
    keep: int = 1
    """Checkpoints to keep. Earlier ones go into the folder earlier/; if the newest is damaged, the run resumes from the
    one before."""

    def check(self) -> None:
        """Checks the counts, typed ones and those of a file alike, before anything is loaded.

        Raises:
            TypeError: If a count is not an integer.
            ValueError: If a count is below 1, or the time between checkpoints is no finite number of at least 0.
        """
        check_counts(epochs=self.epochs, batch_size=self.batch_size, keep=self.keep)
        optional = {"evaluate_every": self.evaluate_every, "model.depth": self.model.depth}
        optional |= {"inference.steps": self.inference.steps, "events.steps": self.events.steps}
        sides = {"model.kernel_size": (self.model.kernel_size,), "model.stride": (self.model.stride,)}
        sides |= {f"model.{name}": getattr(self.model, name) for name in ("sizes", "channels")}
        check_counts(**{name: value for name, value in optional.items() if value is not None})
        for name, values in sides.items():
            for value in values:
                check_count(name, value)
        check_seconds("checkpoint_seconds", self.checkpoint_seconds)

    def load(self) -> Dataset:
        """The data set in the shape that the network reads.

        Raises:
            ValueError: If a number is out of range.
        """
        self.check()
        given: Any = {name: getattr(self, name) for name in ("target", "test_share", "task", "image_size")}
        data = load(self.data, inputs=self.inputs or None, **given)
        if self.standardize is not None:
            data = data.standardized(targets=self.standardize == "all")
        data = self.model.shaped(data)
        return data

    def resolved(self, data: Dataset) -> Self:
        """Returns the settings with the loss that fits the targets of a data set from `load`.

        Raises:
            ValueError: If the targets are numbers and the loss expects labels.
        """
        numbers = data.classes is None and not self.model.reconstructs
        if self.loss is None:
            return dataclasses.replace(self, loss="squared_error") if numbers else self
        if numbers and self.loss == "softmax_cross_entropy":
            raise ValueError(
                f"expected labels for {self.loss}, got numbers in {data.name}; give --loss squared_error, or --task "
                "classification if each of them names a class"
            )
        return self

    def training(self) -> dict[str, Any]:
        """The arguments of `fit` and `sweep` that are given here."""
        names = ("epochs", "batch_size", "validation", "evaluate_every", "checkpoint_seconds", "keep")
        return {name: getattr(self, name) for name in names}

    def make(self, *names: str, **varied: float) -> dict[str, Made]:
        """Makes the rule and the optimiser of each recipe, with the settings given here.

        Args:
            *names: Recipes.
            **varied: Numbers that take precedence over those given here, `vicinal.hardware_settings.hardware_numbers`
                included; they may be traced.

        Raises:
            ValueError: If a recipe is unknown, a setting is out of range or unknown to all recipes, or inference or
                events are set and no rule settles or sends them.
        """
        default = "sigmoid_cross_entropy" if self.model.reconstructs else "softmax_cross_entropy"
        of_model = {name: varied.pop(name) for name in hardware_numbers() if name in varied}
        loss, numbers, made, read = getattr(losses, self.loss or default), self._numbers() | varied, {}, set()
        self._check_given_once(varied)
        for name in names:
            rule, optimizer = recipe(name).make(loss, change=self._changed, **numbers)
            read |= {f"inference.{own}" for own in self.inference.read_by(rule)}
            read |= {f"events.{own}" for own in self.events.read_by(rule)}
            check_begun_anew(rule)
            if self.clip is not None:
                optimizer = optax.chain(optax.clip_by_global_norm(positive("clip", self.clip)), optimizer)
            if self.model.feedback is not None:
                rate = self.model.feedback_learning_rate
                check("model.feedback_learning_rate", rate, lambda v: v >= 0, "of at least 0")
                optimizer = feedback.optimizers(optimizer, optax.adam(rate))
            rate = numbers.get("learning_rate", recipe(name).learning_rate)
            made[name] = rule, self.model.delivered(optimizer, rate, of_model)
        given = [f"inference.{name}" for name in self.inference.given()]
        for name in (*given, *(f"events.{name}" for name in self.events.given())):
            if name not in read:
                raise ValueError(f"expected a rule that reads {name}, got {' '.join(names)}; leave it out")
        return made

    def _changed(self, rule: Rule) -> Rule:
        return self.events.apply(self.inference.apply(rule))

    def _numbers(self) -> dict[str, Any]:
        """The hyper-parameters of recipes that are given here, by name."""
        numbers: dict[str, Any] = {} if self.learning_rate is None else {"learning_rate": self.learning_rate}
        for name, values in map(assignment, self.set):
            if len(values) != 1:
                raise ValueError(f"expected one value of {name}, got {len(values)}; `vicinal sweep` varies numbers")
            numbers[name] = values[0]
        return numbers

    def _check_given_once(self, varied: Collection[str]) -> None:
        """Raises ValueError if a number is given in two places."""
        given = [*varied, *(name for name, _ in map(assignment, self.set)), *self.inference.given()]
        given += self.events.places()
        given += ["learning_rate"] * (self.learning_rate is not None)
        counts = collections.Counter(name.removeprefix("inference.") for name in given)
        for name, count in counts.items():
            if count > 1:
                raise ValueError(f"expected {name} in one place, got it in {count}; leave the others out")
