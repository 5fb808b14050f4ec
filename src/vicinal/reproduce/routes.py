"""Two routes to scalable credit assignment: Kunin et al. 2020, arXiv 2003.01513."""

import functools
from typing import Any

import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree

from vicinal.analysis import feedback_likeness
from vicinal.feedback import (
    Route,
    activation_alignment,
    information_alignment,
    optimizers,
    symmetric_alignment,
    weight_mirror,
)
from vicinal.graph import capture
from vicinal.recipes import with_route
from vicinal.report import Claim, Panel, Section, Series, Study, Table
from vicinal.reproduce.runs import Scale, borne_out, task_of
from vicinal.reproduce.side_by_side import first_input
from vicinal.rules import Backprop
from vicinal.sweeping import interval_text, last, plain
from vicinal.task import Task
from vicinal.train import Member, Sweep, TrainingState, keys_of, sweep

_LEARNING_RATE, _BATCH = 0.1, 64
_NOISE_SEED = 1
_WM, _IA, _SA, _AA = "weight mirror", "information alignment", "symmetric alignment", "activation alignment"
ROUTES: dict[str, Route] = {
    _WM: weight_mirror(),
    _IA: information_alignment(),
    _SA: symmetric_alignment(),
    _AA: activation_alignment(),
}
"""The four rules with their published coefficients."""
_NEAR = 0.02  # of the test accuracy: what counts as no worse than backpropagation


def robustness(scale: Scale) -> Study:
    """Accuracy across learning rates of the feedback and noise in its updates, in a shallow and a deep network."""
    scale = scale.by_default(2)
    data = scale.pick("digits", "mnist")
    networks = scale.pick(
        {"shallow": (64, 32, 10), "deep": (64, 32, 32, 32, 32, 10)},
        {"shallow": (784, 128, 10), "deep": (784, *(128,) * 6, 10)},
    )
    tasks = {
        name: task_of(data, kind="mlp", sizes=sizes, vertex_at="post", activation="tanh")
        for name, sizes in networks.items()
    }
    steps = scale.pick(300, 2_000)
    rates = scale.pick((1.0, 100.0), (0.3, 3.0, 30.0, 300.0))
    bp = {name: _backprop(scale, name, task, steps) for name, task in tasks.items()}
    deviations = scale.pick((0.0, 1e-2), (0.0, 1e-2, 1e-1))
    grid = {"rate": list(rates), "deviation": list(deviations)}
    fed = {
        name: {label: _train(scale, f"{name} {label}", task, ROUTES[label], steps, grid) for label in ROUTES}
        for name, task in tasks.items()
    }
    return Study(
        title=f"Robustness of learned feedback, on {data}",
        summary="; ".join(_best_text(name, bp[name], runs) for name, runs in fed.items()) + ".",
        command="",
        settings={
            "seeds": scale.seeds,
            "data": data,
            "networks": {name: list(sizes) for name, sizes in networks.items()},
            "batch_size": _BATCH,
            "updates": steps,
            "learning_rate": _LEARNING_RATE,
            "feedback_rates": list(rates),
            "noise": list(deviations),
        },
        environment={},
        claims=[_deep(bp, fed), _robust(bp, fed), _transfers(fed), _noisy(bp, fed)],
        differences=[
            "Fully connected networks on "
            + ("the digits" if scale.quick else "MNIST")
            + "; the paper trains ResNets of 18 to 152 layers on ImageNet.",
            "The coefficients are the published defaults; what is swept is the learning rate that multiplies them. The "
            "paper searched all of them for weight mirrors.",
            "The best rate of the feedback is the best on the test examples, of four; backpropagation has one learning "
            "rate, as all have for the weights. That favours the rules that learn their feedback.",
            "Plain gradient descent for both weights and feedback. Noise is Gaussian, added to every update of the "
            "feedback; its deviation is that of one update.",
            "The paper's accuracies were not at hand.",
        ],
        sections=[
            Section(
                name,
                f"Layers of {', '.join(map(str, networks[name]))} units, tanh.",
                tables=[_table(bp[name], fed[name], deviation) for deviation in deviations],
                panels=[_panel(fed[name])],
            )
            for name in tasks
        ],
        numbers={
            "backpropagation": {name: plain(found.members) for name, found in bp.items()},
            "runs": {name: {label: plain(s.members) for label, s in runs.items()} for name, runs in fed.items()},
        },
        data_credit=next(iter(tasks.values())).data.credit,
    )


