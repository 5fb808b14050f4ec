"""Curves for Weights & Biases."""

from typing import Any

from vicinal._optional import optional
from vicinal.train.advance import TrainingState
from vicinal.train.hooks.base import Hook, Record, Start, numbers_of


class WeightsAndBiases(Hook):
    """Sends every number of the records to Weights & Biases.

    To resume a run there too, give the same `id` each time, and `resume="allow"`. In a sweep each member is a separate
    run, with its numbers and seed in the configuration.

    Args:
        project: Where the run is listed.
        settings: Other arguments of `wandb.init`: `name`, `config`, `mode="offline"`, ...

    Raises:
        ImportError: If wandb is not installed.
    """

    def __init__(self, project: str, **settings: Any):
        self.project, self.settings = project, settings

    def begin(self, start: Start) -> None:
        """Starts the run there."""
        wandb = optional("wandb", "WeightsAndBiases", "wandb", "wandb")
        settings = dict(self.settings)
        if start.member is not None:
            settings["config"] = {**settings.get("config", {}), **start.numbers}
            settings["name"] = f"{settings.get('name', 'member')}-{start.member}"
            settings.setdefault("reinit", "create_new")  # the members of a sweep run at the same time
        self._run: Any = wandb.init(project=self.project, **settings)

    def __call__(self, record: Record, state: TrainingState) -> None:
        """Sends the numbers at the record's step."""
        self._run.log(numbers_of(record), step=int(record["step"]))

    def end(self) -> None:
        """Ends the run there."""
        self._run.finish()
