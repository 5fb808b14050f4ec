"""Measures a model on a data set, and the updates since the last record.

Every number is a sum divided at the end by what counts: `totals` returns the sums of some examples
in one compiled call, `add` joins them, `summary` divides.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from vicinal._numbers import check_count
from vicinal.credit import Info
from vicinal.events import Events
from vicinal.graph import OUTPUT, Graph
from vicinal.inference import Result
from vicinal.losses import Loss
from vicinal.train.batches import count_examples
from vicinal.train.checks import check_examples, check_labels, check_targets
from vicinal.train.metrics import Metrics, Sums, metrics_of, values_of
from vicinal.train.totals import Total, add as add, plus, single, total, values


def evaluate(
    graph: Graph,
    model: PyTree,
    loss: Loss,
    x: PyTree,
    y: PyTree,
    batch_size: int = 1000,
    metrics: Mapping[str, Callable] | None = None,
) -> dict[str, Float[Array, ""]]:
    """The mean loss per example, and the metrics for the targets of the loss.

    The model is evaluated without dropout and with its running averages (`Graph.evaluation`).

    Labels have an accuracy: the share of correct labels among those that count. Numbers have the root mean squared
    error, `rmse`, and the share of explained variance, `r2` (`vicinal.train.RSquared` says how it is
    averaged). A custom loss has neither, unless `vicinal.losses.classification` or `regression` declares it.

    Args:
        graph: The captured graph.
        model: The model.
        loss: Loss of one example.
        x: Inputs, `[examples, ...]`.
        y: Targets, `[examples, ...]`.
        batch_size: Examples at a time; it changes the memory needed, not the result.
        metrics: Custom metrics: for each name `function(output, target)` of one example, which gives a scalar
            to be averaged, or `(value, weight)`.

    Returns:
        `{"loss": mean}`, with labels that count `"accuracy"` in [0, 1], with numbers `"rmse"` and `"r2"`, and the
        custom metrics.

    Raises:
        ValueError: If there are not as many targets as inputs, no examples, the batch size is below 1, a label has no
            output, or a metric gives no scalar.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = lambda x: x  # three logits
        >>> graph = vc.capture(model, jnp.ones(3))
        >>> measured = evaluate(graph, model, vc.losses.softmax_cross_entropy, jnp.eye(3), jnp.array([0, 1, 0]),
        ...                     metrics={"sure": lambda output, label: jax.nn.softmax(output).max()})
        >>> {name: round(float(value), 3) for name, value in measured.items()}
        {'loss': 0.885, 'accuracy': 0.667, 'sure': 0.576}
    """
    count_examples(x, y)
    check_targets(graph.shapes[OUTPUT], loss, y, "what is evaluated")
    wanted = metrics_of(loss, graph.shapes[OUTPUT], x, y, metrics)
    found = totals(graph, model, loss, x, y, wanted, batch_size)
    dtype = jax.tree.leaves(found["loss"]["sum"])[0].dtype
    return {name: jnp.asarray(value, dtype) for name, value in summary(wanted, found).items()}


def totals(
    graph: Graph, model: PyTree, loss: Loss, x: PyTree, y: PyTree, metrics: Metrics, batch_size: int = 1000
) -> dict[str, Sums]:
    """The sums of the loss and of each metric over some examples, in one compiled call.

    Args:
        graph: The captured graph.
        model: The model.
        loss: Loss of one example.
        x: Inputs, `[examples, ...]`.
        y: Targets, `[examples, ...]`.
        metrics: From `metrics_of`; the same for all parts of a set.
        batch_size: Examples at a time.

    Returns:
        For `"loss"` and each metric its sums, by name, which `add` joins with those of other examples.

    Raises:
        ValueError: If there are not as many targets as inputs, no examples, or the batch size is below 1.

    Example:
        >>> import jax.numpy as jnp, vicinal as vc
        >>> x, y, loss = jnp.eye(3), jnp.array([0, 1, 0]), vc.losses.softmax_cross_entropy
        >>> model = lambda x: x  # three logits
        >>> graph, metrics = vc.capture(model, x[0]), metrics_of(loss, x[0], x, y)
        >>> whole = totals(graph, model, loss, x, y, metrics)
        >>> float(whole["accuracy"]["right"].value), float(whole["accuracy"]["counted"].value)
        (2.0, 3.0)
        >>> summary(metrics, add(whole, whole))["accuracy"]  # 4 of 6
        0.6666666666666666
    """
    examples = count_examples(x, y)
    size = min(check_count("batch_size", batch_size), examples)
    return _totals(graph, model, loss, x, y, metrics, size)


@eqx.filter_jit
def _totals(
    graph: Graph, model: PyTree, loss: Loss, x: PyTree, y: PyTree, metrics: Metrics, batch_size: int
) -> dict[str, Sums]:
    examples = jax.tree.leaves(x)[0].shape[0]
    graph, model = graph.evaluation(model)

    def sums(batch: PyTree) -> dict[str, Sums]:
        x, y = batch
        output, _ = graph.feedforward(model, x)
        losses = total(jax.vmap(loss)(output, y))
        count = total(jnp.ones(len(jax.tree.leaves(x)[0]), int), losses.high.dtype)
        found: dict[str, Sums] = {"loss": {"sum": losses, "count": count}}
        return found | {name: metric.sums(output, y) for name, metric in metrics.items()}

    whole = examples - examples % batch_size
    stacked = jax.tree.map(lambda a: a[:whole].reshape(-1, batch_size, *a.shape[1:]), (x, y))
    each = jax.lax.map(sums, stacked)
    first, rest = jax.tree.map(lambda a: a[0], each), jax.tree.map(lambda a: a[1:], each)
    found, _ = jax.lax.scan(lambda found, one: (add(found, one), None), first, rest)
    if whole < examples:
        found = add(found, sums(jax.tree.map(lambda a: a[whole:], (x, y))))
    return found


def summary(metrics: Metrics, found: Mapping[str, Sums]) -> dict[str, float]:
    """The mean loss and the metrics, from their sums; metrics that do not exist are left out."""
    sums = values(dict(found))
    loss = sums.pop("loss")
    return {"loss": float(loss["sum"] / loss["count"]), **values_of(metrics, sums)}


def evaluator(
    graph: Graph,
    loss: Loss,
    test: tuple[PyTree, PyTree],
    metrics: Mapping[str, Callable] | None,
    model: PyTree,
    where: str = "the test set",
) -> Callable[[PyTree], dict[str, float]]:
    """Returns `evaluate` on one set as a function of the model; checks the examples now, with one model."""
    check_examples(graph, loss, model, test, where)
    wanted = metrics_of(loss, graph.shapes[OUTPUT], *test, metrics)

    def evaluate_model(model: PyTree) -> dict[str, float]:
        return summary(wanted, totals(graph, model, loss, *test, wanted))

    return evaluate_model


def evaluate_batches(
    graph: Graph,
    model: PyTree,
    loss: Loss,
    batches: Iterable[tuple[PyTree, PyTree]],
    metrics: Mapping[str, Callable] | None = None,
    where: str = "what is evaluated",
) -> dict[str, float]:
    """Like `evaluate`, for a set in batches, which is never held as a whole.

    Args:
        graph: The captured graph.
        model: The model.
        loss: Loss of one example.
        batches: Pairs `(x, y)`, `[batch, ...]` each; each batch size compiles once.
        metrics: As for `evaluate`.
        where: The name of the set, for sentences.

    Raises:
        ValueError: As for `evaluate`; or if there is no batch.

    Example:
        >>> import jax.numpy as jnp, vicinal as vc
        >>> model = lambda x: x
        >>> graph = vc.capture(model, jnp.ones(1))
        >>> parts = [(jnp.ones((2, 1)), jnp.zeros((2, 1))), (jnp.ones((1, 1)), jnp.full((1, 1), 3.0))]
        >>> evaluate_batches(graph, model, vc.losses.squared_error, parts)  # halves of 1, 1 and 4, over three
        {'loss': 1.0, 'rmse': 1.4142135623730951, 'r2': 0.0}
    """
    wanted, found = None, None
    for x, y in batches:
        count_examples(x, y)
        check_labels(graph.shapes[OUTPUT], loss, y, where)
        if wanted is None:
            wanted = metrics_of(loss, graph.shapes[OUTPUT], x, y, metrics)
        part = totals(graph, model, loss, x, y, wanted, jax.tree.leaves(x)[0].shape[0])
        found = part if found is None else add(found, part)
    if wanted is None or found is None:
        raise ValueError("expected at least one batch, got none")
    return summary(wanted, found)


# ------------------------------------------------------------------------------------- measured while training


_SHARES = {"slew_limited": Result.SLEW_LIMITED, "rate_limited": Result.RATE_LIMITED}
"""For rules that send events, what records call the share of examples with a result."""


def measured(
    loss: Float[Array, ""], info: Info, y: PyTree, metrics: Metrics, sends_events: bool = False
) -> dict[str, Any]:
    """What one update adds to each sum; NaN if the rule does not have the number.

    Sums of events exist for rules that send some (`Rule.sends_events`), so that checkpoints of others have none.
    """
    examples, dtype = jax.tree.leaves(info.output)[0].shape[0], jnp.result_type(float)
    code = info.result
    failed = None if code is None else total((code == Result.DIVERGED) | (code == Result.NON_FINITE), dtype)
    found = {
        "steps": jnp.int32(1),
        "examples": single(jnp.asarray(examples, dtype)),
        "loss": single(examples * loss.astype(dtype)),
        "inference_failures": single(jnp.asarray(jnp.nan, dtype)) if failed is None else failed,
        "metrics": {name: metric.sums(info.output, y) for name, metric in metrics.items()},
    }
    return found | {"events": _events(info, dtype)} if sends_events else found


def _events(info: Info, dtype: Any) -> dict[str, Total]:
    """Sums over the batch: of events while activities settle, and of examples with the results in `_SHARES`."""
    if info.events is None:
        raise ValueError(
            "expected numbers of events from a rule with sends_events = True, got None; fill Info.events, or leave out "
            "sends_events"
        )
    nothing, unknown = (single(jnp.asarray(value, dtype)) for value in (0, jnp.nan))

    def events(numbers: Mapping[str, Array]) -> Total:
        return functools.reduce(plus, (total(number, dtype) for number in numbers.values()), nothing)

    found = {"value_events": events(info.events.values), "error_events": events(info.events.errors)}
    code = info.result
    return found | {name: unknown if code is None else total(code == of, dtype) for name, of in _SHARES.items()}


def first_sums(graph: Graph, metrics: Metrics, y: PyTree, sends_events: bool = False) -> dict[str, Any]:
    """The sums before the first update; `y` are some targets, `[examples, ...]`."""

    def batch(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((1, *shape), dtype)

    def first(output: PyTree, y: PyTree) -> dict[str, Any]:
        info = Info(output, result=jnp.zeros(1, jnp.int32), events=Events({}, {}, {}))
        return measured(jnp.zeros(()), info, y, metrics, sends_events)

    output = jax.tree.map(lambda leaf: batch(leaf.shape, leaf.dtype), graph.shapes[OUTPUT])
    targets = jax.tree.map(lambda leaf: batch(leaf.shape[1:], jax.dtypes.canonicalize_dtype(leaf.dtype)), y)
    form = jax.eval_shape(first, output, targets)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), form)


def means(sums: Mapping[str, Any], metrics: Metrics) -> dict[str, float]:
    """The measurements in training, under their names in a record; missing ones are left out."""
    found = values(dict(sums))
    examples = max(float(found["examples"]), 1.0)
    named = {"train_loss": float(found["loss"]) / examples}
    named |= {f"train_{name}": value for name, value in values_of(metrics, found["metrics"]).items()}
    others = {"inference_failures": found["inference_failures"]} | found.get("events", {})
    return named | {name: float(count) / examples for name, count in others.items() if not np.isnan(count)}
