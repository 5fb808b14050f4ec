"""The experiments by name, and how one is run and reported."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vicinal._nearest import did_you_mean
from vicinal.environment import environment, now
from vicinal.report import Study
from vicinal.reproduce import (
    ar,
    constrained,
    direct,
    exact,
    feedback_convergence,
    feedback_paths,
    il_theory,
    inversion,
    ipc,
    mq,
    ovq,
    phaseless,
    relaxed,
    routes,
)
from vicinal.reproduce.runs import Scale
from vicinal.settings import CONFIG, kept_config
from vicinal.sweeping import keep_study


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment of a paper.

    Attributes:
        name: What the command line calls it.
        title: What it shows.
        paper: Where it comes from.
        run: Runs it at a scale.
        full: How long the full one takes on two cores, in words.
        large: How long the large one takes on a GPU, in words; None if there is none.
    """

    name: str
    title: str
    paper: str
    run: Callable[[Scale], Study]
    full: str
    large: str | None = None


_IL_THEORY = "Alonso et al. 2022, arXiv 2206.00164"
_CONSTRAINED = "Alonso and Neftci 2021, arXiv 2104.15137"
_PAL = "Max et al. 2024, arXiv 2212.10249"
_DI = "Podlaski and Machens 2020, arXiv 2007.05112"
_OVQ = "Alonso, Figliolia and Millidge 2026, arXiv 2602.03922"
_MQ = "Alonso, Krichmar and Neftci 2024, arXiv 2305.13562"

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "il-theory/stability",
            "accuracy and size of updates across learning rates",
            _IL_THEORY,
            il_theory.stability,
            "ten minutes",
        ),
        Experiment(
            "il-theory/online", "learning curves at batch size 1", _IL_THEORY, il_theory.online, "twenty minutes"
        ),
        Experiment(
            "il-theory/minibatch", "learning curves at batch size 64", _IL_THEORY, il_theory.minibatch, "an hour"
        ),
        Experiment(
            "il-theory/proximal",
            "how near inference comes to the proximal step",
            _IL_THEORY,
            il_theory.proximal,
            "ten minutes",
        ),
        Experiment(
            "il-theory/paths",
            "how far the weights travel, and what a change of them does",
            _IL_THEORY,
            il_theory.paths,
            "ten minutes",
        ),
        Experiment(
            "il-theory/autoencoder", "reconstruction at batch size 1", _IL_THEORY, il_theory.autoencoder, "an hour"
        ),
        Experiment(
            "mq/classification",
            "sequential inference and matrix update equalisation, fully connected",
            _MQ,
            mq.classification,
            "ten minutes",
        ),
        Experiment(
            "mq/convolution",
            "sequential inference and matrix update equalisation, convolutional",
            _MQ,
            mq.convolution,
            "ten minutes",
        ),
        Experiment(
            "mq/autoencoder",
            "sequential inference and matrix update equalisation, reconstruction",
            _MQ,
            mq.autoencoder,
            "ten minutes",
        ),
        Experiment(
            "mq/inference",
            "sequential against simultaneous inference, and the size of each matrix's update",
            _MQ,
            mq.inference,
            "five minutes",
        ),
        Experiment(
            "mq/proximal",
            "the proximal objective along sequential and simultaneous inference",
            _MQ,
            mq.proximal,
            "three minutes",
        ),
        Experiment("mq/time", "what a training step costs against backpropagation", _MQ, mq.timing, "two minutes"),
        Experiment(
            "ipc/classification",
            "incremental predictive coding across learning rates",
            "Salvatori et al. 2024, arXiv 2212.00720",
            ipc.classification,
            "ten minutes",
        ),
        Experiment(
            "exact/backprop",
            "Z-IL and fixed prediction against backpropagation: gradients, training, time",
            "Millidge et al. 2022, arXiv 2006.04182; Salvatori et al. 2021, arXiv 2103.03725; Rosenbaum 2022, arXiv "
            "2106.13082",
            exact.backprop,
            "six minutes",
        ),
        Experiment(
            "ar/mnist",
            "activation relaxation and its simplifications against backpropagation",
            "Millidge et al. 2020, arXiv 2009.05359 and 2010.06219",
            ar.mnist,
            "eight minutes",
        ),
        Experiment(
            "fa/mnist",
            "feedback alignment, sign symmetry, Kolen-Pollack and weight mirrors: accuracy and angles",
            "Lillicrap et al. 2016; Akrout et al. 2019, arXiv 1904.05391",
            feedback_paths.mnist,
            "ten minutes",
        ),
        Experiment(
            "fa/convergence",
            "alignment of wide two-layer networks with their feedback",
            "Song, Xu and Lafferty 2021, arXiv 2106.06044",
            feedback_convergence.convergence,
            "two minutes",
        ),
        Experiment(
            "routes/robustness",
            "feedback learned in four ways, across its learning rates and noise, in a shallow and a deep network",
            "Kunin et al. 2020, arXiv 2003.01513",
            routes.robustness,
            "ten minutes",
        ),
        Experiment(
            "dfa/cnn-rnn",
            "direct feedback in convolutional and recurrent networks: sparse, in modules, mixed",
            "Han, Park, Ryu and Yoo 2020, arXiv 2006.12830",
            direct.networks,
            "ten minutes",
        ),
        Experiment(
            "constrained-pc/mnist",
            "positive rates, ratios as errors, one-directional synapses",
            _CONSTRAINED,
            constrained.mnist,
            "ten minutes",
        ),
        Experiment(
            "constrained-pc/fashion", "the same on Fashion-MNIST", _CONSTRAINED, constrained.fashion, "ten minutes"
        ),
        Experiment(
            "relaxed-pc/mnist",
            "learned backward weights, no derivatives, learned error connections",
            "Millidge, Tschantz, Seth and Buckley 2020, arXiv 2010.01047",
            relaxed.mnist,
            "ten minutes",
        ),
        Experiment(
            "ovq/capacity",
            "what an untrained OVQ layer recalls, by facts and by length",
            _OVQ,
            ovq.capacity,
            "three minutes",
        ),
        Experiment(
            "ovq/recall",
            "recall in context, basic and by position, beyond the length of training",
            _OVQ,
            ovq.recall,
            "half an hour",
            "not timed yet",
        ),
        Experiment(
            "ovq/mqar",
            "multi-query associative recall; one layer alone; learning by local rules",
            _OVQ,
            ovq.mqar,
            "an hour",
        ),
        Experiment("ovq/icl", "linear regression in context against the ridge oracle", _OVQ, ovq.icl, "ten minutes"),
        Experiment(
            "ovq/ablations",
            "growth, beginning, rate and bias of the centroids; their number at test time",
            _OVQ,
            ovq.ablations,
            "ten minutes",
        ),
        Experiment(
            "ovq/books",
            "books byte by byte, beyond the length of training",
            _OVQ,
            ovq.books,
            "ten minutes",
            "not timed yet",
        ),
        Experiment(
            "ovq/cost",
            "time and memory against full attention and the others, by length",
            _OVQ,
            ovq.cost,
            "ten minutes",
        ),
        Experiment(
            "di/regression",
            "linear and non-linear regression by dynamic inversion",
            _DI,
            inversion.regression,
            "two minutes",
        ),
        Experiment(
            "di/mnist",
            "MNIST one example at a time, by dynamic inversion and its references",
            _DI,
            inversion.mnist,
            "three minutes",
        ),
        Experiment(
            "di/autoencoder",
            "a deep autoencoder by the closed form of dynamic inversion",
            _DI,
            inversion.autoencoder,
            "three minutes",
        ),
        Experiment(
            "pal/teacher",
            "feedback learned from noise beside held weights: angles along time",
            _PAL,
            phaseless.teacher,
            "ten minutes",
        ),
        Experiment(
            "pal/microcircuit",
            "the same in a cortical microcircuit, all plasticities on",
            _PAL,
            phaseless.microcircuit,
            "ten minutes",
        ),
        Experiment(
            "pal/yinyang",
            "the Yin-Yang data set by phaseless alignment learning",
            _PAL,
            phaseless.yinyang,
            "ten minutes",
        ),
        Experiment("pal/mnist", "MNIST by phaseless alignment learning", _PAL, phaseless.mnist, "ten minutes"),
        Experiment(
            "pal/autoencoder",
            "an autoencoder with two units: what a linear read-out finds in them",
            _PAL,
            phaseless.autoencoder,
            "an hour",
        ),
    )
}
"""All experiments by name."""


