"""What a run is made of, as plain data: what the command line reads and `config.json` keeps."""

import dataclasses
import math
from collections.abc import Collection
from typing import Any, Literal, Self

import optax
from jaxtyping import PRNGKeyArray, PyTree

from vicinal import feedback, losses, nn
from vicinal._assignment import assignment as assignment
from vicinal._nearest import did_you_mean
from vicinal._numbers import positive
from vicinal.config import CONFIG as CONFIG, kept_config as kept_config, read_config as read_config
from vicinal.data import Dataset, load
from vicinal.data.targets import TaskKind
from vicinal.feedback import Route
from vicinal.feedback.named import ROUTES, FeedbackName
from vicinal.inference import Adaptive, ErrorBased, Inference, Sequential, Simultaneous
from vicinal.recipes import Made, recipe, with_route
from vicinal.rules import Rule

PAGE, RESULTS, CURVES = "report.html", "results.json", "curves.csv"
"""What a comparison, a sweep or an experiment writes into its folder beside them."""

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
class ModelSettings:
    """Which network."""

    kind: Literal["mlp", "convolutional", "autoencoder", "recurrent", "residual", "transformer"] = "mlp"
    """Family of the network."""
    preset: str | None = None
    """An architecture of a paper instead (mnist-mlp, cifar-mlp, cifar-conv, cifar-autoencoder-100, ...)."""
    sizes: tuple[int, ...] = ()
    """Units of each layer, input and output included; by default the data's, with two hidden layers of 64. For a
    convolutional net those of the layers after the convolutions, output included; for a recurrent or a residual one
    the units of a hidden layer alone (64), for a transformer the features of its stream (32)."""
    depth: int | None = None
    """Weight layers in all, those of the input and of the output included (residual; by default 8); blocks
    (transformer; by default 1)."""
    channels: tuple[int, ...] = (16, 32)
    """Output channels of each convolution (convolutional)."""
    kernel_size: int = 3
    """Side of the kernels, in pixels (convolutional)."""
    stride: int = 2
    """Of the convolutions, in pixels (convolutional)."""
    activation: str = "tanh"
    """tanh, relu, sigmoid, gelu, silu, softplus, leaky_relu or identity; a transformer has its own."""
    vertex_at: Literal["post", "pre"] = "post"
    """Whether a vertex holds the firing rate (post) or the potential (pre)."""
    feedback: FeedbackName | None = None
    """What carries errors back in every linear and convolutional layer; by default what the recipe says, or the
    layer's own weight, transposed."""

    feedback_learning_rate: float = 0.003
    """Of feedback that is set here and learns by a penalty of its own (Adam)."""
    shift: float = 0.0
    """Constant added to every firing rate, so that rates are positive."""

    @property
    def reconstructs(self) -> bool:
        """Whether the targets are the inputs."""
        return self._preset().reconstructs if self.preset else self.kind == "autoencoder"

    def check(self) -> None:
        """Raises ValueError if a setting is given that the kind of model does not read."""
        family = "preset" if self.preset else self.kind
        read = {"preset", "kind", "feedback", *_READ_BY[family]}
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
        """The data set in the shape that the network reads."""
        self.check()
        if self.preset:
            data = data.channels_first() if self._preset().inputs == "images" else data.flattened()
        elif self.kind == "convolutional":
            data = data.channels_first()
        elif self.kind not in ("recurrent", "transformer"):
            data = data.flattened()
        elif len(data.shape) == 3:  # a colour image is read row by row too
            rows = [x.reshape(*x.shape[:2], -1) for x in (data.x_train, data.x_test)]
            data = dataclasses.replace(data, x_train=rows[0], x_test=rows[1])
        return data.as_autoencoding() if self.reconstructs else data

    def build(self, data: Dataset, route: Route | None = None, *, key: PRNGKeyArray) -> PyTree:
        """The network for a data set that `shaped` returned; `route` is a recipe's feedback, set by none here."""
        if self.feedback is not None:
            route = ROUTES[self.feedback]()
        return with_route(self._build(data, key), route, key=key)

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


