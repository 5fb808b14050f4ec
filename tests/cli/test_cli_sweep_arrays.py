"""The section of a sweep's report about arrays: what an update of each rule asks of them."""

from vicinal.report import ARRAY_COUNTS
from vicinal.settings import InferenceSettings, ModelSettings
from vicinal.sweeping import SweepSettings, sweep_task

_MODEL = ModelSettings(sizes=(64, 4, 10))


def rows(folder, **settings):
    """The rows of the table about arrays, by their names; empty where there is none."""
    small = {"seeds": 1, "epochs": 1, "batch_size": 512, "model": _MODEL, "learning_rates": (0.01,)}
    study = sweep_task(SweepSettings(**{**small, **settings}), folder, progress=False)
    section = study.sections[-1]
    if section.heading != "On arrays":
        return {}
    (table,) = section.tables
    return {row[0]: dict(zip(ARRAY_COUNTS, row[1:], strict=True)) for row in table.rows}


def test_whole_numbers_that_change_a_program_have_a_row_each(tmp_path):
    """Every step of inference reads the upper of two matrices in both directions."""
    found = rows(tmp_path, rule="il", vary=("inference.steps=2,3", "inference.step_size=0.05,0.1"))
    assert [name.rpartition(", ")[2] for name in found] == ["inference.steps 2", "inference.steps 3"]
    assert [count["transposed"] for count in found.values()] == [2, 3]


def test_rules_have_a_row_each_whatever_the_device(tmp_path):
    found = rows(tmp_path, rules=("bp", "dfa"), vary=("model.adc=4,6",))
    assert [count["transposed"] for count in found.values()] == [1, 0]


def test_repeated_reads_have_a_row_each(tmp_path):
    """An input is read so often in either direction; of two matrices the upper one carries an error back."""
    found = rows(tmp_path, rule="bp", vary=("model.repeats=1,3",))
    assert [name.rpartition(", ")[2] for name in found] == ["model.repeats 1", "model.repeats 3"]
    assert [(count["forward"], count["transposed"]) for count in found.values()] == [(2, 1), (6, 3)]


def test_a_part_of_the_steps_has_a_row_though_it_is_a_fraction(tmp_path):
    """Averaged over 1 or 2 of 4 steps, there are so many outer products of each matrix."""
    found = rows(tmp_path, rule="il", vary=("average=0.25,0.5",), inference=InferenceSettings(steps=4))
    assert [name.rpartition(", ")[2] for name in found] == ["average 0.25", "average 0.5"]
    once, twice = (count["outer"] for count in found.values())
    assert twice == 2 * once


def test_a_loop_of_unknown_length_is_left_out(tmp_path):
    assert rows(tmp_path, rule="di") == {}
