"""Experiments: each runs in its quick form, and what theory says of its numbers holds."""

import functools
import json

import numpy as np
import pytest

from vicinal.report import Study
from vicinal.reproduce import EXPERIMENTS, experiment, reproduce
from vicinal.reproduce.catalogue import settings_in
from vicinal.reproduce.runs import ahead, verdict


@functools.cache
def run(name, folder):
    return reproduce(name, folder, quick=True, seeds=1, command=f"vicinal reproduce {name} --quick", progress=False)


@pytest.fixture
def study(request, tmp_path_factory):
    name = f"il-theory/{request.param}"
    folder = tmp_path_factory.getbasetemp() / request.param
    found = run(name, folder)
    assert Study.from_json((folder / "results.json").read_text()) == found
    assert "<html" in (folder / "report.html").read_text()
    assert json.loads((folder / "config.json").read_text()) == {"experiment": name, "quick": True, "seeds": 1}
    assert found.claims
    assert found.differences
    assert all(section.tables or section.panels for section in found.sections)
    return found


def experiment_test(name):
    """The quick run of one experiment, in a process of its own."""

    def decorate(function):
        marked = pytest.mark.parametrize("study", [name], indirect=True)(function)
        return pytest.mark.slow(pytest.mark.xdist_group(name)(marked))

    return decorate


def last(member, quantity):
    return member["records"][-1][quantity]


@experiment_test("stability")
def test_stability(study):
    """A proximal step is bounded however large its learning rate; a gradient step is not."""
    members = {name: {m["numbers"]["learning_rate"]: m for m in study.numbers[name]} for name in ("IL-prox", "BP-SGD")}
    assert all(member["stopped"] is None for member in members["IL-prox"].values())
    norms = {rate: last(member, "update_norm") for rate, member in members["IL-prox"].items()}
    assert norms[100.0] < 1.5 * norms[10.0]
    assert members["BP-SGD"][100.0]["stopped"] or last(members["BP-SGD"][100.0], "update_norm") > 100 * norms[100.0]


@experiment_test("online")
def test_online(study):
    (members,) = (found["IL-prox"] for found in study.numbers.values())
    assert last(members[0], "test_accuracy") > 0.7
    assert last(members[0], "test_loss") < members[0]["records"][0]["test_loss"]


@experiment_test("minibatch")
def test_minibatch(study):
    (found,) = study.numbers.values()
    assert set(found) == {"BP-SGD", "BP-Adam", "IL-SGD", "IL-prox", "IL-Adam", "IL-prox-Adam"}
    for name, members in found.items():
        assert last(members[0], "test_loss") < members[0]["records"][0]["test_loss"], name


@experiment_test("autoencoder")
def test_autoencoder(study):
    (found,) = study.numbers.values()
    uniform = 64 * np.log(2)  # the loss of an output that knows nothing
    for name, members in found.items():
        assert last(members[0], "test_loss") < uniform, name


@experiment_test("proximal")
def test_proximal(study):
    for rate, row in study.numbers["along"].items():
        best = row["references"]["implicit SGD"]
        assert row["references"]["residual"] < 1e-3
        assert best < row["references"]["start"]
        assert best < row["references"]["backpropagation"]
        for name, values in row["along"].items():
            assert min(values["objective"]) > best, (rate, name)  # the optimum is the least
            # Theorem: with one example the normalised step reproduces the activities.
            assert max(values["distance"]) < 1e-3, (rate, name)
            if name.startswith("feedforward"):
                assert values["slope left"][-1] < values["slope left"][0]
        # Energies over the presynaptic norms are those of the proximal objective, but for the norms' own slope.
        soft, weighted = (row["along"][name] for name in ("feedforward, soft", "feedforward, soft, weighted"))
        assert weighted["to implicit SGD"][-1] < soft["to implicit SGD"][-1]
        assert weighted["objective"][-1] < soft["objective"][-1]
    shares = study.numbers["shares"]["shares"]
    for name, rows in shares.items():
        if name != "concatenated":  # small steps of the activities: each matrix learns along its gradient
            assert rows[0][0] > 0.9
            assert all(0 <= gradient + curvature <= 1 + 1e-6 for gradient, curvature in rows)


@experiment_test("paths")
def test_paths(study):
    for name, members in study.numbers["runs"].items():
        for member in members:
            assert 0 < last(member, "distance_moved") <= last(member, "path_length"), name
            lengths = [record["path_length"] for record in member["records"]]
            assert lengths == sorted(lengths)
    for stage, rules in study.numbers["changes"].items():
        # At equal small norms nothing lowers the loss more than the gradient.
        gradient = np.median(rules["BP-SGD"]["loss, scaled"])
        for name, found in rules.items():
            assert np.median(found["loss, scaled"]) <= 1.05 * gradient, (stage, name)


def test_a_verdict_needs_more_than_chance():
    assert ahead([1.0, 1.1, 1.2], [0.5, 0.6, 0.7]) == 1
    assert ahead([0.5, 0.6, 0.7], [1.0, 1.1, 1.2]) == -1
    assert ahead([1.0, 0.4, 1.2], [0.5, 0.9, 0.9]) == 0  # the interval of the differences holds 0
    assert ahead([1.0], [0.0]) == 0
    assert ahead([1.0, 1.0], [0.0, 0.0]) == 0  # two seeds have no interval
    assert ahead([1.0, np.nan, 1.2], [0.5, 0.6, 0.7]) == 0
    said = {
        (1, 1): "holds",
        (1, 0): "holds in part",
        (1, -1): "holds in part",
        (0, -1): "does not hold",
        (0, 0): "open",
    }
    assert {found: verdict(found) for found in said} == said


def test_an_experiment_needs_a_folder_of_its_own(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for resume in (False, True):
        with pytest.raises(ValueError, match="expected a folder without a run"):
            reproduce("il-theory/online", tmp_path, quick=True, resume=resume)
    assert (tmp_path / "config.json").read_text() == "{}"


def test_the_full_experiments_say_which_data_they_need(tmp_path, monkeypatch):
    monkeypatch.setenv("VICINAL_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="vicinal data fetch mnist"):
        reproduce("il-theory/stability", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_experiments_are_refused():
    with pytest.raises(ValueError, match="expected an experiment of il-theory/stability"):
        experiment("il-theory/everything")
    assert all(name == entry.name for name, entry in EXPERIMENTS.items())


@pytest.mark.parametrize(
    ("name", "quick", "words"),
    [("ovq/icl", False, "with large sizes, ovq/recall, ovq/books, got ovq/icl"), ("ovq/recall", True, "got both")],
)
def test_large_sizes_are_refused_where_there_are_none(tmp_path, name, quick, words):
    with pytest.raises(ValueError, match=words):
        reproduce(name, tmp_path / "run", quick=quick, large=True)
    assert not (tmp_path / "run").exists()


def test_a_large_run_is_resumed_as_one(tmp_path):
    config = {"experiment": "ovq/recall", "quick": False, "seeds": 1}
    (tmp_path / "config.json").write_text(json.dumps(config | {"large": True}))
    assert settings_in(tmp_path)["large"] is True
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert settings_in(tmp_path)["large"] is False
    with pytest.raises(ValueError, match="expected a folder without a run, or the same one"):
        reproduce("ovq/recall", tmp_path, seeds=1, large=True, resume=True)
