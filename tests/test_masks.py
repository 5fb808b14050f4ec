"""Masks: a padded sequence is worth what it is worth without padding, under every rule."""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matrix import full
from precision import double

import vicinal as vc
from vicinal.inference import Adaptive, ErrorBased, Sequential, Simultaneous
from vicinal.rules import InferenceLearning, projectors
from vicinal.spikes import Generator

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
LENGTHS = (2, 1)
PADDED = 3

RULES = {
    "backpropagation": vc.rules.Backprop(),
    "simultaneous": InferenceLearning(inference=Simultaneous(steps=20, step_size=0.2, trace=True)),
    "simultaneous, tolerance": InferenceLearning(
        inference=Simultaneous(steps=40, step_size=0.3, momentum=0.3, tolerance=1e-2), nudge=0.8, precision=1.5
    ),
    "sequential": InferenceLearning(inference=Sequential(steps=5, step_size=0.4, trace=True)),
    "sequential, tolerance": InferenceLearning(inference=Sequential(steps=40, decay=False, tolerance=1e-2)),
    "error-based": InferenceLearning(inference=ErrorBased(steps=6, step_size=0.3, trace=True)),
    "error-based, tolerance": InferenceLearning(inference=ErrorBased(steps=60, step_size=0.3, tolerance=1e-2)),
    "adaptive": InferenceLearning(inference=Adaptive(steps=8, tolerance=None)),
    "adaptive, tolerance": InferenceLearning(inference=Adaptive(steps=60, tolerance=1e-2)),
    "ratios": InferenceLearning(
        encoding=vc.energy.Divisive(offset=2.0), inference=Simultaneous(steps=4, step_size=0.1)
    ),
    "incremental": vc.rules.IncrementalPC(steps=4),
    "Z-IL": vc.rules.ZIL(step_size=0.9),
    "fixed prediction": vc.rules.FixedPrediction(steps=3, step_size=0.5),
    "fixed prediction, simultaneous": vc.rules.FixedPrediction(steps=5, step_size=0.5, order="simultaneous"),
    "activation relaxation": vc.rules.ActivationRelaxation(steps=5, step_size=0.4),
    "activation relaxation, without derivatives": vc.rules.ActivationRelaxation(
        steps=5, step_size=0.4, derivatives=False, frozen="none"
    ),
    "relaxed": vc.rules.RelaxedPC(steps=5, step_size=0.4, derivatives=False),
    "relaxed, learned wiring": vc.rules.RelaxedPC(steps=5, step_size=0.4, order="sequential", connections="learned"),
    "events": vc.rules.EventInferenceLearning(steps=5, nudge=0.8, precision=1.5),
    "events, the mean": vc.rules.EventInferenceLearning(steps=5, step_size=0.2, learn="mean"),
    "events, down": vc.rules.EventBackprop(),
    "spikes": vc.rules.SpikingInferenceLearning(steps=8, step_size=0.2, nudge=0.8, precision=1.5),
    "spikes, the mean": vc.rules.SpikingInferenceLearning(
        steps=8, step_size=0.2, activity=Generator(0.2, leak=20.0), learn="mean"
    ),
    "direct feedback": vc.rules.DirectFeedback(),
    "direct feedback, hybrid": vc.rules.DirectFeedback(projector=projectors.Dense(), hybrid=0.6),
}


@eqx.filter_jit
def assigned(rule, graph, model, state, x, y):
    gradient, credit, _ = rule.assign(graph, model, state, x, y, key=jax.random.key(7))
    return gradient, credit


MIXED = ("backpropagation", "simultaneous, tolerance", "sequential, tolerance")


def recurrent(place="post", every_step=False):
    model = double(vc.nn.RNN(2, 4, 3, vertex_at=place, every_step=every_step, key=KEY))
    return eqx.tree_at(lambda m: m.recurrent_layer.weight, model, 2 * model.recurrent_layer.weight)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def check_as_without_padding(rule, model, x, y, target_of, lengths=LENGTHS):
    """Compares a padded batch with each of its examples alone, in a graph as long as that."""
    x, y = x[: len(lengths)], y[: len(lengths)]
    padded = vc.capture(model, (x[0], jnp.array(0)))
    state = rule.init(padded, model, key=jax.random.key(3))
    gradient, credit = assigned(rule, padded, model, state, (x, jnp.array(lengths)), y)
    alone = []
    for i, length in enumerate(lengths):
        graph = vc.capture(model, x[0, :length])
        kept = {name: state[name] for name in graph.vertices if name in state} if isinstance(state, dict) else state
        found, one = assigned(rule, graph, model, kept, x[i : i + 1, :length], target_of(i))
        alone.append(found)
        check_example(jax.tree.map(np.asarray, credit), i, jax.tree.map(np.asarray, one))
    mean = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *alone)  # of gradients
    jax.tree.map(close, gradient, mean)


