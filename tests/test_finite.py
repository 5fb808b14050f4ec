"""No setting is infinite or undefined: a table made from all public names, so that a new setting is in it."""

import importlib
import inspect
import math
import pkgutil
import re
import typing

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vicinal as vc
from vicinal._numbers import check, number, number_text, optional_number

KEY = jax.random.key(0)
MODEL = vc.nn.MLP((3, 4, 2), key=KEY)
X, Y = jnp.ones((1, 3)), jnp.zeros(1, int)
TOKENS = dict.fromkeys("qkv", jnp.ones((1, 4, 1, 2)))
GATES = dict.fromkeys(("log_decay", "rate"), jnp.zeros((1, 4, 1)))
STEP = {"graph": None, "model": MODEL, "x": X, "y": Y, "loss": vc.losses.softmax_cross_entropy, "learning_rate": 1.0}
STEP["graph"] = vc.capture(MODEL, X[0])
LOOP = {"weight": np.ones((2, 3)), "feedback": -np.ones((3, 2)), "leak": 0.1}
MAKE = {"make": lambda rate: (vc.rules.Backprop(), optax.sgd(rate))}
STREAM = {"examples": 2, "pairs": 2, "time": 16, "seed": 0}

NEEDED = {
    "VertexEnergy": {},
    "aligned": {"alignment": vc.feedback.Alignment()},
    "BatchNorm": {"features": 2},
    "OVQAttention": {"features": 4, "heads": 1, "key": KEY, "memory": "autodiff"},
    "Proximal": {"learning_rate": 1.0},
    "ResidualMLP": {"sizes": (2, 2, 2), "depth": 3, "key": KEY},
    "Code": {"threshold": 0.1},
    "Cyclic": {"threshold": 0.1},
    "Device": {"step": 0.01},
    "Graded": {"threshold": 0.1},
    "Ternary": {"threshold": 0.1},
    "fit": {"rule": vc.rules.Backprop(), "model": MODEL, "optimizer": optax.sgd(1.0), "data": (X, Y), "key": KEY},
    "forgetting_mqar": STREAM | {"updates": 1},
    "from_arrays": {"x": np.ones((8, 3)), "y": np.arange(8) % 2},
    "generate": {"model": None, "prompt": jnp.zeros(2, int), "steps": 1},
    "largest_stable_rate": MAKE | {name: STEP[name] for name in ("graph", "model", "x", "y")},
    "linear_regression": {"examples": 2, "pairs": 2, "seed": 0},
    "loop_stability": LOOP,
    "mesa_attention": TOKENS | GATES | {"ridge": 1.0},
    "mq": {"learning_rate": 1.0},
    "nonlinear": {"states": 32},
    "transfer": {"step": 0.1, "device": "idealized"},
    "mqar": STREAM,
    "mqar_segments": {"segments": [], "seed": 0},
    "place": {"model": MODEL, "device": None, "key": KEY},
    "proximal_activities": STEP,
    "proximal_objective": STEP | {"update": jax.tree.map(jnp.zeros_like, eqx.filter(MODEL, eqx.is_array))},
    "proximal_residual": STEP | {"after": MODEL},
    "naive_ovq_attention": TOKENS | {"beta": 1.0, "schedule": None},
    "ovq_attention": TOKENS | {"beta": 1.0, "memory": "autodiff"},
    "reproduce": {"name": "il-theory/stability", "folder": "unused"},
    "ridge_oracle": {"data": None},
    "shifted": {"activation": "tanh"},
    "sliding_window_attention": TOKENS | {"beta": 1.0, "window": 2},
    "smoothed_abscissa": LOOP,
    "softmax_attention": TOKENS | {"beta": 1.0},
    "split_rows": {"examples": 8},
    "stabilise": LOOP,
    "sweep": {"build": None, "data": (X, Y), "numbers": {"rate": [1.0]}} | MAKE,
    "text": {"path": "missing.txt"},
    "vq_attention": TOKENS | {"codebook": jnp.ones((1, 3, 2)), "beta": 1.0},
    "yin_yang_class": {"x": np.zeros(1), "y": np.zeros(1)},
}
"""The other arguments of those that cannot do without."""

