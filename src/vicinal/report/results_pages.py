"""Pages of stored results, written from their JSON, so that no number in them is typed.

A folder of results holds a folder for each family of studies (`il-theory/stability.json`). What no file of numbers can
say is written by hand beside it: `notes.md` in a family begins its page, `stability.md` follows the study of
`stability.json`, and `notes.md` in the folder of results ends the index.
"""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from vicinal._counted import counted
from vicinal.files import write_text_atomically
from vicinal.report.comparison import Comparison
from vicinal.report.comparison_study import as_study
from vicinal.report.markdown import anchor, study_markdown, table_lines
from vicinal.report.storage import format_of
from vicinal.report.study import VERDICTS, Study

__all__ = ["results_pages", "write_results_pages"]

_PAGE, _NOTES = "README.md", "notes.md"
_PLURALS = ("hold", "hold in part", "do not hold", "are open")  # as the verdicts
_WRITTEN = "<!-- Written by `vicinal results`: edit the notes and the JSON files instead. -->\n\n"


def results_pages(folder: str | os.PathLike[str]) -> dict[Path, str]:
    """The pages of a folder of results: one for each family, and an index of all claims and verdicts.

    Args:
        folder: Holds a folder for each family, with JSON files of studies and comparisons in it.

    Returns:
        Path of a page -> its text.

    Raises:
        ValueError: If the folder holds no study, or a JSON file cannot be read.
    """
    folder = Path(folder)
    families = {place: _studies(place) for place in sorted(folder.iterdir()) if place.is_dir()}
    families = {place: studies for place, studies in families.items() if studies}
    if not families:
        raise ValueError(
            f"expected folders with stored studies in {folder}, got none; name a folder such as docs/results"
        )
    pages = {place / _PAGE: _family(place, studies) for place, studies in families.items()}
    return {**pages, folder / _PAGE: _index(folder, families)}


def write_results_pages(folder: str | os.PathLike[str]) -> list[Path]:
    """Write the pages of a folder of results.

    Args:
        folder: As for `results_pages`.

    Returns:
        The pages whose text changed.

    Raises:
        ValueError: If the folder holds no study, or a page would replace one that was written by hand.
        OSError: If a page cannot be written.
    """
    pages = results_pages(folder)
    for path in pages:
        if (found := _text(path)) and not found.startswith(_WRITTEN):
            raise ValueError(f"expected no page of your own at {path}, got one; move its text to {_NOTES} beside it")
    changed = [path for path, text in pages.items() if _text(path) != text]
    for path in changed:
        write_text_atomically(path, pages[path])
    return changed


def _studies(place: Path) -> dict[Path, Study]:
    """The studies and comparisons in a folder; other JSON files are left out."""
    readers = {"vicinal-study-1": Study.from_json, "vicinal-comparison-1": Comparison.from_json}
    found = {}
    for path in sorted(place.glob("*.json")):
        try:
            text = path.read_text(encoding="utf-8")
            if reader := readers.get(format_of(text) or ""):
                found[path] = as_study(reader(text))
        except ValueError as error:
            raise ValueError(f"expected JSON in {path}, got something else: {error}; repair or remove it") from error
    return found


def _family(place: Path, studies: Mapping[Path, Study]) -> str:
    parts = [_text(place / _NOTES) or f"# {place.name}\n"]
    for path, study in studies.items():
        parts += [study_markdown(study, path.name), _text(path.with_suffix(".md"))]
    return _WRITTEN + "\n".join(part for part in parts if part)


def _index(folder: Path, families: Mapping[Path, Mapping[Path, Study]]) -> str:
    claims = [claim for studies in families.values() for study in studies.values() for claim in study.claims]
    verdicts = Counter(claim.verdict for claim in claims)
    rows = []
    for place, studies in families.items():
        seen: Counter[str] = Counter()
        for study in studies.values():
            target = anchor(study.title)
            again = f"-{seen[target]}" if seen[target] else ""  # GitHub numbers headings that repeat
            seen[target] += 1
            link = f"[{study.title}]({quote(place.name)}/{_PAGE}#{target}{again})"
            rows += [[link, claim.paper, f"**{claim.verdict}**"] for claim in study.claims] or [[link, "", ""]]
    count = sum(map(len, families.values()))
    words = ", ".join(f"{verdicts[verdict]} {plural}" for verdict, plural in zip(VERDICTS, _PLURALS, strict=True))
    parts = [
        "# Results\n",
        f"Of {counted(len(claims), 'claim')} in {count} studies, {words}. Each page is written from the JSON "
        "files beside it: numbers with the command, the settings, the seeds, the commit and the machine that made "
        "them.\n",
        table_lines(["study", "claim", "verdict"], rows) + "\n",
        _text(folder / _NOTES),
    ]
    return _WRITTEN + "\n".join(part for part in parts if part)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
