"""Kills runs at any moment, resumes them, and compares their ends with those of unbroken runs.

`python tests/reliability/kills.py --kills 100 --seed 0 --json docs/results/reliability/kills.json`

A run is killed some times, resumed after each, and at last left alone. Then its checkpoints and best models must have
the bytes, and its records the numbers, of a run that nothing has disturbed. A run is the command line in a process of
its own, forked from one that has imported the libraries and never started JAX.
"""

import argparse
import importlib
import json
import os
import random
import shlex
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from kill_study import study_of
from points import POINTS, arm

_NET = "--model.sizes 64 8 10 --evaluate-every 10 --checkpoint-seconds 0 --epochs 24"
_BEST = "--validation 0.2 --patience 1000"
SUBJECTS = {
    "bp": f"train --rule bp {_NET} {_BEST}",
    "il": f"train --rule il --inference.start random {_NET} {_BEST}",
    "seqil-mq": f"train --rule seqil-mq {_NET}",
    "ipc": f"train --rule ipc {_NET} {_BEST}",
    "fa": f"train --rule fa {_NET}",
    "kolen-pollack": f"train --rule kolen-pollack {_NET} {_BEST}",
    "dfa": f"train --rule dfa {_NET}",
    "pal": f"train --rule pal --model.vertex-at pre {_NET}",
    "sweep": f"sweep --rules il fa --learning-rates 0.003 0.01 --seeds 1 --group-size 2 {_NET}",
}
"""What is killed: its name -> its command. Best models, random keys, and state of rules, feedback and optimisers."""

SIGNALS = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}
"""Signals -> exit codes; sent a random time after a random record."""

KINDS = (*SIGNALS, *POINTS, "at any moment")
"""The ways to die; the last is SIGKILL or SIGTERM at a random moment, from the first to the last of the process."""

_IN_A_ROW, _RECORDS = 5, 16  # kills of a run before it is left alone, and the most records between two
_BETWEEN = 0.05  # seconds in which a run writes a record or two
_PATIENCE = 300.0  # seconds; a run that takes longer hangs


class Kill(NamedTuple):
    """How a process ends.

    Attributes:
        kind: One of `KINDS`.
        count: After how many records, or at which passage of a point of `POINTS`.
        moment: When after that; "at any moment", when in the life of a process; from 0 to 1.
        signal: The name of a signal, unless it is at a point.
    """

    kind: str
    count: int
    moment: float
    signal: str


class End(NamedTuple):
    """How a process ended: its code (negative: by a signal), what it said, and the seconds it took."""

    code: int
    said: str
    seconds: float


def kill_of(kind: str, chance: random.Random) -> Kill:
    """A kill of a kind, with its moment and its count drawn."""
    name = kind if kind in SIGNALS else chance.choice(["SIGKILL", "SIGTERM"])
    return Kill(kind, chance.randint(1, _RECORDS), chance.random(), name)


def lines_in(log: Path) -> int:
    """Whole lines in a log."""
    return log.read_bytes().count(b"\n") if log.exists() else 0


def start(words: str, folder: Path, kill: Kill | None, said: Path) -> int:
    """Runs the command line in a process of its own, and returns its number."""
    process = os.fork()
    if process:
        return process
    code = 1
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        sys.argv = ["vicinal", *shlex.split(words)]
        if kill is not None and kill.kind in POINTS:
            arm(kill.kind, kill.count, folder)
        importlib.import_module("vicinal.cli").main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def watched(words: str, folder: Path, kill: Kill | None = None, usual: float = 0.0) -> End:
    """Runs the command line until it ends, or is killed.

    Args:
        words: The command.
        folder: The run's folder.
        kill: How it is killed, or None.
        usual: The seconds that an unbroken run takes.
    """
    said, begun = folder.with_suffix(".txt"), time.monotonic()
    process = start(words, folder, kill, said)
    if kill is not None and kill.kind not in POINTS:
        wait_for(kill, folder / "metrics.jsonl", process, usual)
        os.kill(process, getattr(signal, kill.signal))  # if it has ended, nothing happens before `waitpid`
    while not (found := os.waitpid(process, os.WNOHANG))[0]:
        time.sleep(0.01)
        if time.monotonic() - begun > _PATIENCE:
            os.kill(process, signal.SIGKILL)
            raise TimeoutError(f"{words} hangs: {said.read_text(errors='replace')}")
    code = os.waitstatus_to_exitcode(found[1])
    return End(code, said.read_text(errors="replace"), time.monotonic() - begun)


def wait_for(kill: Kill, log: Path, process: int, usual: float) -> None:
    """Waits for the moment of a signal, or for the end of the process."""
    if kill.kind == "at any moment":
        time.sleep(kill.moment * usual)
        return
    wanted, late = lines_in(log) + kill.count, time.monotonic() + _PATIENCE
    while lines_in(log) < wanted and time.monotonic() < late and not has_ended(process):
        time.sleep(0.002)
    time.sleep(kill.moment * _BETWEEN)


def has_ended(process: int) -> bool:
    """Whether a child has ended; it can still be waited for."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def records_of(folder: Path) -> list[dict[str, Any]]:
    """The records of a run or sweep but for the pace, those of a sweep in the order of its members."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [{name: value for name, value in row.items() if name != "examples_per_second"} for row in records]
    return sorted(kept, key=lambda row: row.get("member", 0))


