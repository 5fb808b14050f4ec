"""Write a study as Markdown: what its page shows in words and tables, without the figures."""

import re
from typing import Any

from vicinal._counted import counted
from vicinal.report.study import Section, Study, Table
from vicinal.report.table_text import table_texts

__all__ = ["anchor", "study_markdown", "table_lines"]


def study_markdown(study: Study, file: str = "") -> str:
    """Write a study as a part of a Markdown page, under a heading of the second level.

    Args:
        study: The study.
        file: Where its JSON is, relative to the page; may be empty.

    Returns:
        The text: title, command and machine, summary, claims with verdicts, sections with tables, differences.

    Example:
        >>> from vicinal.report import Claim, Section, Study, Table
        >>> table = Table("Test accuracy (%)", ["rule", "mean"], [["bp", 97.25]])
        >>> claims = [Claim("It learns.", "97 %.", "holds")]
        >>> settings = {"seeds": 3}
        >>> study = Study("Digits", "", "vicinal compare", settings, {}, [Section("Results", tables=[table])], claims)
        >>> print(study_markdown(study), end="")
        ## Digits
        <BLANKLINE>
        `vicinal compare`, 3 seeds
        <BLANKLINE>
        | claim | measured | verdict |
        | --- | --- | --- |
        | It learns. | 97 %. | **holds** |
        <BLANKLINE>
        ### Results
        <BLANKLINE>
        Test accuracy (%):
        <BLANKLINE>
        | rule | mean |
        | --- | --- |
        | bp | 97.25 |
    """
    claims = [[claim.paper, claim.measured, f"**{claim.verdict}**"] for claim in study.claims]
    parts = [f"## {study.title}", _origin(study, file), study.summary.strip()]
    parts += [table_lines(["claim", "measured", "verdict"], claims)] if claims else []
    parts += [part for section in study.sections for part in _section(section)]
    parts += ["### Differences from the paper", "\n".join(f"- {text}" for text in study.differences)] * bool(
        study.differences
    )
    parts += [f"Data: {study.data_credit}"] * bool(study.data_credit)
    return "\n\n".join(part for part in parts if part) + "\n"


def table_lines(columns: list[str], rows: list[list[str]]) -> str:
    """Write a table in Markdown.

    Args:
        columns: Headings of the columns.
        rows: The cells; a second line of a cell stays one.

    Returns:
        A line for the headings, one below them, and one for each row.

    Example:
        >>> print(table_lines(["rule", "|a|"], [["bp", "1"]]))
        | rule | \\|a\\| |
        | --- | --- |
        | bp | 1 |
    """
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def anchor(heading: str) -> str:
    """The fragment that leads to a heading, as GitHub makes it.

    Example:
        >>> anchor("Paths of the weights, on mnist")
        'paths-of-the-weights-on-mnist'
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _origin(study: Study, file: str) -> str:
    """The line that says what made the numbers: the command, how many seeds, the commit, the machine, the file."""
    environment, seeds = study.environment, _seeds(study.settings.get("seeds"))
    facts = [
        f"`{study.command}`" if study.command else "",
        counted(seeds, "seed") if seeds else "",
        study.when,
        *[f"{name} {environment[name]}" for name in ("commit", "jax", "device") if environment.get(name)],
        environment.get("machine") or (counted(environment["cores"], "core") if environment.get("cores") else ""),
        f"[{file}]({file})" if file else "",
    ]
    return ", ".join(filter(None, facts))


def _seeds(value: Any) -> int:
    return len(value) if isinstance(value, list) else int(value or 0)


def _section(section: Section) -> list[str]:
    parts = [section.text.strip(), *[part for table in section.tables for part in _table(table)]]
    return [f"### {section.heading}", *parts] if any(parts) else []


def _table(table: Table) -> list[str]:
    lines = table_lines(table.columns, table_texts(table).rows)
    title = f"{table.title}:" if table.title else ""
    if table.folded:
        return [f"<details><summary>{table.title}</summary>", lines, table.note, "</details>"]
    return [title, lines, table.note]


def _cell(text: str) -> str:
    return text.strip().replace("|", "\\|").replace("\n", "<br>")
