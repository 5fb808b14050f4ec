"""Reads files that were edited at random: each is loaded as what it is or refused in one sentence, or it is a fault.

    python tests/reliability/fuzz.py --inputs 100000 --seed 0 --json docs/results/reliability/fuzz.json

The number of an input decides its edits, so that `--only "csv" --first 17 --inputs 1` reads that one again. A fault
is: an error of another kind or of several lines; a file that is read and should not be; more than ten seconds of CPU,
or more memory than two gigabytes beside what the process had; code or a process that was started, or a connection.
"""

import argparse
import collections
import json
import random
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the helpers of all tests

SECONDS, ROOM = 10, 2**31
KINDS = ["checkpoint", "checkpoint with a right digest", "log", "metadata of a sweep", "config of a run"]
KINDS += ["config of a sweep", "config of an experiment", "npz", "csv", "csv.gz", "parquet"]
KINDS += [f"image ({kind})" for kind in ("png", "jpeg", "gif", "bmp", "tiff", "webp")]
KINDS += ["safetensors", "stored results"]
OUTCOMES = ("the same", "another", "refused", "fault")
_RUNS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "subprocess.Popen",
    "pickle.find_class",
    "socket.connect",
)


class TooLong(BaseException):
    """An input that takes more than `SECONDS`; no reader may catch it."""


class Watcher:
    """Sees what the process starts, while it is armed."""

    def __init__(self) -> None:
        self.armed, self.seen = False, list[str]()
        self._own = (sys.prefix, sys.base_prefix, "<frozen", str(Path(__file__).resolve().parents[2]))
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        file = getattr(arguments[0], "co_filename", "") if event == "exec" else ""
        foreign = event == "exec" and not file.startswith(self._own) and not (file == "<string>" and _is_made())
        if event in _RUNS or foreign:
            self.seen.append(f"{event} {arguments!r:.80}")


def _is_made() -> bool:
    """Whether a dataclass or a named tuple is being made, by code that is a text."""
    files = [frame.filename for frame in traceback.extract_stack(limit=12)]
    return any("dataclasses" in file or "collections" in file for file in files)


def outcome(subject: Any, path: Path, content: bytes, watcher: Watcher) -> tuple[str, str]:
    """What a reader does with a file, and its words."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    watcher.armed, watcher.seen = True, []
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        found = "the same" if subject.read(path) else "another", ""
    except AssertionError as error:
        found = "fault", f"read as what it is not: {error}"
    except (ValueError, OSError) as error:
        said = str(error)
        fine = said and "\n" not in said and len(said) < 2000
        found = ("refused", said) if fine else ("fault", f"{type(error).__name__} without a sentence: {said[:500]}")
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        found = "fault", f"{type(error).__name__}: {error!s:.200} ({place.filename}:{place.lineno})"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        watcher.armed = False
    return ("fault", f"it started {watcher.seen[0]}") if watcher.seen else found


def run(subject: Any, name: str, place: Path, inputs: range, seed: int, watcher: Watcher) -> dict[str, Any]:
    """Reads edited files of one kind; counts what came of them."""
    counts, faults = collections.Counter(), []
    path = place / subject.name
    first, said = outcome(subject, path, subject.content, watcher)
    if first != "the same":
        raise RuntimeError(f"the valid file of {name!r} ended as {first}: {said}")
    sentences = set[str]()
    for number in inputs:
        chance = random.Random(f"{seed} {name} {number}")
        found, said = outcome(subject, path, subject.edit(chance, subject.content), watcher)
        counts[found] += 1
        if found == "fault":
            faults.append({"input": number, "said": said})
        elif said:
            sentences.add(" ".join(word for word in said.split() if word.isalpha()))
    path.write_bytes(subject.content)
    return {"kind": name, "counts": {name: counts[name] for name in OUTCOMES}, "faults": faults, "ways": len(sentences)}


def limit() -> None:
    """Limits the memory of the process to what it has and `ROOM`."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, resource.RLIM_INFINITY))


