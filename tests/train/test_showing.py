"""Runs and sweeps at a prompt, in a notebook and as data frames; made up, for nothing here depends on training."""

import math
from types import SimpleNamespace

import pytest

from vicinal.report.records import curve_rows, curves_csv, quantities, series_of
from vicinal.train import Member, Run, Sweep
from vicinal.train.compiled import Layout

FIRST = {"step": 5, "train_loss": 0.5, "test_loss": 0.25, "test_accuracy": 0.75, "angles": {"layers[0]": 5.5}}
LAST = {"step": 10, "train_loss": 0.25, "test_loss": None, "test_accuracy": 0.875, "angles": {"layers[0]": 6.5}}


def run(stopped=None, records=(FIRST, LAST)):
    return Run(SimpleNamespace(step=10, model=None), None, list(records), stopped, 0.001)


def member(rate, seed, accuracy, stopped=None):
    courses = ((FIRST, 0.5), (LAST, 1.0)) if accuracy is not None else ()
    records = [{**record, "test_accuracy": share * accuracy} for record, share in courses]
    return Member({"learning_rate": rate}, seed, records, 10 if records else 3, stopped, None)


def sweep(*members):
    return Sweep(list(members), Layout(1, 2, 1), 1, 1.0, 0.5, 1)


MEMBERS = [
    member(0.1, 0, 0.5),
    member(0.1, 1, 0.75),
    member(10.0, 0, None, "the next update is not finite"),
    member(10.0, 1, 0.875, "the next update is not finite"),
]


def test_a_run_in_a_line():
    assert repr(run()) == "Run(10 steps: train_loss=0.25, test_accuracy=0.875)"
    sentence = "stopped by EarlyStopping at step 10: enough"
    ended = run(sentence, [FIRST, LAST])
    assert repr(ended) == f"Run(10 steps: train_loss=0.25, test_accuracy=0.875; {sentence})"
    assert repr(run("weights grew")) == "Run(10 steps: train_loss=0.25, test_accuracy=0.875; stopped: weights grew)"
    assert repr(run(records=())) == "Run(10 steps)"


def test_a_sweep_in_a_line_names_the_best_member_that_went_on():
    assert repr(sweep(*MEMBERS)) == (
        "Sweep(4 members: 2 learning_rates, 2 seeds; best test_accuracy=0.75 at learning_rate=0.1, seed=1; 2 diverged)"
    )
    assert repr(MEMBERS[1]) == "Member(learning_rate=0.1, seed=1: 10 steps: train_loss=0.25, test_accuracy=0.75)"
    assert repr(MEMBERS[2]) == "Member(learning_rate=10, seed=0: 3 steps; stopped: the next update is not finite)"
    assert repr(sweep(MEMBERS[2])) == "Sweep(1 member: 1 learning_rate, 1 seed; 1 diverged)"
    losses = [Member({}, i, [{"step": 1, "test_loss": loss}], 1, None, None) for i, loss in enumerate((2.0, 1.0))]
    assert "best test_loss=1 at seed=1" in repr(sweep(*losses))


def test_a_run_as_a_data_frame():
    pytest.importorskip("pandas")
    frame = run().to_frame()
    assert list(frame.columns) == ["step", "train_loss", "test_loss", "test_accuracy", "angles.layers[0]"]
    assert frame["angles.layers[0]"].tolist() == [5.5, 6.5]
    assert frame["test_loss"][0] == 0.25
    assert math.isnan(frame["test_loss"][1])
    assert frame["test_loss"].dtype == float


def test_a_sweep_as_a_data_frame_keeps_every_member():
    pytest.importorskip("pandas")
    frame = sweep(*MEMBERS).to_frame()
    assert list(frame.columns[:5]) == ["member", "learning_rate", "seed", "stopped", "step"]
    assert frame["member"].tolist() == [0, 0, 1, 1, 2, 3, 3]
    assert frame["learning_rate"].tolist() == [0.1] * 4 + [10.0] * 3
    assert frame["seed"].tolist() == [0, 0, 1, 1, 0, 1, 1]
    assert frame["step"].tolist() == [5, 10, 5, 10, 3, 5, 10]
    assert frame["test_accuracy"].tolist()[:4] == [0.25, 0.5, 0.375, 0.75]
    assert math.isnan(frame["test_accuracy"][4])
    assert frame["stopped"].tolist()[4] == "the next update is not finite"
    clash = Member({"step": 7.0}, 0, [{"step": 1}], 1, None, None)
    assert sweep(clash).to_frame().to_dict("records") == [
        {"member": 0, "numbers.step": 7.0, "seed": 0, "stopped": None, "step": 1}
    ]


def test_a_notebook_shows_curves_without_scripts():
    pages = run()._repr_html_(), sweep(*MEMBERS)._repr_html_()
    for page in pages:
        assert page.count("<svg") >= 3
        assert "Test accuracy (%)" in page
        for forbidden in ("<script", "<style", "src=", "nan"):
            assert forbidden not in page
    assert "learning_rate=0.1" in pages[1]
    assert "<svg" not in run(records=())._repr_html_()


def test_records_as_points():
    rows = curve_rows({"rule": "il", "seed": 3}, [FIRST, LAST])
    assert [(row["step"], row["quantity"], row["value"]) for row in rows] == [
        (5, "train_loss", 0.5),
        (5, "test_loss", 0.25),
        (5, "test_accuracy", 0.75),
        (5, "angles.layers[0]", 5.5),
        (10, "train_loss", 0.25),
        (10, "test_accuracy", 0.875),
        (10, "angles.layers[0]", 6.5),
    ]
    assert curves_csv(rows).splitlines()[:2] == ["rule,seed,step,quantity,value", "il,3,5,train_loss,0.5"]
    other = curve_rows({"rule": "bp", "rate": 0.5}, [{"step": 1, "test_loss": 2.0}])
    assert curves_csv([rows[0], *other]).splitlines() == [
        "rule,seed,rate,step,quantity,value",
        "il,3,,5,train_loss,0.5",
        "bp,,0.5,1,test_loss,2.0",
    ]
    assert curves_csv([]) == "step,quantity,value\n"
    found = quantities([[{"step": 5, "test_rmse": 1.0}, FIRST]])
    assert found == ["test_accuracy", "test_loss", "train_loss", "test_rmse"]
    line = series_of("il", [[FIRST, LAST], [FIRST]], "test_accuracy", 100.0)
    assert line.x == [5.0, 10.0]
    assert line.y[0] == [75.0, 87.5]
    assert line.y[1][0] == 75.0
    assert math.isnan(line.y[1][1])
