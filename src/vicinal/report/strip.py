"""The small drawing beside a number in the table: seeds, mean and interval on one scale for all rules."""

import math

from vicinal.report.interval import mean_interval
from vicinal.report.palette import LineStyle, rule_styles, themed
from vicinal.report.results import Comparison, RuleResult

__all__ = ["accuracy_strips"]

_WIDTH, _HEIGHT, _MARGIN = 132.0, 14.0, 5.0


def accuracy_strips(comparison: Comparison) -> list[str]:
    """Draw the final test accuracies of each rule in a line, on one scale, so that overlap can be seen.

    Args:
        comparison: The results.

    Returns:
        One small `<svg>` element per rule, hidden from screen readers (the numbers stand beside it); an empty
        text where a rule has no accuracy, or where there is nothing to compare.
    """
    ends = [end for rule in comparison.rules for end in _ends(rule)]
    if len(ends) < 2 or max(ends) - min(ends) < 1e-9:
        return [""] * len(comparison.rules)
    low, high = min(ends), max(ends)
    styles = rule_styles(comparison)
    return [_strip(rule, low, high, styles[rule.name]) for rule in comparison.rules]


def _strip(rule: RuleResult, low: float, high: float, style: LineStyle) -> str:
    def place(value: float) -> str:
        return f"{_MARGIN + (_WIDTH - 2 * _MARGIN) * (value - low) / (high - low):.2f}"

    mean, half_width = mean_interval(rule.test_accuracy)
    if math.isnan(mean):
        return ""
    stroke, fill = (themed(name, style.color, style.dark) for name in ("stroke", "fill"))
    middle = _HEIGHT / 2
    marks = [f'<path class="track" d="M0 {middle}H{_WIDTH}"/>']
    if half_width is not None:
        path = f"M{place(mean - half_width)} {middle}H{place(mean + half_width)}"
        marks.append(f'<path d="{path}" style="{stroke}; stroke-width: 6; stroke-opacity: 0.28"/>')
    tick = f"{stroke}; stroke-width: 1.2; stroke-opacity: 0.75"
    finite = [value for value in rule.test_accuracy if not math.isnan(value)]
    marks += [f'<path d="M{place(value)} 2V{_HEIGHT - 2}" style="{tick}"/>' for value in finite]
    marks.append(f'<circle cx="{place(mean)}" cy="{middle}" r="3.4" style="{fill}"/>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="strip" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" '
        f'width="{_WIDTH:g}" height="{_HEIGHT:g}" aria-hidden="true">{"".join(marks)}</svg>'
    )


def _ends(rule: RuleResult) -> list[float]:
    """Return what a strip has to show: the seeds and the ends of the interval."""
    mean, half_width = mean_interval(rule.test_accuracy)
    ends = [] if half_width is None else [mean - half_width, mean + half_width]
    return ends + [value for value in rule.test_accuracy if not math.isnan(value)]
