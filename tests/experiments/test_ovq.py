"""OVQ-attention: what is measured, and the quick forms that do not take long."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix import some

from vicinal.attention import parameter_count
from vicinal.report import Study
from vicinal.reproduce import Run
from vicinal.reproduce.driver import study_of
from vicinal_experiments import ovq
from vicinal_experiments.ovq import ablations, capacity, cost, mqar, one_layer, recall, training

pytestmark = pytest.mark.slow


def quick(experiment):
    """A run of the quick size with one seed."""
    return Run(experiment.sizes["quick"], seeds=1, progress=False)


def judged(experiment, numbers):
    """The study of the numbers of such a run."""
    return study_of(experiment, "quick", 1, numbers, command="", environment={}, when="")


def test_what_fits_is_recalled_and_what_does_not_is_forgotten():
    """A centroid for every fact recalls all; one for a few facts, hardly more than its share."""
    few, many = capacity.distinct(256, 100, seed=0), capacity.distinct(1024, 100, seed=0)
    assert capacity.recall(capacity.ovq(512, growth="min"), few) == 1
    assert capacity.recall(capacity.ovq(64), many) < 0.3
    facts = capacity.repeated(32, 512, 32, seed=0)
    assert facts.keys.shape == (512, 64)
    assert len(np.unique(np.round(facts.asked, 6), axis=0)) == 32
    assert capacity.recall(capacity.ovq(256), facts) == 1


def test_the_memories_beside_it_are_what_they_are_called():
    """With orthogonal keys each of them recalls everything; linear attention by its sum of outer products."""
    keys = np.eye(64)
    values = np.random.default_rng(0).integers(0, 64, 64)
    facts = capacity.Facts(np.concatenate([keys, keys]), np.concatenate([values, values]), keys, values)
    for memory in (capacity.linear, capacity.delta, capacity.ridge):
        assert capacity.recall(memory, facts) == 1
    changed = np.roll(values, 1)  # the delta rule replaces, the sum keeps both
    facts = capacity.Facts(facts.keys, np.concatenate([values, changed]), keys, changed)
    assert capacity.recall(capacity.delta, facts) == 1


def test_costs_are_measured():
    sizes = cost.Sizes(features=8, num_centroids=8, chunk_size=16, window=16)
    assert set(cost.operators(sizes, 4)) >= {cost.FULL, cost.OVQ}
    for mode in (cost.FORWARD, cost.BOTH, cost.DECODE):
        states = []
        for length in (32, 64):
            found = cost.measure(cost.operators(sizes, length)[cost.OVQ], mode, sizes, length, repetitions=1)
            assert 0 < found.seconds < 60
            states.append(found.state_bytes)
        assert states[0] == states[1]
    with pytest.raises(ValueError, match="expected a mode"):
        cost.measure(cost.operators(sizes, 32)[cost.OVQ], "both ways", sizes, 32)


@pytest.mark.full
def test_regression_and_books():
    found = ovq.ICL.measure(quick(ovq.ICL))["errors"]["1"]
    assert found["ridge regression"][0][3] < 1e-12  # of functions of two numbers, after three examples
    assert all(np.all(np.isfinite(row)) for row in found.values())
    bits = ovq.BOOKS.measure(quick(ovq.BOOKS))["bits"]
    assert all(np.all((np.array(row) > 0) & (np.array(row) < 9)) for row in bits.values())


def test_what_one_centroid_a_pair_gives():
    """With N = 64 there are 21 centroids after 32 tokens under the plateau, and one for each under `min`."""
    plateau, least = (one_layer.Recalled(growth, 64, 32, [0.5]) for growth in ("plateau", "min"))
    assert (plateau.centroids, least.centroids) == (21, 32)
    assert plateau.expected == pytest.approx(21 / 32 + 11 / 32 / 16)
    assert least.expected == 1
    assert one_layer.one_layer_claim([plateau]).verdict == "does not hold"  # 0.5 is far from 0.68
    assert one_layer.one_layer_claim([one_layer.Recalled("plateau", 64, 32, [0.7])]).verdict == "holds"


def test_every_model_of_the_full_experiments_can_be_built():
    """One layer is replaced: before the perceptrons are matched, numbers of parameters are not far apart."""
    shape = ovq.MQAR.sizes["full"].shape
    others = (training.WINDOW, training.LINEAR, training.DELTA, training.MAMBA, training.MESA, training.VQ)
    for label in (training.FULL, training.ovq(8), *others):
        model = eqx.filter_eval_shape(lambda key, label=label: shape.build(label, key=key), jax.random.key(0))
        assert parameter_count(model) == pytest.approx(shape.parameters(), rel=0.3)


def test_temperatures_learn_faster_and_are_not_decayed():
    """Adam's step is the learning rate if gradients are equal; decay takes a hundredth of it times the weight."""
    model = training.Shape(16, features=4).build(training.ovq(8), key=jax.random.key(0))
    parameters = eqx.filter(model, eqx.is_inexact_array)
    optimizer = training.Training(steps=10, learning_rate=0.01).optimizer()
    state, gradient = optimizer.init(parameters), jax.tree.map(np.ones_like, parameters)
    update = jax.jit(optimizer.update)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(2):  # the warm-up begins at a rate of 0
            updates, state = update(gradient, state, parameters)
    theta, weight = updates.blocks[1].mixer.log_temperature, parameters.embedding.weight
    assert theta == pytest.approx(-0.1, rel=1e-4)
    assert np.asarray(updates.embedding.weight) == pytest.approx(-0.01 * (1 + 0.01 * np.asarray(weight)), rel=1e-4)