# ------------------------------------------------------------------------------------------------------- runs


def _swept(scale: Scale, task: Task, name: str, make: Any, build: Any, numbers: Any, steps: int, measure: Any) -> Sweep:
    scale.say(f"{name} on {task.data.name}, {steps} updates, {scale.seeds} seeds")
    folder = None if scale.folder is None else scale.folder / "runs" / name.replace(" ", "-")
    return sweep(
        make,
        build,
        task.data,
        numbers,
        seeds=scale.seeds,
        steps=steps,
        batch_size=_BATCH,
        evaluate_every=steps // 2,
        graph=capture(build(keys_of(0)[0]), first_input(task)),
        group_size=1,
        folder=folder,
        resume=folder is not None,
        progress=scale.progress,
        on_record=measure,
    )


def _backprop(scale: Scale, name: str, task: Task, steps: int) -> Sweep:
    def make(learning_rate: Any) -> Any:
        return Backprop(), optax.sgd(learning_rate)

    numbers = {"learning_rate": [_LEARNING_RATE]}
    return _swept(scale, task, f"{name} backpropagation", make, task.build, numbers, steps, None)


def _train(scale: Scale, name: str, task: Task, route: Route, steps: int, grid: dict[str, list[float]]) -> Sweep:
    def make(rate: Any, deviation: Any) -> Any:
        feedback = optax.chain(optax.sgd(rate), optax.add_noise(deviation**2, 0.0, _NOISE_SEED))
        return Backprop(), optimizers(optax.sgd(_LEARNING_RATE), feedback)

    return _swept(scale, task, name, make, functools.partial(_network, task, route), grid, steps, _measure)


def _network(task: Task, route: Route, key: PRNGKeyArray) -> PyTree:
    return with_route(task.build(key), route, key=key)


def _measure(record: dict[str, Any], state: TrainingState) -> None:
    """The mean angle of the feedback that carries errors: that of all layers but the lowest."""
    found = list(feedback_likeness(state.model).values())[1:]
    record["angle"] = float(np.mean([like.angle for like in found]))


# ------------------------------------------------------------------------------------------------ tables and figures


def _accuracy(member: Member) -> float:
    """Test accuracy at the end, or that of chance if it diverged."""
    return 0.1 if member.diverged else last(member, "test_accuracy")


def _values(found: Sweep, number: str) -> list[float]:
    return sorted({member.numbers[number] for member in found.members})


def _at(found: Sweep, rate: float, deviation: float = 0.0) -> list[Member]:
    return [m for m in found.members if np.allclose((m.numbers["rate"], m.numbers["deviation"]), (rate, deviation))]


def _mean(members: list[Member]) -> float:
    return float(np.mean([_accuracy(member) for member in members]))


def _best_rate(found: Sweep) -> float:
    return max(_values(found, "rate"), key=lambda rate: _mean(_at(found, rate)))


def _best(found: Sweep) -> float:
    return _mean(_at(found, _best_rate(found)))


def _best_text(name: str, bp: Sweep, runs: dict[str, Sweep]) -> str:
    best = ", ".join(f"{label} {100 * _best(found):.1f} %" for label, found in runs.items())
    return f"{name}: BP {100 * _mean(bp.members):.1f} %, at the best rate {best}"


def _cell(members: list[Member]) -> str:
    stopped = sum(member.diverged for member in members)
    if stopped:
        return f"{stopped} of {len(members)} diverged"
    angle = np.mean([last(member, "angle") for member in members])
    return f"{interval_text([_accuracy(member) for member in members], 100.0)}; {angle:.0f}°"


def _table(bp: Sweep, runs: dict[str, Sweep], deviation: float) -> Table:
    rates = _values(next(iter(runs.values())), "rate")
    rows: list[list[Any]] = [
        [label, *(_cell(_at(found, rate, deviation)) for rate in rates)] for label, found in runs.items()
    ]
    noise = f", noise of {deviation:g} in every update" if deviation else ""
    accuracy = interval_text([_accuracy(member) for member in bp.members], 100.0)
    title = f"Test accuracy (%; BP {accuracy}) and mean angle of the feedback, by its learning rate{noise}"
    return Table(title, ["feedback", *(f"{rate:g}" for rate in rates)], rows)


