"""Stability across learning rates: final accuracy, and mean and variance of the size of updates."""

import time
from typing import Any

import numpy as np

from vicinal.report import Claim, Panel, Section, Series, Study, Table
from vicinal.reproduce.runs import Scale, Variant, classification, train
from vicinal.sweeping import combinations, interval_text, last, plain, words_of
from vicinal.task import Task
from vicinal.train import Sweep, fit, keys_of

_NEAR = 0.05
RATES = (0.01, 0.1, 1.0, 2.5, 10.0, 100.0)
VARIANTS = (
    Variant("BP-SGD", "bp-sgd"),
    Variant("IL-SGD", "il-sgd"),
    Variant("IL-prox", "il-prox", numbers={"eps": 0.0}),
    Variant("BP-prox", "bp-prox", numbers={"eps": 0.0}),
)


def stability(scale: Scale) -> Study:
    """BP-SGD, IL-SGD, IL-prox and BP-prox at learning rates from 0.01 to 100, batch size 1."""
    task, steps = classification(scale), scale.pick(400, 20_000)
    every = steps // scale.pick(2, 10)
    done: dict[str, Sweep] = {}
    alone: dict[str, float] = {}
    for variant in VARIANTS:
        done[variant.label] = train(
            scale, task, variant, steps=steps, batch_size=1, evaluate_every=every, learning_rates=RATES
        )
        alone[variant.label] = seconds_alone(task, variant, steps, every)
    return Study(
        title=f"Stability across learning rates, on {task.data.name}",
        summary=_summary(done, steps),
        command="",
        settings={
            "data": task.data.name,
            "model": [*map(int, _sizes(task))],
            "batch_size": 1,
            "steps": steps,
            "learning_rates": RATES,
        },
        environment={},
        claims=[_claim(done)],
        differences=[
            *(["The digits and a smaller network stand in for MNIST."] if scale.quick else []),
            "The paper's tables were not at hand, so no number of it stands here.",
            "A member whose next step would make an infinite number is frozen and counted as diverged; the published "
            "code goes on with undefined numbers.",
            "Sizes of updates are those of all updates; the published code takes every fiftieth.",
            "BP-prox divides by the squared norm plus 1 for a bias, as IL-prox does; the published BP-prox leaves out "
            "the 1.",
        ],
        sections=[
            Section(
                "Accuracy", tables=[_accuracies(done)], panels=[_panel(done, "test_accuracy", "test accuracy (%)", 100)]
            ),
            Section(
                "Size of updates",
                "The norm of the change of all weights in one update: its mean over training, and its variance.",
                tables=[_table(done, "update_norm", "Mean norm of an update")],
                panels=[
                    _panel(done, "update_norm", "mean norm of an update", 1, log=True),
                    _panel(done, "update_norm_variance", "variance of the norm", 1, log=True),
                ],
            ),
            Section("Time", _TIME, tables=[_times(done, alone, steps)]),
        ],
        numbers={name: plain(sweep.members) for name, sweep in done.items()} | {"seconds_alone": alone},
        data_credit=task.data.credit,
    )


_TIME = (
    "A sweep is one compiled run of all learning rates and seeds of a rule. One by one: the wall time of one member, "
    "run to the end by `fit` with the same evaluations, its compilation left out, times the updates that the members "
    "took. The first ratio is to the whole sweep, compilation and calibration included; the second leaves them out."
)


def seconds_alone(task: Task, variant: Variant, steps: int, every: int) -> float:
    """The wall time of one stable member by `fit`, what compiles left out."""
    rule, optimizer = variant.make(task, min(RATES))
    model_key, train_key = keys_of(0)

    def run(count: int) -> float:
        begun = time.monotonic()
        fit(
            rule,
            task.build(model_key),
            optimizer,
            task.data,
            key=train_key,
            steps=count,
            batch_size=1,
            evaluate_every=every,
            graph=task.graph,
            progress=False,
        )
        return time.monotonic() - begun

    run(min(steps, 50))
    return run(steps)


def _sizes(task: Task) -> list[int]:
    layers = task.build(keys_of(0)[0]).layers
    return [layers[0].weight.shape[1], *(layer.weight.shape[0] for layer in layers)]


