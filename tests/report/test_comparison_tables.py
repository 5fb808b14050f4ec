"""The summary claims no more than the intervals support, and the tables fit a terminal of 80 columns."""

import io
import math

import pytest
from report_builders import LABELS, make_comparison, make_rule
from rich.console import Console

from vicinal.report import Curve, mean_interval, print_study, summary
from vicinal.report.comparison_tables import angle_table, main_table


def printed(comparison, width=80):
    buffer = io.StringIO()
    print_study(comparison, Console(file=buffer, width=width))
    return buffer.getvalue()


def two(first, second, **changes):
    return make_comparison(*[make_rule(i, test_accuracy=row, **changes) for i, row in enumerate((first, second))])


def test_overlap_is_said():
    text = summary(two([0.95, 0.96, 0.97], [0.96, 0.97, 0.98]))
    assert "The highest mean test accuracy, 97.0 ± 2.5 %, is that of inference learning." in text
    assert "interval of backpropagation (96.0 ± 2.5 %) overlaps with it" in text
    assert "do not settle which is better" in text


def test_a_clear_difference_is_said():
    text = summary(two([0.97, 0.971, 0.972], [0.90, 0.901, 0.902]))
    assert "Below it, with no overlap of the 95 % intervals: inference learning (90.10 ± 0.25 %)." in text
    assert "do not settle" not in text


def test_one_seed_claims_nothing():
    text = summary(make_comparison(make_rule(0, seeds=1), make_rule(1, seeds=1)))
    assert "with a single seed" in text
    assert "One seed gives no interval, so a difference may be chance" in text
    assert "±" not in text


def test_equal_means_share_the_first_place():
    text = summary(two([0.9, 0.9, 0.9], [0.9, 0.9, 0.9]))
    assert "is shared by backpropagation and inference learning" in text


def test_divergence_is_said():
    comparison = make_comparison(
        make_rule(0), make_rule(1, diverged=True), make_rule(2, seeds=1, diverged=True, stopped="Weights not finite")
    )
    text = summary(comparison)
    assert "Some seeds of inference learning have no result" in text
    assert "Inference learning, proximal (IL-prox) has no final test accuracy." in text
    assert "Inference learning, proximal (IL-prox) was stopped: Weights not finite." in text
    assert "No test accuracy was reached on any seed." in summary(make_comparison(comparison.rules[2]))


def test_two_seeds_give_both_values_and_no_interval():
    text = summary(two([0.95, 0.97], [0.9, 0.91], seeds=2))
    assert "The highest mean test accuracy, 96.0 % (95.0 and 97.0 %), is that of backpropagation." in text
    assert "Two seeds give no interval, so a difference may be chance" in text
    assert "overlap" not in text
    table = printed(two([0.95, 0.97], [0.9, 0.91], seeds=2))
    assert "95.0 and 97.0" in table
    assert "90.0 and 91.0" in table
    assert "±" not in text + table  # of two seeds 1 % from their mean, the interval would be 12.7 %


def test_cost_is_said():
    rules = make_rule(0, milliseconds_per_step=2.0), make_rule(1, milliseconds_per_step=5.0)
    text = summary(make_comparison(*rules))
    assert "A training step of inference learning takes 2.5 times as long as one of backpropagation." in text


ANGLES = {"layers[0]": [5.0, 6.0, 4.0], "layers[1]": [11.0, 12.0, 10.0], "concatenated": [50.0, 50.0, 50.0]}
SIZES = {"layers[0]": [0.04, 0.05, 0.03], "layers[1]": [1.1, 1.0, 1.2], "concatenated": [0.7, 0.7, 0.7]}


def test_layers_lead_and_norms_stand_beside_angles():
    comparison = make_comparison(make_rule(0), make_rule(1, angles=ANGLES, norm_ratios=SIZES))
    expected = "the update of inference learning points 5 to 11° away from backpropagation's, at 0.040 to 1.1 times its"
    assert f"Layer by layer, {expected} norm." in summary(comparison)
    main, layers = printed(comparison).split("Angle to backpropagation")
    assert "5.0 to 11" in main
    assert "50.0" not in main
    for number in ("5.0 ± 2.5", "× 0.040", "× 1.1", "50.0 ± 0.0", "× 0.70"):
        assert number in layers
    assert "weighs each layer by its size" in " ".join(layers.split())


