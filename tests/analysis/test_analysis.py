"""Angles and the locality audit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vicinal as vc
from vicinal.analysis import angle, angles, audit, norm_ratios

KEY = jax.random.key(0)


@pytest.mark.parametrize("scale", [1e-30, 1e-24, 1.0, 1e25])
def test_angle_does_not_depend_on_the_scale(scale):
    a = jnp.array([1.0, 2.0])
    assert float(eqx.filter_jit(angle)(scale * a, a)) < 1e-3
    assert float(eqx.filter_jit(angle)(scale * a, jnp.array([2.0, -1.0]))) == pytest.approx(90)


@pytest.mark.parametrize("degrees", [0.0, 1e-4, 1.0, 45.0, 90.0, 179.9999, 180.0])
def test_angle_is_exact_also_where_the_arc_cosine_is_not(degrees, x64):
    radians = np.deg2rad(degrees)
    a, b = jnp.array([2.0, 0.0]), 0.3 * jnp.array([np.cos(radians), np.sin(radians)])
    assert float(eqx.filter_jit(angle)(a, b)) == pytest.approx(degrees, abs=1e-9)


def test_angle_of_zero_is_not_a_number():
    assert jnp.isnan(eqx.filter_jit(angle)(jnp.zeros(3), jnp.ones(3)))


def test_angles_are_per_matrix_and_concatenated(x64):
    a = {"w": jnp.array([[1.0, 0.0]]), "v": jnp.array([[0.0, 2.0]]), "bias": jnp.array([0.0])}
    b = {"w": jnp.array([[0.0, 1.0]]), "v": jnp.array([[0.0, 1.0]]), "bias": jnp.array([3.0])}
    found = eqx.filter_jit(angles)(a, b)
    assert list(found) == ["['v']", "['w']", "concatenated"]
    assert float(found["['w']"]) == pytest.approx(90)
    assert float(found["['v']"]) == pytest.approx(0)
    cosine = 2 / np.sqrt(5) / np.sqrt(11)
    assert float(found["concatenated"]) == pytest.approx(np.rad2deg(np.arccos(cosine)))
    with pytest.raises(ValueError, match="same structure"):
        angles(a, {"w": b["w"]})


def test_the_whole_turns_away_where_one_layer_is_small_though_both_point_along_the_reference(x64):
    """Two layers of norm 25, the first 25 times smaller in the update: tan(whole) = (1 - r) / (1 + r)."""
    first, last = jnp.array([[7.0, 24.0]]), jnp.array([[15.0], [20.0]])
    ours, theirs = {"first": first / 25, "last": last}, {"first": first, "last": last}
    found, ratios = eqx.filter_jit(angles)(ours, theirs), norm_ratios(ours, theirs)
    assert float(found["['first']"]) == pytest.approx(0, abs=1e-9)
    assert float(found["['last']"]) == pytest.approx(0, abs=1e-9)
    whole = np.rad2deg(np.arctan2(1 - 1 / 25, 1 + 1 / 25))  # from (1/25, 1) to (1, 1): 42.7 degrees
    assert float(found["concatenated"]) == pytest.approx(whole)
    assert float(ratios["['first']"]) == pytest.approx(0.04)
    assert float(ratios["['last']"]) == pytest.approx(1)
    assert float(ratios["concatenated"]) == pytest.approx(np.sqrt((1 + 25**2) / (2 * 25**2)))


def test_the_whole_follows_from_layers_and_norms(x64):
    random = np.random.default_rng(0)
    ours, theirs = ({name: jnp.asarray(random.normal(size=(3, 4))) for name in "ab"} for _ in range(2))
    found, ratios = eqx.filter_jit(angles)(ours, theirs), norm_ratios(ours, theirs)
    names, sizes = ["['a']", "['b']"], [np.linalg.norm(theirs[name]) for name in "ab"]
    scaled = [float(ratios[name]) * size for name, size in zip(names, sizes, strict=True)]
    cosine = sum(a * b * np.cos(np.deg2rad(found[name])) for name, a, b in zip(names, scaled, sizes, strict=True))
    cosine /= np.linalg.norm(scaled) * np.linalg.norm(sizes)
    assert float(found["concatenated"]) == pytest.approx(np.rad2deg(np.arccos(cosine)))


def test_ratios_of_nothing(x64):
    zero, one = jnp.zeros((1, 1)), jnp.ones((1, 1))
    assert float(norm_ratios({"w": zero}, {"w": one})["['w']"]) == 0
    assert np.isinf(norm_ratios({"w": one}, {"w": zero})["['w']"])
    assert np.isnan(norm_ratios({"w": zero}, {"w": zero})["['w']"])
    with pytest.raises(ValueError, match="same structure"):
        norm_ratios({"w": one}, {"v": one})


def small(rule, model=None):
    model = vc.nn.MLP((3, 4, 5, 2), key=KEY) if model is None else model
    x, y = jax.random.normal(KEY, (2, 3)), jnp.array([0, 1])
    return audit(rule, vc.capture(model, x[0]), model, x, y, key=jax.random.key(1))


def test_inference_learning_depends_on_its_two_ends_and_nothing_else():
    found = small(vc.rules.InferenceLearning())
    assert found.local
    assert found.violations == ()
    layer2 = {"value hidden1", "value hidden2", "parameter .layers[1].weight", "parameter .layers[1].bias"}
    assert found.support["hidden2"] == found.allowed["hidden2"] == layer2
    layer1 = {"value hidden1", "input", "parameter .layers[0].weight", "parameter .layers[0].bias"}
    assert found.support["hidden1"] == found.allowed["hidden1"] == layer1


def test_backpropagation_depends_on_what_is_downstream():
    found = small(vc.rules.Backprop())
    assert not found.local
    assert {"parameter .layers[1].weight", "parameter .layers[2].weight", "error output"} <= found.support["hidden1"]


def adjoints(self, graph, model, credit, x):
    return eqx.filter_jit(graph.adjoints)(model, credit.values, x, credit.output_error)


@pytest.mark.parametrize(
    ("errors", "source"),
    [
        (lambda self, graph, model, credit, x: credit.errors, "error hidden1"),  # computed elsewhere and handed over
        (lambda *a: jax.tree.map(jax.lax.stop_gradient, adjoints(*a)), "error output"),
        (lambda *a: jax.tree.map(jnp.sign, adjoints(*a)), "error output"),
        (
            lambda self, graph, model, credit, x: {
                n: v + jnp.mean(credit.info.output) for n, v in credit.values.items()
            },
            "feedforward output",
        ),
        (lambda self, graph, model, credit, x: {n: v + credit.loss[:, None] for n, v in credit.values.items()}, "loss"),
    ],
    ids=["stored", "stopped", "signs", "output", "loss"],
)
def test_cheating_rules_are_caught(errors, source):
    cheat = type("Cheat", (vc.rules.InferenceLearning,), {"errors": errors})()
    found = small(cheat)
    assert not found.local
    assert f"the error of hidden1 depends on {source}" in found.violations


def test_errors_carried_through_time_are_caught():
    cheat = type("Cheat", (vc.rules.InferenceLearning,), {"errors": adjoints})()
    model, x, y = vc.nn.RNN(2, 3, 2, key=KEY), jnp.ones((2, 4, 2)), jnp.array([0, 1])
    graph = vc.capture(model, x[0])
    found = audit(cheat, graph, model, x, y, key=KEY)
    assert "the error of hidden[0] depends on error output" in found.violations
    assert audit(vc.rules.InferenceLearning(), graph, model, x, y, key=KEY).local


def test_a_little_non_locality_is_caught():
    class Cheat(vc.rules.InferenceLearning):
        """Reads the error of the vertex above."""

        def errors(self, graph, model, credit, x):
            errors = super().errors(graph, model, credit, x)
            return errors | {"hidden1": errors["hidden1"] + 1e-4 * jnp.mean(errors["hidden2"])}

    found = small(Cheat())
    assert not found.local
    assert "the error of hidden1 depends on value hidden2" in found.violations


def test_credit_that_is_not_finite_cannot_be_audited():
    rule = vc.rules.InferenceLearning(inference=vc.inference.Simultaneous(steps=400, step_size=50.0))
    with pytest.raises(ValueError, match="finite values and errors"):
        small(rule, vc.nn.MLP((3, 4, 5, 2), activation="relu", key=KEY))


def test_tied_weights_may_read_all_their_ends():
    def network(parameters, x):
        h = vc.vertex(jnp.tanh(parameters["shared"] @ x), "h1")
        return parameters["shared"] @ vc.vertex(jnp.tanh(parameters["shared"] @ h), "h2")

    model = jax.tree_util.Partial(network, {"shared": 0.5 * jax.random.normal(KEY, (3, 3))})
    found = small(vc.rules.InferenceLearning(), model)
    assert found.local
    assert {"value h1", "value h2"} <= found.allowed["h2"]