def _summary(done: dict[str, Sweep], steps: int) -> str:
    parts = []
    for name, sweep in done.items():
        groups = combinations(sweep.members)
        means = {
            rows[0].numbers["learning_rate"]: float(np.mean([last(member, "test_accuracy") for member in rows]))
            for rows in groups
        }
        whole = {rate: value for rate, value in means.items() if not np.isnan(value)}
        lost = sum(member.diverged for member in sweep.members)
        best = max(whole, key=lambda rate: whole[rate]) if whole else None
        at = f"is best at {best:g} ({100 * whole[best]:.1f} %)" if best is not None else "diverges everywhere"
        parts.append(f"{name} {at} and loses {lost} of {len(sweep.members)} members.")
    return f"{len(RATES)} learning rates, {steps} updates of one example each. " + " ".join(parts)


def _claim(done: dict[str, Sweep]) -> Claim:
    """Counts the rates at which a rule comes near to the best that any rule reaches, and the members it loses."""

    def accuracies(name: str) -> list[float]:
        rows = [[last(member, "test_accuracy") for member in rows] for rows in combinations(done[name].members)]
        return [0.0 if np.any(np.isnan(row)) else float(np.mean(row)) for row in rows]

    best = max(value for name in done for value in accuracies(name))
    usable = {name: sum(value >= best - _NEAR for value in accuracies(name)) for name in done}
    lost = {name: sum(member.diverged for member in done[name].members) for name in done}
    words = "; ".join(
        f"{name}: {usable[name]} of {len(RATES)} rates within {100 * _NEAR:.0f} points of the best of all "
        f"({100 * best:.1f} %), {lost[name]} members diverged"
        for name in done
    )
    better = lost["IL-prox"] == 0 and usable["IL-prox"] > max(usable["BP-SGD"], usable["IL-SGD"])
    nearly_all = usable["IL-prox"] >= len(RATES) - 1
    verdict = ("holds" if nearly_all else "holds in part") if better else "does not hold"
    return Claim(
        "IL-prox is stable across learning rates, where BP-SGD and IL-SGD are not (abstract and stability figure).",
        words + ". BP-prox has the proximal output and the normalised step, but no inference.",
        verdict,
    )


def _rows(done: dict[str, Sweep]) -> Any:
    for name, sweep in done.items():
        yield name, {rows[0].numbers["learning_rate"]: rows for rows in combinations(sweep.members)}


def _accuracies(done: dict[str, Sweep]) -> Table:
    rows: list[list[Any]] = []
    for name, by_rate in _rows(done):
        row: list[Any] = [name]
        for rate in RATES:
            members = by_rate[rate]
            lost = sum(member.diverged for member in members)
            text = interval_text([last(member, "test_accuracy") for member in members], 100.0)
            row.append("diverged" if text is None and lost else text)
        rows.append(row)
    title = "Test accuracy at the end, in %, at each learning rate (mean over seeds ± half a 95 % interval)"
    return Table(title, ["rule", *(f"{rate:g}" for rate in RATES)], rows)


def _table(done: dict[str, Sweep], quantity: str, title: str) -> Table:
    rows = [
        [name, *(interval_text([last(member, quantity) for member in by_rate[rate]]) for rate in RATES)]
        for name, by_rate in _rows(done)
    ]
    return Table(title + ", at each learning rate", ["rule", *(f"{rate:g}" for rate in RATES)], rows)


def _panel(done: dict[str, Sweep], quantity: str, heading: str, unit: float, log: bool = False) -> Panel:
    series = [
        Series(
            name,
            list(RATES),
            np.array([[unit * last(member, quantity) for member in by_rate[rate]] for rate in RATES]).T.tolist(),
        )
        for name, by_rate in _rows(done)
    ]
    title = f"{heading[0].upper()}{heading[1:]} against the learning rate"
    return Panel(title, "learning rate", heading, series, log_x=True, log_y=log)


def _times(done: dict[str, Sweep], alone: dict[str, float], steps: int) -> Table:
    rows: list[list[Any]] = []
    for name, sweep in done.items():
        if sweep.resumed:
            rows.append([name, *[None] * 6, "resumed, so not timed"])
            continue
        one_by_one = alone[name] * sum(member.steps for member in sweep.members) / steps
        rows.append(
            [
                name,
                f"{sweep.seconds:.1f}",
                f"{one_by_one:.1f}",
                f"{one_by_one / sweep.seconds:.2f}",
                f"{one_by_one / (sweep.seconds - sweep.seconds_to_start):.2f}",
                f"{1e6 * alone[name] / steps:.0f}",
                f"{alone[name] / alone['BP-SGD']:.1f}",
                words_of(sweep),
            ]
        )
    columns = [
        "rule",
        "sweep (s)",
        "one by one (s)",
        "ratio",
        "ratio, once compiled",
        "update alone, evaluations included (µs)",
        "of BP-SGD",
        "layout",
    ]
    return Table("Wall time", columns, rows)