@pytest.mark.full
def test_one_layer_with_a_centroid_for_every_pair_recalls_all():
    run = quick(ovq.MQAR)
    (found,) = one_layer.measure_one_layer(run, run.size.one_layer)
    assert found.centroids == found.pairs
    assert np.mean(found.accuracy) > 0.9


def test_every_test_set_of_the_full_experiments_can_be_drawn():
    """Keys and values are words that differ: a vocabulary may have too few."""
    for module, size in ((recall, ovq.RECALL.sizes["full"]), (mqar, ovq.MQAR.sizes["full"])):
        for task, own in module.tasks(size):
            for axis in (recall.FIXED, recall.FILLED):
                for time in own.times:
                    check_drawn(task, time, own.count(axis, time), size.shape.vocabulary, once=True)


def test_every_set_of_the_large_recall_can_be_drawn_and_its_models_built():
    size = ovq.RECALL.sizes["large"]
    shape, axes, ((task, _),) = size.shape, size.axes, recall.tasks(size)
    for axis in (recall.FIXED, recall.FILLED):
        for time in axes.times:
            check_drawn(task, time, axes.count(axis, time), shape.vocabulary, once=True)
    for time, counts in ((axes.time, axes.facts), (axes.before.time, axes.before.facts)):
        for facts in counts:
            check_drawn(task, time, facts, shape.vocabulary, once=False)
    assert axes.before.time * 16 == axes.time  # as many tokens in an update need a whole ratio
    model = eqx.filter_eval_shape(lambda key: shape.build(training.ovq(1024), key=key), jax.random.key(0))
    assert [block.mixer.projections.heads for block in model.blocks] == [2] * 4


def check_drawn(task, time, facts, vocabulary, once):
    data = task(2, time, facts, 0, once)
    assert data.inputs.shape == (2, time)
    assert data.inputs.max() < vocabulary


@pytest.mark.parametrize("label", some([training.FULL, training.ovq(8), training.DELTA], training.ovq(8)))
def test_pieces_say_what_the_whole_says(label):
    shape = training.Shape(16, features=8, window=3, chunk_size=4, heads=2, max_length=21)
    model = eqx.filter_jit(lambda key: shape.build(label, key=key))(jax.random.key(0))
    x = jnp.asarray(np.random.default_rng(1).integers(0, 16, (2, 21)))
    whole = jax.jit(jax.vmap(model))(x)
    pieces = list(training.logits(model, x, piece=8))
    assert [piece.shape[1] for piece in pieces] == [8, 8, 5]
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, atol=1e-5)


def test_recall_begins_with_shorter_examples(monkeypatch):
    """As many tokens in an update, of examples of their own length; the second training goes on from the first."""
    seen = []

    def train(run, label, model, data, how, seed):
        seen.append((data[0].shape, how.steps, how.batch_size, model))
        return eqx.tree_at(lambda m: m.output_layer.bias, model, model.output_layer.bias + 1)

    monkeypatch.setattr(recall, "train", train)
    size = ovq.RECALL.sizes["quick"]
    axes = dataclasses.replace(size.axes, before=recall.Before(32, (1, 2), 3), examples=16)
    size = dataclasses.replace(size, axes=axes, steps=5, batch_size=4)
    ((task, _),) = recall.tasks(size)
    found, _ = recall.measure_recall(Run(size, seeds=1), [training.WINDOW], axes, task, "recall")
    assert [each[:3] for each in seen] == [((32, 32), 3, 8), ((16, 64), 5, 4)]
    assert np.all(seen[1][3].output_layer.bias == seen[0][3].output_layer.bias + 1)
    assert all(0 <= value <= 1 for by in found[recall.FIXED][training.WINDOW].values() for value in by)


@pytest.mark.full
@pytest.mark.parametrize("experiment", [ovq.RECALL, ovq.MQAR, ovq.ABLATIONS], ids=lambda found: found.name)
def test_studies_are_put_together(monkeypatch, experiment):
    """Without the training, which takes most of the time: what needs a trained model is then left open."""
    trained = []

    def train(run, label, model, data, how, seed):
        trained.append((label, how.steps))
        return model

    for module in (recall, mqar, ablations, one_layer):
        monkeypatch.setattr(module, "train", train)
    study = judged(experiment, experiment.measure(quick(experiment)))
    assert len(trained) == len(set(trained)) > 3  # each model once, by its own name
    assert "open" in {claim.verdict for claim in study.claims}
    assert all(table.rows for section in study.sections for table in section.tables)
    assert Study.from_json(study.to_json()) == study


def test_models_of_one_structure_share_the_graph():
    """So that they share the compiled step; another size, or another length of sequences, has its own."""
    shape = training.Shape(16, features=8, window=4, chunk_size=4)
    first, second = (shape.build(training.ovq(8), key=jax.random.key(seed)) for seed in (0, 1))
    x = np.zeros((2, 12), np.int32)
    graph = training.graph_of(first, x)
    assert training.graph_of(second, x + 1) is graph
    assert training.graph_of(second, x[:, :6]) is not graph
    other = dataclasses.replace(shape, features=4).build(training.ovq(8), key=jax.random.key(0))
    assert training.graph_of(other, x) is not graph
    assert training.Training(5).optimizer() is training.Training(5, batch_size=3).optimizer()
