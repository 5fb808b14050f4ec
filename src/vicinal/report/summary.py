"""The result of a comparison as a paragraph, computed from the numbers."""

import dataclasses
import math
import statistics
from collections.abc import Callable

from vicinal._records import stop_words
from vicinal.report.comparison import Comparison, RuleResult
from vicinal.report.comparison_tables import layer_range, mean_by_layer, measures_accuracy, seeds_text, size_text
from vicinal.report.formatting import capitalized, name_list
from vicinal.report.interval import FEWEST, interval_text, mean_interval

__all__ = ["summary"]

_SAME_DIRECTION = 0.1  # degrees: below it, an angle in float32 is not distinguishable from zero


def summary(comparison: Comparison) -> str:
    """Describe what the comparison found, and what it does not show.

    The words never claim more than the intervals: where two intervals overlap, the order of the two rules is
    called open.

    Args:
        comparison: The results.

    Returns:
        A paragraph.
    """
    rules, seeds = comparison.rules, seeds_text(comparison)
    over = f"over {seeds}" if seeds != "1 seed" else "with a single seed"
    if len(rules) == 1:
        opening = f"One learning rule, {rules[0].label}, trained {over}."
    else:
        opening = f"{_count(len(rules))} learning rules, trained {over} each."
    sentences = [opening, *_best(comparison), *_angle(rules), *_time(rules)]
    sentences += [
        f"{capitalized(rule.label)} was {_sentence(stop_words(rule.stopped))}" for rule in rules if rule.stopped
    ]
    return " ".join(sentences)


@dataclasses.dataclass(frozen=True)
class _Score:
    """The quantity that ranks the rules: its values, of which more is better, its name and its text."""

    values: Callable[[RuleResult], list[float]]
    name: str
    text: Callable[[RuleResult], str]

    def ends(self, rule: RuleResult) -> tuple[float, float] | None:
        """The ends of the interval; None without one."""
        mean, half_width = mean_interval(self.values(rule))
        return None if half_width is None else (mean - half_width, mean + half_width)


def _best(comparison: Comparison) -> list[str]:
    """Say which rule is best, and whether the intervals support it."""
    score = _ACCURACY
    if not measures_accuracy(comparison) and not all(
        math.isnan(value) for rule in comparison.rules for value in rule.test_loss
    ):
        score = _LOSS  # there is nothing to classify
    means = {rule.name: mean_interval(score.values(rule))[0] for rule in comparison.rules}
    ranked = sorted(
        (rule for rule in comparison.rules if not math.isnan(means[rule.name])),
        key=lambda rule: -means[rule.name],
    )
    if not ranked:
        return ["No test accuracy was reached on any seed."]
    best, others = ranked[0], ranked[1:]
    text = score.text(best)
    if len(comparison.rules) == 1:
        say = f"It classifies {text} of the test set correctly." if score is _ACCURACY else f"Its test loss is {text}."
        return [say, *_caution(comparison, ranked, score)]
    tied = [rule for rule in others if math.isclose(means[rule.name], means[best.name], rel_tol=1e-9)]
    if tied:
        labels = name_list([rule.label for rule in (best, *tied)])
        sentences = [f"The {score.name}, {text}, is shared by {labels}."]
    else:
        sentences = [f"The {score.name}, {text}, is that of {best.label}."]
    return sentences + _overlaps(best, others, score) + _caution(comparison, ranked, score)


