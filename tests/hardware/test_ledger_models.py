"""Ledgers of other networks and of rules of one's own, counted by hand."""

import dataclasses
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from ledger_builders import data, ledger_of, network, uses

import vicinal as vc
from vicinal.credit import Credit, Info
from vicinal.hardware import Device, Periphery, place
from vicinal.inference import Simultaneous
from vicinal.losses import loss_and_error, softmax_cross_entropy
from vicinal.recipes import RECIPES
from vicinal.rules import Backprop, InferenceLearning, Rule


def il(steps, **options):
    return InferenceLearning(inference=Simultaneous(steps=steps, **options))


def by_path(rule, model, x, y, **options):
    found = vc.hardware.ledger(rule, model, x, y, **options)
    return {use.path: (use.forward, use.transposed, use.outer) for use in found.uses}, found


def test_a_convolution_counts_its_positions():
    """8 x 8 images, kernels of 3, stride 2: 3 x 3 positions, then 1."""
    model = vc.nn.ConvNet((2, 8, 8), [(4, 3, 2), (6, 3, 2)], (5, 3), vertex_at="pre", key=jax.random.key(0))
    x, y = jnp.ones((1, 2, 8, 8)), jnp.zeros(1, int)
    expected = {
        ".convolutions[0].convolution.weight": (9, 0, 9),
        ".convolutions[1].convolution.weight": (1, 1, 1),
        ".layers[0].weight": (1, 1, 1),
        ".layers[1].weight": (1, 1, 1),
    }
    found, ledger = by_path(Backprop(), model, x, y)
    assert found == expected
    assert [(use.inputs, use.outputs) for use in ledger.uses] == [(2 * 9, 4), (4 * 9, 6), (6, 5), (5, 3)]
    assert ledger.forward_macs == 9 * 18 * 4 + 36 * 6 + 6 * 5 + 5 * 3
    assert ledger.depth == 7  # of a chain, one position is enough
    settled, _ = by_path(il(6), model, x, y)
    assert settled[".convolutions[0].convolution.weight"] == (9, 0, 9)
    assert settled[".convolutions[1].convolution.weight"] == (7, 6, 1)


def test_a_single_output_is_an_array():
    """A matrix of one row is written by outer products, and read back by a number."""
    model = vc.nn.MLP((5, 4, 1), vertex_at="pre", key=jax.random.key(0))
    x, y = jnp.ones((1, 5)), jnp.ones((1, 1))
    found, _ = by_path(Backprop(loss=vc.losses.squared_error), model, x, y)
    assert list(found.values()) == [(1, 0, 1), (1, 1, 1)]


@pytest.mark.parametrize("is_placed", [False, True])
def test_separate_feedback_of_a_convolution_is_an_array_like_its_kernel(is_placed):
    model = vc.nn.ConvNet((2, 8, 8), [(4, 3, 2), (6, 3, 2)], (5, 3), vertex_at="pre", key=jax.random.key(0))
    model = vc.feedback.attach(model, vc.feedback.random(), key=jax.random.key(1))
    model = place(model, Device(step=0.001), key=jax.random.key(2)) if is_placed else model
    found = vc.hardware.ledger(Backprop(), model, jnp.ones((1, 2, 8, 8)), jnp.zeros(1, int))
    own = [use for use in found.uses if use.path.endswith("path.feedback")]
    assert [(use.inputs, use.outputs, use.transposed) for use in own] == [(4 * 9, 6, 1), (6, 5, 1), (5, 3, 1)]


def test_a_recurrent_network_counts_every_step():
    model = vc.nn.RNN(3, 5, 4, vertex_at="pre", key=jax.random.key(0))
    x, y = jnp.ones((1, 6, 3)), jnp.zeros(1, int)
    found, ledger = by_path(Backprop(), model, x, y)
    assert found == {
        ".input_layer.weight": (6, 0, 6),
        ".recurrent_layer.weight": (6, 5, 6),
        ".output_layer.weight": (1, 1, 1),
    }
    assert ledger.depth == 7 + 1 + 5  # up through all steps to the output, and back to the first


