"""Byte-level modelling of books: the loss by position, beyond the length of training."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vicinal.attention import LanguageModel
from vicinal.data.sequences import (
    Documents,
    Sequences,
    books as load_books,
    byte_windows,
    loss_by_position,
    random_windows,
)
from vicinal.losses import token_cross_entropy
from vicinal.report import Claim, Panel, Section, Series, Study, Table
from vicinal.reproduce.ovq.recall import DIFFERENCES
from vicinal.reproduce.ovq.training import DELTA, FULL, LINEAR, WINDOW, Shape, Training, batches, logits, ovq, train
from vicinal.reproduce.runs import Scale
from vicinal.sweeping import interval_text

_QUICK = b"the cat sat on the mat, and the dog sat by the door; " * 400
_LOG2 = math.log(2.0)


def run(
    scale: Scale, labels: Sequence[str], shape: Shape, how: Training, length: int, texts: tuple[Documents, Documents]
) -> dict[str, list[list[float]]]:
    """Bits per byte of each model with every seed, in each of the ranges between `_edges(length)`."""
    train_texts, test_texts = texts
    test = byte_windows(test_texts, 8 * length)
    shown = np.linspace(0, len(test.inputs) - 1, scale.pick(8, 32, 16)).astype(int)  # from all books
    test = Sequences(test.inputs[shown], test.targets[shown], test.mask[shown])
    parameters = shape.parameters()
    found: dict[str, list[list[float]]] = {label: [] for label in labels}
    for label in labels:
        for seed in range(scale.seeds):
            data = random_windows(train_texts, length, scale.pick(128, 16_384, 8192), seed=seed)
            model = shape.build(label, key=jax.random.key(seed), parameters=parameters)
            model = train(scale, f"{label}, books", model, data, how, seed)
            found[label].append((loss_by_position(_losses(model, test), _edges(length)) / _LOG2).tolist())
    return found


def _edges(length: int) -> list[int]:
    return [0, length // 2, *(length * 2**i for i in range(4))]


def books(scale: Scale) -> Study:
    """Bits per byte in each range of positions, up to eight times the length of training."""
    scale = scale.by_default(1)
    length = scale.pick(16, 128, 4096)
    count = scale.pick(8, 64, 1024)
    shape = Shape(
        256,
        features=scale.pick(16, 64, 256),
        chunk_size=scale.pick(8, 32, 128),
        window=scale.pick(4, 16, 64),
        pairs=scale.pick(1, 1, 2),
        heads=scale.pick(1, 1, 2),
        max_length=8 * length,
    )
    labels = [FULL, ovq(count), WINDOW, *scale.pick((), (LINEAR, DELTA), (DELTA,))]
    how = Training(scale.pick(10, 800, 200), batch_size=scale.pick(8, 16))
    if scale.quick:
        texts = ((np.frombuffer(_QUICK, np.uint8),),) * 2
    else:
        loaded = load_books()
        texts = loaded.train, loaded.test
    found, edges = run(scale, labels, shape, how, length, texts), _edges(length)
    return Study(
        title="Books, byte by byte",
        summary=_summary(found, edges),
        command="",
        settings={
            "seeds": scale.seeds,
            "length": length,
            "centroids": count,
            "steps": how.steps,
            "parameters": shape.parameters(),
        },
        environment={},
        claims=[_extrapolates(found, ovq(count))],
        differences=[
            *DIFFERENCES,
            "Public-domain books as bytes in place of PG19" if not scale.quick else "A repeated sentence for books.",
            f"Trained at {length} bytes, {how.steps * how.batch_size * length / 1e6:.1f} million bytes in all.",
        ],
        sections=[
            Section(
                "Bits per byte by position",
                f"Trained at {length} steps; what lies beyond was never seen in training.",
                tables=[_table(found, edges)],
                panels=[_panel(found, edges)],
            )
        ],
        numbers={"bits": found, "edges": edges},
        data_credit="Public-domain books.",
    )


def _losses(model: LanguageModel, data: Sequences, batch_size: int = 8) -> Float[np.ndarray, "examples time"]:
    pairs = zip(batches(data.inputs, batch_size), batches(data.targets, batch_size), strict=True)
    return np.concatenate([_cross_entropy(jnp.concatenate([*logits(model, x)], axis=1), y) for x, y in pairs])


_cross_entropy = jax.jit(jax.vmap(token_cross_entropy))


def _ranges(edges: Sequence[int]) -> list[str]:
    return [f"{a} to {b - 1}" for a, b in itertools.pairwise(edges)]


def _table(found: dict[str, list[list[float]]], edges: Sequence[int]) -> Table:
    rows: list[list[Any]] = [
        [label, *(interval_text([run[i] for run in runs]) for i in range(len(edges) - 1))]
        for label, runs in found.items()
    ]
    return Table("Bits per byte, by position", ["model", *_ranges(edges)], rows)


def _panel(found: dict[str, list[list[float]]], edges: Sequence[int]) -> Panel:
    middles = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
    return Panel(
        "Bits per byte", "position", "bits", [Series(label, middles, runs) for label, runs in found.items()], log_x=True
    )


def _ends(found: dict[str, list[list[float]]]) -> dict[str, tuple[float, float]]:
    means = {label: np.mean(runs, axis=0) for label, runs in found.items()}
    # Not the first range: there is little to go by yet.
    return {label: (float(row[1]), float(row[-1])) for label, row in means.items()}


def _summary(found: dict[str, list[list[float]]], edges: Sequence[int]) -> str:
    first, last = _ranges(edges)[1], _ranges(edges)[-1]
    parts = ", ".join(f"{label} {a:.2f} and {b:.2f}" for label, (a, b) in _ends(found).items())
    return f"Bits per byte at positions {first} and {last}: {parts}."


def _extrapolates(found: dict[str, list[list[float]]], ours: str) -> Claim:
    ends = _ends(found)
    first, last = ends[ours]
    return Claim(
        "OVQ-attention goes on beyond the length of training without a loss (arXiv 2602.03922; third-party results say "
        "that its state weakens there, arXiv 2605.09877).",
        f"{ours}: {first:.2f} bits in the second half of the length of training, {last:.2f} in the last range; "
        f"full attention {ends[FULL][0]:.2f} and {ends[FULL][1]:.2f}, the window alone {ends[WINDOW][0]:.2f} and "
        f"{ends[WINDOW][1]:.2f}.",
        "holds" if last <= first else "holds in part" if last <= ends[FULL][1] else "does not hold",
    )
