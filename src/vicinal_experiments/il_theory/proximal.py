"""The proximal objective of an update and its angle to implicit SGD, along inference."""

import dataclasses
from typing import Any

import numpy as np

from vicinal.analysis import CONCATENATED
from vicinal.report import Claim, Panel, Section, Series, Table
from vicinal.reproduce import Experiment, Found, Run, Size
from vicinal_experiments.il_theory.proximal_measurements import (
    EVERY,
    OURS,
    PAPER,
    PAPER_STEPS,
    STEP_SIZE,
    THEN,
    WEIGHTED,
    measure,
    shares_explained,
    tanh_classifier,
    trained,
)
from vicinal_experiments.papers import IL_THEORY


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProximalSize(Size):
    """A trained network, and how far inference goes in it.

    Attributes:
        trained: Updates by BP-SGD before anything is measured.
        blocks: Measurements along inference after the paper's number of steps, each after five more.
        examples: Over how many means are taken.
        learning_rates: Of implicit SGD.
    """

    trained: int
    blocks: int
    examples: int
    learning_rates: tuple[float, ...]


Along = dict[str, Any]
"""Of one learning rate what is measured along inference, and the references."""


def _measure(run: Run[ProximalSize]) -> dict[str, Any]:
    """Objective, angles and distances after the normalised step, as a function of the inference step."""
    size, task = run.size, tanh_classifier(run.size.data[0])
    step_sizes = [STEP_SIZE] * PAPER + [THEN] * size.blocks
    run.say(f"{size.trained} updates of the network, then {size.examples} examples at each learning rate")
    model = trained(task, size.trained)
    along = {str(rate): measure(task, model, rate, step_sizes, size.examples) for rate in size.learning_rates}
    run.say("curvature")
    return {"along": along, "shares": shares_explained(task, model, size.examples)}


# ---------------------------------------------------------------------------------------------------------- judge


def _by_rate(found: Found[ProximalSize]) -> dict[float, Along]:
    return {float(rate): row for rate, row in found.numbers["along"].items()}


def _summary(found: Found[ProximalSize]) -> str:
    one = _by_rate(found)[1.0]
    ours, weighted, theirs = one["along"][OURS], one["along"][WEIGHTED], one["references"]
    return (
        f"At learning rate 1, the normalised update after {PAPER_STEPS} inference steps of {STEP_SIZE} is "
        f"{ours['to implicit SGD'][PAPER]:.0f}° from implicit SGD, settled "
        f"{ours['to implicit SGD'][-1]:.0f}°; backpropagation's is {theirs['backpropagation to implicit SGD']:.0f}° "
        f"away. With each layer's energy divided by the squared norm of what enters it, it is "
        f"{weighted['to implicit SGD'][-1]:.0f}°. The proximal objective falls from {theirs['start']:.3f} (no "
        f"update) to {ours['objective'][PAPER]:.3f} after {PAPER_STEPS} steps, {ours['objective'][-1]:.3f} settled "
        f"and {weighted['objective'][-1]:.3f} if weighted; the optimum is {theirs['implicit SGD']:.3f}, and "
        f"backpropagation's step gives {theirs['backpropagation']:.3f}."
    )


def _by_matrix(found: Found[ProximalSize]) -> Claim:
    """Matrix by matrix, as the paper compares updates."""
    rows = _by_rate(found).values()
    ours = np.array([row["along"][OURS]["layers"] for row in rows])  # rates, steps, matrices
    theirs = np.array([row["references"]["layers"] for row in rows])
    nearer = {PAPER: ours[:, PAPER] < theirs, -1: ours[:, -1] < theirs}

    def words(angles: np.ndarray) -> str:
        return ", ".join(f"{angle:.0f}°" for angle in angles.mean(axis=0))

    return Claim(
        "Inference learning approximates implicit SGD (abstract): matrix by matrix, more closely than backpropagation.",
        f"Angle of each matrix's update to implicit SGD's, means over learning rates, from the bottom up: "
        f"{words(ours[:, PAPER])} after {PAPER_STEPS} steps, {words(ours[:, -1])} settled, backpropagation "
        f"{words(theirs)}. Nearer than backpropagation in {nearer[PAPER].sum()} of {theirs.size} cases (matrices and "
        f"learning rates) after {PAPER_STEPS} steps, in {nearer[-1].sum()} settled.",
        "holds"
        if nearer[PAPER].all()
        else "holds in part"
        if nearer[PAPER].any() or nearer[-1].any()
        else "does not hold",
    )


