"""A log that is not the one the run wrote is refused by its line; what is accepted ends as an unbroken run does."""

import json
import re

import jax
import numpy as np
import optax
import pytest
from forging import with_header

import vicinal as vc
from vicinal.train import checkpoint, fit, load_model, sweep
from vicinal.train.hooks import EarlyStopping
from vicinal.train.log import read

X, Y = np.eye(4, dtype=np.float32), np.arange(4)


def run(folder, steps, **options):
    model = vc.nn.MLP((4, 4), key=jax.random.key(0))
    given = {"batch_size": 4, "evaluate_every": 2, "progress": False, "folder": folder} | options
    return fit(vc.rules.Backprop(), model, optax.sgd(0.1), (X, Y), key=jax.random.key(1), steps=steps, **given)


def many(folder, steps, **options):
    def make(rate):
        return vc.rules.Backprop(), optax.sgd(rate)

    given = {"batch_size": 4, "evaluate_every": 2, "progress": False, "folder": folder, "group_size": 1} | options
    return sweep(make, lambda key: vc.nn.MLP((4, 4), key=key), (X, Y), {"rate": [0.1, 0.2]}, steps=steps, **given)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Files of a run of six steps, and of a sweep of two members; a test gets its own copy."""
    folder = tmp_path_factory.mktemp("begun")
    run(folder / "run", 6)
    many(folder / "sweep", 6)
    return {kind: {file.name: file.read_bytes() for file in (folder / kind).iterdir()} for kind in ("run", "sweep")}


def lines_of(begun, kind):
    return begun[kind]["metrics.jsonl"].decode().splitlines()


def refuses(tmp_path, begun, kind, lines):
    content = lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode()
    for name, own in begun[kind].items():
        (tmp_path / name).write_bytes(own)
    (tmp_path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=r"[Ee]xpected .* got .*; (restore|remove)") as caught:
        (run if kind == "run" else many)(tmp_path, 8, resume=True)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 350 + len(str(tmp_path))
    assert (tmp_path / "metrics.jsonl").read_bytes() == content
    return said


def with_entry(line, name, value):
    return json.dumps(json.loads(line) | {name: value})


STEPS = {
    "text": "4",
    "true": True,
    "negative": -4,
    "zero": 0,
    "huge": 10**200,
    "a part": 4.5,
    "null": None,
    "list": [4],
}


@pytest.mark.parametrize("kind", ["run", "sweep"])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_steps(tmp_path, begun, kind, step):
    lines = lines_of(begun, kind)
    lines[1] = with_entry(lines[1], "step", step)
    assert "on line 2 of" in (said := refuses(tmp_path, begun, kind, lines)) or "on line 2 in" in said


@pytest.mark.parametrize("member", [2, -1, True, "0", 0.0, None, 10**30])
def test_members(tmp_path, begun, member):
    lines = lines_of(begun, "sweep")
    lines[2] = with_entry(lines[2], "member", member)
    assert "on line 3" in refuses(tmp_path, begun, "sweep", lines)


def test_a_member_in_the_log_of_a_run(tmp_path, begun):
    lines = lines_of(begun, "run")
    lines[0] = with_entry(lines[0], "member", 0)
    assert "got member 0 in a run alone" in refuses(tmp_path, begun, "run", lines)


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_lines_that_are_missing_doubled_or_out_of_order(tmp_path, begun, kind):
    lines = lines_of(begun, kind)
    last = len(lines) - 1
    for i in range(len(lines)):
        step = json.loads(lines[i])["step"]
        assert f"the record at step {step}" in refuses(tmp_path, begun, kind, lines[:i] + lines[i + 1 :])
        assert "increasing steps on line" in refuses(tmp_path, begun, kind, [*lines[: i + 1], *lines[i:]])
    assert re.search("(increasing steps on|got member .* on) line", refuses(tmp_path, begun, kind, lines[::-1]))
    assert "the record at step 2" in refuses(tmp_path, begun, kind, [])
    assert "the record at step 6" in refuses(
        tmp_path, begun, kind, "\n".join([*lines[:last], lines[last][:9]]).encode()
    )


@pytest.mark.parametrize("kind", ["run", "sweep"])
@pytest.mark.parametrize("name", ["train_loss", "epoch", "note"])
def test_a_value_that_was_changed(tmp_path, begun, kind, name):
    lines = lines_of(begun, kind)
    lines[1] = with_entry(lines[1], name, 0.125)
    said = refuses(tmp_path, begun, kind, lines)
    assert re.search(
        r"expected the \d records that the checkpoint knows in .* got records of which one was changed", said
    )


def test_a_record_between_the_marks(tmp_path, begun):
    lines = lines_of(begun, "run")
    assert "got 4 records" in refuses(tmp_path, begun, "run", [lines[0], with_entry(lines[0], "step", 3), *lines[1:]])


@pytest.mark.parametrize("pace", ["fast", None, True, []])
def test_a_pace_that_is_no_number(tmp_path, begun, pace):
    lines = lines_of(begun, "run")
    lines[1] = with_entry(lines[1], "examples_per_second", pace)
    assert "got examples_per_second" in refuses(tmp_path, begun, "run", lines)


@pytest.mark.parametrize("reason", [3, None, ["x"]])
def test_a_reason_to_stop_that_is_no_text(tmp_path, begun, reason):
    lines = lines_of(begun, "run")
    said = refuses(tmp_path, begun, "run", [*lines, json.dumps({"step": 6, "stopped": reason})])
    assert "a reason to stop that is no text" in said


TEXTS = {
    "brackets": b"[" * 100_000,
    "deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "NaN": b'{"step": 2, "train_loss": NaN}',
    "infinity": b'{"step": 2, "train_loss": Infinity}',
    "a huge number": b'{"step": 2, "train_loss": 1e999}',
    "digits": b'{"step": ' + b"9" * 1_000_000 + b"}",
    "no UTF-8": b'{"step": "\xff"}',
    "a name twice": b'{"step": 2, "step": 4}',
    "a list": b"[2]",
    "a byte order mark": b'\xef\xbb\xbf{"step": 2}',
    "a null byte": b"\0",
    "half a character": b'{"step": 2, "stopped": "\\udc00"}',
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_lines_that_are_no_records(tmp_path, begun, text):
    first, *others = (line.encode() for line in lines_of(begun, "run"))
    said = refuses(tmp_path, begun, "run", b"\n".join([first, text, *others, b""]))
    assert "line 2" in said


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_the_log_as_it_was_is_accepted_and_ends_as_an_unbroken_run(tmp_path, begun, kind):
    for name, own in begun[kind].items():
        (tmp_path / name).write_bytes(own)
    (run if kind == "run" else many)(tmp_path, 8, resume=True)
    (run if kind == "run" else many)(tmp_path / "whole", 8)
    found, whole = read(tmp_path / "metrics.jsonl"), read(tmp_path / "whole" / "metrics.jsonl")
    assert [{**record, "examples_per_second": 0} for record in found] == [
        {**record, "examples_per_second": 0} for record in whole
    ]


def test_a_checkpoint_of_before_holds_no_digest(tmp_path, begun):
    for name, own in begun["run"].items():
        (tmp_path / name).write_bytes(own)
    path = tmp_path / "checkpoint.npz"
    metadata = checkpoint.read_metadata(path)
    state = run(None, 6).state
    checkpoint.save(path, state, metadata={name: value for name, value in metadata.items() if name != "log"})
    lines = lines_of(begun, "run")
    (tmp_path / "metrics.jsonl").write_text("\n".join([with_entry(lines[0], "train_loss", "x"), *lines[1:], ""]))
    with pytest.raises(ValueError, match="expected 'train_loss' as a number in the record, got 'x'"):
        run(tmp_path, 8, resume=True, hooks=[EarlyStopping("train_loss", keep_best=False)])
    assert run(tmp_path, 8, resume=True).records[-1]["step"] == 8


ENTRIES = [
    ("wave", [0, 0]),
    ("wave", [True]),
    ("wave", "0"),
    ("wave", []),
    ("waves", [[1]]),
    ("waves", [0]),
    ("live", [1, 1]),
    ("live", [True]),
    ("steps", [6.0, 6.0]),
    ("steps", [-1, 6]),
    ("steps", [6]),
    ("steps", [4, 4]),
    ("group_size", 0),
    ("group_size", "1"),
    ("group_size", None),
    ("members", 2),
    ("members", []),
    ("fingerprint", []),
    ("fingerprint", {"versions": 1, "exact": {}}),
    ("log", 3),
    ("log", {"records": -1, "sha256": ""}),
]


@pytest.mark.parametrize(("name", "value"), ENTRIES)
def test_metadata_of_a_wave(tmp_path, begun, name, value):
    for file, own in begun["sweep"].items():
        (tmp_path / file).write_bytes(own)

    def change(header):
        header["metadata"][name] = value

    wave = next(tmp_path.glob("wave-*.npz"))
    wave.write_bytes(with_header(wave.read_bytes(), change))
    with pytest.raises(ValueError, match=r"[Ee]xpected .* got .*; (restore|resume|remove)") as caught:
        many(tmp_path, 8, resume=True)
    assert "\n" not in str(caught.value)
    if name not in ("fingerprint", "log", "members") and (name, value) != ("steps", [4, 4]):
        with pytest.raises(checkpoint.CheckpointError):
            load_model(tmp_path, vc.nn.MLP((4, 4), key=jax.random.key(0)), member=0)


@pytest.mark.parametrize("step", ["4", None, True, -2, [2]])
def test_the_step_of_a_best_model(tmp_path, step):
    hooks = [EarlyStopping("train_loss")]
    run(tmp_path, 6, hooks=hooks)
    best = tmp_path / "best.npz"
    model = vc.nn.MLP((4, 4), key=jax.random.key(0))
    checkpoint.save(best, model, metadata={"step": step})
    with pytest.raises(checkpoint.CheckpointError, match=r"at .*best\.npz.* got one with step as"):
        run(tmp_path, 8, resume=True, hooks=hooks)
