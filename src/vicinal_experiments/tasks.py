"""The tasks that several experiments train on."""

from typing import Any

from vicinal.settings import ModelSettings, TaskSettings
from vicinal.task import Task


def task_of(data: str, preset: str | None = None, **model: Any) -> Task:
    """A task with its data loaded: a preset, or a ReLU network with vertices at potentials, as the papers have it."""
    activation = {"activation": "relu"} if preset is None else {}
    chosen: dict[str, Any] = {"preset": preset, "vertex_at": "pre", **activation, **model}
    return Task(TaskSettings(data=data, model=ModelSettings(**chosen)))


def classifier(data: str) -> Task:
    """784-256-256-10 for MNIST and Fashion-MNIST, the preset's layers for CIFAR-10, 64-64-64-10 for the digits."""
    if data == "digits":
        return task_of("digits", kind="mlp", sizes=(64, 64, 64, 10))
    return task_of(data, preset="cifar-mlp" if data == "cifar10" else "mnist-mlp")


def autoencoder(data: str, bottleneck: int) -> Task:
    """CIFAR-10 through a bottleneck of `bottleneck` units, or the digits through one of 20."""
    if data == "digits":
        return task_of("digits", kind="autoencoder", sizes=(64, 48, 32, 20, 32, 48, 64))
    return task_of(data, preset=f"cifar-autoencoder-{bottleneck}")
