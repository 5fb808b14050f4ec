"""Linear regression learned in context, against the ridge oracle."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vicinal._counted import counted
from vicinal.attention import LanguageModel
from vicinal.data.sequences import Regression, linear_regression, normalized_error, ridge_oracle
from vicinal.losses import masked_squared_error
from vicinal.report import Claim, Panel, Section, Series, Table
from vicinal.reproduce import Experiment, Found, Run, Size
from vicinal.rules import Backprop
from vicinal.sweeping import interval_text
from vicinal_experiments import papers
from vicinal_experiments.ovq.training import DIFFERENCES, FULL, MESA, WINDOW, Shape, Training, ovq, train

_ORACLE = "ridge regression"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionSize(Size):
    """Linear functions of some numbers, several of them mixed in one sequence.

    Attributes:
        shape: Of the models; the length of an input follows from the points and functions.
        point_features: Numbers in a point.
        pairs: Points in a sequence, each with its value.
        functions: Numbers of functions that are mixed.
        labels: The models.
        steps: Updates.
        examples: For training.
        tested: Examples of the test.
    """

    shape: Shape
    point_features: int
    pairs: int
    functions: tuple[int, ...]
    labels: tuple[str, ...]
    steps: int
    examples: int
    tested: int


Errors = dict[str, list[list[float]]]
"""By model: the error of each seed after so many earlier examples of the same function."""


def _measure(run: Run[RegressionSize]) -> dict[str, Any]:
    size, how = run.size, Training(run.size.steps, rule=Backprop(loss=masked_squared_error))
    found: dict[str, Errors] = {}
    for number in size.functions:
        shape = dataclasses.replace(size.shape, in_features=size.point_features + 1 + number)
        draw = functools.partial(linear_regression, features=size.point_features)
        test = draw(size.tested, size.pairs, number, seed=10_000)
        errors: Errors = {_ORACLE: [_errors(ridge_oracle(test), test)]}
        parameters = shape.parameters()
        for label in size.labels:
            errors[label] = []
            for seed in range(run.seeds):
                data = draw(size.examples, size.pairs, number, seed=seed)
                model = shape.build(label, key=jax.random.key(seed), parameters=parameters)
                model = train(run, f"{label}, {number} functions", model, (data.inputs, data.targets), how, seed)
                errors[label].append(_errors(_predictions(model, test), test))
        found[str(number)] = errors
    return {"errors": found}


def _predictions(model: LanguageModel, data: Regression) -> np.ndarray:
    return np.concatenate([np.asarray(_outputs(model, jnp.asarray(x))) for x in np.split(data.inputs, 8)])[:, ::2, 0]


@eqx.filter_jit
def _outputs(model: LanguageModel, x: Array) -> Array:
    return jax.vmap(model)(x)


def _errors(predicted: np.ndarray, data: Regression) -> list[float]:
    """By the number of earlier examples, up to what half of the functions have."""
    whole = normalized_error(predicted, data)
    return whole[: max(2, data.values.shape[1] // data.weights.shape[1])].tolist()


def _at(row: list[list[float]], earlier: int) -> list[float]:
    return [errors[min(earlier, len(errors) - 1)] for errors in row]


def _section(number: str, found: Errors) -> Section:
    most = len(found[_ORACLE][0])
    shown = sorted({0, most // 4, most // 2, most - 1})
    rows: list[list[Any]] = [[label, *(interval_text(_at(row, n)) for n in shown)] for label, row in found.items()]
    series = [Series(label, [float(n) for n in range(most)], row) for label, row in found.items()]
    return Section(
        counted(int(number), "function"),
        "Squared error over the variance of the values, by the number of earlier examples of the same function.",
        tables=[Table("Error after so many examples", ["model", *map(str, shown)], rows)],
        panels=[Panel(f"{number} functions", "earlier examples", "error", series)],
    )


def _sections(found: Found[RegressionSize]) -> list[Section]:
    return [_section(number, errors) for number, errors in found.numbers["errors"].items()]


def _summary(found: Found[RegressionSize]) -> str:
    seen = 2 * found.size.point_features
    parts = [
        f"{number} functions: " + ", ".join(f"{label} {np.mean(_at(row, seen)):.2f}" for label, row in errors.items())
        for number, errors in found.numbers["errors"].items()
    ]
    return f"Error after {seen} examples. " + "; ".join(parts) + "."


def _learns(found: Found[RegressionSize]) -> Claim:
    ours = next(label for label in found.size.labels if label.startswith("OVQ "))
    ends = {
        number: {label: float(np.mean(_at(errors[label], 10**6))) for label in (FULL, ours, WINDOW)}
        for number, errors in found.numbers["errors"].items()
    }
    judged = [row for row in ends.values() if row[FULL] < 0.5]
    near = [row[ours] <= row[FULL] + 0.05 for row in judged]
    words = (
        f"{number} functions " + ", ".join(f"{label} {value:.2f}" for label, value in row.items())
        for number, row in ends.items()
    )
    whole = all(near) and len(judged) == len(ends)
    return Claim(
        "OVQ-attention learns linear functions in context as full attention does (arXiv 2602.03922, up to 128 "
        "functions).",
        f"Error after the most examples: {'; '.join(words)}. Within .05 counts; where full attention does not come "
        "below .5 it is left open.",
        ("holds" if whole else "holds in part" if any(near) else "does not hold") if judged else "open",
    )


def _differences(found: Found[RegressionSize]) -> list[str]:
    return [
        *DIFFERENCES,
        f"Points of {found.size.point_features} numbers and up to {max(found.size.functions)} functions; the paper "
        "mixes up to 128, and we could not read the layout of its sequences.",
    ]


_SHAPE = Shape(1, window=8, chunk_size=16)

ICL = Experiment(
    name="ovq/icl",
    title="Linear regression in context",
    topic="linear regression in context against the ridge oracle",
    paper=papers.OVQ,
    sizes={
        "quick": RegressionSize(
            shape=dataclasses.replace(_SHAPE, features=16),
            point_features=2,
            pairs=8,
            functions=(1,),
            labels=(FULL, ovq(8), WINDOW),
            steps=15,
            examples=256,
            tested=16,
        ),
        "full": RegressionSize(
            shape=_SHAPE,
            point_features=4,
            pairs=48,
            functions=(1, 4),
            labels=(FULL, ovq(64), WINDOW, MESA),
            steps=500,
            examples=8192,
            tested=256,
        ),
    },
    time={"full": "ten minutes"},
    measure=_measure,
    summary=_summary,
    claims=[_learns],
    sections=_sections,
    differences=_differences,
    seeds=2,
)
"""The error after so many examples of a function, with functions alone and mixed."""
