"""Memory that does not suffice for training: refused before the first step, from shapes; or found on the way."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fit_builders import ADAM, BACKPROP, GRAPH, KEY, MODEL, SGD, X, Y, train
from matrix import diagonal, full, some

import vicinal as vc
from vicinal import _memory
from vicinal.graph import OUTPUT
from vicinal.recipes import RECIPES, recipe
from vicinal.train import needs, sweep
from vicinal.train.advance import bytes_of_steps, first_state, may_be_infinite
from vicinal.train.batches import ArraySource
from vicinal.train.evaluate import first_sums
from vicinal.train.metrics import metrics_of

MODELS = {
    "perceptron": (lambda n, key: vc.nn.MLP((n, 2 * n, 10), vertex_at="pre", key=key), lambda n: (n,)),
    "convolutions": (lambda n, key: vc.nn.ConvNet((1, 9, 9), [(n, 3, 2)], (10,), key=key), lambda n: (1, 9, 9)),
    "autoencoder": (lambda n, key: vc.nn.Autoencoder((n, 4, n), key=key), lambda n: (n,)),
    "recurrent": (lambda n, key: vc.nn.RNN(3, n, 10, key=key), lambda n: (4, 3)),
    "residual": (lambda n, key: vc.nn.ResidualMLP((n, n + 1, 10), 4, key=key), lambda n: (n,)),
    "transformer": (lambda n, key: vc.nn.Transformer(3, 2 * n, 10, length=4, key=key), lambda n: (4, 3)),
}
SIZES = 5, 12, 40
CHOSEN = "bp-sgd", "il", "constrained-pc", "relaxed-pc", "di", "dfa", "kolen-pollack"


def true_bytes(tree):
    """The bytes that the arrays of a tree hold, as NumPy counts them."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if eqx.is_array(leaf)]
    keys = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    return sum(np.asarray(jax.random.key_data(a) if k else a).nbytes for a, k in zip(leaves, keys, strict=True))


@pytest.fixture
def free(monkeypatch):
    """Sets the bytes that are free; nothing is too small to be looked at."""
    monkeypatch.setattr(_memory, "SMALL", 0)
    return lambda size: monkeypatch.setattr(_memory, "free_host_bytes", lambda *args, **settings: size)


@pytest.mark.parametrize(("name", "size"), diagonal([*MODELS], [*SIZES]))
def test_a_model_has_the_bytes_of_its_shapes(name, size):
    build = functools.partial(MODELS[name][0], size)
    made = [recipe("fa").attach(build(KEY), key=KEY), build(KEY)]
    shapes = [eqx.filter_eval_shape(lambda key: recipe("fa").attach(build(key), key=key), KEY)]
    shapes.append(eqx.filter_eval_shape(build, KEY))
    assert [_memory.bytes_of(shape) for shape in shapes] == [true_bytes(model) for model in made]


def parts_of(name, kind="perceptron", size=12, batch_size=20):
    """What `fit` makes of a recipe and a model, up to the first state; and the bytes that it estimates."""
    build, shape = MODELS[kind]
    rule, optimizer = recipe(name).make()
    x = np.ones((2 * batch_size, *shape(size)), np.float32)
    y = np.zeros(len(x), np.int32)
    model = recipe(name).attach(build(size, KEY), key=KEY)
    graph = vc.capture(model, x[0])
    parts = rule, graph, optimizer, metrics_of(rule.loss, graph.shapes[OUTPUT], x, y, None)
    source, sums = ArraySource(x, y, batch_size, KEY), first_sums(graph, parts[3], y)
    first = first_state(parts, model, source.example(), sums, rule_key=KEY, step_key=KEY)
    return parts, model, source, first


@pytest.mark.parametrize("name", some(RECIPES, *CHOSEN))
@pytest.mark.parametrize("size", some(SIZES, 12))
def test_states_have_the_bytes_of_their_shapes(name, size):
    (rule, graph, optimizer, _), model, _, first = parts_of(name, size=size)
    found = needs.state_shapes(rule, graph, optimizer, model, KEY)
    assert _memory.bytes_of(found[0]) == true_bytes(first.optimizer_state)
    assert _memory.bytes_of(found[1]) == true_bytes(first.rule_state)


@pytest.mark.parametrize(("name", "kind"), diagonal(["il", "bp-sgd", "fa"], [k for k in MODELS if k != "autoencoder"]))
@pytest.mark.parametrize("batch_size", [100, full(1)])
def test_the_least_memory_is_no_more_than_the_compiler_counts(name, kind, batch_size):
    parts, model, source, first = parts_of(name, kind, batch_size=batch_size)
    fixed = (*parts, source.chunk(0, 1)[0])
    states = true_bytes((first.optimizer_state, first.rule_state))
    least = true_bytes(model) + 2 * states + needs.activity_bytes(parts[1], batch_size)
    count = states + bytes_of_steps(fixed, first, may_be_infinite(first))
    assert least <= count <= needs._DOUBT * least