def _as_a_whole(found: Found[ProximalSize]) -> Claim:
    """All weights in one vector, where the scales of the layers count."""
    by_rate = _by_rate(found)

    def nearer(name: str, step: int) -> int:
        return sum(
            row["along"][name]["to implicit SGD"][step] < row["references"]["backpropagation to implicit SGD"]
            for row in by_rate.values()
        )

    words = "; ".join(
        f"at {rate:g} {row['along'][OURS]['to implicit SGD'][PAPER]:.0f}° after {PAPER_STEPS} steps, "
        f"{row['along'][OURS]['to implicit SGD'][-1]:.0f}° settled, "
        f"{row['along'][WEIGHTED]['to implicit SGD'][-1]:.0f}° settled with weighted energies, "
        f"backpropagation {row['references']['backpropagation to implicit SGD']:.0f}°"
        for rate, row in by_rate.items()
    )
    counts = [nearer(OURS, PAPER), nearer(OURS, -1), nearer(WEIGHTED, -1)]
    ours = counts[:2]  # the paper's rule; weighted energies are ours
    verdict = "holds" if ours[0] == len(by_rate) else "holds in part" if any(ours) else "does not hold"
    return Claim(
        "The same for the whole update, all weights in one vector.",
        f"Angle to implicit SGD: {words}. Nearer than backpropagation at {counts[0]}, {counts[1]} and {counts[2]} of "
        f"{len(by_rate)} learning rates. Weighted energies are the theory's; the paper's rule weighs all layers alike.",
        verdict,
    )


def _differences(found: Found[ProximalSize]) -> list[str]:
    return [
        "The network was trained for a while by BP-SGD before measuring; we could not read the paper's state of "
        "training.",
        "Its activation is tanh: at the kinks of ReLU the gradient of the proximal objective jumps, so that no "
        "solver brings its residual to zero, and angles to the optimum would not be known to a degree.",
        "The optimum is found by L-BFGS on the parameters, to the residual in the table, where the published code "
        "takes 500 gradient steps of .005 with alpha 1.",
    ]


# --------------------------------------------------------------------------------------------- tables and figures


def _sections(found: Found[ProximalSize]) -> list[Section]:
    by_rate = _by_rate(found)
    one = by_rate[1.0]
    return [
        Section(
            "Along inference, learning rate 1",
            "After each inference step the normalised update is taken on trial. The proximal objective is the loss "
            "after it plus its squared norm over twice the learning rate; implicit SGD minimises it. The output is "
            "held at its proximal optimum (soft) or at the target (full). Weighted: the energy of each layer is "
            "divided by the squared norm of what enters it, as the proximal objective has it, taken at the "
            "feedforward values and relative to the output's; the paper's rule weighs all layers alike.",
            panels=_panels(one),
        ),
        Section(
            "Across learning rates",
            f"After {PAPER_STEPS} inference steps of {STEP_SIZE}, as in the paper, and {EVERY * found.size.blocks} "
            f"more of {THEN} (settled); from the feedforward values, soft.",
            tables=[*_rate_tables(by_rate), _layer_table(one)],
            panels=[_rate_panel(by_rate)],
        ),
        Section(
            "Curvature",
            "Of the squared norm of each matrix's update (clamped, 25 steps): what the gradient explains, and what "
            "the Hessian times the gradient explains beyond, as the step size of the activities grows.",
            panels=[_share_panel(found.numbers["shares"])],
        ),
    ]


def _panel(row: Along, title: str, heading: str, quantity: str, references: dict[str, float], **how) -> Panel:
    """A quantity along inference, for each kind of it; references are level lines."""
    series = [Series(name, row["time"], [values[quantity]]) for name, values in row["along"].items()]
    series += [Series(name, [0.0, row["time"][-1]], [[value, value]]) for name, value in references.items()]
    return Panel(title, "step size x inference steps", heading, series, **how)