MEASURED = {
    "Bits", "Conversions", "Ledger",
    "LoopStability", "Recipe", "Regression", "Run", "SignSymmetric", "Smoothed", "Stabilised", "StableRate", "Sweep",
    "SynapticOperations",
    "ahead", "curve_panel", "levels_table", "points_words", "rate_panel", "rate_table", "number_words", "update",
}  # fmt: skip
"""Names of which users set no number: they hold or show what was measured, or are made by another function."""

ELSEWHERE = {(name, "test_share") for name in ("from_folder", "from_frame", "load")}
"""They read files first, and then split as `from_arrays` does."""


def public_names():
    """The public functions and classes, by name."""
    found = {}
    for module in pkgutil.walk_packages(vc.__path__, "vicinal."):
        if not re.search(r"\._|\.report|\.cli|__main__|\.interchange", module.name):
            there = importlib.import_module(module.name)
            found |= {name: getattr(there, name) for name in getattr(there, "__all__", ())}
    for module in (vc.rules.projectors, vc.energy):
        own = {name: value for name, value in vars(module).items() if inspect.isclass(value)}
        found |= {name: value for name, value in own.items() if value.__module__ == module.__name__}
    return {name: value for name, value in found.items() if callable(value) and name not in MEASURED}


def is_number_setting(name, parameter, owner):
    converter = getattr(owner, "__dataclass_fields__", {}).get(name)
    if converter is not None and converter.metadata.get("converter") in (number, optional_number):
        return True
    kinds = (parameter.annotation, *typing.get_args(parameter.annotation))
    return isinstance(parameter.default, float) or float in kinds


def settings():
    for owner_name, owner in sorted(public_names().items()):
        try:
            parameters = inspect.signature(owner).parameters
        except ValueError:
            continue
        for name, parameter in parameters.items():
            if is_number_setting(name, parameter, owner):
                yield owner_name, name


TABLE = list(settings())


def test_the_table_has_settings_of_every_kind():
    known = {
        ("Simultaneous", "step_size"), ("InferenceLearning", "precision"), ("mq", "learning_rate"), ("mq", "cap"),
        ("nlms", "eps"), ("Divisive", "offset"), ("Alignment", "decay"), ("weight_mirror", "amplify"),
        ("BatchNorm", "eps"), ("softmax_attention", "beta"), ("EarlyStopping", "minimum_change"), ("Dense", "scale"),
        ("DynamicInversion", "leak"), ("Microcircuit", "apical_rate"), ("TimeConstants", "dt"),
        ("nlms", "learning_rate"),
    }  # fmt: skip
    assert known <= set(TABLE)
    assert len(TABLE) > 100


@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize(("owner", "setting"), [row for row in TABLE if row not in ELSEWHERE])
def test_a_setting_is_finite(owner, setting, value):
    given = NEEDED.get(owner, {}) | {setting: value}
    with pytest.raises(ValueError, match=r"^expected .*, got .*(inf|nan)") as error:
        public_names()[owner](**given)
    named = re.split(r"[ _,.]+", str(error.value).lower())
    assert any(word in named or f"{word}s" in named for word in setting.split("_")), error.value


@pytest.mark.parametrize("name", ["learning_rate", "eps", "inference.step_size", "inference.tolerance", "precision"])
@pytest.mark.parametrize("value", [math.inf, np.float32(math.nan), jnp.array(-jnp.inf)])
def test_numbers_of_a_recipe_are_finite(name, value):
    with pytest.raises(ValueError, match=r"as a finite number.*, got -?(inf|nan)"):
        vc.recipes.recipe("il-prox").make(**{name: value})


@pytest.mark.parametrize("value", [None, "x", True, [0.1, 0.2], jnp.ones(3), np.zeros((1, 1))])
def test_a_setting_is_one_number(value):
    with pytest.raises(TypeError, match="expected a number, got"):
        vc.inference.Simultaneous(step_size=value)


@pytest.mark.parametrize("typed", ["0.1", "0.3", "1e-05", "5", "123.456", "-0.7", "1e+20"])
def test_numbers_are_shown_as_typed(typed):
    held = jnp.float32(float(typed))
    assert number_text(held) == number_text(float(typed)) == typed
    assert np.float32(float(number_text(held))) == held
    with pytest.raises(ValueError, match=f"^expected x above 0, got {re.escape(typed)}$"):
        check("x", held, lambda v: v != v, "above 0")
    with pytest.raises(ValueError, match=f"^expected x above 0, got {re.escape(typed)}$"):
        check("x", jnp.array([1.0, float(typed)]), lambda v: v == 1, "above 0")