def test_several_rules_are_ranked_by_their_layers():
    far = {"layers[0]": [30.0] * 3, "layers[1]": [20.0] * 3, "concatenated": [21.0] * 3}
    rules = [make_rule(0), make_rule(1, angles=ANGLES, norm_ratios=SIZES), make_rule(2, angles=far, norm_ratios={})]
    text = summary(make_comparison(*rules))
    assert "the update of inference learning stays closest to backpropagation's (5 to 11° away from it" in text
    assert "that of inference learning, proximal (IL-prox) strays farthest (20 to 30° away from it)." in text


@pytest.mark.parametrize(("rules", "seeds", "layers"), [(1, 1, 2), (2, 3, 3), (6, 5, 5)])
def test_tables_fit_80_columns_and_break_no_number(rules, seeds, layers):
    comparison = make_comparison(*[make_rule(index, seeds=seeds, layers=layers) for index in range(rules)])
    text = printed(comparison)
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    for rule in comparison.rules:
        for values in ([100 * value for value in rule.test_accuracy], *rule.angles.values()):
            mean, half_width = mean_interval(values)
            if half_width:  # two significant digits, and the mean to the same place
                digits = max(0, 1 - math.floor(math.log10(half_width)))
                assert f"{mean:.{digits}f} ± {half_width:.{digits}f}" in words


def test_tables_with_divergence_long_names_and_markup():
    label = "a rule with [bold]brackets[/bold] and " + "x" * 70
    comparison = make_comparison(make_rule(0), make_rule(1, label=label, diverged=True, milliseconds_per_step=None))
    text = printed(comparison)
    assert max(map(len, text.splitlines())) <= 80
    assert "[bold]brackets[/bold]" in text.replace("\n", " ")
    assert "(2 of 3" in text
    assert "The loss became infinite" in text


def test_nothing_measured():
    nothing = make_rule(0, test_accuracy=[math.nan] * 3, test_loss=[math.nan] * 3, angles={}, steps_to_90=[None] * 3)
    comparison = make_comparison(nothing)
    assert angle_table(comparison) is None
    assert len(main_table(comparison).rows) == 1
    assert "not reached" in printed(comparison)


def test_labels_of_the_builder_differ():
    assert len(set(LABELS)) == len(LABELS)


def regression(index, losses, **changes):
    seeds = len(losses)
    none, steps = [math.nan] * seeds, [0, 10]
    curve = Curve(steps, [[math.nan] * 2] * seeds, [[1.0, loss] for loss in losses])
    fields = {"test_accuracy": none, "test_loss": losses, "steps_to_90": [None] * seeds, "curve": curve}
    return make_rule(index, seeds=seeds, **(fields | changes))


def test_without_labels_the_loss_decides_and_there_is_no_accuracy():
    more = {"test_r2": [0.9, 0.8, 0.7], "validation_accuracy": [0.5, 0.25, 0.75]}
    comparison = make_comparison(
        regression(0, [0.1, 0.11, 0.12], angles={}), regression(1, [0.5, 0.51, 0.52], angles={}, more=more)
    )
    text = summary(comparison)
    # Of losses .10, .11, .12 the deviation is .01, and half an interval 4.303 * .01 / sqrt(3) = .0248.
    assert "The lowest mean test loss, 0.110 ± 0.025, is that of backpropagation." in text
    assert "Above it, with no overlap of the 95 % intervals: inference learning (0.510 ± 0.025)." in text
    assert "accuracy" not in text
    table = printed(comparison)
    assert "accuracy" not in table.split("Also measured")[0]
    assert "not reached" not in table
    assert "angle" not in table
    assert "0.80 ± 0.25" in table  # deviation .1
    assert "50 ± 62" in table  # deviation 25 %
    assert "0.110 ± 0.025" in table


def test_one_rule_without_labels():
    text = summary(make_comparison(regression(1, [0.25, 0.75])))
    assert "Its test loss is 0.250 and 0.750. Two seeds give no interval; more seeds would tell." in text


def test_labels_and_numbers_do_not_break():
    wide = {"test_loss": [0.04, 0.0424], "seeds": 2, "angles": {"layers[0]": [10.0, 20.0]}}
    text = printed(two([0.95, 0.97], [0.9, 0.91], norm_ratios={"layers[0]": [0.05, 0.05]}, **wide))
    assert max(map(len, text.splitlines())) <= 80
    main = text.split("Angle to backpropagation")[0]
    for words in ("backpropagation", "95.0 and 97.0", "0.0400 and 0.0424"):
        assert words in main