def check_example(credit, i, one):
    close(credit.loss[i], one.loss[0])
    for ours, theirs in ((credit.values, one.values), (credit.errors, one.errors)):
        for name in ours:
            kept = theirs[name][0] if name in theirs else np.zeros_like(ours[name][i])
            close(ours[name][i][: len(kept)], kept)
            assert not np.any(ours[name][i][len(kept) :])
    for part, axis in (("result", 0), ("steps", 0), ("energies", 0), ("trace", 1)):
        ours, theirs = getattr(credit.info, part), getattr(one.info, part)
        if theirs is not None:
            ours = ours if isinstance(ours, dict) else {part: ours}
            theirs = theirs if isinstance(theirs, dict) else {part: theirs}
            for name in ours:
                here = np.take(ours[name], i, axis)
                close(here, np.take(theirs[name], 0, axis) if name in theirs else np.zeros_like(here))


# The others of their kind run always: of each rule and each strategy, those that stop by a tolerance first.
VARIANTS = [name for name in RULES if ("," in name and name not in MIXED) or name in ("simultaneous", "sequential")]


@pytest.mark.parametrize(
    ("name", "place"),
    [full(name, "post") if name in VARIANTS else (name, "post") for name in RULES]
    + [full(name, "pre") for name in ("simultaneous", "direct feedback", "activation relaxation, without derivatives")],
)
def test_a_padded_recurrent_net_learns_as_without_padding(x64, name, place):
    x, y = jax.random.normal(jax.random.key(1), (2, PADDED, 2), jnp.float64), jnp.array([0, 2])
    lengths = LENGTHS if name in MIXED else LENGTHS[:1]  # each length is one more program to compile
    check_as_without_padding(RULES[name], recurrent(place), x, y, lambda i: y[i : i + 1], lengths)


@pytest.mark.parametrize("name", [full("simultaneous, tolerance"), "activation relaxation"])
def test_padded_sequences_of_vectors_do_too(x64, name):
    x, y = jax.random.normal(jax.random.key(1), (2, PADDED, 2), jnp.float64), jnp.array([0, 2])
    check_as_without_padding(
        RULES[name],
        double(vc.nn.Transformer(2, 4, 3, length=PADDED, key=KEY)),
        x,
        y,
        lambda i: y[i : i + 1],
        LENGTHS[:1],
    )


@pytest.mark.parametrize(
    ("name", "mixers"),
    [
        full("simultaneous, tolerance", [partial(vc.attention.SoftmaxAttention, 4, 2, max_length=PADDED)] * 2),
        full("error-based", [partial(vc.attention.SoftmaxAttention, 4, 2, max_length=PADDED)]),
        ("Z-IL", [partial(vc.attention.OVQAttention, 4, 2, num_centroids=4, chunk_size=2)]),
    ],
)
def test_padded_texts_do_too(x64, name, mixers):
    rule = dataclasses.replace(RULES[name], loss=vc.losses.masked_softmax_cross_entropy)
    x, y = jax.random.randint(jax.random.key(1), (2, PADDED), 0, 7), jax.random.randint(KEY, (2, PADDED), 0, 7)
    y = jnp.where(jnp.arange(PADDED)[None] < jnp.array(LENGTHS)[:, None], y, -1)
    model = double(vc.attention.LanguageModel(7, 4, mixers, hidden_features=5, key=KEY))
    check_as_without_padding(rule, model, x, y, lambda i: y[i : i + 1, : LENGTHS[i]], LENGTHS[:1])


# ------------------------------------------------------------------------------------------------- masks in graphs


def masked_network(counts):
    """Two layers on `[time, 2]`; a step counts if `counts(x)` says so."""

    def network(parameters, x):
        mask = counts(x)
        h = vc.vertex(jnp.tanh(x @ parameters["first"]), "first", mask=mask)
        h = vc.vertex(jnp.tanh(h @ parameters["second"]), "second", mask=mask)
        return h @ parameters["last"]

    shapes = {"first": (2, 3), "second": (3, 3), "last": (3, 1)}
    keys = jax.random.split(KEY, 3)
    return jax.tree_util.Partial(
        network, {name: jax.random.normal(k, shape) for k, (name, shape) in zip(keys, shapes.items(), strict=True)}
    )


