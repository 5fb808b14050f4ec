"""The experiment on activation relaxation: its sizes, and what its numbers say."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from vicinal.report import CONCATENATED, Claim, Section, Table
from vicinal.reproduce import Found, Size, accuracy_panel, accuracy_table, curve_panel, end_table, mean, supported
from vicinal.sweeping import last
from vicinal.train import Member

BP, EXACT, BARE = "BP", "AR", "AR without derivatives"
FIXED, LEARNED, FULL = "AR, random feedback", "AR, learned feedback", "AR, learned feedback, no derivatives"
FROZEN: dict[str, Any] = {f"AR, frozen: {name}": name for name in ("derivative", "product", "none")}
_NEAR = 0.01  # of accuracy

Runs = dict[str, list[Member]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSize:
    """Updates of a network, and sweeps of relaxation in each, of a step size."""

    updates: int
    sweeps: int
    step_size: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelaxationSize(Size):
    """Two networks and how they are trained.

    Attributes:
        sizes: Units of each layer of the dense network.
        units: Units of the layer above the convolutions.
        dense: How the dense network is trained.
        convolutional: How the convolutional network is trained.
        compared: The rules that train the convolutional network.
        evaluations: Number of evaluations along training.
        settling: Numbers of sweeps after which the angle to backpropagation's update is measured.
        learning_rate: Learning rate of plain gradient descent.
        batch_size: Examples in an update.
        feedback_deviation: Standard deviation of the feedback weights, which are normal.
    """

    sizes: tuple[int, ...]
    units: int
    dense: NetworkSize
    convolutional: NetworkSize
    compared: tuple[str, ...]
    evaluations: int
    settling: tuple[int, ...]
    learning_rate: float
    batch_size: int = 64
    feedback_deviation: float = 0.05


def _both(found: Found[RelaxationSize]) -> dict[str, Runs]:
    return {name: found.runs("runs", name) for name in ("dense", "convolutional")}


def _columns(runs: Runs, prefix: str) -> dict[str, str]:
    """The recorded quantities with a prefix, and their headings."""
    names = [name for members in runs.values() for member in members for record in member.records for name in record]
    return {
        name: name.removeprefix(prefix).removesuffix(".weight").removesuffix(".convolution")
        for name in dict.fromkeys(names)
        if name.startswith(prefix)
    }


def _largest_angle(members: list[Member]) -> float:
    """The largest angle to backpropagation's update, of any matrix, seed and record."""
    names = _columns({"": members}, "angle ")
    return max(record[name] for member in members for record in member.records for name in names)


def _accuracy(members: list[Member]) -> float:
    """The mean over seeds at the end; 0 for one that diverged."""
    return float(np.mean(np.nan_to_num([last(member, "test_accuracy") for member in members])))


def _angle(members: list[Member]) -> float:
    return mean(members, f"angle {CONCATENATED}")


def summary(found: Found[RelaxationSize]) -> str:
    """Accuracies at the end, and the largest angle of the exact form."""
    both, parts = _both(found), []
    for name, runs in both.items():
        accuracies = ", ".join(f"{label} {100 * _accuracy(members):.1f} %" for label, members in runs.items())
        parts.append(f"Test accuracy at the end, {name}: {accuracies}.")
    largest = max(_largest_angle(runs[EXACT]) for runs in both.values())
    return (
        f"Exact activation relaxation is at most {largest:.2g}° from backpropagation, as far as it settled. "
        + " ".join(parts)
    )


def converges(found: Found[RelaxationSize]) -> Claim:
    """It converges if, with the most sweeps, no matrix is a degree from backpropagation's update."""
    most = max(found.size.settling)
    left = max(along[str(most)] for along in found.numbers["settling"].values())
    along_training = _largest_angle(found.members("runs", "dense", EXACT))
    return Claim(
        "Activation relaxation converges to backpropagation's gradients (2009.05359).",
        f"Largest angle to backpropagation's update, of any matrix: after {most} sweeps of .1 {left:.2g}°; after 100, "
        f"as in the paper, up to {along_training:.2g}° along training. Units start at their activities, which "
        "are many times the gradients that they relax to, so that what is left of them counts, and counts for more as "
        "the loss falls.",
        "holds" if left < 1 else "does not hold",
    )


_WORDS = {
    BARE: "Without the derivatives of the activation functions on the way down",
    LEARNED: "With random feedback weights that learn",
    FULL: "With both simplifications, no derivatives and learned feedback weights,",
}