def _panel(runs: dict[str, Sweep]) -> Panel:
    series = []
    for label, found in runs.items():
        rates = _values(found, "rate")
        series.append(Series(label, rates, [[100 * _mean(_at(found, rate)) for rate in rates]]))
    return Panel("Test accuracy", "learning rate of the feedback", "test accuracy (%)", series, log_x=True)


# ---------------------------------------------------------------------------------------------------------- claims


def _gaps(bp: dict[str, Sweep], runs: dict[str, dict[str, Sweep]]) -> dict[str, dict[str, float]]:
    return {label: {name: _mean(bp[name].members) - _best(runs[name][label]) for name in runs} for label in ROUTES}


def _deep(bp: dict[str, Sweep], runs: dict[str, dict[str, Sweep]]) -> Claim:
    gaps = _gaps(bp, runs)
    text = "; ".join(f"{label} {100 * gap['shallow']:.1f} and {100 * gap['deep']:.1f}" for label, gap in gaps.items())
    borne = [gaps[label]["deep"] <= _NEAR for label in (_SA, _AA)] + [
        gaps[_IA]["deep"] > gaps[_IA]["shallow"] + _NEAR / 2
    ]
    return Claim(
        "Symmetric and activation alignment match backpropagation in deep networks; the gap of information alignment "
        "widens with depth (arXiv 2003.01513).",
        f"Points of test accuracy behind backpropagation at the best rate, shallow and deep: {text}. At most "
        f"{100 * _NEAR:g} counts as a match, a point more as wider.",
        borne_out(borne),
    )


def _robust(bp: dict[str, Sweep], runs: dict[str, dict[str, Sweep]]) -> Claim:
    wide = {
        label: sum(
            _mean(_at(found[label], rate)) > _mean(bp[name].members) - _NEAR
            for name, found in runs.items()
            for rate in _values(found[label], "rate")
        )
        for label in ROUTES
    }
    count = sum(len(_values(found[_WM], "rate")) for found in runs.values())
    others = [found for label, found in wide.items() if label != _WM]
    return Claim(
        "Weight mirrors are the most sensitive to their metaparameters.",
        f"Of {count} pairs of network and learning rate, within {100 * _NEAR:g} points of backpropagation: "
        + ", ".join(f"{label} {found}" for label, found in wide.items())
        + ".",
        "open"
        if not any(wide.values())
        else "holds"
        if wide[_WM] < min(others)
        else "holds in part"
        if wide[_WM] == min(others) < max(others)
        else "does not hold",
    )


def _transfers(runs: dict[str, dict[str, Sweep]]) -> Claim:
    lost = {
        label: _best(runs["deep"][label]) - _mean(_at(runs["deep"][label], _best_rate(runs["shallow"][label])))
        for label in ROUTES
    }
    return Claim(
        "The metaparameters of weight mirrors do not transfer from one architecture to another, those of symmetric and "
        "activation alignment do.",
        "Points of test accuracy that the deep network loses with the shallow one's best rate: "
        + ", ".join(f"{label} {100 * found:.1f}" for label, found in lost.items())
        + f". More than {100 * _NEAR:g} counts as no transfer.",
        "does not hold" if lost[_WM] <= _NEAR else "holds" if max(lost[_SA], lost[_AA]) <= _NEAR else "holds in part",
    )


def _noisy(bp: dict[str, Sweep], runs: dict[str, dict[str, Sweep]]) -> Claim:
    behind = {}
    for label, found in runs["deep"].items():
        rate = _best_rate(found)
        noisy = [deviation for deviation in _values(found, "deviation") if deviation]
        behind[label] = {d: _mean(bp["deep"].members) - _mean(_at(found, rate, d)) for d in noisy}
    borne = [found <= _NEAR for label in (_SA, _AA) for found in behind[label].values()]
    return Claim(
        "Symmetric and activation alignment still match backpropagation if their updates are noisy.",
        f"Points behind backpropagation in the deep network, noise of "
        f"deviation {', '.join(f'{d:g}' for d in behind[_SA])}: "
        + "; ".join(f"{label} " + ", ".join(f"{100 * v:.1f}" for v in each.values()) for label, each in behind.items())
        + f". At most {100 * _NEAR:g} counts as a match.",
        borne_out(borne),
    )