def test_a_transformer_counts_tokens_and_digital_products():
    """Of 5 tokens of 8 features; the products of queries, keys and values are of two activities: six, with the way
    back."""
    model = vc.nn.Transformer(6, 8, 4, depth=1, length=5, key=jax.random.key(0))
    found, ledger = by_path(Backprop(), model, jnp.ones((1, 5, 6)), jnp.zeros(1, int))
    assert found.pop(".embedding.weight") == (5, 0, 5)
    assert found.pop(".output_layer.weight") == (1, 1, 1)
    assert len(found) == 6
    assert set(found.values()) == {(5, 5, 5)}
    assert ledger.digital == 6 * 5 * 5 * 8


def test_a_tied_weight_is_read_both_ways():
    """Down to the code by W, and up again by its transpose."""

    def network(weights, x):
        code = vc.vertex(weights["w"] @ x, "code")
        return weights["w"].T @ jnp.tanh(code)

    model = jax.tree_util.Partial(network, {"w": jnp.ones((3, 7))})
    x = jnp.ones((1, 7))
    found, _ = by_path(Backprop(loss=vc.losses.squared_error), model, x, x)
    # The output reads the transpose; its error goes down by a forward read; both products change the weight.
    assert list(found.values()) == [(2, 1, 2)]


@pytest.mark.parametrize("name", ["bp", "il", "dfa", "kolen-pollack"])
@pytest.mark.parametrize("periphery", [Periphery(), Periphery.preset("ideal")], ids=["noisy", "ideal"])
def test_tiles_are_counted_as_the_layers_they_hold(name, periphery):
    """Whatever converters and noise stand at the sides of an array."""
    rule, model = RECIPES[name].make()[0], RECIPES[name].attach(network(3), key=jax.random.key(1))
    tiled = place(model, Device(step=0.001), forward=periphery, backward=periphery, key=jax.random.key(2))
    bare, placed = (vc.hardware.ledger(rule, m, *data()) for m in (model, tiled))
    counts = [[(use.forward, use.transposed, use.outer) for use in found.uses] for found in (bare, placed)]
    assert counts[0] == counts[1]
    assert (bare.depth, bare.passes) == (placed.depth, placed.passes)


@pytest.mark.parametrize("batch", [1, 5])
def test_examples_of_a_batch_are_alike(batch):
    one, several = ledger_of(il(5), 3), ledger_of(il(5), 3, batch=batch)
    assert uses(one, "weight") == uses(several, "weight")
    assert (one.depth, one.busiest, one.passes) == (several.depth, several.busiest, several.passes)
    assert several.energy == pytest.approx(batch * one.energy)


# ------------------------------------------------------------------------------------------------------------ records


class Silent(InferenceLearning):
    """Inference learning without loss and records."""

    def value_and_grad(self, graph, model, state, x, y, *, key=None):
        _, gradient, state, info = super().value_and_grad(graph, model, state, x, y, key=key)
        return jnp.zeros(()), gradient, state, Info(jnp.zeros_like(info.output))


@pytest.mark.parametrize("steps", [2, 7])
def test_losses_energies_and_records_cost_nothing(steps):
    loud, plain = ledger_of(il(steps, trace=True), 3), ledger_of(il(steps), 3)
    silent = ledger_of(Silent(inference=Simultaneous(steps=steps)), 3)
    assert loud.uses == plain.uses == silent.uses
    assert loud.depth == plain.depth == silent.depth


# --------------------------------------------------------------------------------------------------- rules of one's own


class Twice(Rule):
    """Errors of the output sent down twice, by transposed weights; the second time halved."""

    local = False
    loss = staticmethod(softmax_cross_entropy)

    def credit(self, graph, model, state, x, y, *, key=None):
        output, values = graph.feedforward(model, x)
        loss, error = loss_and_error(self.loss, output, y)
        once = graph.adjoints(model, values, x, error)
        again = graph.adjoints(model, values, x, jax.tree.map(lambda e: 0.5 * e, error))
        errors = jax.tree.map(jnp.add, once, again)
        return Credit(loss, values, errors, error, Info(output)), state


