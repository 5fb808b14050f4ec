"""Loads a trained model from the folder of a run, without the rule and the optimiser that trained it."""

import os
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from vicinal.train import checkpoint
from vicinal.train.files import BEST, CHECKPOINT, WAVES
from vicinal.train.stored import metadata_of


def load_model(path: str | os.PathLike[str], like: PyTree, *, member: int | None = None, best: bool = False) -> PyTree:
    """Loads the model of a run.

    Args:
        path: The folder of a run (of `fit`, `vicinal train`, one rule and seed of a comparison, or a sweep), or a
            checkpoint file, as in the folder `earlier` of a run.
        like: A model built like that of the run; its numbers do not matter.
        member: Which run of a sweep, counted from 0 as in `Sweep.members`.
        best: Whether to take the best model, if a hook kept one, rather than the last.

    Returns:
        The model.

    Raises:
        CheckpointError: If there is no such file, it is damaged, or holds a model of another structure.
        ValueError: If the folder does not belong to a single run.

    Example:
        >>> import jax, numpy as np, optax, tempfile, vicinal as vc
        >>> x = np.eye(4, dtype=np.float32)
        >>> def build(seed):
        ...     return vc.nn.MLP((4, 4), key=jax.random.key(seed))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = vc.train.fit(
        ...         vc.rules.Backprop(), build(0), optax.adam(0.1), (x, np.arange(4)), key=jax.random.key(1),
        ...         steps=3, batch_size=4, folder=folder, progress=False)
        ...     model = vc.train.load_model(folder, like=build(7))
        >>> bool((model.layers[0].weight == run.model.layers[0].weight).all())
        True
    """
    path = Path(path)
    if not path.is_dir():
        return _from_file(path, like, member, best)
    waves = list(path.glob(WAVES))
    if waves:
        return _from_sweep(path, waves, like, member, best)
    if member is not None:
        raise ValueError(f"expected the folder of a sweep for member={member}, got that of one run, {str(path)!r}")
    if not (path / CHECKPOINT).exists():
        runs = sorted(child.name for child in path.iterdir() if (child / CHECKPOINT).exists())
        advice = f"one with the runs {', '.join(runs)}; give the folder of one of them" if runs else "one without"
        raise ValueError(f"expected the folder of a run, which holds {CHECKPOINT}, got {advice}: {str(path)!r}")
    if best:
        return checkpoint.load(_existing(path / BEST), like)[0]
    return checkpoint.load(path / CHECKPOINT, like, part=".model")[0]


def _from_file(path: Path, like: PyTree, member: int | None, best: bool) -> PyTree:
    """The model of a checkpoint file: of a training state, or of only a model."""
    if not best and {"wave", "members"} <= checkpoint.read_metadata(path).keys():
        return _from_sweep(path, [path], like, member, best)
    if member is not None or best:
        raise ValueError(f"expected a folder with member= or best=, got the file {str(path)!r}; leave them out")
    names = checkpoint.read_paths(path)
    is_state = all(any(name.startswith(part) for name in names) for part in (".step", ".key", ".sums"))
    return checkpoint.load(path, like, part=".model" if is_state else "")[0]


def _from_sweep(folder: Path, waves: list[Path], like: PyTree, member: int | None, best: bool) -> PyTree:
    """The model of a member: a row of the arrays of its wave."""
    found = {wave: metadata_of(wave) for wave in waves}
    if old := [wave for wave, metadata in found.items() if "wave" not in metadata]:
        raise checkpoint.CheckpointError(
            f"Expected a wave of a sweep at {str(old[0])!r}, got another checkpoint; remove it."
        )
    count = len(found[waves[0]]["members"])
    if member is None or not 0 <= member < count:
        raise ValueError(f"expected member= from 0 to {count - 1} for the sweep in {str(folder)!r}, got {member}")
    if best:
        return checkpoint.load(_existing(folder / f"best-{member}.npz"), like)[0]
    path = next((wave for wave, metadata in found.items() if member in metadata["wave"]), None)
    if path is None:
        raise ValueError(
            f"expected member {member} to have started, got no checkpoint of it in {str(folder)!r}; resume it"
        )
    ids: list[int] = found[path]["wave"]
    arrays, static = eqx.partition(like, eqx.is_array)
    stacked = jax.eval_shape(lambda tree: jax.tree.map(lambda leaf: jnp.stack([leaf] * len(ids)), tree), arrays)
    loaded, _ = checkpoint.load(path, stacked, part=".model")
    return eqx.combine(jax.tree.map(lambda leaf: leaf[ids.index(member)], loaded), static)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise ValueError(
            f"expected the best model in {str(path)!r}, got none; train with a hook that keeps it, such as "
            "vicinal.train.hooks.EarlyStopping, or load the last one with best=False"
        )
    return path
