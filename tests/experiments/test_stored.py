"""Judges of experiments, run on the numbers stored in docs/results: what is published is what the numbers say."""

import json
from pathlib import Path

import pytest

from vicinal.cli.main import main
from vicinal.report import Study
from vicinal.reproduce import judge
from vicinal_experiments import EXPERIMENTS

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
STORED = {path: name for name in EXPERIMENTS if (path := RESULTS / f"{name}.json").exists()}


@pytest.mark.parametrize("path", STORED, ids=STORED.values())
def test_what_is_stored_is_what_its_numbers_say(path):
    assert judge(path) == Study.from_json(path.read_text()), "run python -m vicinal_experiments docs/results"


PENDING: set[str] = set()
"""Experiments whose full size has not been run to its end yet."""


def test_every_experiment_has_stored_results():
    assert set(STORED.values()) | PENDING == set(EXPERIMENTS)


def stability(change):
    """The stored file, changed."""
    content = json.loads((RESULTS / "il-theory" / "stability.json").read_text())
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content["settings"].update(steps=10), "expected numbers measured with steps 20000"),
        (lambda content: content["numbers"].pop("IL-prox"), "expected the numbers that il-theory/stability is judged"),
        (lambda content: content["settings"].update(experiment="none/such"), "expected an experiment of"),
        (lambda content: content["settings"].pop("experiment"), "expected the results of an experiment"),
        (lambda content: content["settings"].pop("steps"), "expected numbers measured with steps 20000, .* got None"),
        (lambda content: content["settings"].pop("size"), "in a size of quick, full, got None"),
        (lambda content: content["numbers"].update({"IL-prox": [1.0]}), "got others"),
        (lambda content: content["numbers"].update({"IL-prox": 10**400}), "a number has 401 digits"),
        (lambda content: content["settings"].update(experiment=3), "expected the results of an experiment"),
        (lambda content: content["settings"].update(size=["full"]), "in a size of quick, full, got"),
        (lambda content: content["settings"].update(seeds="three"), "expected a whole number of seeds .* got 'three'"),
        (
            lambda content: content.update(settings=[]),
            "results.json, got something else: Study.settings: expected a map",
        ),
        (lambda content: content.update(claims=3), "results.json, got something else"),
    ],
)
def test_a_file_that_cannot_be_judged_is_refused(tmp_path, change, words):
    (tmp_path / "results.json").write_text(stability(change))
    with pytest.raises(ValueError, match=words):
        judge(tmp_path / "results.json")


@pytest.mark.parametrize(
    "content", [b"words", bytes(range(256)), b"[" * 100_000, b"{}", b'{"format": "vicinal-study-1"}']
)
def test_a_file_that_is_no_study_is_refused_by_its_name(tmp_path, content):
    (tmp_path / "some.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"expected the stored results of an experiment in .*some.json, got"):
        judge(tmp_path / "some.json")


def test_judged_numbers_go_to_a_folder_of_their_own_or_back_to_theirs(tmp_path, capsys):
    stored = RESULTS / "fa" / "convergence.json"
    new = tmp_path / "new" / "folder"
    main(["reproduce", "--judge", str(stored), "--folder", str(new)])
    assert judge(new / "results.json") == judge(stored)
    assert (new / "report.html").exists()
    main(["reproduce", "--judge", str(new / "results.json"), "--folder", str(new)])
    for file in ("config.json", "results.json"):
        other = tmp_path / file.replace(".", "-")
        other.mkdir()
        (other / file).write_text("{}")
        with pytest.raises(SystemExit):
            main(["reproduce", "--judge", str(stored), "--folder", str(other)])
        assert "expected a folder without a run" in capsys.readouterr().err
        assert [entry.name for entry in other.iterdir()] == [file]
        assert (other / file).read_text() == "{}"


def test_another_number_gets_another_verdict(tmp_path):
    """IL-prox loses its claim if it diverges as gradient steps do."""

    def diverge(content):
        for member in content["numbers"]["IL-prox"]:
            member["stopped"] = "diverged"

    assert judge(RESULTS / "il-theory" / "stability.json").claims[0].verdict == "holds"
    (tmp_path / "results.json").write_text(stability(diverge))
    assert judge(tmp_path / "results.json").claims[0].verdict == "does not hold"
