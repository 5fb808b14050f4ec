"""`vicinal export`."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax.numpy as jnp
import tyro
from jaxtyping import Array, PyTree

from vicinal import interchange
from vicinal.cli.folders import command_of
from vicinal.compare import TrainSettings
from vicinal.config import read_config
from vicinal.feedback import detach
from vicinal.hardware import remove
from vicinal.rules import SpikingInferenceLearning
from vicinal.spikes import Generator
from vicinal.task import Task
from vicinal.train import keys_of, load_model


@dataclasses.dataclass(frozen=True)
class SpikeSettings:
    """The spiking network of a NIR file."""

    area: float | None = None
    """Area of a spike: the activity that one spike stands for, times steps; by default that of the rule, or 1."""
    leak: float | None = None
    """Time constant of the charge of a unit, in steps; by default that of the rule, or no leak."""
    trace: float | None = None
    """Time constant of the low-pass of spikes, in steps; by default that of the rule, or 5."""
    dt: float = 1.0
    """The length of a step in the unit of time of the file."""
    traces: bool = True
    """Whether spikes pass a low-pass (LI) before the next weights."""


_SPIKES = SpikeSettings()


def export(
    folder: Annotated[Path, tyro.conf.Positional],
    file: Annotated[Path, tyro.conf.Positional],
    spikes: SpikeSettings = _SPIKES,
    best: bool = False,
) -> None:
    """Write the trained network of a run for other programs: NIR, safetensors or StableHLO.

    Args:
        folder: The folder of a run of `vicinal train`.
        file: What to write; the ending chooses the format: .nir, .safetensors or .stablehlo. Separate feedback is left
            out, and weights come off their arrays of cells.
        spikes: The spiking network of a NIR file.
        best: Whether to take the best network, which `vicinal train --patience` keeps, rather than the last.
    """
    if file.suffix not in _WRITE:
        raise ValueError(f"expected a file that ends in {', '.join(_WRITE)}, got {str(file)!r}")
    if file.suffix != ".nir" and spikes != _SPIKES:
        raise ValueError(
            f"expected settings of spikes only for a .nir file, got some for {str(file)!r}; leave them out"
        )
    command = command_of(folder)
    if command not in (None, "train"):
        raise ValueError(
            f"expected the folder of a `vicinal train`, got one of a `vicinal {command}`: {str(folder)!r}; load its "
            "networks in Python, with vicinal.train.load_model, and write them with vicinal.interchange"
        )
    settings = read_config(folder, TrainSettings)
    task = Task(settings, settings.seed, trains=False)
    like = task.build(keys_of(settings.seed)[0], settings.rule)
    model = detach(remove(load_model(folder, like, best=best)))
    file.parent.mkdir(parents=True, exist_ok=True)
    rule = task.settings.make(settings.rule)[settings.rule][0]
    generator = rule.activity if isinstance(rule, SpikingInferenceLearning) else Generator()
    _WRITE[file.suffix](file, model, jnp.asarray(task.data.x_train[0]), generator, spikes)
    print(f"network: {file}")


def _write_nir(file: Path, model: PyTree, example: Array, generator: Generator, spikes: SpikeSettings) -> None:
    given = {name: getattr(spikes, name) for name in ("area", "leak", "trace")}
    changed = dataclasses.replace(generator, **{name: value for name, value in given.items() if value is not None})
    interchange.save_nir(file, model, example, changed, dt=spikes.dt, traces=spikes.traces)


def _write_safetensors(file: Path, model: PyTree, *_: Any) -> None:
    interchange.save_safetensors(file, model)


def _write_stablehlo(file: Path, model: PyTree, example: Array, *_: Any) -> None:
    interchange.export(model, example, file)


_WRITE: dict[str, Callable[..., None]] = {
    ".nir": _write_nir,
    ".safetensors": _write_safetensors,
    ".stablehlo": _write_stablehlo,
}