def test_activities_are_counted_for_the_batch():
    assert needs.activity_bytes(GRAPH, 8) == 8 * 6 * 4, "one hidden layer of six"


@pytest.mark.parametrize(("optimizer", "states"), [(SGD, 0), (ADAM, 2 * 51 + 1)])
def test_a_run_that_certainly_does_not_fit_is_refused_and_one_that_may_fit_is_not(free, optimizer, states, tmp_path):
    parameters = 4 * 6 + 6 + 6 * 3 + 3
    least = 4 * (parameters + 2 * states + 8 * 6)
    free(least - 1)
    with pytest.raises(MemoryError, match=r"^expected memory of at least .* MB for training beside the model .*layers"):
        train(optimizer=optimizer, steps=1, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    free(least)
    needs.check_training(BACKPROP, GRAPH, optimizer, MODEL, 8, KEY)


def test_in_doubt_the_compiler_is_asked(free, monkeypatch):
    asked = []
    monkeypatch.setattr(needs, "bytes_of_steps", lambda *args: asked.append(args) or 10**6)
    free(10**6)
    train(steps=2)
    assert asked == [], "far more is free"
    monkeypatch.setattr(needs, "_DOUBT", 10**6)
    train(steps=2)
    assert len(asked) == 1, "once in a run"
    free(10**6 - 1)
    with pytest.raises(
        MemoryError, match=r"^expected memory of at least 1 MB for a step with a batch of 8, by the comp"
    ):
        train(steps=2)


def test_asking_the_compiler_changes_no_bit(free, monkeypatch):
    plain = train(steps=5)
    monkeypatch.setattr(needs, "_DOUBT", 10**9)
    free(10**9)
    assert eqx.tree_equal(train(steps=5).state, plain.state)


def test_a_sweep_is_refused_before_a_model_is_made():
    made = []

    def build(key, width):
        made.append(isinstance(key, jax.core.Tracer))
        return vc.nn.MLP((4, int(width), 3), key=key)

    make = lambda width: (BACKPROP, SGD)  # noqa: E731
    with pytest.raises(MemoryError, match=r"layers\[0\].weight, float32\[1000000000000, 4\]"):
        sweep(make, build, (X, Y), {"width": [6, 10**12]}, steps=1, batch_size=8, progress=False)
    assert made.count(False) == 1, "the first part's"


def test_models_of_a_sweep_are_counted_with_their_numbers_and_not_with_defaults(free):
    free(10**8)
    build = lambda key, width=10**9: vc.nn.MLP((4, int(width), 3), key=key)  # noqa: E731
    done = sweep(lambda width: (BACKPROP, SGD), build, (X, Y), {"width": [6]}, steps=1, batch_size=8, progress=False)
    assert done.members[0].model.layers[0].weight.shape == (6, 4)


@pytest.mark.parametrize(
    ("numbers", "seeds", "words"),
    [
        ({"learning_rate": [0.1]}, 2**32, "for 4294967296 members"),
        ({"learning_rate": list(np.linspace(0.1, 1, 1000)), "b": range(10**9)}, 1, "for 1000000000000 combinations"),
    ],
)
def test_sweeps_of_more_members_than_memory_holds_are_refused(numbers, seeds, words):
    make = lambda learning_rate, b=0: (BACKPROP, optax.sgd(learning_rate))  # noqa: E731
    with pytest.raises(MemoryError, match=words):
        sweep(make, lambda key: MODEL, (X, Y), numbers, seeds=seeds, steps=1, progress=False)


def test_models_of_all_members_must_fit_at_the_end(free):
    build = lambda key: vc.nn.MLP((4, 600, 3), key=key)  # noqa: E731
    free(100 * 4 * (4 * 600 + 600 + 600 * 3 + 3) - 1)
    with pytest.raises(MemoryError, match="for 100 models at the end"):
        sweep(lambda rate: (BACKPROP, SGD), build, (X, Y), {"rate": [1]}, seeds=100, steps=1, batch_size=8)


def test_more_seeds_than_there_are_keys():
    with pytest.raises(ValueError, match=r"^expected at most 4294967296 seeds, got 4294967297"):
        sweep(lambda rate: (BACKPROP, SGD), lambda key: MODEL, (X, Y), {"rate": [1]}, seeds=2**32 + 1, steps=1)


@pytest.mark.parametrize("length", [{"epochs": 10**18}, {"steps": 2**31}])
def test_more_steps_than_can_be_counted(length):
    with pytest.raises(ValueError, match=r"^expected steps of at most 2147483647"):
        train(**length)