def experiment(name: str) -> Experiment:
    """The experiment of this name.

    Raises:
        ValueError: If there is none.
    """
    if name not in EXPERIMENTS:
        hint = did_you_mean(name, EXPERIMENTS, cutoff=0.75)
        raise ValueError(f"expected an experiment of {', '.join(EXPERIMENTS)}, got {name!r}{hint}")
    return EXPERIMENTS[name]


def reproduce(
    name: str,
    folder: str | Path,
    *,
    quick: bool = False,
    seeds: int | None = None,
    large: bool = False,
    resume: bool = False,
    command: str = "",
    progress: bool | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Study:
    """Runs an experiment, and writes its results and report.

    Args:
        name: A name in `EXPERIMENTS`.
        folder: Where the report, the results and the checkpoints of its sweeps go; made if missing.
        quick: Whether to show the same shape in under two minutes, on the embedded digits.
        seeds: How many; by default the experiment's own number, or two if quick.
        large: Whether to run the sizes meant for a GPU.
        resume: Whether to go on from the checkpoints that are there.
        command: The command line, for the report.
        progress: As for `vicinal.train.fit`.
        say: Called with a sentence before each part.

    Returns:
        What was found.

    Raises:
        ValueError: If there is no such experiment, it has no large sizes, or the folder holds another run.
        FileNotFoundError: If its data set is not there.
    """
    chosen, folder = experiment(name), Path(folder)
    if seeds is not None and seeds < 1:
        raise ValueError(f"expected at least one seed, got {seeds}")
    if large and chosen.large is None:
        having = ", ".join(other.name for other in EXPERIMENTS.values() if other.large is not None)
        raise ValueError(f"expected an experiment with large sizes, {having}, got {name}; leave out large")
    if large and quick:
        raise ValueError("expected quick or large, got both; leave one of them out")
    config = {"experiment": name, "quick": quick, "seeds": seeds} | ({"large": True} if large else {})
    there = folder / CONFIG
    if there.exists() and not (resume and json.loads(there.read_text()) == config):
        raise ValueError(f"expected a folder without a run, or the same one to resume, got {folder}; choose another")
    with kept_config(folder, config):
        scale = Scale(quick, seeds, folder, progress, say, large)
        study = chosen.run(scale)
        settings = config | {"seeds": scale.seeds} | study.settings
        study = dataclasses.replace(study, command=command, settings=settings, environment=environment(), when=now())
        keep_study(folder, study)
    return study


def settings_in(folder: Path) -> dict[str, Any]:
    """What an experiment in a folder was begun with: name, quick, seeds and large.

    Raises:
        ValueError: If there is none.
    """
    try:
        found = json.loads((folder / CONFIG).read_text())
        chosen = {"name": found["experiment"], "quick": found["quick"], "seeds": found["seeds"]}
        return chosen | {"large": found.get("large", False)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"expected an experiment in {folder}, got none; name the folder of one") from error