def _overlaps(best: RuleResult, others: list[RuleResult], score: _Score) -> list[str]:
    """Say which rules are distinguishable from the best one."""
    own = score.ends(best)
    if own is None:
        return []
    close = [rule for rule in others if (ends := score.ends(rule)) is not None and ends[1] >= own[0]]
    apart = [rule for rule in others if (ends := score.ends(rule)) is not None and ends[1] < own[0]]
    sentences = []
    if close:
        texts = name_list([f"{rule.label} ({score.text(rule)})" for rule in close])
        noun = "intervals of" if len(close) > 1 else "interval of"
        verb = "overlap" if len(close) > 1 else "overlaps"
        sentences.append(f"The 95 % {noun} {texts} {verb} with it, so these seeds do not settle which is better.")
    if apart:
        texts = name_list([f"{rule.label} ({score.text(rule)})" for rule in apart])
        side = "Below" if score is _ACCURACY else "Above"
        sentences.append(f"{side} it, with no overlap of the 95 % intervals: {texts}.")
    return sentences


def _caution(comparison: Comparison, ranked: list[RuleResult], score: _Score) -> list[str]:
    """Say where seeds are too few, or missing."""
    sentences = []
    most = max(rule.seeds for rule in ranked)
    if most < FEWEST:
        chance = ", so a difference may be chance" if len(ranked) > 1 else ""
        give = "One seed gives" if most == 1 else "Two seeds give"
        sentences.append(f"{give} no interval{chance}; more seeds would tell.")
    partial = [rule.label for rule in ranked if any(math.isnan(value) for value in score.values(rule))]
    if partial:
        sentences.append(f"Some seeds of {name_list(partial)} have no result and are left out of the means.")
    failed = [rule.label for rule in comparison.rules if rule not in ranked]
    if failed:
        verb = "has" if len(failed) == 1 else "have"
        sentences.append(
            f"{capitalized(name_list(failed))} {verb} no final test {'accuracy' if score is _ACCURACY else 'loss'}."
        )
    return sentences


def _angle(rules: list[RuleResult]) -> list[str]:
    """Say how far each rule's update points from backpropagation's, layer by layer, and how large it is beside it."""
    means = [(mean_by_layer(rule.angles), rule) for rule in rules]
    away = sorted(
        ((statistics.fmean(found), rule) for found, rule in means if found and max(found) > _SAME_DIRECTION),
        key=lambda pair: pair[0],
    )
    if not away:
        return []
    if len(away) == 1:
        return [f"Layer by layer, the update of {away[0][1].label} points {_apart(away[0][1])}."]
    nearest, farthest = away[0][1], away[-1][1]
    return [
        f"Layer by layer, the update of {nearest.label} stays closest to backpropagation's ({_apart(nearest, 'it')}) "
        f"and that of {farthest.label} strays farthest ({_apart(farthest, 'it')})."
    ]


def _apart(rule: RuleResult, reference: str = "backpropagation's") -> str:
    angles, sizes = layer_range(rule.angles, "{:.0f}".format), layer_range(rule.norm_ratios, size_text)
    return f"{angles}° away from {reference}" + (f", at {sizes} times its norm" if sizes else "")


def _time(rules: list[RuleResult]) -> list[str]:
    """Say what a step costs."""
    times = sorted((rule.milliseconds_per_step, rule.label) for rule in rules if rule.milliseconds_per_step)
    if len(times) < 2:
        return []
    (short, fastest), (long, slowest) = times[0], times[-1]
    if long / short < 1.05:
        return ["A training step takes about the same time under each."]
    return [f"A training step of {slowest} takes {long / short:.1f} times as long as one of {fastest}."]


def _accuracy_text(rule: RuleResult) -> str:
    """Write the mean with its interval in percent; of two seeds the mean, and both values."""
    text = f"{interval_text(rule.test_accuracy, 100.0)} %"
    return f"{100 * mean_interval(rule.test_accuracy)[0]:.1f} % ({text})" if " and " in text else text


_ACCURACY = _Score(lambda rule: rule.test_accuracy, "highest mean test accuracy", _accuracy_text)
_LOSS = _Score(
    lambda rule: [-value for value in rule.test_loss],
    "lowest mean test loss",
    lambda rule: str(interval_text(rule.test_loss)),
)


def _count(number: int) -> str:
    words = ("Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
    return words[number - 2] if number < 11 and number - 2 < len(words) else str(number)


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."
