"""A stable, fast, and fully automatic learning algorithm for predictive coding: Salvatori et al., 2212.00720.

ICLR 2024. The paper's claims, in our words: where weights move at every inference step, together with the activities
and without a signal between phases, learning is faster, and depends less on the learning rate, than where they move
once inference has ended; and it classifies as well as backpropagation.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optax

from vicinal.analysis import measure_path
from vicinal.inference import Simultaneous
from vicinal.losses import Loss, softmax_cross_entropy
from vicinal.report import Claim, Panel, Section, Series, Study, Table
from vicinal.reproduce.learning import ACCURACY, PAIRED, SAID
from vicinal.reproduce.runs import Scale, Variant, ahead, at_step, classification as mlp, train, verdict
from vicinal.rules import Backprop, IncrementalPC, InferenceLearning, Rule
from vicinal.sweeping import combinations, curve, interval_text, last, plain
from vicinal.task import Task
from vicinal.train import Member, Sweep

Done = dict[str, Sweep]

_STEPS, _STEP_SIZE, _BATCH, _NEAR = 8, 0.1, 64, 0.05
_RULES: dict[str, Callable[[Loss], Rule]] = {
    "BP": lambda loss: Backprop(loss=loss),
    "IL": lambda loss: InferenceLearning(inference=Simultaneous(steps=_STEPS, step_size=_STEP_SIZE), loss=loss),
    "iPC": lambda loss: IncrementalPC(steps=_STEPS, step_size=_STEP_SIZE, loss=loss),
}
_OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {"SGD": optax.sgd, "Adam": optax.adam}
_RATES = {"SGD": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1), "Adam": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3)}


@dataclasses.dataclass(frozen=True)
class _Pair(Variant):
    """A rule with an optimiser, where no recipe has them."""

    optimizer: str = "SGD"

    def make(self, task: Task, learning_rate: Any = None) -> tuple[Rule, optax.GradientTransformation]:
        optimizer = _OPTIMIZERS[self.optimizer](learning_rate)
        return _RULES[self.recipe](softmax_cross_entropy), optax.chain(optimizer, measure_path())


def classification(scale: Scale) -> Study:
    """iPC, inference learning and backpropagation, with SGD and with Adam, at the same learning rates."""
    scale = scale.by_default(3)
    steps = scale.pick(160, 1_600)
    every = steps // 8  # so that a rule with one gradient per batch has an evaluation at an eighth of the batches
    runs = []
    for data in scale.pick(("mnist",), ("mnist", "fashion_mnist")):
        task = mlp(scale, data)
        done = {
            f"{rule}-{name}": train(
                scale,
                task,
                _Pair(f"{rule}-{name}", rule, optimizer=name),
                steps=steps,
                batch_size=_BATCH,
                evaluate_every=every,
                learning_rates=rates,
            )
            for name, rates in _RATES.items()
            for rule in _RULES
        }
        runs.append((task, done))
    return Study(
        title="Incremental predictive coding beside inference learning and backpropagation",
        summary=_summary(runs, steps),
        command="",
        settings={
            "data": [task.data.name for task, _ in runs],
            "batch_size": _BATCH,
            "steps": steps,
            "seeds": scale.seeds,
            "inference_steps": _STEPS,
            "step_size": _STEP_SIZE,
            "learning_rates": _RATES,
        },
        environment={},
        claims=[_robust(runs), _quick(runs, every, steps), _as_good(runs)],
        differences=[
            *(["The digits and a smaller network stand in for MNIST and Fashion-MNIST."] if scale.quick else []),
            "The paper's settings and tables were not at hand: networks, learning rates, inference steps and the "
            "number of updates are ours, and no number of it stands here.",
            f"{steps} iterations ({steps * _BATCH / len(runs[0][0].data.x_train):.1f} epochs): the curves' beginning.",
            "The best learning rate of each rule was chosen on the test examples, for all rules alike.",
            "The paper's convolutional networks, its calibration under shift and its language models are left out.",
        ],
        sections=[_section(task, done, [every, steps // 2, steps]) for task, done in runs],
        numbers={task.data.name: {name: plain(s.members) for name, s in done.items()} for task, done in runs},
        data_credit=runs[-1][0].data.credit,
    )


# --------------------------------------------------------------------------------------------------------- tables


def best_rate(sweep: Sweep) -> list[Member]:
    """The members at the learning rate with the best mean accuracy at the end; one that diverged counts as 0."""
    return max(combinations(sweep.members), key=lambda members: np.mean(_final(members)))


def _final(members: Sequence[Member]) -> list[float]:
    return np.nan_to_num([last(member, ACCURACY) for member in members]).tolist()


def _best(done: Done) -> dict[str, list[Member]]:
    return {name: best_rate(sweep) for name, sweep in done.items()}


def _rate(members: Sequence[Member]) -> float:
    return members[0].numbers["learning_rate"]


def _summary(runs: list[tuple[Task, Done]], steps: int) -> str:
    parts = [f"{steps} updates of {_BATCH} examples each, {len(_RATES['SGD'])} learning rates, the same for all rules."]
    for task, done in runs:
        words = ", ".join(
            f"{name} {100 * np.mean(_final(members)):.1f} % at {_rate(members):g}"
            for name, members in _best(done).items()
        )
        parts.append(f"Best on {task.data.name}: {words}.")
    return " ".join(parts)


def _section(task: Task, done: Done, marks: Sequence[int]) -> Section:
    tables, panels = [], []
    for optimizer, rates in _RATES.items():
        own = {name: sweep for name, sweep in done.items() if name.endswith(optimizer)}
        rows: list[list[Any]] = []
        for name, sweep in own.items():
            row: list[Any] = [name]
            for members in combinations(sweep.members):
                text = interval_text([last(member, ACCURACY) for member in members], 100.0)
                row.append("diverged" if text is None else text)
            rows.append(row)
        tables.append(
            Table(
                f"Test accuracy at the end, in %, at each learning rate of {optimizer} (mean over seeds ± half a 95 % "
                "interval)",
                ["rule", *(f"{rate:g}" for rate in rates)],
                rows,
            )
        )
        series = [
            Series(
                name,
                list(rates),
                np.array([[100 * last(m, ACCURACY) for m in rows] for rows in combinations(sweep.members)]).T.tolist(),
            )
            for name, sweep in own.items()
        ]
        panels.append(Panel(f"At the end, {optimizer}", "learning rate", "test accuracy (%)", series, log_x=True))
    chosen = _best(done)
    tables.append(
        Table(
            "Test accuracy, in %, after so many batches, each rule at its best learning rate",
            ["rule", "learning rate", *map(str, marks)],
            [
                [
                    name,
                    f"{_rate(members):g}",
                    *(interval_text([at_step(m, ACCURACY, mark) for m in members], 100.0) for mark in marks),
                ]
                for name, members in chosen.items()
            ],
        )
    )
    panels.append(
        Panel(
            "Along training, each rule at its best learning rate",
            "batches",
            "test accuracy (%)",
            [curve(name, members, ACCURACY, 100.0) for name, members in chosen.items()],
        )
    )
    return Section(task.data.name, panels=panels, tables=tables)


# --------------------------------------------------------------------------------------------------------- claims


def usable(sweep: Sweep, best: float) -> list[int]:
    """For each seed, how many learning rates end near the best accuracy."""
    finals = np.array([_final(members) for members in combinations(sweep.members)])
    return np.sum(finals >= best - _NEAR, axis=0).tolist()


def _robust(runs: list[tuple[Task, Done]]) -> Claim:
    found, words = [], []
    for task, done in runs:
        for optimizer in _RATES:
            own = {name: sweep for name, sweep in done.items() if name.endswith(optimizer)}
            top = max(float(np.mean(_final(best_rate(sweep)))) for sweep in own.values())
            counts = {name: usable(sweep, top) for name, sweep in own.items()}
            found.append(ahead(counts[f"iPC-{optimizer}"], counts[f"IL-{optimizer}"]))
            said = ", ".join(f"{name} {np.mean(count):.1f}" for name, count in counts.items())
            words.append(f"on {task.data.name} with {optimizer} {said} of {len(_RATES[optimizer])}")
    return Claim(
        "iPC is more robust to the choice of hyper-parameters than inference learning (title: stable).",
        f"Learning rates that end within {100 * _NEAR:.0f} points of the best of the three rules: {'; '.join(words)}. "
        f"{PAIRED}: iPC against IL.",
        verdict(found),
    )


def _quick(runs: list[tuple[Task, Done]], early: int, steps: int) -> Claim:
    """iPC against IL at the same number of batches; and against BP at the same number of gradients."""
    found, words = [], []
    for task, done in runs:
        chosen = _best(done)
        for optimizer in _RATES:
            bp, il, ipc = ([at_step(m, ACCURACY, early) for m in chosen[f"{r}-{optimizer}"]] for r in _RULES)
            late = [at_step(m, ACCURACY, steps) for m in chosen[f"BP-{optimizer}"]]
            found.append(ahead(ipc, il))
            words.append(
                f"on {task.data.name} with {optimizer}, after {early} batches, BP {100 * np.mean(bp):.1f} %, IL "
                f"{100 * np.mean(il):.1f} %, iPC {100 * np.mean(ipc):.1f} % (iPC is {SAID[found[-1]]} IL), and BP "
                f"after as many gradients as iPC has had, {early * _STEPS}, {100 * np.mean(late):.1f} % (iPC is "
                f"{SAID[ahead(ipc, late)]} it)"
            )
    return Claim(
        "iPC learns faster than inference learning (title: fast).",
        f"Each rule at its best learning rate, test accuracy {'; '.join(words)}. A batch takes one gradient of BP, and "
        f"{_STEPS} of the energy of IL and of iPC. {PAIRED}. The verdict is on iPC against IL.",
        verdict(found),
    )


def _as_good(runs: list[tuple[Task, Done]]) -> Claim:
    found, words = [], []
    for task, done in runs:
        chosen = _best(done)
        for optimizer in _RATES:
            finals = {rule: _final(chosen[f"{rule}-{optimizer}"]) for rule in _RULES}
            found.append(ahead(finals["iPC"], finals["BP"]))
            means = ", ".join(f"{rule} {100 * np.mean(values):.1f} %" for rule, values in finals.items())
            words.append(f"on {task.data.name} with {optimizer} {means} (iPC is {SAID[found[-1]]} BP)")
    return Claim(
        "iPC classifies as well as backpropagation.",
        f"Each rule at its best learning rate, test accuracy at the end: {'; '.join(words)}. {PAIRED}. Holds if iPC is "
        "ahead; not told apart counts as open.",
        verdict(found),
    )
