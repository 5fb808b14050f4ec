"""The results of killing runs as a study, for `vicinal results`."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

_KILLS = (
    "A run is killed up to five times, and resumed after each. Signals come at a random moment of training, or (at "
    "any moment) of the process: while it starts, compiles, trains or writes its report. At the other points the "
    "process ends itself by SIGKILL in the middle of its work on a file; at which passage of the point, is drawn. "
    "Every compiled call writes a checkpoint."
)
_ENDS = (
    "A run differs if one byte of a checkpoint or of a best model does, or one number of a record (but for the pace). "
    "Files differ if its folder has others, as temporary ones that nobody removed. An end is wrong if the exit code is "
    "not 143 (SIGTERM) or 130 (SIGINT), or no sentence says how to resume."
)


def study_of(
    done: Sequence[dict[str, Any]],
    subjects: Sequence[str],
    kinds: Sequence[str],
    command: str,
    settings: dict[str, Any],
) -> Any:
    """The results as a study.

    Args:
        done: What happened to each run, as `kills.kill_and_resume` says it.
        subjects: What may have been killed, in the order of the columns.
        kinds: The kinds of kills, in the order of the rows.
        command: The command line.
        settings: The settings of the command.
    """
    from vicinal.environment import environment, now
    from vicinal.report import Section, Study, Table

    subjects = [name for name in subjects if any(run["subject"] == name for run in done)]
    ends = [_end(name, [run for run in done if run["subject"] == name]) for name in subjects]
    ends.append(_end("all", done))
    _, runs, weights, records, _, _ = ends[-1]
    tables = [
        Table("Kills, by kind and by what was killed", ["kill", *subjects, "all"], _hits(done, subjects, kinds)),
        Table(
            "Runs that differ from an unbroken one",
            ["killed", "runs", "weights differ", "records differ", "files differ", "wrong ends"],
            ends,
        ),
    ]
    return Study(
        title="Runs killed at any moment",
        summary=f"{sum(len(run['kills']) for run in done)} kills of {runs} runs, which were resumed until they ended: "
        f"weights differ from those of an unbroken run in {weights} of them, records in {records}.",
        command=command,
        settings=settings,
        environment=environment(),
        sections=[Section("Kills", _KILLS, tables=tables[:1]), Section("Ends", _ENDS, tables=tables[1:])],
        numbers={"runs": list(done)},
        when=now(),
    )


def _hits(done: Sequence[dict[str, Any]], subjects: Sequence[str], kinds: Sequence[str]) -> list[list[Any]]:
    hits = Counter((kill["kind"], run["subject"]) for run in done for kill in run["kills"])
    rows: list[list[Any]] = [[kind, *(hits[kind, name] for name in subjects)] for kind in kinds]
    rows = [row for row in rows if any(row[1:])]
    rows.append(["all", *(sum(row[i] for row in rows) for i in range(1, len(subjects) + 1))])
    return [[*row, sum(row[1:])] for row in rows]


def _end(name: str, runs: Sequence[dict[str, Any]]) -> list[Any]:
    differing = [sum(run["differs"][what] for run in runs) for what in ("weights", "records", "files")]
    return [name, len(runs), *differing, sum(not kill["right"] for run in runs for kill in run["kills"])]
