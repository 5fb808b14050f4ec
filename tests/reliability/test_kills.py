"""A run that is killed anywhere ends, once resumed, with the bits and records of an unbroken one."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from kills import KINDS, End, Kill, differences, kill_of, right_end
from points import POINTS

HERE = Path(__file__).parent


def killed(tmp_path, kills, subjects, kinds):
    """The results of killing, as `kills.py` writes them."""
    words = ["--kills", str(kills), "--subjects", *subjects, "--kinds", *kinds, "--json", str(tmp_path / "kills.json")]
    finished = subprocess.run(
        [sys.executable, str(HERE / "kills.py"), *words], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads((tmp_path / "kills.json").read_text())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the points are found through /proc")
def test_three_kills_change_nothing(tmp_path):
    found = killed(tmp_path, 3, ["bp"], ["in a write", "SIGTERM", "in a log line"])
    assert found["sections"][0]["tables"][0]["rows"][-1] == ["all", 3, 3]
    assert found["summary"].endswith("weights differ from those of an unbroken run in 0 of them, records in 0.")


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="the points are found through /proc")
@pytest.mark.parametrize("subject", ["kolen-pollack", "pal", "sweep"])
def test_kills_of_every_kind_change_nothing(tmp_path, subject):
    assert killed(tmp_path, len(KINDS), [subject], KINDS)["numbers"]["runs"]


def run(folder, loss=1.0, weights=b"1", more=()):
    folder.mkdir()
    for member in (0, 1):
        with (folder / "metrics.jsonl").open("a") as log:
            print(json.dumps({"member": member, "train_loss": loss, "examples_per_second": id(folder)}), file=log)
    for name in ("checkpoint.npz", *more):
        (folder / name).write_bytes(weights)
    return folder


@pytest.mark.parametrize(
    ("what", "changed"),
    [("records", {"loss": 1.0000001}), ("weights", {"weights": b"2"}), ("files", {"more": [".0.tmp"]}), (None, {})],
)
def test_a_difference_is_found(tmp_path, what, changed):
    found = differences(run(tmp_path / "a"), run(tmp_path / "b", **changed))
    assert found == {name: name == what for name in ("weights", "records", "files")}


def test_a_wrong_end_is_found():
    told, silent = "vicinal: ended by SIGTERM: ...; resume with `vicinal train --resume x`\n", ""
    at_point, term = Kill(POINTS[0], 1, 0.0, "SIGTERM"), Kill("SIGTERM", 1, 0.0, "SIGTERM")
    assert right_end(End(-9, silent, 1.0), at_point)
    assert right_end(End(143, told, 1.0), term)
    for code, said in ((143, silent), (-15, told), (130, told), (1, told), (143, told + "Traceback\n")):
        assert not right_end(End(code, said, 1.0), term)


def test_the_draws_depend_on_the_seed_alone():
    draws = [[kill_of(kind, random.Random(seed)) for kind in KINDS] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