def _panels(row: Along) -> list[Panel]:
    references = row["references"]
    levels = {name: references[name] for name in ("implicit SGD", "backpropagation")}
    angle = {"backpropagation": references["backpropagation to implicit SGD"]}
    note = "The normalised step with one example reproduces the activities; the rest is rounding."
    return [
        _panel(row, "Proximal objective after the update", "objective", "objective", levels, log_y=True),
        _panel(row, "Angle of the whole update to implicit SGD", "angle (°)", "to implicit SGD", angle),
        _panel(
            row,
            "Distance between activities and the next forward pass",
            "distance",
            "distance",
            {},
            log_y=True,
            note=note,
        ),
        _panel(row, "How settled the activities are", "largest slope left", "slope left", {}, log_y=True),
    ]


def _rate_panel(found: dict[float, Along]) -> Panel:
    names = list(_angles_at(next(iter(found.values()))))
    series = [Series(name, list(found), [[_angles_at(row)[name] for row in found.values()]]) for name in names]
    return Panel("Angle to implicit SGD", "learning rate", "angle (°)", series, log_x=True)


def _angles_at(row: Along) -> dict[str, float]:
    """The angles to implicit SGD that are compared across learning rates."""
    along = {name: values["to implicit SGD"] for name, values in row["along"].items()}
    return {
        f"{PAPER_STEPS} inference steps": along[OURS][PAPER],
        "settled": along[OURS][-1],
        "settled, weighted": along[WEIGHTED][-1],
        "backpropagation": row["references"]["backpropagation to implicit SGD"],
    }


def _objectives_at(row: Along) -> dict[str, float]:
    along = {name: values["objective"] for name, values in row["along"].items()}
    return {
        "no update": row["references"]["start"],
        f"{PAPER_STEPS} inference steps": along[OURS][PAPER],
        "settled": along[OURS][-1],
        "settled, weighted": along[WEIGHTED][-1],
        "backpropagation": row["references"]["backpropagation"],
        "implicit SGD": row["references"]["implicit SGD"],
        "residual of implicit SGD": row["references"]["residual"],
    }


def _rate_tables(found: dict[float, Along]) -> list[Table]:
    tables = []
    for title, at in (("Angle to implicit SGD (°)", _angles_at), ("Proximal objective", _objectives_at)):
        rows: list[list[Any]] = [[rate, *at(row).values()] for rate, row in found.items()]
        tables.append(Table(title, ["learning rate", *at(next(iter(found.values())))], rows))
    return tables


def _layer_table(row: Along) -> Table:
    ours, weighted = (np.array(row["along"][name]["layers"]) for name in (OURS, WEIGHTED))
    theirs = row["references"]["layers"]
    columns = ["update", *(f"matrix {i + 1}" for i in range(len(theirs)))]
    rows: list[list[Any]] = [
        [f"{PAPER_STEPS} inference steps", *ours[PAPER].tolist()],
        ["settled", *ours[-1].tolist()],
        ["settled, weighted", *weighted[-1].tolist()],
        ["backpropagation", *theirs],
    ]
    return Table("Angle to implicit SGD matrix by matrix (°), learning rate 1", columns, rows)


def _share_panel(shares: dict[str, Any]) -> Panel:
    sizes, series = shares["step sizes"], []
    for name, rows in shares["shares"].items():
        label = "all weights" if name == CONCATENATED else name.removesuffix(".weight")
        series.append(Series(f"{label}: gradient", sizes, [[row[0] for row in rows]]))
        series.append(Series(f"{label}: with curvature", sizes, [[row[0] + row[1] for row in rows]]))
    return Panel("Share of the update explained", "step size of the activities", "share", series, log_x=True)


PROXIMAL = Experiment(
    name="il-theory/proximal",
    title="Inference and the proximal step",
    topic="how near inference comes to the proximal step",
    paper=IL_THEORY,
    sizes={
        "quick": ProximalSize(data=("digits",), trained=300, blocks=30, examples=8, learning_rates=(0.1, 1.0, 10.0)),
        "full": ProximalSize(
            data=("mnist",), trained=1000, blocks=80, examples=30, learning_rates=(0.01, 0.1, 1.0, 10.0, 100.0)
        ),
    },
    time={"full": "ten minutes"},
    measure=_measure,
    summary=_summary,
    claims=[_by_matrix, _as_a_whole],
    sections=_sections,
    differences=_differences,
    seeds=1,
)
"""The proximal objective and the angle to its optimum along inference, on one trained network."""
