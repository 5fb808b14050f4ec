"""Judge stored results again, in place, and write their pages: `python -m vicinal_experiments docs/results`."""

import json
import sys
from pathlib import Path

from vicinal.files import write_text_atomically
from vicinal.report import Study, write_results_pages
from vicinal.reproduce import judge


def main(folder: Path) -> None:
    """Judges all results of experiments in a folder again, says which verdicts change, and writes the pages."""
    for path in sorted(folder.rglob("*.json")):
        try:
            before = Study.from_json(path.read_text())
        except ValueError:
            continue  # not the results of an experiment
        name = before.settings.get("experiment")
        if name is None:
            continue  # nothing judges it
        after = judge(path)
        if after.to_json() == before.to_json():
            continue
        write_text_atomically(path, _one_line(after))
        verdicts = [", ".join(claim.verdict for claim in study.claims) for study in (before, after)]
        print(f"{path}: written again; verdicts " + ("unchanged" if len(set(verdicts)) == 1 else " -> ".join(verdicts)))
    for page in write_results_pages(folder):
        print(f"{page}: written again")


def _one_line(study: Study) -> str:
    return json.dumps(json.loads(study.to_json()), ensure_ascii=False, separators=(",", ":")) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
