"""Training by sequential and by simultaneous inference, and what is measured of it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import optax

from vicinal.optim import mq
from vicinal.reproduce import Run, Size, Variant, rows
from vicinal.rules import Backprop, Rule
from vicinal.task import Task
from vicinal.train import Member, keys_of
from vicinal_experiments.mq.layers import (
    STRATEGIES,
    errors_along,
    measure_sizes,
    record_sizes,
    settling,
    sizes_in_second_half,
)
from vicinal_experiments.tasks import task_of
from vicinal_experiments.variants import rule_variant

BP, PURE = "BP-Adam", "SeqIL-MQ, r = rho = 0"


@dataclasses.dataclass(frozen=True, kw_only=True)
class InferenceSize(Size):
    """Networks of three and of four hidden layers, and how they are trained.

    Attributes:
        width: Units of a hidden layer.
        steps: Updates of 64 examples.
        inference_steps: The numbers of steps that are compared.
        learning_rate: Of Adam, where these are compared.
        small_rate: Of SeqIL-Adam, where sizes of updates are compared.
    """

    width: int
    steps: int
    inference_steps: tuple[int, ...]
    learning_rate: float
    small_rate: float


def measure(run: Run[InferenceSize]) -> dict[str, Any]:
    """Accuracy by number of inference steps, errors of each layer along inference, sizes of each matrix's updates."""
    size, shallow, deep = run.size, _network(run.size, 3), _network(run.size, 4)
    rules = {name: {t: settling(name, t) for t in size.inference_steps} for name in STRATEGIES}
    accuracy: dict[str, Any] = {
        name: {
            str(t): rows(
                _train(run, rule_variant(f"{name} {t}", rule, size.learning_rate, optimizer=optax.adam), shallow)
            )
            for t, rule in by_steps.items()
        }
        for name, by_steps in rules.items()
    }
    accuracy[BP] = rows(_train(run, rule_variant(BP, Backprop(), size.learning_rate, optimizer=optax.adam), shallow))
    sizes, trained = {}, []
    for label, (rule, optimizer, rate) in _optimizers(size).items():
        members = _train(run, _measured(f"sizes {label}", rule, optimizer, rate), deep)
        sizes[label] = sizes_in_second_half(members, size.steps)
        trained = members if label == "SeqIL-Adam" else trained
    run.say("errors of each layer along inference")
    models = {
        "at the start": [deep.build(keys_of(seed)[0]) for seed in range(run.seeds)],
        f"after {size.steps} updates": [member.model for member in trained],
    }
    errors = {stage: {name: errors_along(deep, found, name) for name in STRATEGIES} for stage, found in models.items()}
    return {"accuracy": accuracy, "errors": errors, "sizes": sizes}


def _network(size: InferenceSize, hidden: int) -> Task:
    (data,) = size.data
    inputs = {"digits": 64, "mnist": 784}[data]
    return task_of(data, kind="mlp", sizes=(inputs, *[size.width] * hidden, 10))


def _optimizers(size: InferenceSize) -> dict[str, tuple[Rule, Callable[..., Any], float]]:
    """Rules, steps and learning rates of the comparison of sizes: the paper's rates, for its CIFAR-10 MLP."""
    ours, small = settling("sequential", 3), 3e-5
    return {
        "SeqIL-SGD": (ours, optax.sgd, 0.75),
        "SeqIL-MQ": (ours, mq, small),
        PURE: (ours, lambda rate: mq(rate, floor=0.0, eps=0.0), small),
        "SeqIL-Adam": (ours, optax.adam, size.small_rate),
        "BP-SGD": (Backprop(), optax.sgd, 0.015),
    }


def _measured(label: str, rule: Rule, optimizer: Callable[..., Any], rate: float) -> Variant:
    return rule_variant(
        label,
        rule,
        rate,
        optimizer=lambda rate: optax.chain(optimizer(rate), measure_sizes()),
        measure=record_sizes,
    )


def _train(run: Run[InferenceSize], variant: Variant, task: Task) -> list[Member]:
    steps = run.size.steps
    return run.train(variant, task, steps=steps, batch_size=64, evaluate_every=steps // 2).members
