"""Trains one or several rules on a task, measures them, and reports the results."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from vicinal._counted import counted
from vicinal._lock import locked
from vicinal._numbers import check_count
from vicinal._records import or_nan
from vicinal.analysis import angles, feedback_likeness, norm_ratios
from vicinal.data import Dataset
from vicinal.environment import environment, now
from vicinal.feedback import detach
from vicinal.files import write_text_atomically
from vicinal.graph import Graph, capture
from vicinal.hardware import remove
from vicinal.ledgers import array_counts_of
from vicinal.presentations import presented
from vicinal.recipes import recipe
from vicinal.recipes.lookup import canonical
from vicinal.report import Comparison, Curve, Presentation, RuleResult, outline, write_study
from vicinal.report.records import COMMON, curve_rows, curves_csv, quantities, rows_at, steps_of
from vicinal.rules import Backprop, InferenceLearning, Rule
from vicinal.settings import CURVES, PAGE, RESULTS, TaskSettings, kept_config, last_files
from vicinal.task import Task
from vicinal.train import Hook, Run, fit, keys_of
from vicinal.train.hooks import EarlyStopping, TensorBoard
from vicinal.train.needs import check_build

_PROBE = 256  # examples on which angles and energies are measured
_CLASSES = 100  # with more classes, confusions are not stored


@dataclasses.dataclass(frozen=True)
class CompareSettings(TaskSettings):
    """The rules to compare, and the task."""

    rules: tuple[str, ...] = ("bp", "il")
    """Recipes to compare; `vicinal rules` lists them."""
    seeds: int = 3
    """Repetitions, each with its own initial weights and order of examples."""

    def check(self) -> None:
        """As for `TaskSettings`."""
        super().check()
        check_count("seeds", self.seeds)


@dataclasses.dataclass(frozen=True)
class TrainSettings(TaskSettings):
    """The rule to train by, and the task."""

    rule: str = "il"
    """A recipe; `vicinal rules` lists them."""
    seed: int = 0
    """Seed of the initial weights and of the order of the examples."""
    patience: int | None = None
    """Stop when the validation loss has not improved for this many evaluations; keep the best model in best.npz."""
    tensorboard: bool = False
    """Write curves for TensorBoard into the folder (pip install 'vicinal[tensorboard]')."""

    def check(self) -> None:
        """As for `TaskSettings`."""
        super().check()
        if self.patience is not None:
            check_count("patience", self.patience)

    def hooks(self, folder: Path) -> list[Hook]:
        """The hooks of the run.

        Raises:
            ValueError: If patience is set without validation examples.
        """
        found: list[Hook] = [TensorBoard(folder / "tensorboard")] if self.tensorboard else []
        if self.patience is None:
            return found
        if self.validation is None:
            raise ValueError("expected --validation beside --patience, got none; give a share such as --validation 0.1")
        return [*found, EarlyStopping("validation_loss", patience=self.patience)]


def compare(
    settings: CompareSettings,
    folder: str | Path,
    *,
    resume: bool = False,
    command: str = "",
    progress: bool | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Comparison:
    """Trains every rule with every seed, and writes the report.

    The rules of one seed start from the same weights and see the same batches. At each evaluation, angles compare the
    rule's gradient with backpropagation's, at the same weights and on the same training examples. The report shows
    their mean over training, and the median of the norm ratios.

    Args:
        settings: The settings.
        folder: Where the report, the results, the settings, and a folder for each run go; made if missing.
        resume: Whether to resume the existing runs.
        command: The command line, for the report.
        progress: As for `fit`.
        say: Called with a sentence before each run.

    Returns:
        The results.

    Raises:
        ValueError: If the settings do not fit the data, a rule is unknown, or the folder holds another run or is
            in use.
    """
    folder = Path(folder)
    settings = dataclasses.replace(settings, rules=canonical(settings.rules))
    task = _Runs(settings, settings.rules, settings.evaluate_every)
    if task.evaluate_every is None:
        task.evaluate_every = max(1, len(task.data.x_train) // settings.batch_size // 4)
    count = len(settings.rules) * settings.seeds
    check_build(task.build, count, f"{counted(count, 'model')} at the end")
    runs: dict[str, list[Run]] = {name: [] for name in settings.rules}
    with locked(folder) as held:
        with kept_config(folder, settings):
            for name in settings.rules:
                for seed in range(settings.seeds):
                    say(f"{name}, seed {seed + 1} of {settings.seeds}")
                    runs[name].append(task.run(name, seed, folder / f"{name}-seed{seed}", resume, progress))
        with last_files(held):
            return task.report(runs, folder, command)


def train(
    settings: TrainSettings,
    folder: str | Path,
    *,
    resume: bool = False,
    command: str = "",
    progress: bool | None = None,
) -> Comparison:
    """Trains one network by one rule, and writes the report.

    Args:
        settings: The settings.
        folder: Where the report, the settings, the log and the checkpoint go; made if missing.
        resume: Whether to resume from the existing checkpoint.
        command: The command line, for the report.
        progress: As for `fit`.

    Returns:
        The results, of one rule and one seed.

    Raises:
        ValueError: If the settings do not fit the data, the rule is unknown, or the folder holds another run or is
            in use.
    """
    settings = dataclasses.replace(settings, rule=recipe(settings.rule).name)
    folder = Path(folder)
    task, hooks = _Runs(settings, (settings.rule,), settings.evaluate_every, settings.seed), settings.hooks(folder)
    with locked(folder) as held:
        with kept_config(folder, settings):
            run = task.run(settings.rule, settings.seed, folder, resume, progress, hooks)
        with last_files(held):
            return task.report({settings.rule: [run]}, folder, command)


class _Runs(Task):
    """The runs of a comparison, which share their compiled programs."""

    def __init__(self, settings: TaskSettings, rules: tuple[str, ...], evaluate_every: int | None, seed: int = 0):
        super().__init__(settings, seed)
        self.seed = seed
        self.made = self.settings.make(*rules)
        self.graphs = {name: self.graph_for(name) for name in rules}
        self.counts = {name: array_counts_of(self, name, self.made[name][0], self.graphs[name]) for name in rules}
        self.evaluate_every = evaluate_every
        self.plain = self.graph
        if settings.model.feedback is not None or settings.model.is_placed:  # angles are to exact backpropagation
            self.plain = capture(detach(remove(self.build(keys_of(seed)[0]))), jnp.asarray(self.data.x_train[0]))
        self.probe = jnp.asarray(self.data.x_train[:_PROBE]), jnp.asarray(self.data.y_train[:_PROBE])

    def run(
        self, name: str, seed: int, folder: Path, resume: bool, progress: bool | None, hooks: Sequence[Hook] = ()
    ) -> Run:
        rule, optimizer = self.made[name]
        model_key, train_key = keys_of(seed)
        reference = Backprop(loss=rule.loss)

        def measure(record: dict[str, Any], state: Any) -> None:
            if not isinstance(rule, Backprop) or self.plain is not self.graphs[name]:
                graphs = self.graphs[name], self.plain
                found = _beside(rule, reference, *graphs, state.model, state.rule_state, *self.probe, train_key)
                record["angles"], record["norm_ratios"] = map(_by_layer, found)
            if self.settings.model.feedback is not None or recipe(name).feedback is not None:
                likeness = feedback_likeness(remove(state.model))
                record["feedback_angles"] = {layer: float(like.angle) for layer, like in likeness.items()}

        return fit(
            rule,
            self.build(model_key, name),
            optimizer,
            self.data,
            key=train_key,
            **self.settings.training() | {"evaluate_every": self.evaluate_every},
            graph=self.graphs[name],
            folder=folder,
            resume=resume,
            progress=progress,
            on_record=measure,
            hooks=hooks,
        )

    def report(self, runs: dict[str, list[Run]], folder: Path, command: str) -> Comparison:
        comparison = Comparison(
            title=f"Learning rules on {self.data.name}" if len(runs) > 1 else f"{next(iter(runs))} on {self.data.name}",
            command=command,
            settings=dataclasses.asdict(self.settings) | {"vertices": list(self.graph.vertices)},
            environment=environment(),
            rules=[self._result(name, runs[name]) for name in runs],
            data_credit=self.data.credit,
            when=now(),
            graph=outline(self.graph),
            class_names=list(self.data.class_names or ()),
        )
        seeds = range(self.settings.seeds) if isinstance(self.settings, CompareSettings) else [self.seed]
        points = [
            row
            for name, found in runs.items()
            for seed, run in zip(seeds, found, strict=True)
            for row in curve_rows({"rule": name, "seed": seed}, run.records)
        ]
        write_text_atomically(folder / CURVES, curves_csv(points))
        write_text_atomically(folder / RESULTS, comparison.to_json())
        write_study(folder / PAGE, comparison)
        return comparison

    def _result(self, name: str, runs: list[Run]) -> RuleResult:
        records = [[record for record in run.records if "test_loss" in record] for run in runs]
        steps = steps_of(records, "test_loss")

        def curve(quantity: str) -> list[list[float]]:
            rows = rows_at(steps, records, quantity)
            return [] if np.all(np.isnan(rows)) else rows

        def last(quantity: str) -> list[float]:
            return [or_nan(rows[-1].get(quantity)) if rows else np.nan for rows in records]

        others = [name for name in quantities(records) if name not in COMMON and np.any(curve(name))]
        rates = [record["examples_per_second"] for rows in records for record in rows]
        return RuleResult(
            name=name,
            label=recipe(name).label,
            paper=recipe(name).paper,
            paper_link=recipe(name).link,
            test_accuracy=last("test_accuracy"),
            test_loss=last("test_loss"),
            angles=_over_training(records, "angles", np.mean),
            # Ratios are unbounded: where backpropagation's gradient vanishes, one record would dominate a mean.
            norm_ratios=_over_training(records, "norm_ratios", np.median),
            milliseconds_per_step=1e3 * self.settings.batch_size / float(np.median(rates)) if rates else None,
            steps_to_90=[_steps_to(0.9, rows) for rows in records],
            curve=Curve(
                steps,
                *map(curve, ("test_accuracy", "test_loss", "train_loss")),
                more={name: curve(name) for name in others},
            ),
            more={name: last(name) for name in others},
            energies=_energies(self.made[name][0], self.graphs[name], self.data, runs[0]),
            stopped=next((run.stopped for run in runs if run.stopped), None),
            stopped_by=next((run.stopped_by for run in runs if run.stopped), None),
            array_counts=self.counts[name],
            presentation=self._presentation(name, runs[0]),
            confusion=self._confusion([run for run in runs if run.stopped is None or run.stopped_by]),
        )

    def _presentation(self, name: str, run: Run) -> Presentation | None:
        """What units send and hold for a test example."""
        graph, model = self.graphs[name].evaluation(run.model)
        return presented(self.made[name][0], graph, model, self.data.x_test, self.data.y_test)

    def _confusion(self, runs: list[Run]) -> list[list[float]]:
        """The confusion matrix on test examples (rows are classes, columns predictions), the mean over the runs."""
        labels, classes = self.data.y_test, self.data.classes
        if classes is None or self.settings.model.reconstructs or not runs or np.ndim(labels) != 1:
            return []
        if classes > _CLASSES:
            return []
        counts, known = np.zeros((classes, classes), int), (labels >= 0) & (labels < classes)
        for run in runs:
            output = run.predict(self.data.x_test)
            if np.shape(output)[1:] != (classes,):
                return []
            np.add.at(counts, (labels[known], np.argmax(output[known], axis=1)), 1)
        return (counts / len(runs)).tolist()


@eqx.filter_jit
def _beside(
    rule: Rule, reference: Rule, graph: Graph, plain: Graph, model: PyTree, state: PyTree, x: Any, y: Any, key: Any
) -> Any:
    _, ours, _, _ = rule.value_and_grad(graph, model, state, x, y, key=key)
    _, theirs, _, _ = reference.value_and_grad(plain, detach(remove(model)), (), x, y, key=key)
    ours = detach(remove(ours))
    return angles(ours, theirs), norm_ratios(ours, theirs)


def _by_layer(found: dict[str, Any]) -> dict[str, float]:
    return {layer.removesuffix(".weight"): float(value) for layer, value in found.items()}


def _over_training(records: list[list[dict[str, Any]]], name: str, average: Callable) -> dict[str, list[float]]:
    """The average over the finite measurements of each layer, during training, for each seed."""
    measured = [[record[name] for record in rows if name in record] for rows in records]
    layers = dict.fromkeys(layer for rows in measured for found in rows for layer in found)

    def of(values: list[float]) -> float:
        finite = [value for value in values if np.isfinite(value)]
        return float(average(finite)) if finite else np.nan

    return {layer: [of([or_nan(found.get(layer)) for found in rows]) for rows in measured] for layer in layers}


def _steps_to(accuracy: float, rows: list[dict[str, Any]]) -> int | None:
    return next((record["step"] for record in rows if or_nan(record.get("test_accuracy")) >= accuracy), None)


def _energies(rule: Rule, graph: Graph, data: Dataset, run: Run) -> dict[str, list[float]]:
    """The mean energy of each vertex during inference, on test examples, after training."""
    if not isinstance(rule, InferenceLearning):
        return {}
    settings: Any = rule.inference
    traced = dataclasses.replace(rule, inference=dataclasses.replace(settings, trace=True))
    x, y = jnp.asarray(data.x_test[:_PROBE]), jnp.asarray(data.y_test[:_PROBE])
    graph, model = graph.evaluation(run.model)
    credit, _ = eqx.filter_jit(traced.credit)(graph, model, run.state.rule_state, x, y, key=run.state.key)
    return {name: np.asarray(jnp.mean(rows, axis=1)).tolist() for name, rows in (credit.info.trace or {}).items()}