POSITIVE = masked_network(lambda x: x[:, :1] > 0)


def positive_batch():
    x = jax.random.normal(jax.random.key(1), (3, 4, 2))
    return x, np.broadcast_to(np.asarray(x)[..., :1] > 0, (3, 4, 3))


def test_masked_units_are_as_if_they_had_not_been_marked():
    x, mask = positive_batch()
    graph, w = vc.capture(POSITIVE, x[0]), {k: np.asarray(v) for k, v in POSITIVE.args[0].items()}
    rng = np.random.default_rng(0)
    held = {name: rng.normal(size=(3, 4, 3)).astype(np.float32) for name in graph.vertices}
    output, predictions = jax.jit(graph.predict)(POSITIVE, held, x)
    first = np.tanh(np.asarray(x) @ w["first"])
    second = np.tanh(np.where(mask, held["first"], first) @ w["second"])
    np.testing.assert_allclose(predictions["first"], np.where(mask, first, held["first"]), rtol=1e-5)
    np.testing.assert_allclose(predictions["second"], np.where(mask, second, held["second"]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(output, np.where(mask, held["second"], second) @ w["last"], rtol=1e-4, atol=1e-6)
    assert graph.masked == ("first", "second")
    np.testing.assert_array_equal(graph.masks(POSITIVE, x)["second"], mask)
    assert graph.parents["second"] == ("first",)


def test_every_way_to_run_a_masked_graph_agrees(x64):
    model, (x, mask) = double(POSITIVE), positive_batch()
    x = x.astype(jnp.float64)
    graph = vc.capture(model, x[0])

    @jax.jit
    def every_way(model, x):
        """The batch's outputs and values, then pairs that agree."""
        output, values = graph.feedforward(model, x)
        held = jax.tree.map(lambda v: v + 0.3 * jax.random.normal(KEY, v.shape, v.dtype), values)
        clamped, expected = graph.clamp(model, x), graph.predict(model, held, x)
        linear = clamped.linearize(held)
        deviations = jax.tree.map(jnp.subtract, held, expected[1])
        alone = {node: graph.prediction(node, model, held, x) for node in ("first", "second", "output")}
        # The way back through each prediction is the transpose of the whole.
        errors, output_error = clamped.counted(jax.tree.map(jnp.cos, held)), jnp.sin(output)
        _, back = jax.vjp(lambda held: graph.predict(model, held, x), held)
        return (output, values), [
            (output, jax.vmap(model)(x)),
            (clamped(held), expected),
            ((linear.output, linear.predictions), expected),
            (clamped.propagate(jax.tree.map(jnp.zeros_like, values)), (output, values)),
            (clamped.propagate(deviations), (expected[0], clamped.counted(held))),
            ((alone.pop("output"), alone), expected),
            (linear.carry(output_error, errors), back((output_error, errors))[0]),
        ]

    (_, values), pairs = every_way(model, x)
    assert not np.any(values["first"][~mask])
    for found, expected in pairs:
        jax.tree.map(close, found, expected)


def test_errors_go_down_past_masked_units(x64):
    """Some units of the upper vertex are masked, none of the lower: its error is what the chain rule says of all."""
    rng = np.random.default_rng(0)
    w = {name: rng.normal(size=shape) for name, shape in {"a": (5, 4), "b": (3, 5), "out": (2, 3)}.items()}

    def function(w, x):
        a = vc.vertex(jnp.tanh(w["a"] @ x), "a")
        return w["out"] @ vc.vertex(jnp.tanh(w["b"] @ a), "b", mask=x[:3] > 0)

    model = jax.tree_util.Partial(function, jax.tree.map(jnp.asarray, w))
    x, error = rng.normal(size=(6, 4)), rng.normal(size=(6, 2))
    graph = vc.capture(model, jnp.asarray(x[0]))
    found = jax.jit(lambda model, x, error: graph.adjoints(model, graph.feedforward(model, x)[1], x, error))(
        model, x, error
    )
    b = np.tanh(np.tanh(x @ w["a"].T) @ w["b"].T)
    upper = error @ w["out"]
    assert np.any(x[:, :3] <= 0)
    np.testing.assert_allclose(found["b"], np.where(x[:, :3] > 0, upper, 0), rtol=1e-12)
    np.testing.assert_allclose(found["a"], ((1 - b**2) * upper) @ w["b"], rtol=1e-12)


def test_a_vertex_with_a_mask_is_the_identity_outside():
    mask = jnp.array([True, False])

    def marked(x):
        return jnp.sum(jnp.sin(vc.vertex(x, "v", mask=mask)))

    x = jnp.array([[0.3, 2.0], [1.0, -1.0]])
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(marked)))(x), np.cos(x), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(lambda m: vc.vertex(x[0], "v", mask=m))(x > 0), [x[0], x[0]])
    np.testing.assert_allclose(jax.linear_transpose(lambda x: vc.vertex(x, "v", mask=mask), x[0])(x[1])[0], x[1])


