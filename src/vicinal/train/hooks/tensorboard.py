"""Curves for TensorBoard."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

from vicinal._optional import optional
from vicinal.train.advance import TrainingState
from vicinal.train.hooks.base import Hook, Record, Start, numbers_of


@dataclasses.dataclass
class TensorBoard(Hook):
    """Writes every number of the records as a curve over steps; view with `tensorboard --logdir FOLDER`.

    A resumed run continues from its checkpoint; later points are hidden. Numbers that are not finite are
    left out. In a sweep each member has its own folder, `member-3`.

    Args:
        folder: Where the event files go; made if missing.

    Raises:
        ImportError: If tensorboardX is not installed.
    """

    folder: str | Path

    def begin(self, start: Start) -> None:
        """Opens the event file."""
        package = optional("tensorboardX", "TensorBoard", "tensorboardX", "tensorboard")
        folder = Path(self.folder) if start.member is None else Path(self.folder) / f"member-{start.member}"
        purge, suffix = start.step + 1 if start.resumed else None, f".from-{start.step}"
        # Files are named by the second: without the suffix, a run resumed in the same one would replace the file.
        self._writer: Any = package.SummaryWriter(str(folder), purge_step=purge, filename_suffix=suffix)

    def __call__(self, record: Record, state: TrainingState) -> None:
        """Writes the numbers at the record's step.

        Raises:
            OSError: If they cannot be written.
        """
        try:
            for name, value in numbers_of(record).items():
                self._writer.add_scalar(name, value, int(record["step"]))
            self._writer.flush()
        except OSError as error:
            reason = f"could not write the curves for TensorBoard ({error.strerror or error})"
            raise OSError(error.errno, reason, str(self.folder)) from error

    def end(self) -> None:
        """Closes the event file."""
        with contextlib.suppress(OSError):  # every point was written, or has raised
            self._writer.close()
