"""The best model of a run so far, in memory and on the disk."""

from pathlib import Path

from jaxtyping import PyTree

from vicinal.train import checkpoint
from vicinal.train.stored import metadata_of


class Best:
    """The best model of a run so far, as a hook judges it.

    The file is written just before the run's checkpoint, so that the two belong together however the run ends.

    Args:
        path: The file to write, or None for none.
        like: A model of the run, the template to load into.
        step: Where the run starts or resumes; a file of a later step is ignored, as the run will reach that step again.

    Attributes:
        model: The best model, or None.
        step: The updates it had taken, or None.
    """

    def __init__(self, path: Path | None, like: PyTree, step: int):
        self.model: PyTree = None
        self.step: int | None = None
        self._path, self._like, self._begun = path, like, step
        self._owner: str | None = None
        self._given: tuple[int, PyTree] | None = None
        self._saved: int | None = None

    def claim(self, owner: str, step: int | None) -> None:
        """Registers the hook that decides what is best, and restores the model that it had kept.

        Args:
            owner: The name of the hook.
            step: The step of the model that the hook kept before the run was resumed, or None.

        Raises:
            ValueError: If another hook already decides, or the model of that step is missing.
        """
        if self._owner is not None:
            raise ValueError(
                f"expected one hook that keeps the best model, got {self._owner} and {owner}; "
                "give one of them keep_best=False"
            )
        self._owner = owner
        if step is None:
            return
        found = None
        if self._path is not None and self._path.exists():
            found = metadata_of(self._path).get("step")
        if found == step:
            self.model, _ = checkpoint.load(self._path or "", self._like)
            self.step = self._saved = step
        elif found is None or found <= self._begun:
            got = "none" if found is None else f"that of step {found}"
            raise ValueError(
                f"expected the best model of the run to resume, that of step {step}, in {str(self._path)!r}, got "
                f"{got}; resume with the hooks that the run started with, or with keep_best=False"
            )

    def keep(self, step: int, model: PyTree) -> None:
        """Sets the best model so far; `commit` makes it count."""
        self._given = step, model

    def commit(self) -> None:
        """Makes the model given to `keep` count, after its record is written."""
        if self._given is not None:
            (self.step, self.model), self._given = self._given, None

    def save(self) -> None:
        """Writes the file, if it does not hold the best model yet."""
        if self._path is not None and self.step is not None and self.step != self._saved:
            checkpoint.save(self._path, self.model, metadata={"step": self.step})
            self._saved = self.step
