"""Two routes to scalable credit assignment: Kunin et al. 2020, arXiv 2003.01513."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optax

from vicinal.analysis import feedback_likeness
from vicinal.feedback import (
    Route,
    activation_alignment,
    information_alignment,
    optimizers,
    symmetric_alignment,
    weight_mirror,
)
from vicinal.report import Claim, Panel, Section, Series, Table
from vicinal.reproduce import Experiment, Found, Run, Size, Variant, supported
from vicinal.rules import Backprop
from vicinal.sweeping import interval_text, last
from vicinal.task import Task
from vicinal.train import Member, TrainingState
from vicinal_experiments.tasks import task_of
from vicinal_experiments.variants import build_with_route, rule_variant

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class RobustnessSize(Size):
    """Networks, and how their feedback learns.

    Attributes:
        networks: Sizes of the layers of each network, by its name.
        updates: Number of updates of weights and feedback.
        feedback_rates: Learning rates of the feedback.
        noise: Standard deviations of the noise in each update of the feedback.
        learning_rate: Learning rate of the weights.
        batch_size: Examples in an update.
    """

    networks: Mapping[str, tuple[int, ...]]
    updates: int
    feedback_rates: tuple[float, ...]
    noise: tuple[float, ...]
    learning_rate: float = 0.1
    batch_size: int = 64


# ---------------------------------------------------------------------------------------------------- measurement


def _measure(run: Run[RobustnessSize]) -> dict[str, Any]:
    size = run.size
    how = {"steps": size.updates, "batch_size": size.batch_size, "evaluate_every": size.updates // 2}
    numbers: dict[str, Any] = {"backpropagation": {}, "runs": {}}
    for name, sizes in size.networks.items():
        task = task_of(size.data[0], kind="mlp", sizes=sizes, vertex_at="post", activation="tanh")
        backprop = rule_variant("backpropagation", Backprop(), size.learning_rate)
        (numbers["backpropagation"][name],) = run.train_all([backprop], task, part=name, **how).values()
        variants = [_variant(label, task, size) for label in ROUTES]
        numbers["runs"][name] = run.train_all(variants, task, part=name, **how)
    return numbers


def _variant(label: str, task: Task, size: RobustnessSize) -> Variant:
    def make(rate: Any, deviation: Any) -> Any:
        feedback = optax.chain(optax.sgd(rate), optax.add_noise(deviation**2, 0.0, _NOISE_SEED))
        return Backprop(), optimizers(optax.sgd(size.learning_rate), feedback)

    grid = {"rate": list(size.feedback_rates), "deviation": list(size.noise)}
    return Variant(label, make, grid, build_with_route(task.build, ROUTES[label]), _add_angle)


def _add_angle(record: dict[str, Any], state: TrainingState) -> None:
    """Adds the mean angle of the feedback that carries errors: that of all layers but the lowest."""
    likeness = list(feedback_likeness(state.model).values())[1:]
    record["angle"] = float(np.mean([like.angle for like in likeness]))


# ---------------------------------------------------------------------------------------------------------- judge


@dataclasses.dataclass(frozen=True)
class _Network:
    """What was found in one network: members of backpropagation, and of each route."""

    backprop: Sequence[Member]
    routes: Mapping[str, Sequence[Member]]

    @property
    def target(self) -> float:
        """The mean test accuracy of backpropagation."""
        return _mean(self.backprop)

    def mean(self, label: str, rate: float, deviation: float = 0.0) -> float:
        """The mean test accuracy of a route at a learning rate of its feedback."""
        return _mean(_at(self.routes[label], rate, deviation))

    def rates(self, label: str) -> list[float]:
        """The learning rates of its feedback."""
        return sorted({member.numbers["rate"] for member in self.routes[label]})

    def best_rate(self, label: str) -> float:
        """The one with the best mean test accuracy."""
        return max(self.rates(label), key=lambda rate: self.mean(label, rate))

    def best(self, label: str) -> float:
        """The mean test accuracy at that rate."""
        return self.mean(label, self.best_rate(label))


def _networks(found: Found[RobustnessSize]) -> dict[str, _Network]:
    backprop = found.runs("backpropagation")
    return {name: _Network(members, found.runs("runs", name)) for name, members in backprop.items()}


def _accuracy(member: Member) -> float:
    """Test accuracy at the end, or that of chance if it diverged."""
    return 0.1 if member.diverged else last(member, "test_accuracy")


def _mean(members: Sequence[Member]) -> float:
    return float(np.mean([_accuracy(member) for member in members]))


def _at(members: Sequence[Member], rate: float, deviation: float) -> list[Member]:
    return [m for m in members if np.allclose((m.numbers["rate"], m.numbers["deviation"]), (rate, deviation))]


def _summary(found: Found[RobustnessSize]) -> str:
    parts = []
    for name, network in _networks(found).items():
        best = ", ".join(f"{label} {100 * network.best(label):.1f} %" for label in ROUTES)
        parts.append(f"{name}: BP {100 * network.target:.1f} %, at the best rate {best}")
    return "; ".join(parts) + "."


def _deep(found: Found[RobustnessSize]) -> Claim:
    networks = _networks(found)
    gaps = {label: {name: n.target - n.best(label) for name, n in networks.items()} for label in ROUTES}
    words = "; ".join(f"{label} {100 * gap['shallow']:.1f} and {100 * gap['deep']:.1f}" for label, gap in gaps.items())
    checks = [gaps[label]["deep"] <= _NEAR for label in (_SA, _AA)]
    checks.append(gaps[_IA]["deep"] > gaps[_IA]["shallow"] + _NEAR / 2)
    return Claim(
        "Symmetric and activation alignment match backpropagation in deep networks; the gap of information alignment "
        "widens with depth (arXiv 2003.01513).",
        f"Points of test accuracy behind backpropagation at the best rate, shallow and deep: {words}. At most "
        f"{100 * _NEAR:g} counts as a match, a point more as wider.",
        supported(checks),
    )


def _robust(found: Found[RobustnessSize]) -> Claim:
    networks = _networks(found).values()
    wide = {
        label: sum(n.mean(label, rate) > n.target - _NEAR for n in networks for rate in n.rates(label))
        for label in ROUTES
    }
    count = sum(len(network.rates(_WM)) for network in networks)
    others = [number for label, number in wide.items() if label != _WM]
    sensitive = [wide[_WM] < min(others), wide[_WM] == min(others) < max(others)]
    return Claim(
        "Weight mirrors are the most sensitive to their metaparameters.",
        f"Of {count} pairs of network and learning rate, within {100 * _NEAR:g} points of backpropagation: "
        + ", ".join(f"{label} {number}" for label, number in wide.items())
        + ".",
        ("holds" if sensitive[0] else "holds in part" if sensitive[1] else "does not hold")
        if any(wide.values())
        else "open",
    )


def _transfers(found: Found[RobustnessSize]) -> Claim:
    networks = _networks(found)
    shallow, deep = networks["shallow"], networks["deep"]
    lost = {label: deep.best(label) - deep.mean(label, shallow.best_rate(label)) for label in ROUTES}
    return Claim(
        "The metaparameters of weight mirrors do not transfer from one architecture to another, those of symmetric and "
        "activation alignment do.",
        "Points of test accuracy that the deep network loses with the shallow one's best rate: "
        + ", ".join(f"{label} {100 * points:.1f}" for label, points in lost.items())
        + f". More than {100 * _NEAR:g} counts as no transfer.",
        "does not hold" if lost[_WM] <= _NEAR else "holds" if max(lost[_SA], lost[_AA]) <= _NEAR else "holds in part",
    )


def _noisy(found: Found[RobustnessSize]) -> Claim:
    deep = _networks(found)["deep"]
    noise = [deviation for deviation in found.size.noise if deviation]
    behind = {label: [deep.target - deep.mean(label, deep.best_rate(label), d) for d in noise] for label in ROUTES}
    words = [f"{label} " + ", ".join(f"{100 * gap:.1f}" for gap in gaps) for label, gaps in behind.items()]
    return Claim(
        "Symmetric and activation alignment still match backpropagation if their updates are noisy.",
        f"Points behind backpropagation in the deep network, noise of "
        f"deviation {', '.join(f'{d:g}' for d in noise)}: {'; '.join(words)}. At most {100 * _NEAR:g} counts as a "
        "match.",
        supported([gap <= _NEAR for label in (_SA, _AA) for gap in behind[label]]),
    )


def _differences(found: Found[RobustnessSize]) -> list[str]:
    data = "the digits" if found.quick else "MNIST"
    return [
        f"Fully connected networks on {data}; the paper trains ResNets of 18 to 152 layers on ImageNet.",
        "The coefficients are the published defaults; what is swept is the learning rate that multiplies them. The "
        "paper searched all of them for weight mirrors.",
        "The best rate of the feedback is the best on the test examples, of four; backpropagation has one learning "
        "rate, as all have for the weights. That favours the rules that learn their feedback.",
        "Plain gradient descent for both weights and feedback. Noise is Gaussian, added to every update of the "
        "feedback; its deviation is that of one update.",
        "We could not read the paper's accuracies.",
    ]


# --------------------------------------------------------------------------------------------- tables and figures


def _sections(found: Found[RobustnessSize]) -> list[Section]:
    return [
        Section(
            name,
            f"Layers of {', '.join(map(str, found.size.networks[name]))} units, tanh.",
            tables=[_table(network, deviation) for deviation in found.size.noise],
            panels=[_panel(network)],
        )
        for name, network in _networks(found).items()
    ]


def _cell(members: list[Member]) -> str:
    stopped = sum(member.diverged for member in members)
    if stopped:
        return f"{stopped} of {len(members)} diverged"
    angle = np.mean([last(member, "angle") for member in members])
    return f"{interval_text([_accuracy(member) for member in members], 100.0)}; {angle:.0f}°"


def _table(network: _Network, deviation: float) -> Table:
    rates = network.rates(_WM)
    table: list[list[Any]] = [
        [label, *(_cell(_at(members, rate, deviation)) for rate in rates)] for label, members in network.routes.items()
    ]
    noise = f", noise of {deviation:g} in every update" if deviation else ""
    accuracy = interval_text([_accuracy(member) for member in network.backprop], 100.0)
    title = f"Test accuracy (%; BP {accuracy}) and mean angle of the feedback, by its learning rate{noise}"
    return Table(title, ["feedback", *(f"{rate:g}" for rate in rates)], table)


def _panel(network: _Network) -> Panel:
    series = [
        Series(label, network.rates(label), [[100 * network.mean(label, rate) for rate in network.rates(label)]])
        for label in network.routes
    ]
    return Panel("Test accuracy", "learning rate of the feedback", "test accuracy (%)", series, log_x=True)


ROBUSTNESS = Experiment(
    name="routes/robustness",
    title="Robustness of learned feedback",
    topic="feedback learned in four ways, across its learning rates and noise, in a shallow and a deep network",
    paper="Kunin et al. 2020, arXiv 2003.01513",
    sizes={
        "quick": RobustnessSize(
            data=("digits",),
            networks={"shallow": (64, 32, 10), "deep": (64, 32, 32, 32, 32, 10)},
            updates=300,
            feedback_rates=(1.0, 100.0),
            noise=(0.0, 1e-2),
        ),
        "full": RobustnessSize(
            data=("mnist",),
            networks={"shallow": (784, 128, 10), "deep": (784, *(128,) * 6, 10)},
            updates=2_000,
            feedback_rates=(0.3, 3.0, 30.0, 300.0),
            noise=(0.0, 1e-2, 1e-1),
        ),
    },
    time={"full": "ten minutes"},
    measure=_measure,
    summary=_summary,
    claims=[_deep, _robust, _transfers, _noisy],
    sections=_sections,
    differences=_differences,
    seeds=2,
)
"""Accuracy across learning rates of the feedback and noise in its updates, in a shallow and a deep network."""
