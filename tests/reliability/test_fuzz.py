"""Files edited at random are read as what they are or refused in a sentence; and the fuzzer sees faults."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fuzz import KINDS, Watcher, outcome, stop, study_of
from fuzz_edits import bytewise, json_text
from fuzz_subjects import Subject

HERE = Path(__file__).parent
INPUTS = 500


@pytest.mark.skipif(sys.platform != "linux", reason="the memory is read from /proc")
def test_five_hundred_inputs_end_without_a_fault(tmp_path):
    words = ["--inputs", str(INPUTS), "--seed", "1", "--json", str(tmp_path / "fuzz.json")]
    ended = subprocess.run([sys.executable, str(HERE / "fuzz.py"), *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]
    found = json.loads((tmp_path / "fuzz.json").read_text())
    assert [kind["kind"] for kind in found["numbers"]["kinds"]] == KINDS
    assert INPUTS <= found["sections"][0]["tables"][0]["rows"][-1][1] < INPUTS + len(KINDS)
    counts = [kind["counts"] for kind in found["numbers"]["kinds"]]
    assert all(one["refused"] for one in counts)


@pytest.fixture(scope="module")
def watcher():
    return Watcher()  # an audit hook stays as long as the process


def reads(do):
    return Subject(b"x", bytewise, do, "file")


def raises(error):
    def read(path):
        raise error

    return read


def starts(path):
    subprocess.run(["true"], check=True)
    return True


def opens_a_shell(path):
    os.system("true")
    return True


def spins(path):
    end = time.process_time() + 5
    while time.process_time() < end:
        pass
    return True


def runs_code(path):
    exec(compile("1 + 1", str(path), "eval"))
    return True


@pytest.mark.parametrize(
    ("read", "found", "said"),
    [
        (lambda path: True, "the same", ""),
        (lambda path: False, "another", ""),
        (raises(ValueError("expected x, got y")), "refused", "expected x, got y"),
        (raises(OSError("cannot be read")), "refused", "cannot be read"),
        (raises(ValueError("")), "fault", "without a sentence"),
        (raises(ValueError("two\nlines")), "fault", "without a sentence"),
        (raises(ValueError("x" * 3000)), "fault", "without a sentence"),
        (raises(KeyError("x")), "fault", "KeyError: 'x'"),
        (raises(RecursionError()), "fault", "RecursionError"),
        (raises(MemoryError()), "fault", "MemoryError"),
        (raises(AssertionError("another shape")), "fault", "read as what it is not: another shape"),
        (starts, "fault", "it started subprocess.Popen"),
        (opens_a_shell, "fault", "it started os.system"),
        (runs_code, "fault", "it started exec"),
    ],
)
def test_what_counts_as_a_fault(tmp_path, watcher, read, found, said):
    got = outcome(reads(read), tmp_path / "file", b"x", watcher)
    assert got[0] == found
    assert said in got[1]


def test_a_reader_that_takes_too_long_is_a_fault(tmp_path, watcher, monkeypatch):
    monkeypatch.setattr("fuzz.SECONDS", 0.05)
    before = signal.signal(signal.SIGPROF, stop)
    try:
        found, said = outcome(reads(spins), tmp_path / "file", b"x", watcher)
    finally:
        signal.signal(signal.SIGPROF, before)
    assert found == "fault"
    assert "TooLong" in said


def test_an_input_is_made_again_by_its_number():
    content = json.dumps({"epochs": 3, "sizes": [1, 2, 3], "data": "digits"}).encode()
    for edit in (bytewise, json_text):
        made = [[edit(random.Random(f"{turn}"), content) for turn in range(20)] for _ in range(2)]
        assert made[0] == made[1]
        assert len(set(made[0])) > 10


def test_the_study_counts():
    counts = {"the same": 1, "another": 2, "refused": 3, "fault": 0}
    done = [{"kind": kind, "counts": counts, "faults": [], "ways": 2} for kind in ("a", "b")]
    study = study_of(done, "command", {"seed": 0})
    assert study.sections[0].tables[0].rows[-1] == ["all", 12, 2, 4, 6, 0, ""]
    assert study.summary.startswith("12 edited files were read: 2 as they were before, 4 as another valid file; 6 were")
