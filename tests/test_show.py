"""What rules and graphs say of themselves: their numbers, their edges, in one line."""

import jax
import jax.numpy as jnp
import pytest

import vicinal as vc
from vicinal.inference import Simultaneous
from vicinal.rules import ZIL, Backprop, InferenceLearning


def test_a_rule_shows_its_numbers():
    text = repr(InferenceLearning(inference=Simultaneous(steps=12, step_size=0.05)))
    assert text == "InferenceLearning(inference=Simultaneous(steps=12, step_size=0.05, pull=1), nudge=1, average=0)"


def test_a_rule_shows_what_differs_from_the_defaults():
    rule = InferenceLearning(
        inference=Simultaneous(steps=3, step_size=0.1, decay=True, tolerance=1e-5),
        loss=vc.losses.squared_error,
        precision={"hidden1": 2.0},
        encoding=vc.energy.Divisive(),
    )
    assert repr(rule) == (
        "InferenceLearning(inference=Simultaneous(steps=3, step_size=0.1, decay=True, pull=1, tolerance=1e-05), "
        "loss=squared_error, nudge=1, precision={'hidden1': 2}, encoding=Divisive(offset=0.001), average=0)"
    )
    assert repr(Backprop()) == "Backprop()"


def test_every_recipe_shows_its_numbers_in_one_line():
    for recipe in vc.recipes.RECIPES.values():
        text = repr(recipe.make()[0])
        assert "f32[" not in text
        assert "\n" not in text
        assert len(text) < 250


def test_traced_mapped_and_missing_leaves_do_not_crash():
    seen = []

    def look(step_size):
        seen.append(repr(InferenceLearning(inference=Simultaneous(step_size=step_size))))
        return step_size

    jax.eval_shape(look, 0.1)
    assert seen[0].startswith("InferenceLearning(inference=Simultaneous(steps=20, step_size=f32[]")
    assert repr(jax.vmap(lambda s: ZIL(step_size=s))(jnp.arange(3.0))) == "ZIL(step_size=[0, 1, 2])"
    assert "shape=()" in repr(jax.eval_shape(ZIL)) or "f32[]" in repr(jax.eval_shape(ZIL))
    assert "object" in repr(jax.tree.map(lambda _: object(), ZIL()))
    assert repr(jax.tree.map(lambda _: None, ZIL())) == "ZIL()"


def test_a_graph_shows_shapes_and_edges():
    graph = vc.capture(vc.nn.MLP((6, 5, 4, 3), key=jax.random.key(0)), jnp.ones(6))
    assert repr(graph) == "Graph(hidden1[5] <- input; hidden2[4] <- hidden1; output[3] <- hidden2)"


def chain(length):
    def network(weight, x):
        for i in range(length):
            x = vc.vertex(jnp.tanh(weight * x), f"h{i}")
        return {"mean": x, "scale": x}

    return vc.capture(jax.tree_util.Partial(network, jnp.ones(())), jnp.ones(2))


def test_a_large_graph_stays_short():
    text = repr(chain(40))
    assert text == (
        "Graph(40 vertices: h0[2] <- input; h1[2] <- h0; h2[2] <- h1; ...; h39[2] <- h38; output(2 arrays) <- h39)"
    )


def test_errors_that_name_vertices_stay_short():
    graph = chain(40)
    model = jax.tree_util.Partial(lambda w, x: x, jnp.ones(()))
    for wrong in (
        lambda: graph.prediction("nowhere", model, {}, jnp.ones((1, 2))),
        lambda: graph.program.ordered({"nowhere": jnp.ones((1, 2))}),
    ):
        with pytest.raises(ValueError, match=r"h0, h1, h2, h3, h4, h5, h6, \.\.\. \(40 in all\)") as error:
            wrong()
        assert "<-" not in str(error.value)