def arrays_of(folder: Path) -> dict[str, bytes]:
    """The bytes of checkpoints and best models."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.npz"))}


def differences(folder: Path, whole: Path) -> dict[str, bool]:
    """Whether the weights, or the records, of two finished runs differ, and whether files were left over."""
    names = [{path.name for path in place.iterdir()} for place in (folder, whole)]
    return {
        "weights": arrays_of(folder) != arrays_of(whole),
        "records": records_of(folder) != records_of(whole),
        "files": names[0] != names[1],
    }


def right_end(ended: End, kill: Kill) -> bool:
    """Whether a process died as it should, with a sentence where it can still speak."""
    if kill.kind in POINTS or kill.signal == "SIGKILL":
        return ended.code == -signal.SIGKILL
    if kill.kind == "at any moment" and ended.code == -signal.SIGTERM:  # before the command line has begun
        return not ended.said
    last = ended.said.strip().splitlines()[-1:]
    return ended.code == SIGNALS[kill.signal] and any(
        "resume with" in line or "nothing is lost" in line for line in last
    )


def kill_and_resume(name: str, kills: list[Kill], folder: Path, whole: Path, usual: float) -> dict[str, Any]:
    """Kills a run some times, lets it end, and compares; says what happened."""
    fresh, seen = f"{SUBJECTS[name]} --folder {folder}", []
    command = fresh.split()[0]

    def words() -> str:
        return f"{command} --resume {folder}" if (folder / "config.json").exists() else fresh

    for kill in kills:
        ended = watched(words(), folder, kill, usual)
        if ended.code == 0:
            break  # it was faster
        seen.append({"kind": kill.kind, "right": right_end(ended, kill), "lines": lines_in(folder / "metrics.jsonl")})
        if not seen[-1]["right"]:
            print(f"{name}, {kill}: ended with {ended.code}: {ended.said[-2000:]}", file=sys.stderr)
    ended = watched(words(), folder)
    if ended.code:
        raise RuntimeError(f"{name} after {seen} did not resume: {ended.said[-2000:]}")
    return {"subject": name, "kills": seen, "differs": differences(folder, whole), "seconds": ended.seconds}


def run_all(kills: int, seed: str, subjects: list[str], kinds: list[str], place: Path) -> list[dict[str, Any]]:
    """Kills the subjects in turn, each by one kind after another, until there are enough kills."""
    chance, done, usual = random.Random(seed), [], {}
    turns = {name: i for i, name in enumerate(subjects)}
    for number in range(2 * kills + 2 * len(subjects)):
        name, left = subjects[number % len(subjects)], kills - sum(len(run["kills"]) for run in done)
        if not left:
            return done
        if name not in usual:
            unbroken = watched(f"{SUBJECTS[name]} --folder {place / name}", place / name)
            if unbroken.code:
                raise RuntimeError(f"{name} does not run: {unbroken.said[-2000:]}")
            usual[name] = unbroken.seconds
        plan = [kill_of(kinds[(turns[name] + i) % len(kinds)], chance) for i in range(min(_IN_A_ROW, left))]
        done.append(kill_and_resume(name, plan, place / f"{name}-{number}", place / name, usual[name]))
        turns[name] += len(done[-1]["kills"])
        usual[name] = min(usual[name], done[-1]["seconds"])  # the machine may have become faster
        print(json.dumps(done[-1]), file=sys.stderr, flush=True)
    raise RuntimeError(f"too few of {kills} kills came before the end of a run")


def share(chosen: argparse.Namespace, place: Path) -> list[dict[str, Any]]:
    """Shares the subjects among processes, and returns what happened to all runs."""
    processes = {}
    for job in range(chosen.jobs):
        kills = chosen.kills * (job + 1) // chosen.jobs - chosen.kills * job // chosen.jobs
        process = os.fork()
        if process:
            processes[process] = place / f"{job}.json"
            continue
        try:
            done = run_all(kills, f"{chosen.seed}-{job}", chosen.subjects[job :: chosen.jobs], chosen.kinds, place)
            (place / f"{job}.json").write_text(json.dumps(done))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    for process in processes:
        os.waitpid(process, 0)
    if missing := [path for path in processes.values() if not path.exists()]:
        raise SystemExit(f"{len(missing)} of {chosen.jobs} jobs failed")
    return [run for path in processes.values() for run in json.loads(path.read_text())]


def main() -> None:
    """Kills, and writes what came of it; the exit code is 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--subjects", nargs="+", default=list(SUBJECTS), choices=list(SUBJECTS))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    chosen.jobs = min(chosen.jobs, len(chosen.subjects))
    warnings.filterwarnings("ignore", message=r"os.fork\(\) was called")
    with tempfile.TemporaryDirectory() as place:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{place}/compiled")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
        for module in ("vicinal.cli.parsing", "vicinal.cli.commands", "matplotlib.figure"):
            importlib.import_module(module)
        done = share(chosen, Path(place).resolve())
    settings = {name: getattr(chosen, name) for name in ("kills", "seed", "subjects", "kinds", "jobs")}
    study = study_of(done, list(SUBJECTS), KINDS, shlex.join(["python", *sys.argv]), settings | {"commands": SUBJECTS})
    if chosen.json is not None:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(study.to_json())
    print(study.summary)
    wrong = [c for c in done if any(c["differs"].values()) or not all(kill["right"] for kill in c["kills"])]
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