@dataclasses.dataclass(frozen=True)
class InferenceSettings:
    """How activities settle, for rules that settle; by default as the recipe says."""

    strategy: Literal["simultaneous", "sequential", "error-based", "adaptive"] | None = None
    """How they settle in inference learning; what is common to both carries over from the recipe's own strategy."""
    steps: int | None = None
    """Inference steps for each update."""
    step_size: float | None = None
    """Step size of the activities."""
    decay: bool | None = None
    """Whether step t, from 0, is divided by 1 + t."""
    momentum: float | None = None
    """Momentum of the activities, in [0, 1)."""
    tolerance: float | None = None
    """Stop an example when none of its activities moves faster than this."""
    order: Literal["sequential", "simultaneous"] | None = None
    """Whether errors relax from the output down or all at once (fixed prediction, activation relaxation)."""
    nudge: float | None = None
    """In (0, 1]: how far the output is pulled to the target; 1 clamps it."""
    start: Literal["feedforward", "random"] | None = None
    """Where the activities begin."""
    precision: float | None = None
    """Of every vertex."""
    positive: bool | None = None
    """Whether activities are firing rates, which do not go below 0."""
    output_norm: Literal["example", "mean", "sum"] | None = None
    """Over what a proximal output takes its presynaptic norm; sum over the batch is the slip of published code."""

    def given(self) -> dict[str, Any]:
        """What is set here, by name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    def apply(self, rule: Rule) -> Rule:
        """The rule with what is set here in place of its own; what it does not read is left out.

        Raises:
            ValueError: If the strategy chosen does not read a setting that the recipe has.
        """
        chosen = self.given()
        changed = _read(type(rule), chosen)
        if (inference := getattr(rule, "inference", None)) is not None:
            kind = self._strategy(inference)
            settled = kind(**_read(kind, vars(inference) | chosen))
            changed |= {"inference": settled} if self.strategy or _read(kind, chosen) else {}
        if self.output_norm and (proximal := getattr(rule, "proximal", None)) is not None:
            changed |= {"proximal": dataclasses.replace(proximal, norm=self.output_norm)}
        return dataclasses.replace(rule, **changed) if changed else rule

    def read_by(self, rule: Rule) -> set[str]:
        """The names of what is set here and read by the rule."""
        inference = getattr(rule, "inference", None)
        names = {*_read(type(rule), self.given())}
        names |= set() if inference is None else {"strategy", *_read(self._strategy(inference), self.given())}
        names |= {"output_norm"} if getattr(rule, "proximal", None) is not None else set()
        return names & set(self.given())

    def _strategy(self, inference: Inference) -> type[Inference]:
        kind = _STRATEGIES[self.strategy] if self.strategy else type(inference)
        reads = {field.name for field in dataclasses.fields(kind)}
        for name, neutral in (("pull", 1.0), ("momentum", None), ("positive", False)):
            own = getattr(inference, name, neutral)
            if name not in reads and own is not None and own != neutral:
                raise ValueError(f"expected a strategy that reads {name}, which the recipe sets, got {self.strategy}")
        return kind


_STRATEGIES = {
    "simultaneous": Simultaneous,
    "sequential": Sequential,
    "error-based": ErrorBased,
    "adaptive": Adaptive,
}


def _read(kind: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Those of some values that are fields of a dataclass."""
    return {field.name: values[field.name] for field in dataclasses.fields(kind) if field.name in values}