class Hebbian(Rule):
    """Two layers, all by hand: outer products of activities, one of them through `jnp.outer`, examples in a loop."""

    local = True
    loss = staticmethod(softmax_cross_entropy)

    def value_and_grad(self, graph, model, state, x, y, *, key=None):
        lower, upper = (layer.weight for layer in model.layers)

        def one(total, x):
            hidden = jnp.tanh(lower @ x)
            output = upper @ hidden
            return (total[0] - jnp.outer(hidden, x), total[1] - jnp.einsum("o,h->oh", output, hidden)), None

        nothing = jnp.zeros_like(lower), jnp.zeros_like(upper)
        found, _ = jax.lax.scan(one, nothing, x)
        gradient = jax.tree.map(jnp.zeros_like, graph.trainable(model))
        gradient = eqx.tree_at(lambda g: [layer.weight for layer in g.layers], gradient, list(found))
        return jnp.zeros(()), gradient, state, Info(jnp.zeros((len(x), 3)))


def test_a_rule_of_ones_own_is_counted():
    assert uses(ledger_of(Twice(), 3), "weight") == [(1, 0, 1), (1, 2, 1), (1, 2, 1)]
    assert ledger_of(Twice(), 3).depth == 5
    model = vc.nn.MLP((4, 5, 3), key=jax.random.key(0))
    found = vc.hardware.ledger(Hebbian(), model, *data(6, 4))
    assert uses(found, "weight") == [(1, 0, 1), (1, 0, 1)]


def test_a_tolerance_is_refused_or_weighed_by_measured_steps():
    model, graph_x = network(3), jnp.ones((4, 9)) * jnp.arange(1.0, 5.0)[:, None]
    rule = il(50, tolerance=0.05)
    with pytest.raises(vc.hardware.UnknownTurns, match="leave out the tolerance"):
        vc.hardware.ledger(rule, model, *data())
    graph, y = vc.capture(model, graph_x[0]), jnp.zeros(4, int)
    info = eqx.filter_jit(rule.value_and_grad)(graph, model, (), graph_x, y)[3]
    steps = round(float(info.steps.mean()))
    assert 1 < steps < 50
    found = vc.hardware.ledger(rule, model, *data(), turns=steps)
    assert uses(found, "weight") == uses(ledger_of(il(steps), 3), "weight")
    assert f"taken to make {steps} turns" in found.left_out[-1]


def test_matrices_on_no_array_are_named():
    """A table that is looked up, and gains that act unit by unit."""

    def network(weights, x):
        return weights["w"] @ (weights["gains"][0] * weights["table"][x])

    weights = {"w": jnp.ones((3, 4)), "table": jnp.ones((9, 4)), "gains": jnp.ones((1, 4))}
    model = jax.tree_util.Partial(network, weights)
    found = vc.hardware.ledger(Backprop(), model, jnp.zeros(1, int), jnp.zeros(1, int))
    assert [use.path[-5:] for use in found.uses] == ["['w']"]
    assert "On no array" in found.left_out[-1]
    assert "['table']" in found.left_out[-1]


def test_products_with_a_combination_of_weights_are_digital():
    def network(weights, x):
        return (weights["a"] @ weights["b"]) @ x

    model = jax.tree_util.Partial(network, {"a": jnp.ones((3, 2)), "b": jnp.ones((2, 4))})
    found = vc.hardware.ledger(Backprop(), model, jnp.ones((1, 4)), jnp.zeros(1, int))
    (said,) = [said for said in found.left_out if "a combination of" in said]
    assert re.search(r"\['a'\] and .*\['b'\] are taken as digital", said)
    assert found.digital >= 12


def test_fields_of_a_ledger_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ledger_of(Backprop(), 2).depth = 1