def stop(*_: Any) -> None:
    raise TooLong(f"more than {SECONDS} seconds")


def study_of(done: list[dict[str, Any]], command: str, settings: dict[str, Any]) -> Any:
    """The results as a study, for `vicinal results`."""
    from vicinal.environment import environment, now
    from vicinal.report import Section, Study, Table

    rows = [[one["kind"], sum(one["counts"].values()), *one["counts"].values(), one["ways"]] for one in done]
    total = [sum(row[i] for row in rows) for i in range(1, 6)]
    columns = ["file", "inputs", "read as before", "read as another", "refused", "faults", "sentences"]
    table = Table("Edited files by kind", columns, [*rows, ["all", *total, ""]])
    text = (
        "Valid files are edited at random: bits, pieces, JSON values, array headers, members and directories of "
        "archives, with checksums made right again where the format has them. Each is read as what it is, or refused "
        "by an error of the documented kind in one line. A fault is anything else: another error, a reader that takes "
        f"more than {SECONDS} s of CPU or {ROOM / 2**30:g} GiB, one that starts code or a process, a damaged "
        "checkpoint that is read, a log that is read with other records than it had, settings of other types. The "
        "last column counts the sentences that differ, numbers and names aside."
    )
    return Study(
        title="Files edited at random",
        summary=f"{total[0]} edited files were read: {total[1]} as they were before, {total[2]} as another valid file; "
        f"{total[3]} were refused in a sentence, and {total[4]} ended in a fault.",
        command=command,
        settings=settings,
        environment=environment(),
        sections=[Section("Inputs", text, tables=[table])],
        numbers={"kinds": done},
        when=now(),
    )


def run_here(names: list[str], each: int, first: int, seed: int) -> list[dict[str, Any]]:
    """Edits and reads files of these kinds, in this process."""
    from fuzz_subjects import subjects

    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, stop)
    with tempfile.TemporaryDirectory() as folder:
        place, watcher, done = Path(folder).resolve(), Watcher(), []
        known = {name: one for name, one in subjects(place).items() if name in names}
        for subject in known.values():
            outcome(subject, place / subject.name, subject.content, watcher)  # imports what it needs
        limit()
        for name, subject in known.items():
            done.append(run(subject, name, place, range(first, first + each), seed, watcher))
            print(json.dumps(done[-1]), file=sys.stderr, flush=True)
    return done


def run_beside(names: list[str], each: int, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """The same in several processes, each with some of the kinds."""
    shares = [names[i :: chosen.processes] for i in range(chosen.processes)]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.json" for i in range(len(shares))]
        options = ["--seed", str(chosen.seed), "--first", str(chosen.first)]
        running = []
        for own, file in zip(shares, files, strict=True):
            words = [*options, "--inputs", str(each * len(own)), "--json", str(file), "--only", *own]
            running.append(subprocess.Popen([sys.executable, __file__, *words]))
        if any(process.wait() not in (0, 1) for process in running):
            raise RuntimeError("a process ended before its inputs were read")
        found = [json.loads(file.read_text())["numbers"]["kinds"] for file in files]
    return sorted((one for part in found for one in part), key=lambda one: names.index(one["kind"]))


def main() -> None:
    """Edits, reads and counts; the exit code is 1 if there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="of all kinds together, at least; as many of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--first", type=int, default=0, help="the number of the first input of each kind")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    each = -(-chosen.inputs // len(chosen.only))
    if chosen.processes > 1:
        done = run_beside(chosen.only, each, chosen)
    else:
        done = run_here(chosen.only, each, chosen.first, chosen.seed)
    study = study_of(done, shlex.join(["python", *sys.argv]), {"inputs": chosen.inputs, "seed": chosen.seed})
    if chosen.json is not None:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(study.to_json())
    print(study.summary)
    raise SystemExit(any(one["faults"] for one in done))


if __name__ == "__main__":
    main()