def test_masks_in_loops_and_under_vmap_are_followed():
    def scanned(weight, x):
        def step(h, row):
            new = jnp.tanh(weight @ h + row)
            kept = jnp.where(row[0] > 0, new, h)
            return vc.vertex(kept, "h", mask=row[0] > 0), None

        return jax.lax.scan(step, jnp.zeros(2), x)[0]

    def mapped(weight, x):
        return jax.vmap(lambda row: vc.vertex(jnp.tanh(weight @ row), "h", mask=row[0] > 0))(x)

    x = jnp.array([[[1.0, 2.0], [-1.0, 3.0], [0.5, 0.5]]])
    rows = np.array([[True, True], [False, False], [True, True]])
    for network, names in ((scanned, ("h[0]", "h[1]", "h[2]")), (mapped, ("h",))):
        model = jax.tree_util.Partial(network, jnp.ones((2, 2)))
        masks = jax.jit(vc.capture(model, x[0]).masks)(model, x)
        assert tuple(masks) == names
        np.testing.assert_array_equal(np.concatenate([masks[name].reshape(-1, 2) for name in names]), rows)


def test_a_mask_that_counts_everything_changes_nothing(x64):
    x = jax.random.normal(jax.random.key(1), (3, 4, 2), jnp.float64)
    rule, y = InferenceLearning(loss=vc.losses.squared_error), jnp.zeros((3, 4, 1))
    found = []
    for counts in (lambda x: None, lambda x: True, lambda x: x[:, :1] < jnp.inf):
        model = double(masked_network(counts))
        found.append(jax.tree.leaves(assigned(rule, vc.capture(model, x[0]), model, (), x, y)))
    for leaves in zip(*found, strict=True):
        for leaf in leaves[1:]:
            np.testing.assert_allclose(leaf, leaves[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("mask", "error", "sentence"),
    [
        (lambda x: jnp.ones((4, 1)), TypeError, "expected the mask of vertex 'first' as booleans, .* got float32"),
        (lambda x: [True], TypeError, "as booleans, .* got list"),
        (lambda x: x[:, 0] > 0, ValueError, r"broadcasts to the value's, \[4, 3\], got \[4\]; .* mask\[:, None\]"),
        (lambda x: (x > 0)[None, :, :1] & True, ValueError, r"\[4, 3\], got \[1, 4, 1\]"),
        (lambda x: vc.vertex(x, "below") > 0, ValueError, r"broadcasts"),
        (
            lambda x: vc.vertex(x, "below")[:, :1] > 0,
            ValueError,
            "a mask of vertex 'first' that depends only on the input, got one that changes with vertex 'below'",
        ),
    ],
)
def test_other_masks_are_refused(mask, error, sentence):
    with pytest.raises(error, match=sentence):
        vc.capture(masked_network(mask), jnp.ones((4, 2)))


@pytest.mark.parametrize(
    "rule", [vc.rules.DynamicInversion(), vc.rules.PhaselessAlignment(), vc.rules.Microcircuit()], ids=repr
)
def test_rules_for_chains_refuse_masks(rule):
    def network(model, x):
        h = vc.vertex(model.layers[0](x), "hidden", mask=x[0] > 0)
        return model.layers[1](jnp.tanh(h))

    model = jax.tree_util.Partial(network, vc.nn.MLP((3, 4, 2), key=KEY))
    with pytest.raises(ValueError, match=r"expected a graph without masks for .*, got one at vertex 'hidden'"):
        rule.init(vc.capture(model, jnp.ones(3)), model, key=KEY)


def test_conditioning_refuses_masks_and_the_audit_looks_past_them():
    x, _ = positive_batch()
    rule, y, graph = InferenceLearning(loss=vc.losses.squared_error), jnp.zeros((3, 4, 1)), vc.capture(POSITIVE, x[0])
    with pytest.raises(ValueError, match="expected a graph without masks for conditioning"):
        vc.analysis.conditioning(rule.problem(graph, POSITIVE, x, y), graph.feedforward(POSITIVE, x)[1])
    assert vc.analysis.audit(rule, graph, POSITIVE, x, y, key=KEY).local


def test_norms_of_what_enters_a_weight_are_refused_where_padding_would_count():
    x, _ = positive_batch()
    rule, y, graph = InferenceLearning(loss=vc.losses.squared_error), jnp.zeros((3, 4, 1)), vc.capture(POSITIVE, x[0])
    for optimizer in (vc.optim.nlms(1.0), optax.chain(vc.optim.nlms(1.0), optax.sgd(1.0))):
        with pytest.raises(ValueError, match="expected a model without masks for presynaptic norms"):
            eqx.filter_eval_shape(rule.step, graph, optimizer, POSITIVE, optimizer.init(POSITIVE.args), (), x, y)
    optimizer = optax.MultiSteps(optax.sgd(0.1), 2)
    eqx.filter_eval_shape(rule.step, graph, optimizer, POSITIVE, optimizer.init(POSITIVE), (), x, y)
    proximal = dataclasses.replace(rule, proximal=vc.inference.Proximal(1.0))
    with pytest.raises(ValueError, match="expected a model without masks for presynaptic norms"):
        eqx.filter_eval_shape(proximal.value_and_grad, graph, POSITIVE, (), x, y)


@pytest.mark.parametrize("swept", [False, full(True)])
def test_padded_sequences_are_trained_swept_and_evaluated_as_without_padding(swept):
    model = vc.nn.RNN(2, 4, 3, every_step=True, key=KEY)
    x = np.random.default_rng(1).normal(size=(8, 2, 2)).astype(np.float32)
    y = (x[..., 0] > 0).astype(np.int32)
    padded = np.concatenate([x, np.full((8, 1, 2), np.nan, np.float32)], axis=1), np.full(8, 2, np.int32)
    targets = np.concatenate([y, np.full((8, 1), -1, np.int32)], axis=1)
    rule = InferenceLearning(
        loss=vc.losses.masked_softmax_cross_entropy, inference=Simultaneous(steps=4, step_size=0.2)
    )
    settings = {"steps": 3, "batch_size": 4, "evaluate_every": 3, "progress": False}

    def trained(*data):
        return vc.train.fit(rule, model, optax.sgd(0.05), data, test=data, key=vc.train.keys_of(0)[1], **settings)

    if swept:
        (run,) = vc.train.sweep(
            lambda learning_rate: (rule, optax.sgd(learning_rate)),
            lambda _: model,
            (padded, targets),
            {"learning_rate": [0.05]},
            test=(padded, targets),
            group_size=1,
            **settings,
        ).members
    else:
        run = trained(padded, targets)
    assert run.stopped is None
    for ours, theirs in zip(run.records, trained(x, y).records, strict=True):
        for name in ("train_loss", "test_loss", "test_accuracy"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5)


@pytest.mark.parametrize("every_step", [False, True])
def test_lengths_out_of_range_give_no_number_and_none_the_first_state(every_step):
    model = vc.nn.RNN(2, 4, 3, activation="sigmoid", every_step=every_step, key=KEY)
    x, bias, lengths = jnp.ones((3, 2)), model.output_layer.bias, (-1, 0, 3, 4)
    found = dict(zip(lengths, jax.jit(jax.vmap(model, ((None, 0),)))((x, np.array(lengths))), strict=True))
    assert np.all(np.isnan(found[-1]))
    assert np.all(np.isnan(found[4]))
    np.testing.assert_allclose(found[3], eqx.filter_jit(model)(x), rtol=1e-6)
    np.testing.assert_allclose(found[0], np.zeros((3, 3)) if every_step else bias, rtol=1e-6)
    for wrong in ((x,), (x, jnp.array(2.0)), (x, jnp.array([2]))):
        with pytest.raises(ValueError, match=r"expected a sequence, or .sequence, length. with a whole number"):
            model(wrong)