@dataclasses.dataclass(frozen=True)
class TaskSettings:
    """What is learned, whatever the rule."""

    data: str = "digits"
    """A data set: digits (embedded), mnist, fashion_mnist, cifar10; or a path: an .npz file, a table (.csv, .parquet),
    a folder with a folder of images for each class."""
    target: str | None = None
    """Column of a table to predict; by default one called target, label, y or class, else the last."""
    inputs: tuple[str, ...] = ()
    """Columns of a table to predict it from; by default all others."""
    task: TaskKind | None = None
    """Whether targets are labels or numbers to predict, where they do not tell: whole numbers are labels from 0."""
    test_share: float | None = None
    """Share of the examples for testing, where the data do not say which (0.2, as large a part of each class)."""
    validation: float | None = None
    """Share of the training examples to keep from training and measure on beside the test examples."""
    standardize: Literal["inputs", "all"] | None = None
    """Bring each input (or targets that are numbers, too) to mean 0 and deviation 1 over the training examples."""
    image_size: tuple[int, int] | None = None
    """Height and width that the images of a folder are resized to, in pixels."""
    model: ModelSettings = ModelSettings()
    loss: LossName | None = None
    """By default softmax_cross_entropy for labels, squared_error for numbers, sigmoid_cross_entropy for
    reconstruction."""
    inference: InferenceSettings = InferenceSettings()
    learning_rate: float | None = None
    """Of the weights; by default the recipe's."""
    clip: float | None = None
    """Largest norm of a gradient, all parameters together; a larger one is scaled down to it."""
    set: tuple[str, ...] = ()
    """Other numbers of the recipes, NAME=VALUE each: eps=0.5, b1=0.95, inference.pull=0.5, ..."""
    epochs: int = 30
    """Passes through the training examples."""
    batch_size: int = 32
    """Examples in a batch."""
    evaluate_every: int | None = None
    """Steps between evaluations on the test examples; by default an epoch
    (a quarter of one in a comparison)."""

    def load(self) -> Dataset:
        """The data set in the shape that the network reads.

        Raises:
            ValueError: If epochs, batch size or evaluation interval do not fit it.
        """
        given: Any = {name: getattr(self, name) for name in ("target", "test_share", "task", "image_size")}
        data = load(self.data, inputs=self.inputs or None, **given)
        if self.standardize is not None:
            data = data.standardized(targets=self.standardize == "all")
        data = self.model.shaped(data)
        for name in ("epochs", "batch_size", "evaluate_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"expected {name.replace('_', ' ')} of at least 1, got {value}")
        if self.batch_size > len(data.x_train):
            raise ValueError(f"expected a batch size from 1 to {len(data.x_train)}, got {self.batch_size}")
        return data

    def resolved(self, data: Dataset) -> Self:
        """The settings with the loss that belongs to the targets of a data set that `load` returned.

        Raises:
            ValueError: If the targets are numbers and the loss reads labels.
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

    def make(self, *names: str, **varied: float) -> dict[str, Made]:
        """The rule and the optimiser of each recipe, with what is set here in place of its own.

        Args:
            *names: Recipes.
            **varied: Numbers that go before those set here; they may be traced.

        Raises:
            ValueError: If a recipe is unknown, a setting is out of its range or not known to any recipe, or inference
                is set and no rule settles.
        """
        made = {name: self._make(name, varied) for name in names}
        read = set().union(*(self.inference.read_by(rule) for rule, _ in made.values()))
        for name in self.inference.given():
            if name not in read:
                raise ValueError(f"expected a rule that reads inference.{name}, got {' '.join(names)}; leave it out")
        return made

    def _make(self, name: str, varied: dict[str, float]) -> Made:
        numbers: dict[str, Any] = self._numbers(varied) | varied
        rate = numbers.pop("learning_rate", self.learning_rate)
        if isinstance(rate, int | float) and not 0 <= rate < math.inf:
            raise ValueError(f"expected a learning rate of at least 0, got {rate}")
        default = "sigmoid_cross_entropy" if self.model.reconstructs else "softmax_cross_entropy"
        chosen, loss = recipe(name), getattr(losses, self.loss or default)
        own = {n: numbers.pop(n) for n in chosen.numbers if n in numbers}
        rule, optimizer = chosen.make(loss, learning_rate=rate, **own)
        rule = chosen.with_numbers(self.inference.apply(rule), **numbers)
        if self.clip is not None:
            optimizer = optax.chain(optax.clip_by_global_norm(positive("clip", self.clip)), optimizer)
        if self.model.feedback is not None:
            optimizer = feedback.optimizers(optimizer, optax.adam(self.model.feedback_learning_rate))
        return rule, optimizer

    def _numbers(self, varied: Collection[str]) -> dict[str, float]:
        """What `set` says.

        Raises:
            ValueError: If a number is given in two places, or as no single value.
        """
        given = [*(name.removeprefix("inference.") for name in varied), *self.inference.given()]
        given += ["learning_rate"] * (self.learning_rate is not None)
        numbers = {}
        for name, values in map(assignment, self.set):
            if len(values) != 1:
                raise ValueError(f"expected one value of {name}, got {len(values)}; `vicinal sweep` varies numbers")
            numbers[name] = values[0]
            given.append(name.removeprefix("inference."))
        for name in given:
            if given.count(name) > 1:
                raise ValueError(f"expected {name} in one place, got it in {given.count(name)}; leave the others out")
        return numbers
