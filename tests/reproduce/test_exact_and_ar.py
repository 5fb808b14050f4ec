"""Rules that are backpropagation, and activation relaxation: what theory says of the quick experiments."""

import functools

import pytest

from vicinal.report import Study
from vicinal.reproduce import ar, exact
from vicinal.reproduce.exact_gradients import missing
from vicinal.reproduce.runs import Scale

QUICK = Scale(quick=True, asked=1, progress=False)
EXPERIMENTS = {"exact": exact.backprop, "ar": ar.mnist}


@functools.cache
def run(name):
    found = EXPERIMENTS[name](QUICK)
    assert Study.from_json(found.to_json()) == found
    assert all(section.tables or section.panels for section in found.sections)
    return found


def check_the_exact_rules_are_backpropagation_and_strict_inference_learning_is_not():
    for model, gaps in run("exact").numbers["gaps"].items():
        assert gaps["Z-IL"] < 1e-4, model
        assert gaps["fixed prediction"] < 1e-4, model
        assert gaps["jax.grad, summed in another order"] < 1e-5, model
        assert gaps["strict IL"] > 1e-2, model


def check_small_steps_near_the_gradient_as_a_chain_of_waiting_times_says():
    numbers = run("exact").numbers
    for order, by_size in numbers["convergence"].items():
        for step_size, along in by_size.items():
            for steps, distances in zip(numbers["steps"], along, strict=True):
                assert distances[0] == pytest.approx((1 - float(step_size)) ** steps, abs=1e-5)
                for k, distance in enumerate(distances, 1):
                    assert distance == pytest.approx(missing(float(step_size), steps, k, order), abs=1e-5)


def check_training_by_the_exact_rules_is_training_by_backpropagation():
    for rules in run("exact").numbers["curves"].values():
        accuracies = {name: [record["test_accuracy"] for record in rows[0]["records"]] for name, rows in rules.items()}
        assert accuracies["BP"][-1] > 0.5
        for name in ("Z-IL", "fixed prediction"):
            assert accuracies[name] == pytest.approx(accuracies["BP"], abs=0.01)
        assert accuracies["strict IL"] != pytest.approx(accuracies["BP"], abs=0.01)


def records(network, rule):
    return run("ar").numbers["runs"][network][rule][0]["records"]


def check_exact_activation_relaxation_is_backpropagation_once_it_has_settled():
    for along in run("ar").numbers["settling"].values():
        assert along["400"] < 0.1
        assert along["400"] <= along["100"]


def check_feedback_turns_the_update_of_what_lies_below_it(network, top):
    for record in records(network, "AR"):
        assert record[f"angle {top}"] < 1e-2
    first = records(network, "AR, learned feedback, no derivatives")[0]
    assert first[f"angle {top}"] < 1e-2  # the output's own error does not go back through feedback
    assert first["angle concatenated"] > 1


def check_learned_feedback_keeps_its_difference_from_the_weight():
    """T-f3."""
    drift = run("ar").numbers["drift"]
    assert drift["AR, learned feedback"] < 1e-4
    assert drift["AR, learned feedback, no derivatives"] < 1e-4
    assert drift["AR, random feedback"] > 1e-2  # where it does not learn, the weight alone moves


def check_learned_feedback_turns_towards_the_weight():
    along = [record["feedback layers[3].weight"] for record in records("dense", "AR, learned feedback")]
    assert along[-1] < along[0]


@pytest.mark.slow
def test_exact_backprop():
    """One test for each experiment, so that it runs once, in one process."""
    check_the_exact_rules_are_backpropagation_and_strict_inference_learning_is_not()
    check_small_steps_near_the_gradient_as_a_chain_of_waiting_times_says()
    check_training_by_the_exact_rules_is_training_by_backpropagation()


@pytest.mark.slow
def test_activation_relaxation():
    check_exact_activation_relaxation_is_backpropagation_once_it_has_settled()
    check_feedback_turns_the_update_of_what_lies_below_it("dense", "layers[3].weight")
    check_feedback_turns_the_update_of_what_lies_below_it("convolutional", "layers[1].weight")
    check_learned_feedback_keeps_its_difference_from_the_weight()
    check_learned_feedback_turns_towards_the_weight()
