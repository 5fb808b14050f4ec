"""Byte-level modelling of books: the loss by position, beyond the length of training."""

import dataclasses
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
from vicinal.report import Claim, Panel, Section, Series, Table
from vicinal.reproduce import Experiment, Found, Run, Size
from vicinal.sweeping import interval_text
from vicinal_experiments import papers
from vicinal_experiments.ovq.training import (
    DELTA,
    DIFFERENCES,
    FULL,
    LINEAR,
    WINDOW,
    Shape,
    Training,
    batches,
    logits,
    ovq,
    train,
)

_SENTENCES = b"the cat sat on the mat, and the dog sat by the door; " * 400
Bits = dict[str, list[list[float]]]
"""Bits per byte of each seed in each range of positions, by model."""
_LOG2 = math.log(2.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BooksSize(Size):
    """Models of bytes, trained at one length and read beyond it.

    Attributes:
        shape: Of the models.
        length: Bytes of an example of training.
        labels: The models.
        steps: Updates.
        batch_size: Examples of an update.
        examples: For training.
        tested: Examples of the test, each eight times as long.
        repeated_sentence: Whether a repeated sentence stands in for the books.
    """

    shape: Shape
    length: int
    labels: tuple[str, ...]
    steps: int
    batch_size: int
    examples: int
    tested: int
    repeated_sentence: bool = False

    @property
    def edges(self) -> list[int]:
        """Where the ranges of positions begin and end in which the loss is averaged."""
        return [0, self.length // 2, *(self.length * 2**i for i in range(4))]


def _measure(run: Run[BooksSize]) -> dict[str, Any]:
    """Bits per byte of each model with every seed, in each range of positions."""
    size, (train_texts, test_texts) = run.size, _texts(run.size)
    test = byte_windows(test_texts, 8 * size.length)
    shown = np.linspace(0, len(test.inputs) - 1, size.tested).astype(int)  # from all books
    test = Sequences(test.inputs[shown], test.targets[shown], test.mask[shown])
    how, parameters = Training(size.steps, batch_size=size.batch_size), size.shape.parameters()
    found: Bits = {label: [] for label in size.labels}
    for label in size.labels:
        for seed in range(run.seeds):
            data = random_windows(train_texts, size.length, size.examples, seed=seed)
            model = size.shape.build(label, key=jax.random.key(seed), parameters=parameters)
            model = train(run, f"{label}, books", model, data, how, seed)
            found[label].append((loss_by_position(_losses(model, test), size.edges) / _LOG2).tolist())
    return {"bits": found, "edges": size.edges, "parameters": parameters}


def _texts(size: BooksSize) -> tuple[Documents, Documents]:
    if size.repeated_sentence:
        return (np.frombuffer(_SENTENCES, np.uint8),), (np.frombuffer(_SENTENCES, np.uint8),)
    loaded = load_books()
    return loaded.train, loaded.test


def _losses(model: LanguageModel, data: Sequences, batch_size: int = 8) -> Float[np.ndarray, "examples time"]:
    pairs = zip(batches(data.inputs, batch_size), batches(data.targets, batch_size), strict=True)
    return np.concatenate([_cross_entropy(jnp.concatenate([*logits(model, x)], axis=1), y) for x, y in pairs])


_cross_entropy = jax.jit(jax.vmap(token_cross_entropy))


def _ranges(edges: Sequence[int]) -> list[str]:
    return [f"{a} to {b - 1}" for a, b in itertools.pairwise(edges)]


def _table(found: Bits, edges: Sequence[int]) -> Table:
    rows: list[list[Any]] = [
        [label, *(interval_text([run[i] for run in runs]) for i in range(len(edges) - 1))]
        for label, runs in found.items()
    ]
    return Table("Bits per byte, by position", ["model", *_ranges(edges)], rows)


def _panel(found: Bits, edges: Sequence[int]) -> Panel:
    middles = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
    return Panel(
        "Bits per byte", "position", "bits", [Series(label, middles, runs) for label, runs in found.items()], log_x=True
    )


def _ends(found: Bits) -> dict[str, tuple[float, float]]:
    means = {label: np.mean(runs, axis=0) for label, runs in found.items()}
    # Not the first range: there is little to go by yet.
    return {label: (float(row[1]), float(row[-1])) for label, row in means.items()}


def _sections(found: Found[BooksSize]) -> list[Section]:
    bits, edges = found.numbers["bits"], found.size.edges
    return [
        Section(
            "Bits per byte by position",
            f"Trained at {found.size.length} steps; positions beyond were never seen in training.",
            tables=[_table(bits, edges)],
            panels=[_panel(bits, edges)],
        )
    ]


def _summary(found: Found[BooksSize]) -> str:
    first, last = (_ranges(found.size.edges)[i] for i in (1, -1))
    parts = ", ".join(f"{label} {a:.2f} and {b:.2f}" for label, (a, b) in _ends(found.numbers["bits"]).items())
    return f"Bits per byte at positions {first} and {last}: {parts}."


def _extrapolates(found: Found[BooksSize]) -> Claim:
    ends, ours = _ends(found.numbers["bits"]), next(label for label in found.size.labels if label.startswith("OVQ "))
    first, last = ends[ours]
    return Claim(
        "OVQ-attention reads beyond the length of training without a loss (arXiv 2602.03922; third-party results say "
        "that its state weakens there, arXiv 2605.09877).",
        f"{ours}: {first:.2f} bits in the second half of the length of training, {last:.2f} in the last range; "
        f"full attention {ends[FULL][0]:.2f} and {ends[FULL][1]:.2f}, the window alone {ends[WINDOW][0]:.2f} and "
        f"{ends[WINDOW][1]:.2f}.",
        "holds" if last <= first else "holds in part" if last <= ends[FULL][1] else "does not hold",
    )


def _differences(found: Found[BooksSize]) -> list[str]:
    size = found.size
    read = size.steps * size.batch_size * size.length / 1e6
    return [
        *DIFFERENCES,
        "A repeated sentence for books." if size.repeated_sentence else "Public-domain books as bytes instead of PG19.",
        f"Trained at {size.length} bytes, {read:.1f} million bytes in all.",
    ]


BOOKS = Experiment(
    name="ovq/books",
    title="Books, byte by byte",
    topic="books byte by byte, beyond the length of training",
    paper=papers.OVQ,
    sizes={
        "quick": BooksSize(
            shape=Shape(256, features=16, chunk_size=8, window=4, max_length=128),
            length=16,
            labels=(FULL, ovq(8), WINDOW),
            steps=10,
            batch_size=8,
            examples=128,
            tested=8,
            repeated_sentence=True,
        ),
        "full": BooksSize(
            shape=Shape(256, max_length=1024),
            length=128,
            labels=(FULL, ovq(64), WINDOW, LINEAR, DELTA),
            steps=800,
            batch_size=16,
            examples=16_384,
            tested=32,
        ),
        "large": BooksSize(
            shape=Shape(256, features=256, chunk_size=128, window=64, pairs=2, heads=2, max_length=32_768),
            length=4096,
            labels=(FULL, ovq(1024), WINDOW, DELTA),
            steps=200,
            batch_size=16,
            examples=8192,
            tested=16,
        ),
    },
    time={"full": "ten minutes", "large": "not timed yet"},
    measure=_measure,
    summary=_summary,
    claims=[_extrapolates],
    sections=_sections,
    differences=_differences,
    seeds=1,
    credit="Public-domain books.",
)
"""Bits per byte in each range of positions, up to eight times the length of training."""