def keeps_accuracy(label: str) -> Callable[[Found[RelaxationSize]], Claim]:
    """The claim that a simplified form is at most a point of accuracy below exact activation relaxation."""

    def judge(found: Found[RelaxationSize]) -> Claim:
        words, kept = [], []
        for name, runs in _both(found).items():
            if label not in runs:
                continue
            ours, exact = _accuracy(runs[label]), _accuracy(runs[EXACT])
            kept.append(ours >= exact - _NEAR)
            told = label == LEARNED and FIXED in runs
            fixed = f", feedback that does not learn {100 * _accuracy(runs[FIXED]):.1f} %" if told else ""
            words.append(
                f"{name} {100 * ours:.1f} % (exact {100 * exact:.1f} %{fixed}; angle of the whole update to "
                f"backpropagation's {_angle(runs[label]):.0f}°)"
            )
        return Claim(
            f"{_WORDS[label]} activation relaxation still performs as well (both papers).",
            f"Test accuracy at the end: {'; '.join(words)}. As well: at most {100 * _NEAR:.0f} point below.",
            supported(kept),
        )

    return judge


def forward_pass_forgotten(found: Found[RelaxationSize]) -> Claim:
    """The forms that do not hold the whole forward pass keep the accuracy within the same margin."""
    runs = found.runs("runs", "dense")
    exact, words = _accuracy(runs[EXACT]), []
    for label, name in FROZEN.items():
        lost = sum(member.diverged for member in runs[label])
        angle = f"{_angle(runs[label]):.0f}° from backpropagation"
        end = f"{lost} of {len(runs[label])} diverged" if lost else angle
        words.append(f"{name} {100 * _accuracy(runs[label]):.1f} %, {end}")
    return Claim(
        "The forward pass need not be held while the activities relax (a question of 2010.06219; we could not read the "
        "form in which it is answered there).",
        f"Test accuracy at the end with all held {100 * exact:.1f} %; held alone: {'; '.join(words)}.",
        supported([_accuracy(runs[label]) >= exact - _NEAR for label in FROZEN]),
    )


def differences(found: Found[RelaxationSize]) -> list[str]:
    """How the experiment differs from the papers'."""
    return [
        "The papers train for 50 epochs; here the beginning of the curves alone, at a learning rate of .1, three times "
        "the first paper's.",
        "One learning rate for all forms, which is tuned for none of them.",
        "We could not read the papers' accuracies, so none stands here.",
        "First weights are uniform in ±1/sqrt(inputs) as elsewhere in this library; the published code's are normal "
        "with standard deviation .05, and so is the feedback here.",
        "Biases are parameters like others; the published code has one for each position in the batch.",
        "The choices of the frozen pass are our reading: we could not read the text of 2010.06219 on it. Its networks "
        "and data (CIFAR, SVHN) are larger; ours is small, and relaxes in 20 sweeps of .5.",
        "Cross-entropy alone; the first paper also has squared error.",
    ]


# --------------------------------------------------------------------------------------------- tables and figures

_TEXTS = {
    "dense": "Angles are between the update of a rule and backpropagation's at the same weights, on one batch of "
    "training examples, without the optimiser. 'Frozen' says what still reads the forward pass once the activities "
    "have left it: all (AR), the derivatives alone, the local product alone, or nothing.",
    "convolutional": "The same on a convolutional network, where the feedback is a kernel for each kernel.",
}


def sections(found: Found[RelaxationSize]) -> list[Section]:
    """Accuracies and angles of the rules on each network."""
    made = []
    for name, runs in _both(found).items():
        relaxed = {label: members for label, members in runs.items() if label != BP}
        title = "Angle (°) between the update and backpropagation's, at the end of training"
        tables = [accuracy_table(name.capitalize(), runs), end_table(title, relaxed, _columns(relaxed, "angle "))]
        tables += [_settling_table(found)] if name == "dense" else []
        panels = [
            accuracy_panel(runs, f"Test accuracy, {name}"),
            curve_panel(f"Angle to BP's update, {name}", relaxed, f"angle {CONCATENATED}", "angle (°)"),
        ]
        tables.append(_feedback_table(runs, found.numbers["drift"][name]))
        made.append(Section(name.capitalize(), _TEXTS[name], tables=tables, panels=panels))
    return made


def _feedback_table(runs: Runs, drift: dict[str, float]) -> Table:
    """The angle between weight and feedback, and whether their difference stayed what it was."""
    title = "Angle (°) between weight and feedback at the end, and the change of their difference in training"
    table = end_table(title, {label: runs[label] for label in drift}, _columns(runs, "feedback "))
    changed = [[*row, f"{drift[str(row[0])]:.1g}"] for row in table.rows]
    return Table(title, [*table.columns, "change of W - B, relative"], changed)


def _settling_table(found: Found[RelaxationSize]) -> Table:
    """The angle that is left after so many sweeps."""
    title = "Exact form: largest angle (°) to backpropagation's update, of any matrix, after so many sweeps of .1"
    lines = [[name, *along.values()] for name, along in found.numbers["settling"].items()]
    return Table(title, ["at the", *map(str, found.size.settling)], lines)
