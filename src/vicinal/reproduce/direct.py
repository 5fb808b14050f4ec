"""Direct feedback alignment of convolutional and recurrent networks: Han, Park, Ryu and Yoo 2020, arXiv 2006.12830."""

import optax

from vicinal.report import Claim, Section, Study
from vicinal.reproduce.learning import compared, mean, means_text
from vicinal.reproduce.runs import Scale, borne_out, task_of, verdict
from vicinal.reproduce.side_by_side import Contender, accuracy_table, panel, train_side_by_side
from vicinal.rules import Backprop, DirectFeedback, Rule
from vicinal.rules.projectors import Broadcast, DilatedConvolution, Sparse
from vicinal.sweeping import plain
from vicinal.task import Task
from vicinal.train import Sweep

_BP, _DFA, _SPARSE, _HYBRID = "BP", "DFA", "DFA, sparse", "hybrid"
_DILATED, _GROUPED, _DENSE_MODULES = "modules, dilated", "modules, dilated and grouped", "modules, dense"
_BROADCAST, _SEPARATE, _SEPARATE_SPARSE = "DFA, broadcast", "DFA, one for each step", "DFA, sparse, one for each step"
_MIX = 0.5  # weight of the projected errors beside those that come back
_NEAR = 0.01  # of the test accuracy: what counts as the level of backpropagation


def networks(scale: Scale) -> Study:
    """Plain, sparse, modular and hybrid direct feedback, in a convolutional and a recurrent network."""
    scale = scale.by_default(3)
    data = scale.pick("digits", "mnist")
    images = task_of(
        data,
        kind="convolutional",
        channels=scale.pick((8, 8), (16, 32)),
        stride=scale.pick(1, 2),
        sizes=(scale.pick(32, 128), 10),
    )
    sequences = task_of(data, kind="recurrent", sizes=(scale.pick(32, 128),), activation="tanh")
    steps = scale.pick(200, 2_000)
    rules = {"convolutional": _for_maps(images), "recurrent": _for_sequences()}
    tasks = {"convolutional": images, "recurrent": sequences}
    done = {
        name: train_side_by_side(
            scale,
            tasks[name],
            [Contender(label, rule, optimizer=optax.adam) for label, rule in rules[name].items()],
            name=f"direct-{name}",
            learning_rate=scale.pick(3e-3, 1e-3),  # of Adam: rules whose errors differ in size take steps of one size
            steps=steps,
            batch_size=64,
            evaluate_every=steps // scale.pick(2, 5),
        )
        for name in tasks
    }
    return Study(
        title=f"Direct feedback in convolutional and recurrent networks, on {data}",
        summary=" ".join(f"{name}: {means_text(found, 'test_accuracy')}." for name, found in done.items()),
        command="",
        settings={
            "seeds": scale.seeds,
            "data": data,
            "batch_size": 64,
            "updates": steps,
            "optimizer": "Adam",
            "hybrid": _MIX,
        },
        environment={},
        claims=[_hybrid(done), _modules(done["convolutional"]), _sparse(done)],
        differences=[
            "In the spirit of the paper: its text was not at hand, so that modules, projections and the mixture are "
            "our reading of its abstract, and its data sets and accuracies are not here.",
            f"Small networks, {steps} updates of Adam, one learning rate for all.",
            "Gaps are between means over seeds, held against a fixed margin, but where they are said to be paired.",
            "The recurrent network reads an image row by row, and says the class after the last.",
        ],
        sections=[
            Section(
                "Convolutional",
                "A module is all convolutions, or the layers above them; the error at its output comes by "
                "backpropagation, and goes to every vertex inside through the projection named.",
                tables=[accuracy_table("Convolutional", done["convolutional"])],
                panels=[panel("Test accuracy", done["convolutional"], "test_accuracy", "test accuracy (%)", 100.0)],
            ),
            Section(
                "Recurrent",
                "The hidden layer of every step receives the output's error, through one matrix for all steps, or one "
                "for each.",
                tables=[accuracy_table("Recurrent", done["recurrent"])],
                panels=[panel("Test accuracy", done["recurrent"], "test_accuracy", "test accuracy (%)", 100.0)],
            ),
        ],
        numbers={
            "runs": {name: {label: plain(s.members) for label, s in found.items()} for name, found in done.items()}
        },
        data_credit=images.data.credit,
    )


def _for_maps(task: Task) -> dict[str, Rule]:
    *maps, _ = task.graph.vertices
    modules = [maps, [task.graph.vertices[-1]]]
    below = maps[:-1]
    dilated, grouped = DilatedConvolution(5, dilation=3), DilatedConvolution(5, dilation=3, groups=4)
    return {
        _BP: Backprop(),
        _DFA: DirectFeedback(),
        _BROADCAST: DirectFeedback({name: Broadcast() for name in maps}),
        _SPARSE: DirectFeedback(Sparse(density=0.2)),
        _DENSE_MODULES: DirectFeedback(modules=modules),
        _DILATED: DirectFeedback(dict.fromkeys(below, dilated), modules=modules),
        _GROUPED: DirectFeedback(dict.fromkeys(below, grouped), modules=modules),
        _HYBRID: DirectFeedback(hybrid=_MIX),
    }


def _for_sequences() -> dict[str, Rule]:
    return {
        _BP: Backprop(),
        _DFA: DirectFeedback(),
        _SEPARATE: DirectFeedback(shared=False),
        _SPARSE: DirectFeedback(Sparse(density=0.2)),
        _SEPARATE_SPARSE: DirectFeedback(Sparse(density=0.2), shared=False),
        _HYBRID: DirectFeedback(hybrid=_MIX),
    }


# ----------------------------------------------------------------------------------------------------------- claims


def _hybrid(done: dict[str, dict[str, Sweep]]) -> Claim:
    gaps = {name: _behind(found, _BP, _HYBRID) for name, found in done.items()}
    near = [gap <= _NEAR for gap in gaps.values()]
    return Claim(
        "Mixed with backpropagation, direct feedback trains convolutional and recurrent networks to its level (arXiv "
        "2006.12830).",
        f"Points of test accuracy behind backpropagation, half of every error projected: {_points(gaps)}. At most "
        f"{100 * _NEAR:g} counts as its level.",
        borne_out(near),
    )


def _modules(done: dict[str, Sweep]) -> Claim:
    labels = (_DILATED, _GROUPED)
    gaps = {label: _behind(done, label, _DFA) for label in labels}
    return Claim(
        "In modules, with dilated and grouped convolutions for projections, direct feedback trains convolutional "
        "networks better than with one error for all layers.",
        f"Points of test accuracy ahead of plain direct feedback, paired by seed: {_points(gaps)}.",
        verdict([compared(done, label, _DFA, "test_accuracy") for label in labels]),
    )


def _sparse(done: dict[str, dict[str, Sweep]]) -> Claim:
    gaps = {name: _behind(found, _DFA, _SPARSE) for name, found in done.items()}
    near = [gap <= _NEAR for gap in gaps.values()]
    return Claim(
        "Backward weights may be sparse.",
        f"Points of test accuracy that four fifths fewer weights cost: {_points(gaps)}. At most {100 * _NEAR:g} counts "
        "as none.",
        borne_out(near),
    )


def _behind(done: dict[str, Sweep], first: str, second: str) -> float:
    return mean(done[first], "test_accuracy") - mean(done[second], "test_accuracy")


def _points(gaps: dict[str, float]) -> str:
    return ", ".join(f"{name} {100 * gap:.1f}" for name, gap in gaps.items())
