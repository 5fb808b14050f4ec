"""Tables and claims of the experiment on activation relaxation."""

from typing import Any

import numpy as np

from vicinal.analysis import CONCATENATED
from vicinal.report import Claim, Section, Table
from vicinal.reproduce.runs import borne_out
from vicinal.reproduce.side_by_side import accuracy_table, panel
from vicinal.sweeping import interval_text, last
from vicinal.train import Sweep

BP, EXACT, BARE = "BP", "AR", "AR without derivatives"
FIXED, LEARNED, FULL = "AR, random feedback", "AR, learned feedback", "AR, learned feedback, no derivatives"
FROZEN: dict[str, Any] = {f"AR, frozen: {name}": name for name in ("derivative", "product", "none")}
_NEAR = 0.01  # of accuracy


def section(title: str, text: str, done: dict[str, Sweep], tables: list[Table]) -> Section:
    """Accuracies and angles of the rules on one network, and further tables."""
    return Section(
        title,
        text,
        tables=[accuracy_table(title, done), _angle_table(done), *tables],
        panels=[
            panel(f"Test accuracy, {title.lower()}", done, "test_accuracy", "test accuracy (%)", 100.0),
            panel(
                f"Angle to BP's update, {title.lower()}",
                {label: found for label, found in done.items() if label != BP},
                f"angle {CONCATENATED}",
                "angle (°)",
            ),
        ],
    )


def _columns(done: dict[str, Sweep], prefix: str) -> list[str]:
    records = [record for found in done.values() for member in found.members for record in member.records]
    return list(dict.fromkeys(name for record in records for name in record if name.startswith(prefix)))


def _last_rows(done: dict[str, Sweep], columns: list[str], labels: list[str]) -> list[list[Any]]:
    return [[n, *(interval_text([last(member, c) for member in done[n].members]) for c in columns)] for n in labels]


def _angle_table(done: dict[str, Sweep]) -> Table:
    columns = _columns(done, "angle ")
    rows = _last_rows(done, columns, [label for label in done if label != BP])
    title = "Angle (°) between the update and backpropagation's, at the end of training"
    return Table(
        title,
        [
            "rule",
            *_short(columns, "angle "),
        ],
        rows,
    )


def feedback_table(done: dict[str, Sweep], drift: dict[str, float]) -> Table:
    """The angle between weight and feedback, and whether their difference stayed what it was."""
    columns = _columns(done, "feedback ")
    rows = _last_rows(done, columns, list(drift))
    title = "Angle (°) between weight and feedback at the end, and the change of their difference in training"
    names = _short(columns, "feedback ")
    changed = [[*row, f"{drift[row[0]]:.1g}"] for row in rows]
    return Table(title, ["rule", *names, "change of W - B, relative"], changed)


def _short(columns: list[str], prefix: str) -> list[str]:
    return [name.removeprefix(prefix).removesuffix(".weight").removesuffix(".convolution") for name in columns]


def furthest(done: dict[str, Sweep], label: str) -> float:
    """The largest angle to backpropagation's update, of any matrix, seed and record."""
    names = _columns({label: done[label]}, "angle ")
    return max(record[name] for member in done[label].members for record in member.records for name in names)


def _accuracy(found: Sweep) -> float:
    """The mean over seeds at the end; 0 for one that diverged."""
    return float(np.mean(np.nan_to_num([last(member, "test_accuracy") for member in found.members])))


def settling_table(settling: dict[str, dict[int, float]]) -> Table:
    """The angle that is left after so many sweeps."""
    columns = [str(steps) for steps in next(iter(settling.values()))]
    title = "Exact form: largest angle (°) to backpropagation's update, of any matrix, after so many sweeps of .1"
    return Table(title, ["at the", *columns], [[name, *along.values()] for name, along in settling.items()])


def converges(done: dict[str, Sweep], settling: dict[str, dict[int, float]]) -> Claim:
    """It converges if, with the most sweeps, no matrix is a degree from backpropagation's update."""
    most = max(max(along) for along in settling.values())
    left = max(along[most] for along in settling.values())
    return Claim(
        "Activation relaxation converges to backpropagation's gradients (2009.05359).",
        f"Largest angle to backpropagation's update, of any matrix: after {most} sweeps of .1 {left:.2g}°; after 100, "
        f"as in the paper, up to {furthest(done, EXACT):.2g}° along training. Units start at their activities, which "
        "are many times the gradients that they relax to, so that what is left of them counts, and counts for more as "
        "the loss falls.",
        "holds" if left < 1 else "does not hold",
    )


_WORDS = {
    BARE: "Without the derivatives of the activation functions on the way down",
    LEARNED: "With random feedback weights that learn",
    FULL: "With both simplifications, no derivatives and learned feedback weights,",
}


def keeps(both: dict[str, dict[str, Sweep]], label: str) -> Claim:
    """It keeps the accuracy if it is at most a point below that of exact activation relaxation."""
    words, kept = [], []
    for name, done in both.items():
        if label not in done:  # as on the second network, if quick
            continue
        ours, exact = (_accuracy(done[which]) for which in (label, EXACT))
        kept.append(ours >= exact - _NEAR)
        fixed = f", feedback that does not learn {100 * _accuracy(done[FIXED]):.1f} %" if FIXED in done else ""
        words.append(
            f"{name} {100 * ours:.1f} % (exact {100 * exact:.1f} %{fixed if label == LEARNED else ''}; angle of the "
            f"whole update to backpropagation's {_mean(done[label], f'angle {CONCATENATED}'):.0f}°)"
        )
    return Claim(
        f"{_WORDS[label]} activation relaxation still performs as well (both papers).",
        f"Test accuracy at the end: {'; '.join(words)}. As well: at most {100 * _NEAR:.0f} point below.",
        borne_out(kept),
    )


def relaxed(done: dict[str, Sweep]) -> Claim:
    """The same for what may be read from where."""
    exact = _accuracy(done[EXACT])
    kept = [_accuracy(done[label]) >= exact - _NEAR for label in FROZEN]
    words = []
    for label, name in FROZEN.items():
        lost = sum(member.diverged for member in done[label].members)
        angle_of = _mean(done[label], f"angle {CONCATENATED}")
        words.append(
            f"{name} {100 * _accuracy(done[label]):.1f} %"
            + (
                f", {lost} of {len(done[label].members)} diverged"
                if lost
                else f", {angle_of:.0f}° from backpropagation"
            )
        )
    return Claim(
        "The forward pass need not be held while the activities relax (a question of 2010.06219; the form in which it "
        "is answered there was not at hand).",
        f"Test accuracy at the end with all held {100 * exact:.1f} %; held alone: {'; '.join(words)}.",
        borne_out(kept),
    )


def _mean(found: Sweep, quantity: str) -> float:
    return float(np.mean([last(member, quantity) for member in found.members]))


def summary(both: dict[str, dict[str, Sweep]]) -> str:
    """Accuracies at the end, and the largest angle of the exact form."""
    parts = []
    for name, done in both.items():
        accuracies = ", ".join(f"{label} {100 * _accuracy(found):.1f} %" for label, found in done.items())
        parts.append(f"Test accuracy at the end, {name}: {accuracies}.")
    angle_of = max(furthest(done, EXACT) for done in both.values())
    return (
        f"Exact activation relaxation is at most {angle_of:.2g}° from backpropagation, as far as it settled. "
        + " ".join(parts)
    )
